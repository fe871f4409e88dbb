//! Rings in the driver's memory: what they move, and what happens when they, or what is said of them, are not what they were.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use toe_abi::{Filled, Message, Reason, ReceiveCredit, option};

use crate::engine::HostMemory;
use crate::testing::{Bench, octet};

/// Where the memory begins and how long it is: four rings of 4 KiB.
const AT: u64 = 0x10_0000;
const BYTES: usize = 4 * 4096;
const SEND: u64 = AT | 12;
const RECEIVE: u64 = (AT + 4096) | 12;

#[derive(Clone, Debug)]
struct Memory(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    generation: u32,
    gone: bool,
    /// The rings that were ever agreed to. Nothing may be written elsewhere.
    named: Vec<u64>,
}

impl Memory {
    fn range(state: &State, address: u64, bytes: u64) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(address.checked_sub(AT)?).ok()?;
        let end = start.checked_add(usize::try_from(bytes).ok()?)?;
        (end <= state.bytes.len() && !state.gone).then_some(start..end)
    }

    /// The driver puts octets of its stream into its send ring.
    fn fill(&self, from: u64, to: u64) {
        let bytes = &mut self.0.lock().unwrap().bytes;
        (from..to).for_each(|offset| bytes[(offset % 4096) as usize] = octet(offset));
    }

    /// What the receive ring has for an offset.
    fn octet(&self, offset: u64) -> u8 {
        self.0.lock().unwrap().bytes[4096 + (offset % 4096) as usize]
    }

    fn replace(&self) {
        self.0.lock().unwrap().generation += 1;
    }
}

impl HostMemory for Memory {
    fn generation(&self) -> u32 {
        self.0.lock().unwrap().generation
    }

    fn holds(&self, address: u64, bytes: u64) -> bool {
        Self::range(&self.0.lock().unwrap(), address, bytes).is_some()
    }

    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let state = self.0.lock().unwrap();
        let Some(range) = Self::range(&state, address, into.len() as u64) else { return false };
        into.copy_from_slice(&state.bytes[range]);
        true
    }

    fn write(&self, address: u64, bytes: &[u8]) -> bool {
        let mut state = self.0.lock().unwrap();
        let Some(range) = Self::range(&state, address, bytes.len() as u64) else { return false };
        let end = address + bytes.len() as u64;
        let inside = |ring: &u64| address >= ring & !0xfff && end <= (ring & !0xfff) + (1 << (ring & 0xfff));
        assert!(state.named.iter().any(inside), "{address:#x} to {end:#x} is in no ring");
        state.bytes[range].copy_from_slice(bytes);
        true
    }
}

fn shared() -> (Bench, Memory) {
    let mut b = Bench::established();
    let memory = Memory(Arc::new(Mutex::new(State {
        bytes: vec![0xee; BYTES],
        generation: 1,
        gone: false,
        named: vec![SEND, RECEIVE],
    })));
    b.firmware.share(Box::new(memory.clone()));
    (b, memory)
}

fn with_rings() -> (Bench, Memory) {
    let (mut b, memory) = shared();
    assert_eq!(b.set(option::SEND_RING, SEND), (0, SEND));
    assert_eq!(b.set(option::RECEIVE_RING, RECEIVE), (0, RECEIVE));
    (b, memory)
}

fn filled(b: &mut Bench, end: u64) {
    let connection = b.connection;
    b.tell(&Message::Filled(Filled { connection, end }));
}

fn hold(b: &mut Bench, held: u64, limit: u64) {
    let connection = b.connection;
    b.tell(&Message::ReceiveCredit(ReceiveCredit { connection, held, limit, seen: 0 }));
}

#[test]
fn a_card_that_reaches_no_memory_has_no_rings() {
    let mut b = Bench::established();
    assert_eq!(b.set(option::SEND_RING, SEND).0, Reason::OptionUnknown as u32);
    assert_eq!(b.get(option::RECEIVE_RING).0, Reason::OptionUnknown as u32);
    filled(&mut b, 1);
    b.refused(Reason::MemoryUnreachable);
}

#[test]
fn a_ring_that_is_named_again_or_let_go_of_is_not_counted_again() {
    let (mut b, _) = with_rings();
    let before = b.count("rings-named");
    assert_eq!(before, 2);
    assert_eq!(b.set(option::SEND_RING, SEND), (0, SEND));
    assert_eq!(b.set(option::SEND_RING, 0), (0, 0));
    assert_eq!(b.count("rings-named"), before);
    assert_eq!(b.set(option::SEND_RING, SEND), (0, SEND));
    assert_eq!(b.count("rings-named"), before + 1);
}

#[test]
fn what_the_ring_has_is_sent_across_its_end() {
    let (mut b, memory) = with_rings();
    let mut at = 0;
    for end in [10, 1000, 3000, 4090, 4100, 5000] {
        memory.fill(at, end);
        filled(&mut b, end);
        // It was copied: what the ring has from here on changes nothing.
        memory.0.lock().unwrap().bytes[..4096].fill(0x55);
        while at < end {
            let frame = b.next_frame().unwrap();
            let text = &frame[54..];
            assert!(text.iter().enumerate().all(|(i, byte)| *byte == octet(at + i as u64)), "{at}");
            at += text.len() as u64;
            b.peer(&format!(". 1 ack {}", at + 1));
        }
    }
    b.nothing();
    // Said again, or late: nothing new.
    filled(&mut b, 4100);
    assert_eq!((b.count("channel-repeated"), b.messages.len()), (1, 0));
}

#[test]
fn ends_that_cannot_be_are_refused() {
    let (mut b, _) = with_rings();
    for end in [4097, 1 << 40, u64::MAX] {
        filled(&mut b, end);
        b.refused(Reason::Offset);
    }
    b.nothing();
}

#[test]
fn received_bytes_lie_in_the_ring_and_stay_on_the_card() {
    let (mut b, memory) = with_rings();
    b.reading = false;
    hold(&mut b, 0, 4096);
    b.peer("PA 1:1001 ack 1");
    assert_eq!(b.stored, [(0, 1000)]);
    assert!((0..1000).all(|offset| memory.octet(offset) == octet(offset)));
    // The word was lost: it is said again, and the same bytes are there.
    memory.0.lock().unwrap().bytes[4096..].fill(0);
    b.wait_ms(1000);
    assert!(b.stored.len() > 1 && b.stored.iter().all(|said| *said == (0, 1000)), "{:?}", b.stored);
    assert!((0..1000).all(|offset| memory.octet(offset) == octet(offset)));
    hold(&mut b, 1000, 5096);
    b.stored.clear();
    for start in (1001..5001).step_by(1000) {
        b.peer(&format!("PA {start}:{} ack 1", start + 1000));
    }
    assert_eq!(b.stored.last(), Some(&(4000, 5000)));
    assert!((1000..5000).all(|offset| memory.octet(offset) == octet(offset)));
}

#[test]
fn what_the_driver_does_not_hold_is_never_written_over() {
    let (mut b, memory) = with_rings();
    b.reading = false;
    // It gives more credit than its ring has room for.
    hold(&mut b, 0, 1 << 40);
    for start in (1..9001).step_by(1000) {
        b.peer(&format!("PA {start}:{} ack 1", start + 1000));
    }
    assert_eq!(b.stored.last().map(|(_, end)| *end), Some(4096));
    assert!((0..4096).all(|offset| memory.octet(offset) == octet(offset)));
    // What follows goes in frames, and so does the rest of this connection's life.
    assert_eq!((b.count("rings-lost"), b.get(option::RECEIVE_RING)), (1, (0, 0)));
}

#[test]
fn rings_outside_of_the_memory_are_refused() {
    let (mut b, _) = shared();
    for value in
        [0x1000 | 12, (AT - 4096) | 12, (AT + BYTES as u64) | 12, AT | 15, AT | 30, (u64::MAX - 0xffff) & !0xfff | 12]
    {
        assert_eq!(b.set(option::SEND_RING, value), (Reason::MemoryUnreachable as u32, 0), "{value:#x}");
    }
    for value in [AT, AT | 31, AT | 11, u64::MAX] {
        assert_eq!(b.set(option::RECEIVE_RING, value), (Reason::OptionValue as u32, 0), "{value:#x}");
    }
    assert_eq!((b.count("rings-refused"), b.count("rings-named")), (6, 0));
}

#[test]
fn another_memory_ends_the_rings_and_not_the_streams() {
    let (mut b, memory) = with_rings();
    memory.replace();
    memory.fill(0, 10);
    filled(&mut b, 10);
    b.refused(Reason::MemoryUnreachable);
    b.nothing();
    // The same bytes in a frame.
    b.send(10);
    b.expect("PA 1:11");
    b.peer("PA 1:101 ack 11");
    b.received(100);
    assert_eq!((b.stored.len(), b.count("rings-lost")), (0, 1));
    // One that is named again holds again, and the other is not there by that.
    assert_eq!(b.set(option::RECEIVE_RING, RECEIVE), (0, RECEIVE));
    assert_eq!(b.get(option::SEND_RING), (0, 0));
}

#[test]
fn memory_that_goes_while_it_is_in_use_ends_the_rings_and_not_the_streams() {
    let (mut b, memory) = with_rings();
    memory.0.lock().unwrap().gone = true;
    b.peer("PA 1:101 ack 1");
    b.received(100);
    filled(&mut b, 10);
    b.refused(Reason::MemoryUnreachable);
    b.send(10);
    b.expect("PA 1:11");
    assert_eq!(b.count("rings-lost"), 1);
}

#[derive(Clone, Debug)]
enum Happens {
    Name(u32, u64),
    Filled(u64),
    Hold(u64, u64),
    Peer(u64),
    Replaced,
    Gone(bool),
    Wait,
}

fn happens() -> impl Strategy<Value = Happens> {
    let place = prop_oneof![
        Just(SEND),
        Just(RECEIVE),
        Just(0),
        (0u64..8, 0u64..32).prop_map(|(page, log)| (AT - 2 * 4096 + page * 4096) | log),
        any::<u64>(),
    ];
    let number = prop_oneof![0u64..12_000, any::<u64>(), Just(u64::MAX)];
    prop_oneof![
        2 => (prop_oneof![Just(option::SEND_RING), Just(option::RECEIVE_RING)], place).prop_map(|(w, p)| Happens::Name(w, p)),
        4 => number.clone().prop_map(Happens::Filled),
        3 => (number.clone(), number).prop_map(|(held, limit)| Happens::Hold(held, limit)),
        5 => (1u64..1400).prop_map(Happens::Peer),
        1 => Just(Happens::Replaced),
        1 => any::<bool>().prop_map(Happens::Gone),
        1 => Just(Happens::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever a program says of its rings, the card goes on, writes where it was told to and nowhere else (the memory
    /// looks at that), and another connection's bytes are right.
    #[test]
    fn no_word_about_rings_harms_another(script in prop::collection::vec(happens(), 1..60)) {
        let (mut b, memory) = with_rings();
        b.reading = false;
        let mut sent = 0;
        for step in script {
            match step {
                Happens::Name(which, value) => {
                    if value != 0 && b.set(which, value) == (0, value) {
                        memory.0.lock().unwrap().named.push(value);
                    }
                }
                Happens::Filled(end) => filled(&mut b, end),
                Happens::Hold(held, limit) => hold(&mut b, held, limit),
                Happens::Peer(bytes) => {
                    b.peer(&format!("PA {}:{} ack 1", sent + 1, sent + 1 + bytes));
                    sent += bytes;
                }
                Happens::Replaced => memory.replace(),
                Happens::Gone(gone) => memory.0.lock().unwrap().gone = gone,
                Happens::Wait => b.wait_ms(300),
            }
            b.drain();
            b.messages.clear();
        }
        prop_assert_eq!(b.firmware.audit().map_err(|found| found.what), Ok(()));
        b.another_port(true);
        b.reading = true;
        b.connect(0);
        prop_assert!(b.next().is_some_and(|syn| syn.starts_with('S')));
        b.peer("SA 0 ack 1 win 65535 <mss 1460>");
        b.drain();
        b.peer("PA 1:301 ack 1");
        b.received(300);
        b.drain();
        b.send(200);
        b.expect("PA 1:201");
    }
}

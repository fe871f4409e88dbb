use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;
use crate::net::Header;

#[path = "../../tests/common/queue.rs"]
mod queue;
use queue::{DriverQueue, flag};

const MIB: u64 = 1 << 20;
const INDIRECT: u64 = 1 << 28;
const MERGEABLE: u64 = 1 << 15;
const VERSION_1: u64 = 1 << 32;
const ALL: Features = Features(INDIRECT | MERGEABLE | VERSION_1);

/// Two regions that touch at 1 MiB and end at 2 MiB.
fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MIB as usize), (GuestAddress(MIB), MIB as usize)]).unwrap()
}

struct Pair {
    driver: DriverQueue,
    device: Queue,
    features: Features,
    counters: Counters,
}

impl Pair {
    fn new(size: u16, event_idx: bool, features: Features) -> Self {
        let driver = DriverQueue::new(&memory(), 0x1000, size, event_idx);
        let mut device = Queue::new(256).unwrap();
        device.set_size(size);
        device.try_set_desc_table_address(GuestAddress(driver.descriptors)).unwrap();
        device.try_set_avail_ring_address(GuestAddress(driver.avail)).unwrap();
        device.try_set_used_ring_address(GuestAddress(driver.used)).unwrap();
        device.set_event_idx(event_idx);
        device.set_ready(true);
        Self { driver, device, features, counters: Counters::default() }
    }

    /// One batch; what `work` gave, and whether an interrupt is wanted.
    fn batch<T>(&mut self, work: impl FnOnce(&mut Ring<'_>, &mut Counters) -> T) -> (T, bool) {
        let mut ring = Ring::open(&self.driver.memory, &self.device, self.features).unwrap();
        let result = work(&mut ring, &mut self.counters);
        (result, ring.close(&mut self.device))
    }

    fn offer(&mut self, heads: impl IntoIterator<Item = u16>) {
        heads.into_iter().for_each(|head| _ = self.driver.offer(head));
    }

    fn transmit(&mut self) -> Result<Vec<u8>, Transmitted> {
        let mut packet = Packet::default();
        match self.batch(|ring, _| ring.transmit(&mut packet)).0 {
            Transmitted::Packet => Ok(packet.bytes().to_vec()),
            other => Err(other),
        }
    }

    fn receive(&mut self, frame: &[u8]) -> Delivery {
        let packet = Packet::from_frame(frame);
        self.batch(|ring, counters| ring.receive(&packet, &mut Scratch::default(), counters)).0
    }

    fn malformed(&mut self, head: u16, expected: Malformed) {
        self.driver.offer(head);
        assert_eq!(self.transmit(), Err(Transmitted::Malformed(expected)));
        let used = self.driver.take_used();
        assert_eq!(used, (head < self.driver.size).then_some((head.into(), 0)), "handed back if it can be");
    }
}

/// A packet whose every byte tells its place.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

#[test]
fn a_chain_is_read_however_it_is_split() {
    let data = pattern(100);
    for split in [vec![100], vec![12, 88], vec![1, 10, 2, 87], vec![50, 49, 1]] {
        let mut pair = Pair::new(8, false, ALL);
        let (mut at, mut address) = (0, 0x8000u64);
        let mut buffers = Vec::new();
        for bytes in split {
            pair.driver.write(address, &data[at..at + bytes]);
            buffers.push((address, bytes as u32));
            at += bytes;
            address += 0x1001;
        }
        pair.driver.write_chain(3, &buffers, 0);
        pair.driver.offer(3);
        assert_eq!(pair.transmit().unwrap(), data);
        assert_eq!(pair.driver.take_used(), Some((3, 0)));
        assert_eq!(pair.transmit(), Err(Transmitted::Nothing));
        // The same by way of a table elsewhere, behind a direct descriptor.
        for (i, (address, bytes)) in buffers[1..].iter().enumerate() {
            let more = if i + 2 < buffers.len() { flag::NEXT } else { 0 };
            pair.driver.write_descriptor(0x7000, i as u16, (*address, *bytes, more, i as u16 + 1));
        }
        if buffers.len() > 1 {
            let table = (0x7000, 16 * (buffers.len() as u32 - 1), flag::INDIRECT, 0);
            pair.driver.write_descriptor(pair.driver.descriptors, 0, (buffers[0].0, buffers[0].1, flag::NEXT, 5));
            pair.driver.write_descriptor(pair.driver.descriptors, 5, table);
            pair.driver.offer(0);
            assert_eq!(pair.transmit().unwrap(), data);
        }
    }
}

#[test]
fn a_buffer_may_lie_across_two_regions() {
    let data = pattern(300);
    let mut pair = Pair::new(8, false, ALL);
    pair.driver.write(MIB - 100, &data);
    pair.driver.write_chain(0, &[(MIB - 100, 300)], 0);
    pair.driver.offer(0);
    assert_eq!(pair.transmit().unwrap(), data);
    pair.driver.write_chain(0, &[(MIB - 50, 400)], flag::WRITE);
    pair.driver.offer(0);
    assert_eq!(pair.receive(&data), Delivery::Done);
    assert_eq!(pair.driver.read(MIB - 50 + 12, 300), data);
}

#[test]
fn the_longest_frame_passes_and_one_byte_more_does_not() {
    let data = pattern(PACKET_BYTES_MAX);
    let mut pair = Pair::new(8, false, ALL);
    pair.driver.write(0x10_000, &data);
    pair.driver.write_chain(0, &[(0x10_000, 12), (0x10_000 + 12, PACKET_BYTES_MAX as u32 - 12)], 0);
    pair.driver.offer(0);
    assert_eq!(pair.transmit().unwrap(), data);
    pair.driver.take_used();
    pair.driver.write_chain(0, &[(0x10_000, 12), (0x10_000 + 12, PACKET_BYTES_MAX as u32 - 11)], 0);
    pair.malformed(0, Malformed::TooLong);
}

#[test]
fn a_legacy_header_has_ten_bytes() {
    let mut pair = Pair::new(8, false, Features(0));
    let mut data = pattern(10);
    data.extend([0xee; 60]);
    pair.driver.write(0x8000, &data);
    pair.driver.write_chain(0, &[(0x8000, 70)], 0);
    pair.driver.offer(0);
    let packet = pair.transmit().unwrap();
    assert_eq!((&packet[..10], &packet[10..12], &packet[12..]), (&data[..10], &[0, 0][..], &data[10..]));
    pair.driver.write_chain(1, &[(0x9000, 10), (0xa000, 60)], flag::WRITE);
    pair.driver.offer(1);
    assert_eq!(pair.receive(&[7; 60]), Delivery::Done);
    assert_eq!(pair.driver.read(0x9000, 10), [0; 10]);
    assert_eq!(pair.driver.read(0xa000, 60), [7; 60]);
}

#[test]
fn every_malformed_chain_is_named_and_handed_back() {
    let mut pair = Pair::new(8, false, ALL);
    let table = pair.driver.descriptors;
    let write = |pair: &Pair, index, descriptor| pair.driver.write_descriptor(table, index, descriptor);
    pair.malformed(8, Malformed::BadHead);
    pair.malformed(0xffff, Malformed::BadHead);
    write(&pair, 0, (0x8000, 60, flag::NEXT, 8));
    pair.malformed(0, Malformed::BadNext);
    write(&pair, 0, (0x8000, 60, flag::NEXT, 1));
    write(&pair, 1, (0x8000, 60, flag::NEXT, 0));
    pair.malformed(0, Malformed::Loop);
    write(&pair, 1, (0x8000, 60, flag::NEXT, 1));
    pair.malformed(1, Malformed::Loop);
    for address in [2 * MIB, 2 * MIB - 59, u64::MAX - 58, u64::MAX] {
        write(&pair, 0, (address, 60, 0, 0));
        pair.malformed(0, Malformed::BadAddress);
    }
    write(&pair, 0, (0x8000, 0, 0, 0));
    pair.malformed(0, Malformed::EmptyBuffer);
    write(&pair, 0, (0x8000, 60, flag::WRITE, 0));
    pair.malformed(0, Malformed::WrongDirection);
    write(&pair, 0, (0x8000, 25, 0, 0));
    pair.malformed(0, Malformed::TooShort);
    write(&pair, 0, (0x8000, u32::MAX, 0, 0));
    pair.malformed(0, Malformed::TooLong);
    write(&pair, 0, (0x8000, MIB as u32, 0, 0));
    pair.malformed(0, Malformed::TooLong);
    // Indirect: nested, chained, not whole, empty, outside; then a chain that leads out of its table.
    pair.driver.write_descriptor(0x7000, 0, (0x8000, 32, flag::INDIRECT, 0));
    write(&pair, 0, (0x7000, 32, flag::INDIRECT, 0));
    pair.malformed(0, Malformed::BadIndirect);
    write(&pair, 0, (0x7000, 32, flag::INDIRECT | flag::NEXT, 1));
    pair.malformed(0, Malformed::BadIndirect);
    write(&pair, 0, (0x7000, 31, flag::INDIRECT, 0));
    pair.malformed(0, Malformed::BadIndirect);
    write(&pair, 0, (0x7000, 0, flag::INDIRECT, 0));
    pair.malformed(0, Malformed::BadIndirect);
    write(&pair, 0, (2 * MIB, 32, flag::INDIRECT, 0));
    pair.malformed(0, Malformed::BadAddress);
    pair.driver.write_descriptor(0x7000, 0, (0x8000, 60, flag::NEXT, 2));
    write(&pair, 0, (0x7000, 32, flag::INDIRECT, 0));
    pair.malformed(0, Malformed::BadNext);
    pair.driver.write_descriptor(0x7000, 0, (0x8000, 60, 0, 0));
    pair.features = Features(VERSION_1);
    pair.malformed(0, Malformed::BadIndirect);
    // The ring is none the worse for it.
    write(&pair, 0, (0x8000, 60, 0, 0));
    pair.driver.offer(0);
    pair.transmit().unwrap();
}

#[test]
fn a_ring_that_cannot_be_is_not_looked_at() {
    let mut pair = Pair::new(8, true, ALL);
    pair.driver.store(pair.driver.avail + 2, 9);
    assert_eq!(Ring::open(&pair.driver.memory, &pair.device, ALL).unwrap_err(), RingError::Index);
    pair.driver.store(pair.driver.avail + 2, 8);
    Ring::open(&pair.driver.memory, &pair.device, ALL).unwrap();
    for (address, fits) in [(2 * MIB - 22, true), (2 * MIB - 20, false), (u64::MAX - 1, false)] {
        pair.device.try_set_avail_ring_address(GuestAddress(address)).unwrap();
        assert_eq!(Ring::open(&pair.driver.memory, &pair.device, ALL).is_ok(), fits, "{address:#x}");
    }
    pair.device.set_event_idx(false);
    pair.device.try_set_avail_ring_address(GuestAddress(2 * MIB - 20)).unwrap();
    Ring::open(&pair.driver.memory, &pair.device, ALL).unwrap();
}

#[test]
fn a_frame_is_spread_over_as_many_buffers_as_it_needs() {
    let mut pair = Pair::new(64, false, ALL);
    let frame = pattern(1000);
    for i in 0..11 {
        pair.driver.write_chain(i, &[(0x8000 + 0x100 * u64::from(i), 100)], flag::WRITE);
        if i < 10 {
            pair.driver.offer(i);
        }
    }
    assert_eq!(pair.receive(&frame), Delivery::NoBuffers, "1012 bytes into 10 times 100");
    assert_eq!(pair.driver.take_used(), None);
    pair.driver.offer(10);
    assert_eq!(pair.receive(&frame), Delivery::Done);
    let mut data = Vec::new();
    for i in 0..11u32 {
        let bytes = if i < 10 { 100 } else { 12 };
        assert_eq!(pair.driver.take_used(), Some((i, bytes)));
        data.extend(pair.driver.read(0x8000 + 0x100 * u64::from(i), bytes as usize));
    }
    assert_eq!(data[..12], Header::default().with_buffers(11).0);
    assert_eq!(data[12..], frame);
}

#[test]
fn without_merging_a_frame_goes_into_one_chain_or_none() {
    let mut pair = Pair::new(8, false, Features(VERSION_1));
    pair.driver.write_chain(0, &[(0x8000, 12), (0x9000, 60)], flag::WRITE);
    assert_eq!(pair.receive(&[7; 60]), Delivery::NoBuffers);
    pair.driver.offer(0);
    assert_eq!(pair.receive(&[7; 61]), Delivery::BufferTooSmall);
    assert_eq!(pair.driver.take_used(), None);
    assert_eq!(pair.receive(&[7; 60]), Delivery::Done);
    assert_eq!(pair.driver.take_used(), Some((0, 72)));
    assert_eq!(pair.driver.read(0x8000, 12), Header::default().with_buffers(1).0);
    assert_eq!(pair.driver.read(0x9000, 60), [7; 60]);
}

#[test]
fn a_full_ring_of_small_buffers_says_that_it_will_never_do() {
    let mut pair = Pair::new(8, false, ALL);
    for i in 0..8 {
        pair.driver.write_chain(i, &[(0x8000, 100)], flag::WRITE);
        pair.driver.offer(i);
    }
    assert_eq!(pair.receive(&[0; 789]), Delivery::RingTooSmall);
    assert_eq!(pair.receive(&[0; 788]), Delivery::Done);
}

#[test]
fn malformed_receive_buffers_are_handed_back_in_order() {
    let mut pair = Pair::new(8, false, ALL);
    for i in [0, 1, 3, 4] {
        pair.driver.write_chain(i, &[(0x8000 + 0x100 * u64::from(i), 100)], flag::WRITE);
    }
    pair.driver.write_chain(2, &[(0x9000, 100)], 0);
    pair.offer(0..5);
    // Two good ones gathered, then the one that is not to be written: all three go back, the frame into the next two.
    assert_eq!(pair.receive(&pattern(188)), Delivery::Done);
    let used: Vec<_> = std::iter::from_fn(|| pair.driver.take_used()).collect();
    assert_eq!(used, [(0, 100), (1, 100)], "the first two sufficed");
    assert_eq!(pair.receive(&pattern(188)), Delivery::Done);
    let used: Vec<_> = std::iter::from_fn(|| pair.driver.take_used()).collect();
    assert_eq!(used, [(2, 0), (3, 100), (4, 100)]);
    assert_eq!(pair.counters.receive_buffer_wrong_direction, 1);
    // In the middle of a frame.
    pair.offer([0, 1, 2, 3, 4]);
    assert_eq!(pair.receive(&pattern(250)), Delivery::NoBuffers);
    let used: Vec<_> = std::iter::from_fn(|| pair.driver.take_used()).collect();
    assert_eq!(used, [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(pair.counters.receive_buffer_wrong_direction, 2);
    assert_eq!(pair.receive(&pattern(188)), Delivery::Done);
    // Too small for a header, and one that cannot be handed back.
    pair.driver.write_chain(5, &[(0x9000, 11)], flag::WRITE);
    pair.offer([5, 77]);
    assert_eq!(pair.receive(&pattern(60)), Delivery::NoBuffers);
    assert_eq!((pair.counters.receive_buffer_too_short, pair.counters.receive_buffer_bad_head), (1, 1));
}

#[test]
fn arming_compares_with_what_was_seen() {
    for event_idx in [false, true] {
        let mut pair = Pair::new(8, event_idx, ALL);
        pair.driver.write_chain(0, &[(0x8000, 100)], flag::WRITE);
        pair.driver.offer(0);
        // A buffer is there but too small: left where it is. That must not look like something new for ever.
        assert_eq!(pair.receive(&[0; 500]), Delivery::NoBuffers);
        assert!(!pair.batch(|ring, _| ring.arm()).0);
        assert!(pair.driver.offer(0), "a kick is wanted now");
        if !event_idx {
            pair.batch(|ring, _| ring.disarm());
            assert!(!pair.driver.offer(0), "and none now");
        }
        // A buffer that comes between opening and arming is noticed.
        let mut driver = pair.driver.clone();
        assert!(
            pair.batch(|ring, _| {
                driver.offer(0);
                ring.arm()
            })
            .0
        );
    }
}

#[test]
fn one_interrupt_for_a_batch_and_only_if_wanted() {
    let send = |pair: &mut Pair, n: u16| {
        pair.driver.write_chain(0, &[(0x8000, 60)], 0);
        pair.offer((0..n).map(|_| 0));
        let (_, interrupt) = pair.batch(|ring, _| {
            let mut packet = Packet::default();
            while ring.transmit(&mut packet) != Transmitted::Nothing {}
        });
        interrupt
    };
    let mut pair = Pair::new(8, false, ALL);
    assert!(!send(&mut pair, 0), "nothing was used");
    assert!(send(&mut pair, 3));
    pair.driver.set_no_interrupt(true);
    assert!(!send(&mut pair, 3));
    let mut pair = Pair::new(8, true, ALL);
    pair.driver.set_used_event(4);
    assert!(!send(&mut pair, 4), "positions 0 to 3");
    assert!(send(&mut pair, 2), "4 and 5");
    assert!(!send(&mut pair, 2), "6 and 7, and nobody asked again");
}

#[test]
fn positions_wrap_around_and_are_written_back() {
    let mut pair = Pair::new(8, true, ALL);
    pair.driver.write_chain(0, &[(0x8000, 60)], 0);
    for i in 0..70_000u32 {
        pair.driver.set_used_event(pair.driver.next_used);
        pair.driver.offer(0);
        let mut packet = Packet::default();
        let (sent, interrupt) = pair.batch(|ring, _| ring.transmit(&mut packet));
        assert_eq!((sent, interrupt), (Transmitted::Packet, true), "{i}");
        assert_eq!(pair.driver.take_used(), Some((0, 0)));
    }
    assert_eq!((pair.device.next_avail(), pair.device.next_used()), (4464, 4464), "70,000 mod 65,536");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever stands in the descriptors, a batch ends, gives each head back at most once for each time it was
    /// offered, and writes only where a writable buffer or the used ring is.
    #[test]
    fn any_ring_is_survived(
        descriptors in prop::collection::vec(
            (prop_oneof![0x8000u64..0x9000, MIB - 50..MIB + 50, 2 * MIB - 100..2 * MIB + 9, any::<u64>()],
             prop_oneof![0u32..200, Just(16), Just(48), any::<u32>()], 0u16..8, 0u16..10), 24),
        heads in prop::collection::vec(prop_oneof![0u16..16, any::<u16>()], 0..16),
        frame_bytes in 14usize..3000,
        features in prop_oneof![Just(ALL), Just(Features(0)), Just(Features(VERSION_1)), Just(Features(MERGEABLE))],
        event_idx: bool,
    ) {
        let mut pair = Pair::new(16, event_idx, features);
        for (i, descriptor) in descriptors[..16].iter().enumerate() {
            pair.driver.write_descriptor(pair.driver.descriptors, i as u16, *descriptor);
        }
        for (i, descriptor) in descriptors[16..].iter().enumerate() {
            pair.driver.write_descriptor(0x8000, i as u16, *descriptor);
        }
        // Behind the rings and before every buffer: nobody may write here.
        pair.driver.write(0x4000, &[0x5a; 0x4000]);
        pair.offer(heads.iter().copied());
        let mut packet = Packet::default();
        let ((), _) = pair.batch(|ring, _| {
            let mut chains = 0;
            while ring.transmit(&mut packet) != Transmitted::Nothing {
                chains += 1;
                assert!(chains <= 16);
                assert!(packet.bytes().len() <= PACKET_BYTES_MAX);
            }
        });
        let count = |used: &[(u32, u32)], head: u16| used.iter().filter(|(id, _)| *id == u32::from(head)).count();
        let used: Vec<_> = std::iter::from_fn(|| pair.driver.take_used()).collect();
        for head in 0..16 {
            prop_assert_eq!(count(&used, head), heads.iter().filter(|h| **h == head).count());
        }
        pair.offer(heads.iter().copied());
        let packet = Packet::from_frame(&pattern(frame_bytes));
        let mut scratch = Scratch::default();
        let (delivered, _) = pair.batch(|ring, counters| {
            (0..20).filter(|_| ring.receive(&packet, &mut scratch, counters) == Delivery::Done).count()
        });
        prop_assert!(delivered <= heads.len());
        let used: Vec<_> = std::iter::from_fn(|| pair.driver.take_used()).collect();
        for head in 0..16 {
            prop_assert!(count(&used, head) <= heads.iter().filter(|h| **h == head).count());
        }
        let reachable = |d: &&queue::Descriptor| d.2 & flag::WRITE != 0 && d.0 < 0x8000;
        if !descriptors.iter().any(|d| reachable(&d)) {
            prop_assert!(pair.driver.read(0x4000, 0x4000).iter().all(|b| *b == 0x5a));
        }
    }
}

#[test]
fn a_frame_gone_astray_lies_in_the_next_buffer_of_its_ring_and_nowhere_else() {
    let mut pair = Pair::new(8, false, ALL);
    for (head, address) in [(0, 0x8000), (1, 0x9000)] {
        pair.driver.write_chain(head, &[(address, 200)], flag::WRITE);
    }
    pair.offer([0, 1]);
    let packet = Packet::from_frame(&pattern(60));
    let receive = |pair: &mut Pair| {
        let work = |ring: &mut Ring<'_>, counters: &mut Counters| {
            ring.befall(Mishap::Astray);
            ring.receive(&packet, &mut Scratch::default(), counters)
        };
        assert_eq!(pair.batch(work).0, Delivery::Done);
        pair.driver.take_used()
    };
    assert_eq!(receive(&mut pair), Some((0, 72)));
    assert_eq!(pair.driver.read(0x8000, 200), [0; 200]);
    assert_eq!(pair.driver.read(0x9000 + 12, 60), pattern(60));
    // Without a next one it stays where it belongs.
    assert_eq!(receive(&mut pair), Some((1, 72)));
    assert_eq!(pair.driver.read(0x8000, 200), [0; 200]);
    assert_eq!(pair.driver.read(0x9000 + 12, 60), pattern(60));
}

#[test]
fn an_index_that_was_not_written_can_be_written_later() {
    let mut pair = Pair::new(8, true, ALL);
    pair.driver.write_chain(0, &[(0x8000, 72)], 0);
    pair.offer([0]);
    let mut packet = Packet::default();
    let work = |ring: &mut Ring<'_>, _: &mut Counters| {
        assert_eq!(ring.transmit(&mut packet), Transmitted::Packet);
        assert!(ring.has_used());
        ring.befall(Mishap::IndexLate);
    };
    assert!(!pair.batch(work).1, "nor is there an interrupt");
    assert_eq!(pair.driver.take_used(), None);
    let (wish, _) = pair.batch(|ring, _| {
        ring.republish();
        ring.wish_passed()
    });
    assert_eq!((wish, pair.driver.take_used()), (Some(0), Some((0, 0))));
    pair.driver.set_used_event(1);
    assert_eq!(pair.batch(|ring, _| ring.wish_passed()).0, None, "what it asks for now is still to come");
}

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::fstat;

use super::*;

const PROTOCOL: u64 = 1 << 30;
const REPLY_ACK: u64 = 1 << 3;

fn message(request: FrontendReq, flags: u32, payload: &[u8]) -> Message {
    Message { request: request.into(), flags: FLAG_VERSION | flags, payload: payload.to_vec(), fds: Vec::new() }
}

fn number(request: FrontendReq, value: u64) -> Message {
    message(request, 0, &value.to_ne_bytes())
}

fn set_enable(ring: u32, value: u32, flags: u32) -> Message {
    message(FrontendReq::SET_VRING_ENABLE, flags, &[ring.to_ne_bytes(), value.to_ne_bytes()].concat())
}

/// What goes to the daemon, as request and payload.
fn passed(outcome: &Outcome) -> Vec<(u32, &[u8])> {
    outcome.to_daemon.iter().map(|m| (m.request, &m.payload[..])).collect()
}

#[test]
fn an_early_enable_waits_for_the_features_and_the_last_value_counts() {
    let mut control = Control::default();
    for (ring, value) in [(0, 1), (1, 0), (1, 1), (2, 0)] {
        let outcome = control.from_frontend(set_enable(ring, value, 0));
        assert!(passed(&outcome).is_empty() && outcome.to_frontend.is_none());
    }
    let outcome = control.from_frontend(number(FrontendReq::SET_FEATURES, PROTOCOL));
    let requests: Vec<_> = outcome.to_daemon.iter().map(|m| (m.request, m.value(), m.needs_reply())).collect();
    let enable = u32::from(FrontendReq::SET_VRING_ENABLE);
    let one = |ring: u64| ring | 1 << 32;
    assert_eq!(
        requests,
        [
            (u32::from(FrontendReq::SET_FEATURES), PROTOCOL, false),
            (enable, one(0), false),
            (enable, one(1), false),
            (enable, 2, false)
        ]
    );
    // From now on they pass, and the same features again replay nothing.
    assert_eq!(passed(&control.from_frontend(set_enable(3, 1, 0))).len(), 1);
    assert_eq!(control.from_frontend(number(FrontendReq::SET_FEATURES, PROTOCOL)).to_daemon.len(), 1);
}

#[test]
fn a_held_enable_is_acknowledged_if_that_was_agreed_upon() {
    let mut control = Control::default();
    assert!(control.from_frontend(set_enable(0, 1, FLAG_NEED_REPLY)).to_frontend.is_none());
    control.from_frontend(number(FrontendReq::SET_PROTOCOL_FEATURES, REPLY_ACK));
    assert!(control.from_frontend(set_enable(0, 1, 0)).to_frontend.is_none());
    let answer = control.from_frontend(set_enable(0, 1, FLAG_NEED_REPLY)).to_frontend.unwrap();
    assert_eq!((answer.value(), answer.flags), (0, FLAG_VERSION | FLAG_REPLY));
}

#[test]
fn without_protocol_features_enables_are_not_for_the_daemon() {
    let mut control = Control::default();
    control.from_frontend(set_enable(0, 1, 0));
    assert_eq!(control.from_frontend(number(FrontendReq::SET_FEATURES, 0)).to_daemon.len(), 1);
    assert!(control.from_frontend(set_enable(0, 1, 0)).to_daemon.is_empty());
}

#[test]
fn a_memory_table_is_cut_to_its_count() {
    for (regions, expected) in [(1u64, 40), (2, 72), (0, 8), (u64::from(u32::MAX), 72)] {
        let mut payload = regions.to_ne_bytes().to_vec();
        payload.extend([7; 64]);
        let outcome = Control::default().from_frontend(message(FrontendReq::SET_MEM_TABLE, 0, &payload));
        assert_eq!(outcome.to_daemon[0].payload.len(), expected);
    }
}

#[test]
fn rings_become_pairs_in_the_answer_alone() {
    let mut control = Control::default();
    assert_eq!(control.from_daemon(number(FrontendReq::GET_QUEUE_NUM, 8)).value(), 4);
    assert_eq!(control.from_daemon(number(FrontendReq::GET_FEATURES, 8)).value(), 8);
    assert_eq!(control.from_frontend(message(FrontendReq::GET_QUEUE_NUM, 0, &[])).to_daemon.len(), 1);
}

#[test]
fn what_the_daemon_would_hang_up_on_is_answered_here() {
    let mut control = Control::default();
    control.from_frontend(number(FrontendReq::SET_PROTOCOL_FEATURES, REPLY_ACK));
    let ask = |control: &mut Control, request, value: u64| {
        let outcome = control.from_frontend(message(request, FLAG_NEED_REPLY, &value.to_ne_bytes()));
        assert!(outcome.to_daemon.is_empty());
        outcome.to_frontend.map(|m| m.value())
    };
    assert_eq!(ask(&mut control, FrontendReq::NET_SET_MTU, 1500), Some(0));
    assert_eq!(ask(&mut control, FrontendReq::SEND_RARP, 1), Some(0));
    assert_eq!(ask(&mut control, FrontendReq::SET_STATUS, 7), Some(0));
    assert_eq!(ask(&mut control, FrontendReq::GET_STATUS, 0), Some(7));
    assert_eq!(ask(&mut control, FrontendReq::SET_LOG_FD, 0), Some(1));
    let unknown = Message { request: 1234, flags: FLAG_VERSION, payload: Vec::new(), fds: Vec::new() };
    let outcome = control.from_frontend(unknown);
    assert!(outcome.to_daemon.is_empty() && outcome.to_frontend.is_none());
}

/// A relay in a thread, with both its outer ends.
struct Relayed {
    frontend: UnixStream,
    daemon: UnixStream,
    stop: Arc<Stop>,
    thread: JoinHandle<io::Result<()>>,
}

fn relayed() -> Relayed {
    let ((frontend, inner), (daemon, inner_2)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let stop = Arc::new(Stop::new().unwrap());
    let thread_stop = stop.clone();
    let thread = std::thread::spawn(move || run(&inner, &inner_2, &thread_stop));
    for end in [&frontend, &daemon] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    Relayed { frontend, daemon, stop, thread }
}

fn read_message(end: &UnixStream) -> Message {
    let mut assembler = Assembler::default();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        match assembler.receive(end).unwrap() {
            Received::Message(message) => return message,
            Received::Part => std::thread::sleep(Duration::from_millis(1)),
            Received::End => panic!("hung up"),
        }
        assert!(std::time::Instant::now() < deadline, "no message");
    }
}

#[test]
fn messages_and_their_descriptors_pass_together() {
    let relayed = relayed();
    let events: Vec<_> = (0..3).map(|_| eventfd(0, EventfdFlags::empty()).unwrap()).collect();
    // Three messages back to back; the second alone has descriptors.
    send(&relayed.frontend, &number(FrontendReq::SET_FEATURES, PROTOCOL)).unwrap();
    let mut kick = number(FrontendReq::SET_VRING_KICK, 3);
    kick.fds = events.iter().map(|fd| fd.try_clone().unwrap()).collect();
    send(&relayed.frontend, &kick).unwrap();
    send(&relayed.frontend, &number(FrontendReq::SET_VRING_NUM, 4)).unwrap();
    let got: Vec<_> = (0..3).map(|_| read_message(&relayed.daemon)).collect();
    assert_eq!(got.iter().map(|m| (m.value(), m.fds.len())).collect::<Vec<_>>(), [(PROTOCOL, 0), (3, 3), (4, 0)]);
    // They are the same files.
    rustix::io::write(&got[1].fds[2], &5u64.to_ne_bytes()).unwrap();
    let mut value = [0; 8];
    rustix::io::read(&events[2], &mut value).unwrap();
    assert_eq!(u64::from_ne_bytes(value), 5);
    assert_eq!(fstat(&got[1].fds[0]).unwrap().st_ino, fstat(&events[0]).unwrap().st_ino);
    send(&relayed.daemon, &number(FrontendReq::GET_QUEUE_NUM, 6)).unwrap();
    assert_eq!(read_message(&relayed.frontend).value(), 3);
    relayed.stop.stop();
    relayed.thread.join().unwrap().unwrap();
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let mut relayed = relayed();
    let bytes = [2u32, 1, 8, 77, 0].map(u32::to_ne_bytes).concat();
    for byte in bytes {
        relayed.frontend.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(read_message(&relayed.daemon).value(), 77);
}

#[test]
fn either_end_may_hang_up_and_nonsense_is_an_error() {
    let ends = relayed();
    drop(ends.frontend);
    ends.thread.join().unwrap().unwrap();
    let ends = relayed();
    drop(ends.daemon);
    ends.thread.join().unwrap().unwrap();
    let mut ends = relayed();
    ends.frontend.write_all(&[0xff; 12]).unwrap();
    assert!(ends.thread.join().unwrap().is_err());
    assert_eq!(ends.daemon.read(&mut [0; 1]).unwrap(), 0, "the daemon was hung up on");
}

//! Every state, and what arrives in it at every edge of the receive window: RFC 9293, 3.10.7, with RFC 5961.
//!
//! What the other end sees and what the program is told, for IPv4 and IPv6. The receive buffer that decides what lies
//! within the window is 65,536 bytes rounded up to whole segments, as `SO_RCVBUF` says.

mod script;

use libc::{SO_ERROR, SO_RCVBUF, SOL_SOCKET};
use script::{Peer, Stack, limited, octets};

/// A state that a connection is brought into, from an active open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    SynReceived,
    Established,
    CloseWait,
    FinWait1,
    Closing,
    LastAck,
    FinWait2,
}

const SYNCHRONIZED: [State; 6] =
    [State::Established, State::CloseWait, State::FinWait1, State::Closing, State::LastAck, State::FinWait2];

impl State {
    /// RCV.NXT and SND.NXT.
    fn numbers(self) -> (u32, u32) {
        match self {
            Self::SynReceived | Self::Established => (1, 1),
            Self::FinWait1 | Self::FinWait2 => (1, 2),
            Self::CloseWait => (2, 1),
            Self::Closing | Self::LastAck => (2, 2),
        }
    }
}

struct At {
    stack: Stack,
    fd: i32,
    peer: Peer,
    /// RCV.WND.
    buffer: u32,
}

fn mss(v6: bool) -> u16 {
    if v6 { 1440 } else { 1460 }
}

fn opening(v6: bool) -> At {
    let stack = Stack::new("");
    let fd = stack.socket(v6, libc::SOCK_NONBLOCK);
    let (here, there) =
        if v6 { ("[2001:db8::1]:80", "[fd3d:fa7b:d17d::1]:0") } else { ("192.0.2.1:80", "192.168.0.1:0") };
    let mut peer = Peer::new(stack, here, there);
    assert_eq!(stack.get(fd, SOL_SOCKET, SO_RCVBUF), Ok(65_536));
    assert_eq!(stack.connect(fd, peer.here), Err(libc::EINPROGRESS));
    peer.expect(&format!("S 0:0 win 65535 mss {}", mss(v6)));
    stack.sleep_ms(100);
    At { stack, fd, peer, buffer: 65_536 }
}

fn at(state: State, v6: bool) -> At {
    let mut a = opening(v6);
    let At { stack, fd, ref mut peer, .. } = a;
    if state == State::SynReceived {
        peer.send(&format!("S 0:0 win 32767 mss {}", mss(v6)));
        peer.expect("SA 0:0 ack 1 win 65535");
    } else {
        peer.send(&format!("SA 0:0 ack 1 win 32767 mss {}", mss(v6)));
        peer.expect("A 1:1 ack 1 win 65535");
        stack.sleep_ms(100);
        let shut = || assert_eq!(stack.shutdown(fd, libc::SHUT_WR), Ok(0));
        match state {
            State::SynReceived | State::Established => {}
            State::CloseWait | State::LastAck => {
                peer.send("FA 1:1 ack 1");
                peer.expect("A 1:1 ack 2 win 65535");
                if state == State::LastAck {
                    shut();
                    peer.expect("FA 1:1 ack 2 win 65535");
                }
            }
            State::FinWait1 | State::Closing | State::FinWait2 => {
                shut();
                peer.expect("FA 1:1 ack 1 win 65535");
                stack.sleep_ms(50);
                match state {
                    State::Closing => {
                        peer.send("FA 1:1 ack 1");
                        peer.expect("FA 1:1 ack 2 win 65535");
                    }
                    State::FinWait2 => peer.send("A 1:1 ack 2"),
                    _ => {}
                }
            }
        }
    }
    a.buffer = stack.get(fd, SOL_SOCKET, SO_RCVBUF).unwrap() as u32;
    assert_eq!(a.buffer, 65_536u32.next_multiple_of(mss(v6).into()));
    stack.sleep_ms(50);
    a
}

impl At {
    fn error(&self) -> i32 {
        self.stack.get(self.fd, SOL_SOCKET, SO_ERROR).unwrap() as i32
    }

    /// The connection is as good as before: it goes on to its end in order, and nothing else was sent meanwhile.
    fn goes_on(mut self, state: State) {
        assert_eq!(self.error(), 0, "{state:?}");
        let At { stack, fd, ref mut peer, .. } = self;
        match state {
            State::SynReceived => {
                peer.send("A 1:1 ack 1");
                peer.send("FA 1:1 ack 1");
                peer.expect("A 1:1 ack 2");
                stack.close(fd).unwrap();
                peer.expect("FA 1:1 ack 2");
                peer.send("A 2:2 ack 2");
            }
            State::Established => {
                stack.close(fd).unwrap();
                peer.expect("FA 1:1 ack 1 win 65535");
                peer.send("FA 1:1 ack 2");
                peer.expect("A 2:2 ack 2 win 65535");
            }
            State::CloseWait => {
                stack.close(fd).unwrap();
                peer.expect("FA 1:1 ack 2 win 65535");
                peer.send("A 2:2 ack 2");
            }
            State::FinWait1 | State::FinWait2 => {
                peer.send("FA 1:1 ack 2");
                peer.expect("A 2:2 ack 2 win 65535");
                stack.close(fd).unwrap();
            }
            State::Closing | State::LastAck => {
                peer.send("A 2:2 ack 2");
                stack.close(fd).unwrap();
            }
        }
        assert!(stack.sniff().is_none(), "{state:?}");
    }
}

#[test]
fn a_reset_counts_only_at_the_left_edge() {
    limited(|| {
        for v6 in [false, true] {
            for state in SYNCHRONIZED.into_iter().chain([State::SynReceived]) {
                let (next, _) = state.numbers();
                let mut a = at(state, v6);
                a.peer.send(&format!("R {next}:{next}"));
                let expected = if state == State::SynReceived { libc::ECONNREFUSED } else { libc::ECONNRESET };
                assert_eq!(a.error(), expected, "{state:?}");
                a.stack.close(a.fd).unwrap();
                assert!(a.stack.sniff().is_none(), "{state:?}");

                a = at(state, v6);
                a.peer.send(&format!("R {0}:{0}", next - 1));
                a.goes_on(state);

                a = at(state, v6);
                a.peer.send(&format!("R {0}:{0}", next + a.buffer));
                a.goes_on(state);
            }
        }
    });
}

#[test]
fn a_reset_at_the_right_edge_is_challenged() {
    limited(|| {
        for v6 in [false, true] {
            for state in SYNCHRONIZED.into_iter().chain([State::SynReceived]) {
                let (next, ours) = state.numbers();
                let mut a = at(state, v6);
                a.peer.send(&format!("R {0}:{0}", next + a.buffer - 1));
                a.peer.expect(&format!("A {ours}:{ours} ack {next} win 65535"));
                a.goes_on(state);
            }
        }
    });
}

#[test]
fn a_syn_is_challenged_wherever_it_stands() {
    limited(|| {
        for v6 in [false, true] {
            for state in SYNCHRONIZED {
                let (next, ours) = state.numbers();
                for place in 0..4 {
                    let mut a = at(state, v6);
                    let seq = [next - 1, next, next + a.buffer - 1, next + a.buffer][place];
                    a.peer.send(&format!("S {seq}:{seq} win 32767 mss {}", mss(v6)));
                    a.peer.expect(&format!("A {ours}:{ours} ack {next} win 65535"));
                    a.goes_on(state);
                }
            }
        }
    });
}

fn listener(v6: bool) -> (Stack, i32, Peer) {
    let stack = Stack::new("");
    let fd = stack.socket(v6, 0);
    let (here, there) =
        if v6 { ("[2001:db8::1]:4000", "[fd3d:fa7b:d17d::1]:80") } else { ("192.0.2.1:4000", "192.168.0.1:80") };
    stack.bind(fd, there.parse().unwrap()).unwrap();
    (stack, fd, Peer::new(stack, here, there))
}

#[test]
fn a_closed_port_resets_all_but_resets() {
    limited(|| {
        for v6 in [false, true] {
            for text in ["17:17", "17:20"] {
                let length = if text == "17:20" { 3 } else { 0 };
                for flags in ["S", "SA", "SF", "A", "F", "FA", "R", "RA"] {
                    let (stack, fd, mut peer) = listener(v6);
                    let acknowledges = flags.contains('A');
                    // Our side has no number yet: 34 is 34 on the wire.
                    peer.send(&format!("{flags} {text}{}", if acknowledges { " ack 34" } else { "" }));
                    if flags.contains('R') {
                        assert!(stack.sniff().is_none());
                    } else if acknowledges {
                        let (reset, _) = stack.sniff().unwrap();
                        assert_eq!((reset.flags, reset.seq, reset.ack, reset.window), (script::packet::RST, 34, 0, 0));
                    } else {
                        let controls = u32::from(flags.contains('S')) + u32::from(flags.contains('F'));
                        peer.expect(&format!("RA 0:0 ack {} win 0", 17 + length + controls));
                    }
                    stack.close(fd).unwrap();
                }
            }
        }
    });
}

#[test]
fn a_listener_resets_what_acknowledges_and_heeds_only_syns() {
    limited(|| {
        for v6 in [false, true] {
            for text in ["17:17", "17:20"] {
                for flags in ["SA", "SF", "A", "F", "FA", "R", "RA"] {
                    let (stack, fd, mut peer) = listener(v6);
                    stack.listen(fd, 1).unwrap();
                    assert_eq!(stack.get(fd, SOL_SOCKET, SO_RCVBUF), Ok(65_536));
                    let acknowledges = flags.contains('A');
                    peer.send(&format!("{flags} {text}{}", if acknowledges { " ack 34" } else { "" }));
                    if acknowledges && !flags.contains('R') {
                        let (reset, _) = stack.sniff().unwrap();
                        assert_eq!((reset.flags, reset.seq, reset.window), (script::packet::RST, 34, 0), "{flags}");
                    }
                    stack.sleep_ms(1000);
                    peer.send("S 27:30 win 32767 mss 1400");
                    peer.expect("SA 0:0 ack 28 win 65535");
                    stack.close(fd).unwrap();
                }
            }
        }
    });
}

#[test]
fn a_half_open_connection_is_reset_only_at_the_left_edge() {
    limited(|| {
        for v6 in [false, true] {
            for (seq, challenged, over) in
                [(0, false, false), (1, false, true), (65_535, true, false), (65_536, false, false)]
            {
                let (stack, fd, mut peer) = listener(v6);
                stack.listen(fd, 1).unwrap();
                peer.send("S 0:0 win 32767 mss 1400");
                peer.expect("SA 0:0 ack 1 win 65535");
                stack.sleep_ms(200);
                peer.send(&format!("R {seq}:{seq}"));
                if challenged {
                    peer.expect("A 1:1 ack 1 win 65535");
                }
                stack.sleep_ms(100);
                peer.send("A 1:1 ack 1");
                if over {
                    let (reset, _) = stack.sniff().unwrap();
                    assert_eq!(reset.flags, script::packet::RST);
                    continue;
                }
                let (child, _) = stack.accept(fd).unwrap();
                peer.send("FA 1:1 ack 1");
                peer.expect("A 1:1 ack 2 win 65535");
                stack.close(child).unwrap();
                peer.expect("FA 1:1 ack 2 win 65535");
                peer.send("A 2:2 ack 2");
                assert!(stack.sniff().is_none());
            }
        }
    });
}

#[test]
fn in_syn_sent_only_a_syn_or_a_reset_of_ours_counts() {
    limited(|| {
        for v6 in [false, true] {
            for text in ["0:0", "0:3"] {
                for (flags, ack) in [
                    ("A", Some(0)),
                    ("A", Some(1)),
                    ("A", Some(2)),
                    ("FA", Some(0)),
                    ("FA", Some(1)),
                    ("FA", Some(2)),
                    ("SA", Some(0)),
                    ("SA", Some(2)),
                    ("RA", Some(0)),
                    ("RA", Some(2)),
                    ("F", None),
                    ("R", None),
                    ("SF", None),
                ] {
                    let mut a = opening(v6);
                    let began = a.stack.now();
                    let said = ack.map_or(String::new(), |ack| format!(" ack {ack}"));
                    a.peer.send(&format!("{flags} {text}{said}"));
                    if matches!(ack, Some(0 | 2)) && !flags.contains('R') {
                        a.peer.expect(&format!("R {0}:{0} win 0", ack.unwrap()));
                    }
                    let again = a.peer.expect("S 0:0 win 65535");
                    assert!(again.abs_diff(began + 900_000) < 1000, "{}", again - began);
                    assert_eq!(a.error(), 0);
                    a.peer.send("SA 0:0 ack 1 win 32767 mss 1400");
                    a.peer.expect("A 1:1 ack 1 win 65535");
                    a.goes_on(State::Established);
                }
                let a = opening(v6);
                a.peer.send("RA 1:4 ack 1");
                assert_eq!(a.error(), libc::ECONNREFUSED);
            }
        }
    });
}

#[test]
fn a_syn_with_text_in_syn_sent() {
    limited(|| {
        for v6 in [false, true] {
            let mut a = opening(v6);
            a.peer.send("SA 0:3 ack 1 win 32767 mss 1400");
            a.peer.expect("A 1:1 ack 4 win 65535");
            assert_eq!(a.stack.read(a.fd, 100), Ok(octets(0, 3)));
            a.stack.close(a.fd).unwrap();
            a.peer.expect("FA 1:1 ack 4 win 65535");

            // The same without ACK: the text waits for the handshake.
            let mut a = opening(v6);
            a.peer.send("S 0:3 win 32767 mss 1400");
            a.peer.expect("SA 0:0 ack 1 win 65535");
            assert_eq!(a.error(), 0);
            assert_eq!(a.stack.read(a.fd, 100), Err(libc::EAGAIN));
            a.stack.sleep_ms(100);
            a.peer.send("A 4:4 ack 1");
            assert_eq!(a.stack.read(a.fd, 100), Ok(octets(0, 3)));
            a.stack.close(a.fd).unwrap();
            a.peer.expect("FA 1:1 ack 4 win 65535");
            a.peer.send("FA 4:4 ack 2");
            a.peer.expect("A 2:2 ack 5 win 65535");
        }
    });
}

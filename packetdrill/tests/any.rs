//! Any calls in any order, and any segments: nothing breaks, and time never goes back.

mod script;

use libc::{EPOLLIN, EPOLLOUT, SOCK_NONBLOCK, SOL_SOCKET};
use script::packet::Segment;
use script::{Stack, limited};

/// A small generator (xorshift64*): the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.roll(among.len() as u64) as usize]
    }
}

/// A call may fail, but only with an error that a kernel could give: `EIO` is the adapter's own end.
fn allowed<T>(result: Result<T, i32>) -> Option<T> {
    match result {
        Err(libc::EIO) => panic!("the adapter broke"),
        other => other.ok(),
    }
}

fn done<T>(_: Option<T>) {}

/// What a run has come to: connections accepted and opened, bytes read, packets seen.
#[derive(Default, Debug)]
struct Reached {
    accepted: u64,
    writable: u64,
    read: u64,
    packets: u64,
}

fn play(seed: u64, reached: &mut Reached) {
    let mut dice = Dice(seed * 2 + 1);
    let stack = Stack::new("profile=tiny,limits.connections=4,local=192.0.2.2,local=2001:db8::2");
    let ends = ["192.0.2.2:80", "[2001:db8::2]:80", "192.0.2.2:81", "0.0.0.0:82", "[::]:83"];
    let peers = ["192.0.2.1:4000", "[2001:db8::1]:4000", "192.0.2.1:4001", "192.0.2.2:80", "255.255.255.255:1"];
    let epfd = stack.epoll_create();
    let mut fds = vec![epfd];
    for (v6, end) in [(false, ends[0]), (true, ends[1])] {
        let fd = stack.socket(v6, SOCK_NONBLOCK);
        stack.bind(fd, end.parse().unwrap()).unwrap();
        stack.listen(fd, 2).unwrap();
        fds.push(fd);
    }
    let mut seen: Vec<Segment> = Vec::new();
    let mut before = stack.now();
    for _ in 0..600 {
        let fd = dice.pick(&fds);
        match dice.roll(26) {
            0 | 1 if fds.len() < 12 => fds.push(stack.socket(dice.roll(2) == 0, SOCK_NONBLOCK)),
            2 => done(allowed(stack.bind(fd, dice.pick(&ends).parse().unwrap()))),
            3 => done(allowed(stack.listen(fd, dice.roll(3) as i32))),
            4 => done(allowed(stack.connect(fd, dice.pick(&peers).parse().unwrap()))),
            5 => {
                if let Some((child, _)) = allowed(stack.accept(fd)) {
                    reached.accepted += 1;
                    stack.fcntl(child, libc::F_SETFL, libc::O_NONBLOCK).unwrap();
                    fds.push(child);
                }
            }
            6 => {
                let flags = dice.pick(&[0, libc::MSG_PEEK, libc::MSG_TRUNC]);
                let data = allowed(stack.recv(fd, dice.roll(3000) as usize, Some(flags)));
                reached.read += data.map_or(0, |data| data.len() as u64);
            }
            7 | 8 => {
                let sent = allowed(stack.send(fd, &vec![7; dice.roll(100_000) as usize], 0));
                reached.writable += u64::from(sent.is_some());
            }
            9 => done(allowed(stack.shutdown(fd, dice.roll(4) as i32))),
            10 if fd != epfd && fds.len() > 5 => {
                allowed(stack.close(fd));
                fds.retain(|other| *other != fd);
            }
            11 => done(allowed(stack.poll(fd, libc::POLLIN | libc::POLLOUT, 0))),
            12 => {
                let events = dice.pick(&[EPOLLIN, EPOLLOUT | libc::EPOLLET, EPOLLIN | libc::EPOLLONESHOT]);
                done(allowed(stack.epoll_ctl(epfd, dice.roll(4) as i32, fd, events, 1)));
                done(allowed(stack.epoll_wait(epfd, 0)));
            }
            13 => {
                let name = dice.pick(&[libc::SO_ERROR, libc::SO_LINGER, libc::SO_SNDBUF, libc::SO_REUSEADDR]);
                done(allowed(stack.set(fd, SOL_SOCKET, name, &[dice.roll(3) as i32, 0])));
                done(allowed(stack.set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &[dice.roll(2) as i32])));
            }
            14 => done(allowed(stack.ioctl(fd, dice.pick(&[libc::FIONREAD, libc::TIOCOUTQ])))),
            15 => stack.sleep_ms(dice.pick(&[0, 1, 50, 1000, 70_000])),
            16..=18 => {
                if let Some((segment, at)) = stack.sniff() {
                    assert!(at <= stack.now());
                    seen.push(segment);
                    reached.packets += 1;
                }
            }
            _ => {
                // An answer to what was seen, more or less; or something new.
                let mut segment = match seen.last() {
                    Some(of) if dice.roll(8) > 0 => Segment {
                        from: of.to,
                        to: of.from,
                        flags: dice.pick(&[16, 16, 16, 16, 24, 24, 24, 18, 18, 2, 17, 4, 20, 0x3f, 0]),
                        seq: of.ack.wrapping_add(dice.pick(&[0, 0, 0, 0, 0, 0, 1, u32::MAX, 1000])),
                        ack: of.seq.wrapping_add(of.length()).wrapping_add(dice.pick(&[0, 0, 0, 0, 0, 0, 1, u32::MAX])),
                        window: dice.pick(&[0, 1, 1000, 65_535]),
                        mss: dice.pick(&[None, Some(0), Some(500), Some(1460)]),
                        data: vec![9; dice.pick(&[0, 0, 1, 1000, 3000])],
                    },
                    _ => {
                        let (from, to) = dice.pick(&[(0, 0), (1, 1), (2, 0), (0, 2), (1, 4)]);
                        let to = ends[to].replace("0.0.0.0", "192.0.2.2").replace("[::]", "[2001:db8::2]");
                        Segment {
                            from: peers[from].parse().unwrap(),
                            to: to.parse().unwrap(),
                            flags: 2,
                            seq: dice.roll(1 << 32) as u32,
                            ack: 0,
                            window: 1000,
                            mss: Some(1460),
                            data: Vec::new(),
                        }
                    }
                };
                if segment.from.is_ipv4() != segment.to.is_ipv4() {
                    segment.from = segment.to;
                }
                let mut packet = segment.to_packet();
                if dice.roll(20) == 0 {
                    let at = 1 + dice.roll(packet.len() as u64 - 1) as usize;
                    packet[at] ^= 1 << dice.roll(8);
                    packet.truncate(at + dice.roll(100) as usize);
                }
                stack.inject(&packet);
            }
        }
        let now = stack.now();
        assert!(now > before);
        before = now;
    }
    for fd in fds {
        stack.close(fd).unwrap();
    }
    stack.free();
}

#[test]
fn nothing_breaks() {
    limited(|| {
        let mut reached = Reached::default();
        for seed in 0..600 {
            println!("seed {seed}");
            play(seed, &mut reached);
        }
        // It has not only been refused.
        let Reached { accepted, writable, read, packets } = reached;
        assert!(accepted >= 100 && writable >= 100 && read >= 10_000 && packets >= 1000, "{reached:?}");
    });
}

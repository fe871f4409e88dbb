//! Two stations on one wire, and what a stranger may send them.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use super::*;

/// A wire that keeps what was sent, and hands it to whoever takes it.
#[derive(Debug)]
struct Wire {
    mac: Mac,
    sent: Mutex<VecDeque<Vec<u8>>>,
    /// Who answers at once, if anybody.
    other: Mutex<Option<Arc<Neighbours>>>,
}

impl Transport for Wire {
    fn mac(&self) -> Mac {
        self.mac
    }
    fn mtu(&self) -> u32 {
        1_500
    }
    fn frame_bytes_max(&self) -> usize {
        1_514
    }
    fn receive_bytes_max(&self) -> u64 {
        0
    }
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.sent.lock().unwrap().push_back(frame.to_vec());
        let other = self.other.lock().unwrap().clone();
        if let Some(other) = other {
            other.foreign_frame(frame);
        }
        Ok(())
    }
    fn receive(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn wait(&self, _room: bool, _wake: BorrowedFd<'_>, _timeout: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn station(last: u8) -> (Arc<Wire>, Arc<Neighbours>) {
    let wire = Arc::new(Wire { mac: Mac([2, 0, 0, 0, 0, last]), sent: Mutex::default(), other: Mutex::new(None) });
    let addresses = vec![(ip(&format!("192.0.2.{last}")), 24), (ip(&format!("2001:db8::{last}")), 64)];
    let config = StationConfig {
        addresses,
        gateway_v4: Some(Ipv4Addr::new(192, 0, 2, 254)),
        gateway_v6: None,
        buffers: Buffers::default(),
    };
    let neighbours = Arc::new(Neighbours {
        transport: wire.clone(),
        config,
        table: Mutex::default(),
        learned: Condvar::new(),
        ports: Arc::default(),
        dropped: AtomicU64::new(0),
    });
    (wire, neighbours)
}

fn pair() -> (Arc<Neighbours>, Arc<Neighbours>, Arc<Wire>, Arc<Wire>) {
    let ((wire_a, a), (wire_b, b)) = (station(1), station(2));
    *wire_a.other.lock().unwrap() = Some(b.clone());
    *wire_b.other.lock().unwrap() = Some(a.clone());
    (a, b, wire_a, wire_b)
}

#[test]
fn stations_find_each_other_in_both_families() {
    let (a, b, wire_a, wire_b) = pair();
    for (local, remote) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        assert_eq!(a.resolve(ip(local), ip(remote)).unwrap(), wire_b.mac);
        // Who was asked has learned who asked, and need not ask back.
        let asked = wire_b.sent.lock().unwrap().len();
        assert_eq!(b.resolve(ip(remote), ip(local)).unwrap(), wire_a.mac);
        assert_eq!(wire_b.sent.lock().unwrap().len(), asked);
    }
    assert_eq!((a.dropped.load(Ordering::Relaxed), b.dropped.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn nobody_there_is_a_reason() {
    let (wire, a) = station(1);
    assert_eq!(a.resolve(ip("192.0.2.1"), ip("192.0.2.9")), Err(FallbackReason::NoNeighbour));
    assert_eq!(wire.sent.lock().unwrap().len(), RESOLVE_TRIES as usize);
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//# If an application on a multihomed host does not specify the local IP address when actively opening a TCP
//# connection, then the TCP implementation MUST ask the IP layer to select a local IP address before sending the
//# (first) SYN (MUST-44).
#[test]
fn destinations_have_a_way_or_a_reason() {
    let (_wire, a) = station(1);
    let way = |remote: &str| a.config.way_to(ip(remote));
    assert_eq!(way("192.0.2.77"), Ok((ip("192.0.2.1"), ip("192.0.2.77"))));
    assert_eq!(way("198.51.100.1"), Ok((ip("192.0.2.1"), ip("192.0.2.254"))), "by the gateway");
    assert_eq!(way("2001:db8::77"), Ok((ip("2001:db8::1"), ip("2001:db8::77"))));
    assert_eq!(way("2001:db8:1::77"), Err(FallbackReason::NoRoute), "there is no IPv6 gateway");
    assert_eq!(way("192.0.2.1"), Err(FallbackReason::Local));
}

#[test]
fn a_solicitation_that_checks_for_duplicates_is_answered_to_all_nodes() {
    let (wire, a) = station(1);
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    let target = "2001:db8::1".parse().unwrap();
    let question = solicitation(stranger, Ipv6Addr::UNSPECIFIED, target);
    a.foreign_frame(&question);
    let answer = wire.sent.lock().unwrap().pop_front().unwrap();
    assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!((answer[54], answer[58]), (ADVERTISEMENT, 0x20), "override, not solicited");
    assert!(a.table.lock().unwrap().is_empty(), "nothing is learned from the unspecified address");
}

#[test]
fn what_is_not_for_us_or_damaged_changes_nothing() {
    let (wire, a) = station(1);
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    a.foreign_frame(&arp(
        ARP_REQUEST,
        (stranger, Ipv4Addr::new(192, 0, 2, 9)),
        (BROADCAST, Ipv4Addr::new(192, 0, 2, 3)),
    ));
    assert!(wire.sent.lock().unwrap().is_empty());
    assert!(a.table.lock().unwrap().is_empty());
    let good = solicitation(stranger, "2001:db8::9".parse().unwrap(), "2001:db8::1".parse().unwrap());
    // The hop limit, and all that the checksum covers.
    for at in 21..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        a.foreign_frame(&bad);
        assert!(wire.sent.lock().unwrap().is_empty(), "byte {at}");
    }
    assert!(a.dropped.load(Ordering::Relaxed) > 0);
    a.foreign_frame(&good);
    assert_eq!(wire.sent.lock().unwrap().len(), 1);
}

//= docs/specs/rfc6056.txt#section-3.3.1
//= type=test
//# next_ephemeral = min_ephemeral + (random() % num_ephemeral);
#[test]
fn ports_of_active_opens_are_random_over_their_whole_range() {
    let mut used = HashMap::new();
    let mut numbers = Vec::new();
    for _ in 0..2000 {
        let port = free_port(&used).unwrap();
        assert!(PORTS.contains(&port) && used.insert(port, Use::Connection).is_none());
        numbers.push(port);
    }
    // Every sixteenth of the range has its share of 125, and hardly ever does one follow the other.
    for part in 0..16 {
        let share = numbers.iter().filter(|p| (**p - PORTS.start()) / 2048 == part).count();
        assert!((60..=200).contains(&share), "{share} of 2000 in part {part}");
    }
    assert!(numbers.windows(2).filter(|w| w[0].abs_diff(w[1]) <= 2).count() < 20);
}

#[test]
fn a_million_ports_are_uniform() {
    let used = HashMap::new();
    // Every random number there is: each port twice.
    let mut times = vec![0u64; 1 << 16];
    (0..=u16::MAX).for_each(|random| times[usize::from(port_from(random, &used).unwrap())] += 1);
    assert!(PORTS.map(usize::from).all(|port| times[port] == 2));
    // And a chi-squared test of 10^6 draws under a fixed seed: 32,767 degrees of freedom, p > 0.01.
    let mut times = vec![0u64; 1 << 16];
    let mut state = 20_u64;
    for _ in 0..1_000_000 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        times[usize::from(port_from((z ^ z >> 31) as u16, &used).unwrap())] += 1;
    }
    let expected = 1_000_000.0 / PORTS.len() as f64;
    let statistic: f64 = PORTS.map(|p| (times[usize::from(p)] as f64 - expected).powi(2) / expected).sum();
    let freedom = (PORTS.len() - 1) as f64;
    let deviation = (statistic - freedom) / (2.0 * freedom).sqrt();
    assert!(deviation < 2.326, "{deviation} standard deviations");
}

#[test]
fn the_last_free_port_is_found_and_then_there_is_none() {
    let mut used: HashMap<_, _> = PORTS.map(|port| (port, Use::Connection)).collect();
    used.remove(&40_000);
    assert_eq!(free_port(&used).unwrap(), 40_000);
    used.insert(40_000, Use::Listener);
    assert_eq!(free_port(&used).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
}

#[test]
fn the_table_is_bounded() {
    let (_wire, a) = station(1);
    for i in 0..2 * NEIGHBOURS_MAX as u32 {
        a.learn(Ipv4Addr::from(0xc633_6400 + i).into(), Mac([2, 0, 0, 0, 1, 1]));
    }
    assert_eq!(a.table.lock().unwrap().len(), NEIGHBOURS_MAX);
}

proptest::proptest! {
    #[test]
    fn any_frame_is_survived(mut frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), kind in 0u8..3) {
        let (_wire, a) = station(1);
        if frame.len() >= 34 {
            match kind {
                0 => frame[12..20].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4]),
                1 => {
                    frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                    frame[20..22].copy_from_slice(&[58, 255]);
                }
                _ => {}
            }
        }
        a.foreign_frame(&frame);
    }
}

/// A SYN from 192.0.2.1:4660 to port 80 of 192.0.2.2, in a frame from `from` to `to`.
fn syn(from: Mac, to: Mac) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend([0x08, 0x00]);
    let mut header = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    let mut tcp = vec![0x12, 0x34, 0, 80, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0];
    let sum = |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum() };
    let fold = |sum: u32| (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes();
    let checksum = fold(sum(&header));
    header[10..12].copy_from_slice(&checksum);
    let checksum = fold(sum(&tcp) + sum(&header[12..]) + 6 + 20);
    tcp[16..18].copy_from_slice(&checksum);
    [frame, header, tcp].concat()
}

#[test]
fn a_segment_for_nobody_is_reset_but_a_listener_without_room_stays_silent() {
    let (wire, station) = station(2);
    let stranger = Mac([2, 0, 0, 0, 0, 1]);
    station.foreign_frame(&syn(stranger, wire.mac));
    let reset = wire.sent.lock().unwrap().pop_front().unwrap();
    assert_eq!(reset[..14], [&stranger.0[..], &wire.mac.0, &[0x08, 0x00]].concat());
    // RST and ACK of the SYN (RFC 9293, 3.10.7.1).
    assert_eq!((&reset[38..46], reset[47]), (&[0, 0, 0, 0, 0, 0, 0, 101][..], 0x14));

    station.ports.lock().unwrap().insert(80, Use::Listener);
    station.foreign_frame(&syn(stranger, wire.mac));
    assert_eq!((wire.sent.lock().unwrap().len(), station.dropped.load(Ordering::Relaxed)), (0, 1));

    station.ports.lock().unwrap().insert(80, Use::Connection);
    station.foreign_frame(&syn(stranger, wire.mac));
    assert_eq!(wire.sent.lock().unwrap().len(), 1);
    // Neither to somebody else's address nor to another station.
    let mut frame = syn(stranger, Mac([2, 0, 0, 0, 0, 9]));
    station.foreign_frame(&frame);
    frame = syn(stranger, wire.mac);
    frame[33] = 3;
    station.foreign_frame(&frame);
    assert_eq!(wire.sent.lock().unwrap().len(), 1);
}

#[test]
fn a_next_hop_that_has_moved_is_found_without_waiting() {
    let (a, _b, wire_a, wire_b) = pair();
    assert_eq!(a.resolve(ip("192.0.2.1"), ip("192.0.2.2")).unwrap(), wire_b.mac);
    let asked = wire_a.sent.lock().unwrap().len();
    // Another station has the address now.
    let (wire_c, c) = station(2);
    let moved = Mac([2, 0, 0, 0, 0, 0x99]);
    let c = Neighbours {
        transport: Arc::new(Wire { mac: moved, sent: Mutex::default(), other: Mutex::new(Some(a.clone())) }),
        ..Arc::into_inner(c).unwrap()
    };
    drop(wire_c);
    *wire_a.other.lock().unwrap() = Some(Arc::new(c));
    assert_eq!(a.renew_next_hop(ip("192.0.2.2")), Some(moved));
    assert_eq!(wire_a.sent.lock().unwrap().len(), asked + 1);
    // Nobody answers: what was known is still the best there is.
    *wire_a.other.lock().unwrap() = None;
    assert_eq!(a.renew_next_hop(ip("192.0.2.2")), Some(moved));
    assert_eq!(a.renew_next_hop(ip("198.51.100.1")), None, "the gateway is not known");
}

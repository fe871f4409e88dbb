//! TCP Fast Open (RFC 7413): text in a SYN, for a client that has shown before that it is where it says.
//!
//! Off unless the profile allows it, and then only for the connections and listeners that ask for it (`flags::FAST_OPEN`):
//! a program must be able to bear that a request comes twice.
//!
//! *The cookie* is a keyed hash of both addresses and of the half day in which it was made; it is believed until the end
//! of the next. It needs no memory.
//!
//! *As server*: a SYN with a right cookie becomes a connection at once, in SYN-RECEIVED, its text goes to the program, and
//! what the program answers may go out before the handshake is complete. So many connections of a listener may be in
//! that state as the profile says (`tcp.fast_open_pending`), and those that a reset ended count for
//! [`RESET_COUNTS_FOR`] longer (RFC 7413, 5.1). Whatever is missing for it, the SYN is answered like any other.
//!
//! *As client*: what is known of a server is one entry in a table of fixed size ([`Cookies`]), its oldest entry making room.
//! With a cookie, the SYN waits up to [`WAIT`] for the program's first words. A SYN that is not answered is sent again
//! without text and option; a server that did not take the text is not offered any for [`PAUSE`].

use toe_abi::{Endpoint, Reason};

use crate::chance::Key;
use crate::counters::Counter;
use crate::store::gauge::Gauge;
use crate::tcp::recovery::Recovery;
use crate::tcp::tcb::{Due, State, Store, Tcb, Tuple, address_words, initial_window};
use crate::time::{Duration, Instant};
use crate::wire::options::Cookie;
use crate::wire::segment::{Flags, Segment};
use crate::work::Steps;

/// How long the SYN waits for something to carry.
pub const WAIT: Duration = Duration::from_ms(50);

/// How long a server that did not take text is offered none.
pub const PAUSE: Duration = Duration::from_s(3600);

/// A connection that was reset before its handshake was complete counts as pending for so much longer.
pub const RESET_COUNTS_FOR: Duration = Duration::from_s(60);

/// How long one cookie is given out; it is believed for as long again.
const COOKIE_LIFE: Duration = Duration::from_s(12 * 3600);

/// RFC 7413, 4.1.3: no SYN is larger than an ordinary segment, whatever the server's MSS.
const SYN_MSS_MAX_V4: u32 = 1460;
const SYN_MSS_MAX_V6: u32 = 1440;

/// Bytes of the options of a SYN beside the cookie.
const SYN_OPTION_BYTES: u32 = 20;

fn cookie_of(key: &Key, tuple: &Tuple, life: u64) -> Option<Cookie> {
    let [l0, l1] = address_words(tuple.local.ip);
    let [r0, r1] = address_words(tuple.remote.ip);
    Cookie::new(&key.hash(&[l0, l1, r0, r1, life]).to_be_bytes())
}

/// The cookie for a client.
pub fn cookie(key: &Key, tuple: &Tuple, now: Instant) -> Option<Cookie> {
    cookie_of(key, tuple, now.as_us() / COOKIE_LIFE.as_us())
}

/// Whether it is one that the client may have.
pub fn is_valid(key: &Key, tuple: &Tuple, cookie: &Cookie, now: Instant) -> bool {
    let life = now.as_us() / COOKIE_LIFE.as_us();
    [Some(life), life.checked_sub(1)].into_iter().flatten().any(|life| cookie_of(key, tuple, life) == Some(*cookie))
}

/// What a connection's handshake has taught about a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// Its cookie, and its MSS.
    Cookie(Cookie, u32),
    /// It, or something on the way, does not like text in a SYN.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    local: std::net::IpAddr,
    remote: Endpoint,
    cookie: Cookie,
    mss: u32,
    paused_until: Instant,
}

/// What is known of servers: a ring, in which the oldest entry makes room.
#[derive(Debug)]
pub struct Cookies {
    known: Box<[Option<Known>]>,
    next: usize,
    /// What is published.
    pub gauge: Gauge,
    /// A step for every server looked at.
    pub steps: Steps,
}

impl Cookies {
    /// Room for as many servers as the gauge's capacity.
    pub fn new(gauge: Gauge) -> Self {
        Self { known: vec![None; gauge.capacity() as usize].into(), next: 0, gauge, steps: Steps::default() }
    }

    fn find(&mut self, tuple: &Tuple) -> Option<&mut Known> {
        let same = |k: &&mut Known| {
            self.steps.one();
            k.local == tuple.local.ip && k.remote == tuple.remote
        };
        self.known.iter_mut().flatten().find(same)
    }

    /// How a connection to that server is to begin.
    pub fn client(&mut self, tuple: &Tuple, now: Instant) -> Client {
        match self.find(tuple) {
            Some(known) if known.paused_until > now => Client::Off,
            Some(Known { cookie, mss, .. }) if !cookie.is_request() => Client::Offer { cookie: *cookie, mss: *mss },
            _ => Client::Ask,
        }
    }

    /// Notes what was learned.
    pub fn learn(&mut self, tuple: &Tuple, learned: Learned, now: Instant) {
        let (cookie, mss, paused_until) = match learned {
            Learned::Cookie(cookie, mss) => (cookie, mss, now),
            Learned::Refused => (Cookie::REQUEST, 0, now + PAUSE),
        };
        let new = Known { local: tuple.local.ip, remote: tuple.remote, cookie, mss, paused_until };
        if let Some(known) = self.find(tuple) {
            *known = new;
        } else if !self.gauge.admits() {
            self.gauge.refuse(Reason::FastOpenServers);
        } else if let Some(place) = self.known.get_mut(self.next) {
            if place.is_none() {
                self.gauge.claim(1);
                *place = Some(new);
            } else {
                self.gauge.refuse(Reason::FastOpenServers);
                // A place that a fault does not let go keeps what it has.
                if !self.gauge.loses() {
                    *place = Some(new);
                }
            }
            self.next = (self.next + 1) % self.known.len();
        }
    }
}

/// How an active open begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Client {
    /// As ever.
    #[default]
    Off,
    /// The SYN asks for a cookie.
    Ask,
    /// The SYN offers this cookie, and text.
    Offer {
        /// The server's.
        cookie: Cookie,
        /// The server's, in bytes.
        mss: u32,
    },
}

/// One connection's part.
#[derive(Clone, Copy, Debug, Default)]
pub struct FastOpen {
    client: Client,
    /// Until when the SYN waits for text.
    wait_until: Option<Instant>,
    learned: Option<Learned>,
    /// A listener's connection in SYN-RECEIVED, and when its SYN-ACK first went out.
    pending: Option<Option<Instant>>,
    /// It goes into the SYN-ACK.
    cookie: Option<Cookie>,
    /// The listener counts it.
    pub counted: bool,
}

impl FastOpen {
    /// Of an active open.
    pub fn active(client: Client, now: Instant) -> Self {
        let waits = matches!(client, Client::Offer { .. });
        Self { client, wait_until: waits.then(|| now + WAIT), ..Self::default() }
    }

    /// Of a listener's connection; a cookie that is to be told.
    pub fn passive(cookie: Option<Cookie>) -> Self {
        Self { pending: Some(None), cookie, counted: true, ..Self::default() }
    }

    /// Whether it is a listener's connection whose handshake is not complete.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Until when the SYN waits for text, if it does.
    pub fn waits_until(&self) -> Option<Instant> {
        self.wait_until
    }

    /// It waits no longer.
    pub fn stop_waiting(&mut self) {
        self.wait_until = None;
    }

    /// What was learned, once.
    pub fn take_learned(&mut self) -> Option<Learned> {
        self.learned.take()
    }

    /// The option of a SYN or SYN-ACK that is sent now; only the first has one.
    pub fn option(&mut self, transmissions: u32, now: Instant) -> Option<Cookie> {
        if transmissions > 0 {
            return None;
        }
        if let Some(sent_at) = &mut self.pending {
            *sent_at = Some(now);
        }
        match self.client {
            Client::Off => self.cookie,
            Client::Ask => Some(Cookie::REQUEST),
            Client::Offer { cookie, .. } => Some(cookie),
        }
    }
}

impl Tcb {
    /// How much text the first SYN carries, in octets.
    pub fn syn_text_bytes(&self) -> u64 {
        let Client::Offer { cookie, mss } = self.fast_open.client else { return 0 };
        let ordinary = if self.tuple.local.ip.is_ipv4() { SYN_MSS_MAX_V4 } else { SYN_MSS_MAX_V6 };
        let options = SYN_OPTION_BYTES + (2 + cookie.as_slice().len() as u32).next_multiple_of(4);
        let room = mss.min(ordinary).min(self.receive_mss()).saturating_sub(options);
        self.send.end.since(self.send.iss + 1).min(room.into())
    }

    /// The SYN-ACK has come: what does it teach? Text that it does not acknowledge is sent again.
    pub fn fast_open_answered(&mut self, store: &mut Store, segment: &Segment<'_>, text_acknowledged: bool) {
        let offered = self.send.nxt > self.send.iss + 1;
        if self.fast_open.client == Client::Off {
            return;
        }
        let cookie = segment.options.fast_open.filter(|c| !c.is_request());
        let again = self.syn_transmissions > 1;
        let refused = (offered && !text_acknowledged) || again;
        self.fast_open.learned = match (cookie, self.fast_open.client) {
            (Some(cookie), _) => Some(Learned::Cookie(cookie, segment.options.mss.map_or(self.send.mss, u32::from))),
            (None, Client::Offer { .. }) if refused => Some(Learned::Refused),
            (None, Client::Ask) if again => Some(Learned::Refused),
            _ => None,
        };
        if !offered {
            return;
        }
        if text_acknowledged {
            store.counters.add(Counter::TcpFastOpenTaken);
        } else {
            store.counters.add(Counter::TcpFastOpenRefused);
            let (recovery, mut around) = self.around(store);
            recovery.refused(&mut around);
        }
    }

    /// The SYN was given up.
    pub fn fast_open_failed(&mut self) {
        if let Client::Offer { .. } = self.fast_open.client {
            self.fast_open.learned = Some(Learned::Refused);
        }
    }

    /// A listener's connection begins with a SYN that had a right cookie: in SYN-RECEIVED, the SYN-ACK due, its text
    /// taken. The block was opened before.
    pub fn fast_open_begins(&mut self, store: &mut Store, syn: &Segment<'_>, cookie: Option<Cookie>) {
        store.counters.add(Counter::TcpFastOpenPassive);
        self.state = State::SynReceived;
        self.due = Due::Syn;
        self.fast_open = FastOpen::passive(cookie);
        (self.send.una, self.send.nxt, self.send.max) = (self.send.iss, self.send.iss + 1, self.send.iss + 1);
        let window = initial_window(store.config.initial_window, self.send.mss);
        self.recovery = Recovery::new(self.settings.congestion, self.send.iss, window);
        (self.guest.delivered, self.guest.furthest) = (self.receive.nxt, self.receive.nxt);
        // The window of a SYN is not scaled (RFC 7323, 2.2).
        self.send.window = syn.window.into();
        self.send.window_max = self.send.window;
        let at = self.receive.nxt;
        self.receive.text(&mut store.receive, at, syn.text);
    }

    /// The client sends its SYN again: it has not heard our SYN-ACK.
    pub fn fast_open_syn_again(&mut self, segment: &Segment<'_>) -> bool {
        let again = self.fast_open.is_pending()
            && segment.flags.has(Flags::SYN)
            && !segment.flags.has_any(Flags::ACK | Flags::RST)
            && segment.seq == self.receive.irs.seq();
        if again && self.syn_transmissions > 0 {
            self.due = Due::Syn;
        }
        again
    }

    /// The handshake of a listener's connection is complete.
    pub fn fast_open_established(&mut self, store: &mut Store, now: Instant) {
        store.counters.add(Counter::TcpEstablished);
        self.state = if self.send.fin { State::FinWait1 } else { State::Established };
        self.due = Due::None;
        self.guest.bits |= toe_abi::state::ESTABLISHED;
        (self.progress_at, self.timer_from) = (now, now);
        if let Some(Some(sent_at)) = self.fast_open.pending.take()
            && self.syn_transmissions == 1
        {
            self.rtt.measured(now, now.since(sent_at));
        }
    }
}

#[cfg(test)]
mod tests {
    use toe_abi::{Reason, flags, state};

    use super::*;
    use crate::testing::Bench;

    fn server() -> Bench {
        let mut b = Bench::with(|p| {
            p.tcp.fast_open = true;
            p.tcp.fast_open_pending = 2;
        });
        b.listen_with(flags::FAST_OPEN | flags::NODELAY);
        b
    }

    /// The cookie in a SYN-ACK's text.
    fn cookie_in(text: &str) -> String {
        text.split_once("fo ").unwrap().1.split([',', '>']).next().unwrap().to_owned()
    }

    /// Asks for a cookie and leaves.
    fn ask(b: &mut Bench) -> String {
        b.peer("S 0 <mss 1000, fo ->");
        let syn_ack = b.next().unwrap();
        assert!(syn_ack.starts_with("SA 0:0 ack 1 "), "{syn_ack}");
        b.peer("R 1");
        b.another();
        cookie_in(&syn_ack)
    }

    #[test]
    fn a_cookie_is_of_both_addresses_and_of_its_day() {
        let key = Key::new([3; 16]);
        let end = |ip: &str| Endpoint::new(ip.parse().unwrap(), 1);
        let tuple = |l: &str, r: &str| Tuple { local: end(l), remote: end(r) };
        let (us, peer, other) = ("192.0.2.2", "192.0.2.1", "192.0.2.3");
        let at = |lives: u64| Instant::from_us(lives * COOKIE_LIFE.as_us() + 1);
        let c = cookie(&key, &tuple(us, peer), at(5)).unwrap();
        assert_eq!(c.as_slice().len(), 8);
        assert!(is_valid(&key, &tuple(us, peer), &c, at(5)) && is_valid(&key, &tuple(us, peer), &c, at(6)));
        assert!(!is_valid(&key, &tuple(us, peer), &c, at(7)) && !is_valid(&key, &tuple(us, peer), &c, at(4)));
        assert!(!is_valid(&key, &tuple(us, other), &c, at(5)) && !is_valid(&key, &tuple(other, peer), &c, at(5)));
        assert!(!is_valid(&Key::new([4; 16]), &tuple(us, peer), &c, at(5)));
        assert!(!is_valid(&key, &tuple(us, peer), &Cookie::REQUEST, at(0)));
    }

    #[test]
    fn the_table_of_servers_forgets_the_oldest() {
        let mut cookies = Cookies::new(Gauge::new("f", "evict", 2));
        let now = Instant::from_us(1);
        let server = |n: u8| Tuple {
            local: Endpoint::new("192.0.2.2".parse().unwrap(), 40_000),
            remote: Endpoint::new(std::net::IpAddr::from([192, 0, 2, n]), 80),
        };
        let cookie = Cookie::new(&[1; 8]).unwrap();
        for n in 10..13 {
            assert_eq!(cookies.client(&server(n), now), Client::Ask);
            cookies.learn(&server(n), Learned::Cookie(cookie, 1000), now);
        }
        assert_eq!(cookies.client(&server(10), now), Client::Ask);
        assert_eq!(cookies.client(&server(11), now), Client::Offer { cookie, mss: 1000 });
        cookies.learn(&server(11), Learned::Refused, now);
        assert_eq!(cookies.client(&server(11), now), Client::Off);
        assert_eq!(cookies.client(&server(12), now), Client::Offer { cookie, mss: 1000 });
        assert_eq!(cookies.client(&server(11), now + PAUSE), Client::Ask);
        let mut none = Cookies::new(Gauge::new("f", "evict", 0));
        none.learn(&server(1), Learned::Refused, now);
        assert_eq!(none.client(&server(1), now), Client::Ask);
    }

    #[test]
    fn a_server_takes_text_with_a_right_cookie_and_answers_before_the_handshake_ends() {
        // RFC 7413, figure of section 3.
        let mut b = server();
        let cookie = ask(&mut b);
        b.peer(&format!("S 0:100 win 2000 <mss 1000, fo {cookie}>"));
        b.expect("SA 0:0 ack 101");
        b.nothing();
        b.received(100);
        assert_eq!(b.count("tcp-fast-open-passive"), 1);
        b.send(1500);
        b.expect("A 1:1001 ack 101");
        b.expect("PA 1001:1501");
        b.send(1000);
        b.nothing();
        b.peer("A 101 ack 1");
        assert_ne!(b.bits & state::ESTABLISHED, 0);
        b.peer("PA 101:111 ack 1001 win 5000");
        b.expect("PA 1501:2501");
        b.received(110);
        b.peer("A 111 ack 2501");
        b.shutdown();
        b.expect("FA 2501:2501");
        b.peer("FA 111 ack 2502");
        b.expect("A 2502:2502 ack 112");
    }

    #[test]
    fn it_is_off_until_profile_and_listener_want_it() {
        for (profile, listener) in [(false, flags::FAST_OPEN), (true, 0)] {
            let mut b = Bench::with(|p| p.tcp.fast_open = profile);
            b.listen_with(listener);
            b.peer("S 0 <mss 1000, fo ->");
            let syn_ack = b.next().unwrap();
            assert!(!syn_ack.contains("fo "), "{syn_ack}");
        }
        let mut b = Bench::new();
        b.connect(flags::FAST_OPEN);
        assert!(!b.next().unwrap().contains("fo "));
    }

    #[test]
    fn a_wrong_cookie_gets_a_right_one_and_an_ordinary_handshake() {
        let mut b = server();
        let right = ask(&mut b);
        b.peer("S 0:100 <mss 1000, fo 0102030405060708>");
        let syn_ack = b.next().unwrap();
        assert!(syn_ack.starts_with("SA 0:0 ack 1 ") && cookie_in(&syn_ack) == right, "{syn_ack}");
        assert_eq!((b.count("tcp-fast-open-cookie-wrong"), b.in_use("connections")), (1, 0));
        // Sent again it has no option (RFC 7413, 4.2.1).
        b.wait_for_segment();
        let again = b.next().unwrap();
        assert!(again.starts_with("SA 0:0 ack 1 ") && !again.contains("fo "), "{again}");
        b.peer("PA 1:101 ack 1");
        b.received(100);
    }

    #[test]
    fn a_syn_that_comes_again_is_answered_again_without_harm() {
        let mut b = server();
        let cookie = ask(&mut b);
        b.peer(&format!("S 0:100 <mss 1000, fo {cookie}>"));
        b.expect("SA 0:0 ack 101");
        b.peer("S 0 <mss 1000>");
        b.expect("SA 0:0 ack 101");
        b.wait_for_segment();
        b.expect("SA 0:0 ack 101");
        b.peer("A 101 ack 1");
        b.received(100);
        assert_eq!(b.in_use("connections"), 1);
    }

    #[test]
    fn no_more_are_pending_than_the_profile_says_and_resets_count() {
        let mut b = server();
        let cookie = ask(&mut b);
        let syn = format!("S 0:10 <mss 1000, fo {cookie}>");
        for _ in 0..2 {
            b.peer(&syn);
            b.expect("SA 0:0 ack 11");
            b.another_port(false);
        }
        b.peer(&syn);
        b.expect("SA 0:0 ack 1");
        assert_eq!(b.count("tcp-fast-open-pending-full"), 1);
        b.peer("R 1");
        // A forger's victims reset what they have not asked for; that frees nothing (RFC 7413, 5.1).
        let mut b = server();
        let cookie = ask(&mut b);
        let syn = format!("S 0:10 <mss 1000, fo {cookie}>");
        for _ in 0..2 {
            b.peer(&syn);
            b.expect("SA 0:0 ack 11");
            b.peer("R 11");
            assert_eq!(b.reason, Reason::Refused as u32);
            b.release();
            b.another_port(false);
        }
        b.peer(&syn);
        b.expect("SA 0:0 ack 1");
        b.peer("R 1");
        b.wait_ms(60_000);
        b.another_port(false);
        b.peer(&syn);
        b.expect("SA 0:0 ack 11");
        // The end of a handshake makes room at once.
        let mut b = server();
        let cookie = ask(&mut b);
        for _ in 0..3 {
            b.peer(&format!("S 0:10 <mss 1000, fo {cookie}>"));
            b.expect("SA 0:0 ack 11");
            b.peer("A 11 ack 1");
            b.another_port(false);
        }
    }

    /// A client whose card knows the cookie `01…08` of a server with an MSS of 1000.
    fn client() -> Bench {
        let mut b = Bench::with(|p| {
            p.tcp.fast_open = true;
            p.limits.connections = 1;
        });
        b.connect(flags::FAST_OPEN);
        let syn = b.next().unwrap();
        assert!(syn.starts_with("S 0:0") && syn.contains("fo -"), "{syn}");
        b.peer("SA 0 ack 1 <mss 1000, fo 0102030405060708>");
        b.expect("A 1:1");
        // What this connection has counted is nothing to the next one.
        b.send(1000);
        b.expect("PA 1:1001");
        b.peer("A 1 ack 1001");
        b.abort();
        b.expect("RA 1001:1001");
        b.release();
        b.another_port(true);
        b
    }

    #[test]
    fn a_clients_first_words_go_with_its_syn() {
        let mut b = client();
        b.connect(flags::FAST_OPEN | flags::NODELAY);
        b.nothing();
        b.send(300);
        b.expect("S 0:300 <mss 1460, fo 0102030405060708>");
        b.peer("SA 0 ack 301 <mss 1000>");
        b.expect("A 301:301 ack 1");
        assert_eq!((b.bits, b.count("tcp-fast-open-taken"), b.count("tcp-retransmits")), (state::ESTABLISHED, 1, 0));
        b.send(10);
        b.expect("PA 301:311");
        b.peer("PA 1:11 ack 311");
        b.received(10);
    }

    #[test]
    fn a_syn_carries_no_more_than_the_servers_mss_and_waits_no_longer_than_its_time() {
        let mut b = client();
        b.connect(flags::FAST_OPEN | flags::NODELAY);
        b.send(5000);
        // 1000 less 20 bytes of options and 12 of the cookie.
        b.expect("S 0:968");
        b.peer("SA 0 ack 969 <mss 1000>");
        b.expect("A 969:1969");

        let mut b = client();
        b.connect(flags::FAST_OPEN);
        assert_eq!(b.wait_for_segment(), WAIT.as_ms());
        b.expect("S 0:0 <fo 0102030405060708>");
        b.peer("SA 0 ack 1 <mss 1000>");
        b.expect("A 1:1");
    }

    #[test]
    fn the_window_of_a_syn_ack_that_takes_text_is_not_scaled() {
        let mut b = client();
        b.connect(flags::FAST_OPEN | flags::NODELAY);
        b.send(300);
        b.expect("S 0:300");
        b.peer("SA 0 ack 301 win 1000 <mss 1000, ws 7>");
        b.expect("A 301:301");
        assert_eq!((b.info().send_window, b.info().in_flight), (1000, 0));
        b.send(5000);
        b.expect("A 301:1301");
        b.nothing();
    }

    #[test]
    fn a_server_without_cookies_is_asked_again_unless_the_syn_had_to_be_repeated() {
        for repeated in [false, true] {
            let mut b = Bench::with(|p| {
                p.tcp.fast_open = true;
                p.limits.connections = 1;
            });
            b.connect(flags::FAST_OPEN);
            assert!(b.next().unwrap().contains("fo -"));
            if repeated {
                b.wait_for_segment();
                b.expect("S 0");
            }
            b.peer("SA 0 ack 1 <mss 1000>");
            b.expect("A 1:1");
            b.abort();
            b.expect("RA 1:1");
            b.release();
            b.another_port(true);
            b.connect(flags::FAST_OPEN);
            assert_eq!(b.next().unwrap().contains("fo -"), !repeated);
        }
    }

    #[test]
    fn only_the_syn_again_brings_the_syn_ack_again() {
        let mut b = server();
        let cookie = ask(&mut b);
        b.peer(&format!("S 0:10 <mss 1000, fo {cookie}>"));
        b.expect("SA 0:0 ack 11");
        b.peer("PA 70000:70010 ack 1");
        b.expect("A 1:1 ack 11");
        b.nothing();
        // At the number of the SYN, and not a SYN; and a SYN that is not the same.
        for other in ["A 0:1 ack 1", "R 0", ". 0:1", "SA 0 ack 1", "S 5"] {
            b.peer(other);
            while let Some(segment) = b.next() {
                assert!(!segment.starts_with('S'), "{other} is answered with {segment}");
            }
        }
        b.peer(&format!("S 0:10 <mss 1000, fo {cookie}>"));
        b.expect("SA 0:0 ack 11");
    }

    #[test]
    fn text_that_the_server_does_not_take_is_sent_again_at_once() {
        let mut b = client();
        b.connect(flags::FAST_OPEN | flags::NODELAY);
        b.send(300);
        b.expect("S 0:300");
        b.peer("SA 0 ack 1 <mss 1000>");
        b.expect("PA 1:301 ack 1");
        assert_eq!((b.count("tcp-fast-open-refused"), b.count("tcp-timeouts")), (1, 0));
        b.peer("A 1 ack 301");
        b.abort();
        b.expect("RA 301:301");
        b.release();
        // It is not offered any for a while, then asked anew.
        b.another_port(true);
        b.connect(flags::FAST_OPEN);
        assert!(!b.next().unwrap().contains("fo "));
        b.abort();
        b.release();
        b.wait_ms(PAUSE.as_ms());
        b.another_port(true);
        b.connect(flags::FAST_OPEN);
        assert!(b.next().unwrap().contains("fo -"));
    }

    #[test]
    fn a_new_cookie_with_a_refusal_is_used_next_time() {
        let mut b = client();
        b.connect(flags::FAST_OPEN | flags::NODELAY);
        b.send(10);
        b.expect("S 0:10");
        b.peer("SA 0 ack 1 <mss 1000, fo 1111111111111111>");
        b.expect("PA 1:11");
        b.peer("A 1 ack 11");
        b.abort();
        b.expect("RA 11:11");
        b.release();
        b.another_port(true);
        b.connect(flags::FAST_OPEN);
        b.send(10);
        b.expect("S 0:10 <fo 1111111111111111>");
    }

    #[test]
    fn a_syn_that_is_lost_comes_again_without_text_and_option() {
        let mut b = client();
        b.connect(flags::FAST_OPEN | flags::NODELAY);
        b.send(300);
        b.expect("S 0:300");
        assert_eq!(b.wait_for_segment(), 1000);
        let again = b.next().unwrap();
        assert!(again.starts_with("S 0:0 ") && !again.contains("fo "), "{again}");
        // It may have arrived all the same, and its answer be lost.
        b.peer("SA 0 ack 301 <mss 1000>");
        b.expect("A 301:301");

        let mut b = client();
        b.connect(flags::FAST_OPEN | flags::NODELAY);
        b.send(300);
        b.expect("S 0:300");
        b.wait_for_segment();
        b.expect("S 0:0");
        b.peer("SA 0 ack 1 <mss 1000>");
        b.expect("PA 1:301");
        b.peer("A 1 ack 301");
        b.abort();
        b.expect("RA 301:301");
        b.release();
        b.another_port(true);
        b.connect(flags::FAST_OPEN);
        assert!(!b.next().unwrap().contains("fo "), "the way seems not to like it");
    }
}

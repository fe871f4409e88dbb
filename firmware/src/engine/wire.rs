//! Frames from and to the wire.

use toe_abi::{ETHERTYPE, Reason};

use crate::counters::Counter;
use crate::engine::struck::BEFORE_WRITING;
use crate::engine::{Call, Checksum, Finding, Firmware, Owner, Verdict};
use crate::fault::Site;
use crate::seq::Seq;
use crate::store::slab::Slot;
use crate::tcp::arrives::{self, Reply};
use crate::tcp::ecn;
use crate::tcp::half_open;
use crate::tcp::output;
use crate::tcp::tcb::{Link, Tuple};
use crate::tcp::time_wait;
use crate::tcp::train;
use crate::time::Instant;
use crate::wire::frame::Ethernet;
use crate::wire::icmp;
use crate::wire::ip::{self, Ecn, Foreign, Located};
use crate::wire::offload::{Made, Offload, Rest};
use crate::wire::options::Options;
use crate::wire::segment::{self, Completes, Flags, Malformed, Segment};
use toe_abi::Endpoint;

impl Firmware {
    /// Takes a frame from the wire, Ethernet header first. It may be longer than an MTU (merged segments).
    pub fn handle_wire(&mut self, now: Instant, frame: &[u8], checksum: Checksum) -> Verdict {
        let Some(now) = self.perceive(now) else { return self.halted_at_wire() };
        match self.admit_frame(now, frame) {
            Ok(()) => self.take_frame(now, frame, checksum),
            Err(verdict) => verdict,
        }
    }

    pub(super) fn take_frame(&mut self, now: Instant, frame: &[u8], checksum: Checksum) -> Verdict {
        let verdict = self.wire_frame(now, frame, checksum);
        self.worked(Call::HandleWire, true, now);
        verdict
    }

    fn wire_frame(&mut self, now: Instant, frame: &[u8], checksum: Checksum) -> Verdict {
        self.store.counters.add(Counter::WireIn);
        let Some((ethernet, packet)) = Ethernet::split(frame) else {
            return self.drop_from_wire(Counter::WireDropRunt);
        };
        if ethernet.ethertype == ETHERTYPE {
            return self.drop_from_wire(Counter::WireDropChannel);
        }
        //= docs/specs/rfc9293.txt#section-3.9.2.3
        //# A TCP implementation MUST silently discard an incoming SYN segment that is addressed to a broadcast or
        //# multicast address [(MUST-57)].
        if ethernet.destination.is_group() {
            self.store.counters.add(Counter::WirePassedGroup);
            return self.pass_from_wire();
        }
        let located = match ip::find_tcp(ethernet.ethertype, packet) {
            Ok(located) => located,
            Err(foreign) => {
                return match icmp::find(ethernet.ethertype, packet) {
                    Some(error) => self.icmp_error(&error, now),
                    None => self.pass_foreign(foreign),
                };
            }
        };
        let Some((source_port, destination_port)) = segment::ports(located.tcp) else {
            return self.pass_from_wire();
        };
        let tuple = Tuple {
            local: Endpoint::new(located.destination, destination_port),
            remote: Endpoint::new(located.source, source_port),
        };
        if self.perceives_oddly() {
            self.about_segment(&tuple, located.tcp);
        }
        match self.owner_at_wire(&tuple) {
            Some(owner) => match self.parse(&located, checksum) {
                Ok(segment) => self.owned(owner, &ethernet, &tuple, &segment, now),
                Err(counter) => self.drop_from_wire(counter),
            },
            None => self.not_owned(&located, checksum, &ethernet, tuple, now),
        }
    }

    /// Hands what the card cannot own to the guest's kernel; what is wrong with it is counted.
    fn pass_foreign(&mut self, foreign: Foreign) -> Verdict {
        match foreign {
            Foreign::Other => {}
            Foreign::Malformed => self.store.counters.add(Counter::WirePassedMalformed),
            Foreign::Fragment => self.store.counters.add(Counter::WirePassedFragment),
            Foreign::Extension => self.store.counters.add(Counter::WirePassedExtension),
        }
        self.pass_from_wire()
    }

    #[inline]
    fn parse<'a>(&mut self, located: &Located<'a>, checksum: Checksum) -> Result<Segment<'a>, Counter> {
        if located.fragment {
            return Err(Counter::WireDropFragment);
        }
        let mut segment = Segment::parse(located.tcp, &self.store.steps).map_err(|malformed| match malformed {
            Malformed::Truncated => Counter::WireDropMalformed,
            Malformed::DataOffset => Counter::WireDropDataOffset,
        })?;
        if checksum == Checksum::Unverified {
            let mut is_right = segment::checksum_is_right(located.source, located.destination, located.tcp);
            if self.store.faults.has_any(Site::RxChecksum.bit()) {
                is_right = self.checksum_seems_right(is_right);
            }
            if !is_right {
                return Err(Counter::WireDropChecksum);
            }
        }
        self.note_oddities(&segment);
        segment.marked = located.ecn == Ecn::MARKED;
        Ok(segment)
    }

    /// Counts what no TCP sends and the rules of TCP deal with all the same.
    fn note_oddities(&mut self, segment: &Segment<'_>) {
        let flags = segment.flags;
        if !segment.options_legal {
            self.store.counters.add(Counter::TcpOptionLength);
        }
        if flags.has(Flags::SYN) && flags.has_any(Flags::FIN | Flags::RST) {
            self.store.counters.add(Counter::TcpFlagsContradict);
        }
        if !flags.has_any(Flags::SYN | Flags::FIN | Flags::RST | Flags::ACK) {
            self.store.counters.add(Counter::TcpFlagsNone);
        }
    }

    /// A segment whose 4-tuple is not the card's: a SYN for a listener, or the guest's.
    fn not_owned(
        &mut self,
        located: &Located<'_>,
        checksum: Checksum,
        ethernet: &Ethernet,
        tuple: Tuple,
        now: Instant,
    ) -> Verdict {
        let Some(listener) = self.listener_for(&tuple.local) else {
            return self.pass_from_wire();
        };
        let Ok(segment) = self.parse(located, checksum) else {
            // The kernel counts it where its user looks.
            return self.pass_from_wire();
        };
        let syn = segment.flags.has(Flags::SYN) && segment.flags.0 & (Flags::ACK | Flags::RST | Flags::FIN).0 == 0;
        if syn {
            return self.listen_syn(listener, ethernet, tuple, &segment, None, now);
        }
        match self.cookie_ack(listener, ethernet, &tuple, &segment, now) {
            Some(verdict) => verdict,
            None => self.pass_from_wire(),
        }
    }

    fn owned(
        &mut self,
        owner: Owner,
        ethernet: &Ethernet,
        tuple: &Tuple,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Verdict {
        self.store.counters.add(Counter::TcpSegmentsIn);
        if self.store.faults.has_any(Site::BLOCK)
            && let Owner::Connection(slot) = owner
            && !self.survives_damage(slot, now)
        {
            return self.pass_from_wire();
        }
        match owner {
            // Nobody is there any more: the guest's kernel says so.
            Owner::Connection(slot) if !self.is_sound(slot, now) => return self.pass_from_wire(),
            Owner::Connection(slot) => self.at_connection(slot, segment, now),
            Owner::HalfOpen(slot) => self.at_half_open(slot, segment, now),
            Owner::TimeWait(slot) => {
                if let Some(listener) = self.listener_for(&tuple.local)
                    && let Some(verdict) = self.cookie_ack(listener, ethernet, tuple, segment, now)
                {
                    return verdict;
                }
                if self.at_time_wait(slot, segment, now) {
                    if let Some(listener) = self.listener_for(&tuple.local) {
                        return self.listen_syn(listener, ethernet, *tuple, segment, Some(slot), now);
                    }
                    let headers = self.time_wait[slot].acknowledgement(now);
                    self.send_segment(headers);
                }
            }
        }
        self.take_from_wire()
    }

    pub(super) fn at_connection(&mut self, slot: Slot, segment: &Segment<'_>, now: Instant) {
        let t = &mut self.connections[slot];
        let (tuple, link) = (t.tuple, t.link);
        let reply = arrives::segment_arrives(t, &mut self.store, segment, now);
        match reply {
            Reply::Reset => self.send_reset(&tuple, link, segment),
            Reply::Predicted => return self.settle_predicted(slot, now),
            Reply::Nothing => {}
        }
        //= docs/specs/rfc9293.txt#section-3.10.7.4
        //# For example, if the TCP endpoint is processing a series of queued segments, it MUST process them all
        //# before sending any ACK segments (MUST-59).
        self.settle(slot, now);
    }

    fn at_half_open(&mut self, slot: Slot, segment: &Segment<'_>, now: Instant) {
        let opening = self.opening(slot, now);
        match opening.arrives(segment) {
            half_open::Outcome::Ignore => {}
            half_open::Outcome::SynAck => {
                // RFC 3168, 6.1.1: a SYN that comes again without asking for ECN asks no more.
                if !ecn::is_setup_syn(segment.flags) {
                    self.half_open[slot].without_ecn();
                }
                let headers = self.opening(slot, now).syn_ack(&self.store.config, now);
                self.send_segment(headers);
            }
            half_open::Outcome::Challenge if !self.half_open[slot].may_challenge() => {
                self.store.counters.add(Counter::TcpChallengeLimited);
            }
            half_open::Outcome::Challenge => {
                self.store.counters.add(Counter::TcpChallengeAcks);
                let headers = opening.challenge(&self.store.config, now);
                self.send_segment(headers);
            }
            half_open::Outcome::Reset => self.send_reset(&opening.tuple, opening.link, segment),
            half_open::Outcome::Forget => {
                self.store.counters.add(Counter::TcpHalfOpenReset);
                self.forget_half_open(slot, now);
            }
            half_open::Outcome::Establish => {
                if let Some(connection) = self.complete(slot, &opening, now) {
                    self.at_connection(connection, segment, now);
                }
            }
        }
    }

    /// Whether the segment is a SYN that may begin anew.
    fn at_time_wait(&mut self, slot: Slot, segment: &Segment<'_>, now: Instant) -> bool {
        match self.time_wait[slot].arrives(segment) {
            time_wait::Outcome::Ignore => {}
            time_wait::Outcome::Acknowledge => {
                let headers = self.time_wait[slot].acknowledgement(now);
                self.send_segment(headers);
            }
            time_wait::Outcome::Restart => {
                let headers = self.time_wait[slot].acknowledgement(now);
                self.arm_timer(self.timers.time_wait(slot), now + self.store.config.time_wait);
                self.send_segment(headers);
            }
            time_wait::Outcome::Forget => self.forget_time_wait(slot),
            time_wait::Outcome::NewSyn => return true,
        }
        false
    }

    /// `<SEQ=SEG.ACK><CTL=RST>` (RFC 9293, 3.5.2, group 1 and 2).
    fn send_reset(&mut self, tuple: &Tuple, link: Link, segment: &Segment<'_>) {
        if segment.flags.has(Flags::RST) {
            return;
        }
        self.store.counters.add(Counter::TcpResetsOut);
        let acknowledged = segment.flags.has(Flags::ACK);
        let tcp = segment::Header {
            source_port: tuple.local.port,
            destination_port: tuple.remote.port,
            seq: if acknowledged { segment.ack } else { Seq(0) },
            ack: if acknowledged { Seq(0) } else { segment.seq + segment.sequence_length() },
            flags: if acknowledged { Flags::RST } else { Flags::RST | Flags::ACK },
            window: 0,
            urgent: None,
            options: Options::default(),
        };
        let headers = tuple.headers(link, &self.store.config.settings, tcp);
        self.send_segment(headers);
    }

    /// RFC 6528: ISN = M + F(localip, localport, remoteip, remoteport, secretkey), M a clock of 4 microseconds
    /// ([`half_open::clock`]).
    //= docs/specs/rfc6528.txt#section-3
    //# ISN = M + F(localip, localport, remoteip, remoteport, secretkey)
    //= docs/specs/rfc9293.txt#section-3.4.1
    //# A TCP implementation MUST use the above type of "clock" for clock-driven selection of initial sequence
    //# numbers (MUST-8)
    //= docs/specs/rfc9293.txt#section-3.4.1
    //# SHOULD generate its initial sequence numbers with the expression: ISN = M + F(localip, localport, remoteip,
    //# remoteport, secretkey) where M is the 4 microsecond timer, and F() is a pseudorandom function (PRF) of the
    //# connection's identifying parameters ("localip, localport, remoteip, remoteport") and a secret key
    //# ("secretkey") (SHLD-1).
    //= docs/specs/rfc9293.txt#section-3.4.1
    //# F() MUST NOT be computable from the outside (MUST-9), or an attacker could still guess at sequence numbers
    //# from the ISN used for some other connection.
    pub(super) fn initial_sequence_number(&self, tuple: &Tuple, clock: u32) -> Seq {
        if self.store.faults.has_any(Site::Isn.bit())
            && let Some(struck) = self.struck_sequence_number(clock)
        {
            return struck;
        }
        self.keys().sequence_number(&tuple.words(), clock)
    }

    pub(super) fn pass_from_wire(&mut self) -> Verdict {
        self.store.counters.add(Counter::WirePassed);
        Verdict::PassOn
    }

    pub(super) fn take_from_wire(&mut self) -> Verdict {
        self.store.counters.add(Counter::WireTaken);
        Verdict::Taken
    }

    pub(super) fn drop_from_wire(&mut self, counter: Counter) -> Verdict {
        self.store.counters.add(counter);
        Verdict::Taken
    }

    /// The next frame for the wire, with its checksums complete, into `buffer`, which must have room for a whole
    /// frame (65,549 bytes); its length. To be called until `None`, or as long as the wire takes frames.
    pub fn poll_wire(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        self.poll_wire_for(now, buffer, Offload::default()).map(|made| made.bytes)
    }

    /// The same for a wire that does some of the work itself.
    pub fn poll_wire_for(&mut self, now: Instant, buffer: &mut [u8], offload: Offload) -> Option<Made> {
        let now = self.perceive(now)?;
        let made = self.next_wire_frame(now, buffer, offload);
        self.worked(Call::PollWire, made.is_some(), now);
        made
    }

    fn next_wire_frame(&mut self, now: Instant, buffer: &mut [u8], offload: Offload) -> Option<Made> {
        if let Some(headers) = self.segments.pop() {
            self.segments_gauge.give_back(1);
            self.store.counters.add(Counter::TcpSegmentsOut);
            self.store.counters.add(Counter::WireOut);
            return Some(Made::complete(headers.write(buffer, 0, |_| ())));
        }
        for _ in 0..FEED_TURNS {
            let more = self.feed(now);
            while let Some(slot) = self.wire_queue.pop(&mut self.wire_links) {
                self.store.steps.one();
                if self.perceives_oddly() {
                    self.about_connection(slot);
                }
                if !self.is_sound(slot, now) {
                    continue;
                }
                let t = &mut self.connections[slot];
                let Some(mut segment) = output::next_segment(t, &mut self.store, now) else {
                    // What was due when it got its turn may be so no more: then a timer waits in its place.
                    self.set_timers(slot);
                    self.seal(slot);
                    continue;
                };
                let cut = match offload {
                    Offload { train_bytes, plain_bytes }
                        if train_bytes > segment.text_bytes && t.send.una.since(t.send.iss) >= plain_bytes =>
                    {
                        train::couple(t, &mut self.store, now, &mut segment, train_bytes)
                    }
                    _ => None,
                };
                if self.store.faults.has_any(BEFORE_WRITING) {
                    self.struck_before_writing(slot, &segment);
                }
                let t = &mut self.connections[slot];
                if !t.send.stream.is_whole(&self.store.send, segment.text_at, segment.text_bytes as u64) {
                    self.condemn(slot, Finding::DataDamaged, Reason::DataDamaged, now);
                    continue;
                }
                let tcp = segment::Header {
                    source_port: t.tuple.local.port,
                    destination_port: t.tuple.remote.port,
                    seq: segment.seq,
                    ack: segment.ack,
                    flags: segment.flags,
                    window: segment.window,
                    urgent: segment.urgent,
                    options: segment.options,
                };
                let mut headers = t.tuple.headers(t.link, &t.settings, tcp);
                if segment.ecn_capable {
                    headers.ip.traffic_class |= Ecn::CAPABLE.0;
                }
                // A segment that goes alone is complete: who listens in on the wire sees no sum that is still to be made.
                let completes = if cut.is_some() { Completes::Wire } else { Completes::Card };
                let bytes = headers.write_for(buffer, segment.text_bytes, completes, |text| {
                    t.send.stream.read(&self.store.send, segment.text_at, text);
                });
                let rest = cut.map(|text_bytes| Rest {
                    tcp_at: headers.tcp_at() as u16,
                    text_at: (bytes - segment.text_bytes) as u16,
                    v6: headers.ip.source.is_ipv6(),
                    segment_bytes: text_bytes as u16,
                });
                if self.store.faults.has_any(Site::TxChecksum.bit()) {
                    self.struck_after_writing(&headers, buffer);
                }
                self.store.counters.add(Counter::WireOut);
                // Back to the end of the queue: each in turn.
                self.settle(slot, now);
                return Some(Made { bytes, rest });
            }
            if !more {
                break;
            }
        }
        None
    }
}

/// How often those who wait for pages are looked at in one call, if nobody has anything to send.
const FEED_TURNS: u32 = 8;

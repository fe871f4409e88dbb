//! What passes through the card, as a capture: at its wire, at its guest, and on the channel between the two.
//!
//! A [`Tap`] is somebody who watches. While there is none, a frame meets one look at an empty list in each place. With one,
//! the data path says where a frame is ([`Taps::begin`]), and after it knows what became of it, [`Taps::end`]: a frame
//! that waits is not told of until it moves. Those that the tap's filter wants are copied (as far as its `snaplen`) into a
//! queue of bounded length and bytes; who reads it too slowly misses frames, whose number the next one carries, and the
//! card never waits. A frame of the guest for the wire is seen twice, as on any router: at the guest and at the wire.
//!
//! Beside a frame stands what the card counted on its account, above all why it was dropped. This comes from the counters
//! themselves, so that a reason that is counted is also told.

pub mod filter;
pub mod pcapng;
pub mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use toe_abi::{ETHERNET_HEADER_BYTES, ETHERTYPE, FRAME_BYTES_MAX};
use toe_firmware::Firmware;
use tokio::sync::mpsc;

use crate::capture::filter::{Instruction, Program, ProgramError};
use crate::counters::Counters;

/// The most taps at once.
pub const TAPS_MAX: usize = 4;

/// The most frames that wait for who watches.
const QUEUE_FRAMES: usize = 4096;

/// The most bytes of frames that wait for who watches.
const QUEUE_BYTES: usize = 8 << 20;

/// A place where frames are seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Point {
    /// What the card is plugged into.
    Wire,
    /// The guest's rings, for what its kernel sends and gets.
    Guest,
    /// The guest's rings, for what its programs and the firmware say to each other (EtherType 0x88B5).
    Channel,
}

impl Point {
    /// All of them, in the order of their numbers in a capture.
    pub const ALL: [Self; 3] = [Self::Wire, Self::Guest, Self::Channel];

    /// The guest's side, by what the frame is.
    pub fn of_guest(frame: &[u8]) -> Self {
        match frame.get(ETHERNET_HEADER_BYTES - 2..ETHERNET_HEADER_BYTES) {
            Some(kind) if kind == ETHERTYPE.to_be_bytes() => Self::Channel,
            _ => Self::Guest,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Guest => "guest",
            Self::Channel => "channel",
        }
    }
}

impl std::str::FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|point| point.as_str() == text);
        found.ok_or_else(|| "the card's interfaces are `wire`, `guest` and `channel`".to_owned())
    }
}

/// Seen from the card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// To the card.
    In,
    /// From the card.
    Out,
}

/// What somebody wants to see.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// Where; everywhere if none is named.
    pub points: BTreeSet<Point>,
    /// How many bytes of each frame.
    pub snaplen: usize,
    /// After how many frames it is over; never, if there is none.
    pub count: Option<u64>,
    /// Which frames: a program as [`filter::compile`] gives it; all of them if there is none.
    pub filter: Option<Vec<Instruction>>,
}

impl Default for Request {
    fn default() -> Self {
        Self { points: BTreeSet::new(), snaplen: FRAME_BYTES_MAX, count: None, filter: None }
    }
}

/// Why there is no tap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaptureError {
    /// Too many watch.
    #[error("{TAPS_MAX} captures run already: end one")]
    Full,
    /// The filter makes no sense.
    #[error("the filter: {0}")]
    Filter(#[from] ProgramError),
}

/// One frame as it was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Where.
    pub point: Point,
    /// Which way it went.
    pub direction: Direction,
    /// When.
    pub time: SystemTime,
    /// How long it was, in bytes.
    pub frame_bytes: usize,
    /// Its beginning.
    pub data: Vec<u8>,
    /// What the card counted on its account.
    pub comment: Option<String>,
    /// How many frames before it were wanted and found no room.
    pub lost: u64,
}

/// Where what is seen comes out.
#[derive(Debug)]
pub struct Watch {
    receiver: mpsc::Receiver<Seen>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Watch {
    /// The next frame; `None` after the last.
    pub async fn next(&mut self) -> Option<Seen> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The same for a thread.
    pub fn blocking_next(&mut self) -> Option<Seen> {
        let seen = self.receiver.blocking_recv();
        self.taken(seen)
    }

    /// The same, to be polled.
    pub fn poll_next(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Seen>> {
        self.receiver.poll_recv(context).map(|seen| self.taken(seen))
    }

    fn taken(&self, seen: Option<Seen>) -> Option<Seen> {
        let bytes = seen.as_ref().map_or(0, |seen| seen.data.len());
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        seen
    }
}

/// Somebody who watches.
#[derive(Debug)]
struct Tap {
    points: BTreeSet<Point>,
    snaplen: usize,
    left: u64,
    filter: Option<Program>,
    sender: mpsc::Sender<Seen>,
    waiting_bytes: Arc<AtomicUsize>,
    lost: u64,
    current: Current,
}

/// The frame that is looked at, for one tap.
#[derive(Debug)]
enum Current {
    /// It does not want it.
    Unwanted,
    /// It wants it, and there is no room.
    Missed,
    Wanted(Seen),
}

impl Tap {
    fn begin(&mut self, point: Point, direction: Direction, frame: &[u8]) {
        self.current = Current::Unwanted;
        if !self.points.contains(&point) || self.filter.as_ref().is_some_and(|filter| !filter.wants(frame)) {
            return;
        }
        let data = &frame[..frame.len().min(self.snaplen)];
        if self.waiting_bytes.load(Ordering::Relaxed) + data.len() > QUEUE_BYTES || self.sender.capacity() == 0 {
            self.current = Current::Missed;
            return;
        }
        self.current = Current::Wanted(Seen {
            point,
            direction,
            time: SystemTime::now(),
            frame_bytes: frame.len(),
            data: data.to_vec(),
            comment: None,
            lost: self.lost,
        });
    }

    /// Whether the tap has seen enough.
    fn end(&mut self, counters: &mut Counters, comment: Option<&str>) -> bool {
        let mut seen = match std::mem::replace(&mut self.current, Current::Unwanted) {
            Current::Wanted(seen) => seen,
            Current::Missed => {
                self.lost += 1;
                counters.capture_lost += 1;
                return self.sender.is_closed();
            }
            Current::Unwanted => return self.sender.is_closed(),
        };
        seen.comment = comment.map(str::to_owned);
        let bytes = seen.data.len();
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        // There was room, and nobody else puts anything in: it fails only if nobody watches any more.
        if self.sender.try_send(seen).is_err() {
            return true;
        }
        counters.capture_frames += 1;
        self.lost = 0;
        self.left -= 1;
        self.left == 0
    }
}

/// All who watch.
#[derive(Default, Debug)]
pub struct Taps {
    list: Vec<Tap>,
    /// The firmware's counters before it got the frame that is looked at.
    before: Vec<u64>,
}

/// What is counted for every frame and says nothing of this one.
const ROUTINE: &[&str] = &[
    "wire-in",
    "wire-taken",
    "wire-passed",
    "guest-in",
    "guest-taken",
    "guest-passed",
    "channel-messages",
    "tcp-segments-in",
];

impl Taps {
    /// One more, that sees all from now on.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn add(&mut self, request: Request) -> Result<Watch, CaptureError> {
        let Request { mut points, snaplen, count, filter } = request;
        let filter = filter.map(Program::new).transpose()?;
        self.list.retain(|tap| !tap.sender.is_closed());
        if self.list.len() == TAPS_MAX {
            return Err(CaptureError::Full);
        }
        if points.is_empty() {
            points.extend(Point::ALL);
        }
        let (sender, receiver) = mpsc::channel(QUEUE_FRAMES);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let watch = Watch { receiver, waiting_bytes: waiting_bytes.clone() };
        let left = count.unwrap_or(u64::MAX);
        if left > 0 {
            self.list.push(Tap {
                points,
                snaplen,
                left,
                filter,
                sender,
                waiting_bytes,
                lost: 0,
                current: Current::Unwanted,
            });
        }
        Ok(watch)
    }

    /// Nobody sees anything any more.
    pub fn end_all(&mut self) {
        self.list.clear();
    }

    /// A frame is there.
    #[inline]
    pub fn begin(&mut self, point: Point, direction: Direction, frame: &[u8]) {
        for tap in &mut self.list {
            tap.begin(point, direction, frame);
        }
    }

    /// The firmware is about to get it.
    #[inline]
    pub fn before(&mut self, firmware: &Firmware) {
        self.before.clear();
        if self.list.iter().any(|tap| matches!(tap.current, Current::Wanted(_))) {
            self.before.extend(firmware.counters().map(|counter| counter.value));
        }
    }

    /// The frame was moved on, or dropped by the device for a reason.
    #[inline]
    pub fn end(&mut self, counters: &mut Counters, dropped: Option<&str>) {
        if !self.list.is_empty() {
            self.finish(counters, dropped.map(|reason| format!("dropped: {reason}")));
        }
    }

    /// The firmware has had the frame; perhaps the device dropped it then.
    #[inline]
    pub fn end_with(&mut self, firmware: &Firmware, counters: &mut Counters, dropped: Option<&str>) {
        if !self.list.is_empty() {
            let mut parts = self.moved(firmware);
            parts.extend(dropped.map(|reason| format!("dropped: {reason}")));
            self.finish(counters, (!parts.is_empty()).then(|| parts.join("; ")));
        }
    }

    /// Nothing became of it yet: it will be seen again.
    #[inline]
    pub fn forget(&mut self) {
        for tap in &mut self.list {
            tap.current = Current::Unwanted;
        }
    }

    fn finish(&mut self, counters: &mut Counters, comment: Option<String>) {
        self.list.retain_mut(|tap| !tap.end(counters, comment.as_deref()));
    }

    /// What the firmware counted since [`before`](Self::before), drops first.
    fn moved(&self, firmware: &Firmware) -> Vec<String> {
        let moved = firmware.counters().zip(&self.before).filter(|(counter, before)| counter.value != **before);
        let names: Vec<_> = moved.map(|(counter, _)| counter.name).filter(|name| !ROUTINE.contains(name)).collect();
        let (dropped, counted): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains("-drop-"));
        let part = |title, names: Vec<&str>| (!names.is_empty()).then(|| format!("{title}: {}", names.join(", ")));
        [part("dropped", dropped), part("counted", counted)].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u16, bytes: usize) -> Vec<u8> {
        let mut frame = vec![0; bytes];
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        frame
    }

    fn drain(watch: &mut Watch) -> Vec<Seen> {
        std::iter::from_fn(|| {
            let seen = watch.receiver.try_recv().ok();
            watch.taken(seen)
        })
        .collect()
    }

    #[test]
    fn a_tap_sees_what_it_wants_as_far_as_it_wants() {
        let mut taps = Taps::default();
        let points = BTreeSet::from([Point::Channel]);
        let mut some = taps.add(Request { points, snaplen: 20, ..Request::default() }).unwrap();
        let mut all = taps.add(Request::default()).unwrap();
        for kind in [0x0800, ETHERTYPE] {
            let frame = frame(kind, 60);
            taps.begin(Point::of_guest(&frame), Direction::In, &frame);
            taps.end(&mut Counters::default(), None);
        }
        let seen = drain(&mut some);
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].point, seen[0].frame_bytes, seen[0].data.len()), (Point::Channel, 60, 20));
        assert_eq!(drain(&mut all).iter().map(|seen| seen.point).collect::<Vec<_>>(), [Point::Guest, Point::Channel]);
    }

    #[test]
    fn what_waits_is_not_told_and_what_is_dropped_says_why() {
        let mut taps = Taps::default();
        let mut watch = taps.add(Request::default()).unwrap();
        let frame = frame(0x0800, 60);
        taps.begin(Point::Wire, Direction::Out, &frame);
        taps.forget();
        taps.end(&mut Counters::default(), None);
        assert_eq!(drain(&mut watch), []);
        taps.begin(Point::Wire, Direction::Out, &frame);
        taps.end(&mut Counters::default(), Some("wire-down"));
        assert_eq!(drain(&mut watch)[0].comment.as_deref(), Some("dropped: wire-down"));
    }

    #[test]
    fn a_count_ends_it_and_nobody_watching_ends_it_too() {
        let mut taps = Taps::default();
        let mut counted = taps.add(Request { count: Some(2), ..Request::default() }).unwrap();
        let watch = taps.add(Request::default()).unwrap();
        let frame = frame(0x0800, 60);
        for _ in 0..3 {
            taps.begin(Point::Wire, Direction::In, &frame);
            taps.end(&mut Counters::default(), None);
        }
        assert_eq!((drain(&mut counted).len(), taps.list.len()), (2, 1));
        assert_eq!(counted.blocking_next(), None, "it is over");
        drop(watch);
        taps.begin(Point::Wire, Direction::In, &frame);
        taps.end(&mut Counters::default(), None);
        assert!(taps.list.is_empty());
        let mut none = taps.add(Request { count: Some(0), ..Request::default() }).unwrap();
        assert_eq!(none.blocking_next(), None);
    }

    #[test]
    fn memory_is_bounded_and_what_is_missed_is_told() {
        for (bytes, room) in [(60, QUEUE_FRAMES), (65_000, QUEUE_BYTES / 65_000)] {
            let mut taps = Taps::default();
            let mut watch = taps.add(Request::default()).unwrap();
            let frame = frame(0x0800, bytes);
            let mut counters = Counters::default();
            let mut see = |n: usize| {
                for _ in 0..n {
                    taps.begin(Point::Wire, Direction::In, &frame);
                    taps.end(&mut counters, None);
                }
            };
            see(room + 5);
            let seen = drain(&mut watch);
            assert_eq!((seen.len(), seen.iter().map(|seen| seen.lost).sum::<u64>()), (room, 0));
            see(2);
            assert_eq!(drain(&mut watch).iter().map(|seen| seen.lost).collect::<Vec<_>>(), [5, 0]);
            assert_eq!((counters.capture_frames, counters.capture_lost), (room as u64 + 2, 5));
        }
    }

    #[test]
    fn only_so_many_may_watch() {
        let mut taps = Taps::default();
        let mut watches: Vec<_> = (0..TAPS_MAX).map(|_| taps.add(Request::default()).unwrap()).collect();
        assert_eq!(taps.add(Request::default()).unwrap_err(), CaptureError::Full);
        watches.pop();
        taps.add(Request::default()).unwrap();
    }
}

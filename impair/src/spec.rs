//! What a link does to frames, and its text form: `key=value` pairs with commas between them, or `none`.
//!
//! | key | value | range |
//! |---|---|---|
//! | `loss`, `duplicate`, `reorder`, `corrupt` | a share of the frames, `0.5%` | 0% to 100%, steps of 0.0001% |
//! | `burst`, `burst-end` | a share of the frames after which a stretch of loss begins, and ends | 0% to 100% |
//! | `burst-loss` | a share of the frames in such a stretch, only with `burst` | 0% to 100%; 100% if not said |
//! | `mark` | a share of the frames that allow it, marked with congestion experienced | 0% to 100% |
//! | `delay`, `jitter`, `exponential` | a time, `us`, `ms` or `s` | 0us to 60s |
//! | `mtu` | `B` or `kB` | 68B to 65535B |
//! | `rate` | `bit`, `kbit`, `mbit` or `gbit` per second | 1kbit to 1000gbit |
//! | `queue` | `B`, `kB` or `MB` (thousands), only with `rate` | 1B to 1000MB; 256kB if not said |

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A share of all frames, in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Share(u32);

impl Share {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(1_000_000);

    /// A share of `ppm` parts per million; all of them if that is more than a million.
    pub const fn from_ppm(ppm: u32) -> Self {
        if ppm > Self::ALL.0 { Self::ALL } else { Self(ppm) }
    }

    /// Parts per million.
    pub const fn as_ppm(self) -> u32 {
        self.0
    }
}

/// How fast a link sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Bits per second, frames counted from their Ethernet header to their last byte. Zero counts as one.
    pub bits_per_s: u64,
    /// Bytes that can wait to be sent; a frame beyond them is dropped.
    pub queue_bytes: u64,
}

/// Loss that comes in stretches: the model of Gilbert (1960) and Elliott (1963), two states with a step at each frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Burst {
    /// Frames of the good state after which the bad one begins.
    pub begin: Share,
    /// Frames of the bad state after which the good one is back.
    pub end: Share,
    /// Frames of the bad state that vanish.
    pub loss: Share,
}

/// What a link does to frames. The default is a perfect link: nothing, at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spec {
    /// Frames that vanish.
    pub loss: Share,
    /// Frames that come twice.
    pub duplicate: Share,
    /// Frames that are held back for longer than others, so that these overtake them.
    pub reorder: Share,
    /// Frames in which one bit is turned over.
    pub corrupt: Share,
    /// How long a frame travels, in microseconds.
    pub delay_us: u64,
    /// The most that a frame travels longer than that, in microseconds. Alone it never reorders.
    pub jitter_us: u64,
    /// The mean of a further delay that is exponentially distributed, in microseconds. Alone it never reorders.
    pub exponential_us: u64,
    /// Loss in stretches.
    pub burst: Option<Burst>,
    /// Frames marked with congestion experienced (RFC 3168), of those whose sender allows it.
    pub mark: Share,
    /// The longest packet that passes, in bytes, IP header included; `None`: any.
    pub mtu: Option<u32>,
    /// How fast the link sends; `None`: infinitely.
    pub rate: Option<Rate>,
}

/// A text that is no [`Spec`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpecError {
    /// A part without `=`.
    #[error("`{0}`: expected KEY=VALUE pairs with commas between them, as loss=1%,delay=10ms, or `none`")]
    Pair(String),
    /// A key that does not exist.
    #[error(
        "`{0}`: no such key; there are loss, duplicate, reorder, corrupt, delay, jitter, rate, queue, exponential, \
         burst, burst-end, burst-loss, mark, mtu"
    )]
    Key(String),
    /// A key that was given before.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// A value out of its key's range.
    #[error("`{key}` is `{value}`; allowed: {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: &'static str,
    },
    /// A queue without a rate never fills.
    #[error("`queue` needs `rate`: without a rate no frame ever waits")]
    QueueWithoutRate,
    /// The end of what never begins.
    #[error("`{0}` needs `burst`: no stretch of loss ever begins")]
    WithoutBurst(&'static str),
    /// The beginning of what never ends.
    #[error("`burst` needs `burst-end`: the first stretch of loss would never end")]
    BurstWithoutEnd,
}

/// A unit's name and how many of the smallest unit it is.
type Unit = (&'static str, u64);

/// One key: its name, its units with the longest suffix first, its range in the smallest unit, and that in words.
struct Key {
    name: &'static str,
    units: &'static [Unit],
    min: u64,
    max: u64,
    allowed: &'static str,
}

const SHARE: &[Unit] = &[("%", 10_000)];
const TIME: &[Unit] = &[("us", 1), ("ms", 1_000), ("s", 1_000_000)];
const BITS: &[Unit] = &[("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("bit", 1)];
const BYTES: &[Unit] = &[("kB", 1_000), ("MB", 1_000_000), ("B", 1)];
const SHARE_ALLOWED: &str = "0% to 100% in steps of 0.0001%";
const TIME_ALLOWED: &str = "0us to 60s in steps of 1us";
const QUEUE_BYTES_DEFAULT: u64 = 256_000;

const KEYS: [Key; 14] = [
    Key { name: "loss", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "duplicate", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "reorder", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "corrupt", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "delay", units: TIME, min: 0, max: 60_000_000, allowed: TIME_ALLOWED },
    Key { name: "jitter", units: TIME, min: 0, max: 60_000_000, allowed: TIME_ALLOWED },
    Key { name: "rate", units: BITS, min: 1_000, max: 1_000_000_000_000, allowed: "1kbit to 1000gbit" },
    Key { name: "queue", units: BYTES, min: 1, max: 1_000_000_000, allowed: "1B to 1000MB" },
    Key { name: "exponential", units: TIME, min: 0, max: 60_000_000, allowed: TIME_ALLOWED },
    Key { name: "burst", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "burst-end", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "burst-loss", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "mark", units: SHARE, min: 0, max: 1_000_000, allowed: SHARE_ALLOWED },
    Key { name: "mtu", units: BYTES, min: 68, max: 65_535, allowed: "68B to 65535B" },
];

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut values = [None; KEYS.len()];
        for part in text.split(',').filter(|_| text != "none") {
            let (name, value) = part.split_once('=').ok_or_else(|| SpecError::Pair(part.to_owned()))?;
            let i = KEYS.iter().position(|k| k.name == name).ok_or_else(|| SpecError::Key(name.to_owned()))?;
            let Key { name: key, units, min, max, allowed } = KEYS[i];
            let number = quantity(value, units).filter(|n| (min..=max).contains(n));
            let number = number.ok_or_else(|| SpecError::Value { key, value: value.to_owned(), allowed })?;
            if values[i].replace(number).is_some() {
                return Err(SpecError::Twice(key));
            }
        }
        let [loss, duplicate, reorder, corrupt, delay, jitter, rate, queue, rest @ ..] = values;
        let [exponential, burst, burst_end, burst_loss, mark, mtu] = rest;
        if rate.is_none() && queue.is_some() {
            return Err(SpecError::QueueWithoutRate);
        }
        for (key, value) in [("burst-end", burst_end), ("burst-loss", burst_loss)] {
            if burst.is_none() && value.is_some() {
                return Err(SpecError::WithoutBurst(key));
            }
        }
        if burst.is_some() && burst_end.is_none_or(|n| n == 0) {
            return Err(SpecError::BurstWithoutEnd);
        }
        let share = |n: Option<u64>| Share::from_ppm(n.unwrap_or(0) as u32);
        Ok(Self {
            loss: share(loss),
            duplicate: share(duplicate),
            reorder: share(reorder),
            corrupt: share(corrupt),
            delay_us: delay.unwrap_or(0),
            jitter_us: jitter.unwrap_or(0),
            exponential_us: exponential.unwrap_or(0),
            burst: burst.map(|begin| Burst {
                begin: share(Some(begin)),
                end: share(burst_end),
                loss: burst_loss.map_or(Share::ALL, |n| share(Some(n))),
            }),
            mark: share(mark),
            mtu: mtu.map(|n| n as u32),
            rate: rate.map(|bits_per_s| Rate { bits_per_s, queue_bytes: queue.unwrap_or(QUEUE_BYTES_DEFAULT) }),
        })
    }
}

/// `1.5ms` in the smallest unit, 1500; `None` if it is not a whole number of them.
fn quantity(text: &str, units: &[Unit]) -> Option<u64> {
    let (number, scale) = units.iter().find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u64>().ok());
    let (whole, part) = (digits(whole)??, digits(fraction)??);
    let divisor = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = part.checked_mul(scale)?;
    if part % divisor != 0 {
        return None;
    }
    whole.checked_mul(scale)?.checked_add(part / divisor)
}

/// Writes `value` in the largest unit of which it is a whole number.
fn whole_units(value: u64, units: &[Unit]) -> String {
    let fitting = units.iter().filter(|(_, scale)| value.is_multiple_of(*scale));
    let (unit, scale) = fitting.max_by_key(|(_, scale)| *scale).unwrap_or(&units[0]);
    format!("{}{unit}", value / scale)
}

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 10_000, self.0 % 10_000);
        if part == 0 {
            return write!(f, "{whole}%");
        }
        write!(f, "{whole}.{}%", format!("{part:04}").trim_end_matches('0'))
    }
}

impl Display for Spec {
    /// The text that gives this again; what a perfect link does not do is left out.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { loss, duplicate, reorder, corrupt, delay_us, jitter_us, exponential_us, burst, mark, mtu, rate } =
            *self;
        let mut parts = Vec::new();
        for (key, share) in [("loss", loss), ("duplicate", duplicate), ("reorder", reorder), ("corrupt", corrupt)] {
            if share != Share::NONE {
                parts.push(format!("{key}={share}"));
            }
        }
        for (key, us) in [("delay", delay_us), ("jitter", jitter_us)] {
            if us != 0 {
                parts.push(format!("{key}={}", whole_units(us, TIME)));
            }
        }
        if let Some(Rate { bits_per_s, queue_bytes }) = rate {
            parts.push(format!("rate={}", whole_units(bits_per_s, BITS)));
            parts.push(format!("queue={}", whole_units(queue_bytes, BYTES)));
        }
        if exponential_us != 0 {
            parts.push(format!("exponential={}", whole_units(exponential_us, TIME)));
        }
        if let Some(Burst { begin, end, loss }) = burst {
            parts.push(format!("burst={begin},burst-end={end},burst-loss={loss}"));
        }
        if mark != Share::NONE {
            parts.push(format!("mark={mark}"));
        }
        if let Some(mtu) = mtu {
            parts.push(format!("mtu={}", whole_units(mtu.into(), BYTES)));
        }
        if parts.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_says_everything() {
        let text = "loss=1%,duplicate=0.5%,reorder=2%,corrupt=0.1%,delay=10ms,jitter=1ms,rate=100mbit,queue=256kB,\
                    exponential=2ms,burst=0.1%,burst-end=25%,burst-loss=90%,mark=3%,mtu=1400B";
        let spec: Spec = text.parse().unwrap();
        assert_eq!(
            spec,
            Spec {
                loss: Share::from_ppm(10_000),
                duplicate: Share::from_ppm(5_000),
                reorder: Share::from_ppm(20_000),
                corrupt: Share::from_ppm(1_000),
                delay_us: 10_000,
                jitter_us: 1_000,
                exponential_us: 2_000,
                burst: Some(Burst {
                    begin: Share::from_ppm(1_000),
                    end: Share::from_ppm(250_000),
                    loss: Share::from_ppm(900_000),
                }),
                mark: Share::from_ppm(30_000),
                mtu: Some(1_400),
                rate: Some(Rate { bits_per_s: 100_000_000, queue_bytes: 256_000 }),
            }
        );
        assert_eq!(spec.to_string(), text);
        assert_eq!("none".parse::<Spec>().unwrap(), Spec::default());
        assert_eq!("delay=1.5ms".parse::<Spec>().unwrap().delay_us, 1_500);
        assert_eq!("rate=1gbit".parse::<Spec>().unwrap().rate.unwrap().queue_bytes, 256_000);
    }

    #[test]
    fn an_error_names_the_key_and_what_it_may_be() {
        for (text, error) in [
            ("loss=101%", "`loss` is `101%`; allowed: 0% to 100% in steps of 0.0001%"),
            ("loss=1", "`loss` is `1`; allowed: 0% to 100% in steps of 0.0001%"),
            ("loss=0.00001%", "`loss` is `0.00001%`; allowed: 0% to 100% in steps of 0.0001%"),
            ("delay=61s", "`delay` is `61s`; allowed: 0us to 60s in steps of 1us"),
            ("delay=-1ms", "`delay` is `-1ms`; allowed: 0us to 60s in steps of 1us"),
            (
                "jitter=99999999999999999999s",
                "`jitter` is `99999999999999999999s`; allowed: 0us to 60s in steps of 1us",
            ),
            ("rate=0bit", "`rate` is `0bit`; allowed: 1kbit to 1000gbit"),
            ("rate=1mbit,queue=.5kB", "`queue` is `.5kB`; allowed: 1B to 1000MB"),
            ("queue=1kB", "`queue` needs `rate`: without a rate no frame ever waits"),
            ("loss=1%,loss=2%", "`loss` is given twice"),
            (
                "lose=1%",
                "`lose`: no such key; there are loss, duplicate, reorder, corrupt, delay, jitter, rate, queue, \
                 exponential, burst, burst-end, burst-loss, mark, mtu",
            ),
            ("burst-end=5%", "`burst-end` needs `burst`: no stretch of loss ever begins"),
            ("burst=5%", "`burst` needs `burst-end`: the first stretch of loss would never end"),
            ("mtu=67B", "`mtu` is `67B`; allowed: 68B to 65535B"),
            ("", "``: expected KEY=VALUE pairs with commas between them, as loss=1%,delay=10ms, or `none`"),
        ] {
            assert_eq!(text.parse::<Spec>().unwrap_err().to_string(), error);
        }
    }

    prop_compose! {
        fn spec()(shares in any::<[u32; 4]>(), times in proptest::array::uniform3(0..=60_000_000u64),
                  burst in proptest::option::of((0..=1_000_000u32, 1..=1_000_000u32, 0..=1_000_000u32)),
                  mark in 0..=1_000_000u32, mtu in proptest::option::of(68..=65_535u32),
                  rate in proptest::option::of((1_000..=1_000_000_000_000u64, 1..=1_000_000_000u64))) -> Spec {
            let [loss, duplicate, reorder, corrupt] = shares.map(|s| Share::from_ppm(s % 1_000_001));
            let rate = rate.map(|(bits_per_s, queue_bytes)| Rate { bits_per_s, queue_bytes });
            let [delay_us, jitter_us, exponential_us] = times;
            let ppm = Share::from_ppm;
            let burst = burst.map(|(begin, end, loss)| Burst { begin: ppm(begin), end: ppm(end), loss: ppm(loss) });
            let mark = ppm(mark);
            Spec {
                loss, duplicate, reorder, corrupt, delay_us, jitter_us, exponential_us, burst, mark, mtu, rate,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(spec in spec()) {
            prop_assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
        }

        #[test]
        fn any_text_is_a_spec_or_an_error_of_one_line(text in "[a-z%=,.0-9]{0,40}") {
            if let Err(error) = text.parse::<Spec>() {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}

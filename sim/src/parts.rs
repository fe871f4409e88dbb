//! What scenarios are put together from: stations, addresses, bad links and bad channels, drawn so that extremes come
//! often.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use toe_abi::Mac;
use toe_firmware::{CongestionControl, EcnPolicy, Limits, Profile, Tcp};
use toe_impair::{Random, Rate, Share, Spec};

use crate::card::Channel;

/// The stations of end 0 and 1.
pub const MACS: [Mac; 2] = [Mac([0x02, 0, 0, 0, 0, 0x0a]), Mac([0x02, 0, 0, 0, 0, 0x0b])];
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The address of end 0 or 1.
    pub fn address(self, end: usize) -> IpAddr {
        let text = match (self, end) {
            (Self::V4, 0) => "192.0.2.1",
            (Self::V4, _) => "192.0.2.2",
            (Self::V6, 0) => "2001:db8::1",
            (Self::V6, _) => "2001:db8::2",
        };
        text.parse().expect("an address")
    }

    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// A share of up to 5 %, often none.
fn share(random: &mut Random) -> Share {
    if random.one_in(3) { Share::NONE } else { Share::from_ppm(random.between(1, 50_000) as u32) }
}

/// A bad link.
pub fn bad_link(random: &mut Random) -> Spec {
    let [loss, duplicate, reorder, corrupt] = [(); 4].map(|()| share(random));
    let delay_us = [10, 100, 1_000, 10_000, 50_000][random.below(5) as usize];
    let rate = random.one_in(3).then(|| Rate {
        bits_per_s: random.between(1_000_000, 100_000_000),
        queue_bytes: random.between(20_000, 256_000),
    });
    Spec {
        loss,
        duplicate,
        reorder,
        corrupt,
        delay_us,
        jitter_us: random.between(0, delay_us),
        rate,
        ..Spec::default()
    }
}

/// A bad channel: it loses, repeats and reorders frames, but memory does not damage them.
pub fn bad_channel(random: &mut Random) -> Channel {
    let mut one = || {
        let [loss, duplicate, reorder] = [(); 3].map(|()| share(random));
        let delay_us = random.between(1, 2_000);
        Spec { loss, duplicate, reorder, delay_us, jitter_us: delay_us, ..Spec::default() }
    };
    let (to_guest, to_card) = (one(), one());
    Channel { to_guest, to_card, guest_buffers: random.between(1, 64) }
}

/// Every congestion control.
pub const CONTROLS: [CongestionControl; 4] =
    [CongestionControl::NewReno, CongestionControl::Cubic, CongestionControl::Dctcp, CongestionControl::Bbr];

/// A small card, so that its limits are met, and quick to boot: pages, lists, processor and TCP are drawn, all else is as in
/// `limits`. `records_log2`: how many transmit records it may have.
pub fn drawn_profile(random: &mut Random, limits: Limits, records_log2: RangeInclusive<u64>) -> Profile {
    let limits = Limits {
        page_bytes: 1024 << random.below(3),
        transmit_records: 1 << random.between(*records_log2.start(), *records_log2.end()),
        out_of_order_ranges: 1 << random.below(6),
        replies: 256,
        receive_fifo_frames: 64,
        // From a processor that is nearly always busy to one that never is.
        work_units_per_us: [0, 0, 1, 20][random.below(4) as usize],
        wire_fifo_frames: 4 << random.below(6),
        ..limits
    };
    let tcp = Tcp {
        congestion: CONTROLS[random.below(4) as usize],
        ecn: if random.one_in(2) { EcnPolicy::On } else { EcnPolicy::WhenAsked },
        delayed_ack_ms: [0, 1, 40, 400][random.below(4) as usize],
        ..Tcp::default()
    };
    Profile { limits, tcp, ..Profile::default() }
}

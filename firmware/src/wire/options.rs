//! TCP options (RFC 9293, 3.1 and 3.2; 7323; 2018).

use crate::seq::Seq;
use crate::work::Steps;

/// Bytes of options that a TCP header can hold.
pub const OPTION_BYTES_MAX: usize = 40;

/// SACK blocks that fit beside no other option; with timestamps, three do.
pub const SACK_BLOCKS_MAX: usize = 4;

/// A timestamps option (RFC 7323, 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamps {
    /// TSval.
    pub value: u32,
    /// TSecr.
    pub echo: u32,
}

/// SACK blocks, in the order of the option.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); SACK_BLOCKS_MAX],
    count: u8,
}

impl SackBlocks {
    /// Appends a block; what is beyond [`SACK_BLOCKS_MAX`] is left out.
    pub fn push(&mut self, left: Seq, right: Seq) {
        if let Some(slot) = self.blocks.get_mut(usize::from(self.count)) {
            *slot = (left, right);
            self.count += 1;
        }
    }

    /// Leaves only the first `count` blocks.
    pub fn truncate(&mut self, count: usize) {
        self.count = usize::from(self.count).min(count) as u8;
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..usize::from(self.count)]
    }
}

/// Bytes of the longest Fast Open cookie (RFC 7413, 4.1.1).
pub const COOKIE_BYTES_MAX: usize = 16;

/// A Fast Open cookie; empty, it asks for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cookie {
    bytes: [u8; COOKIE_BYTES_MAX],
    length: u8,
}

impl Cookie {
    /// The empty one.
    pub const REQUEST: Self = Self { bytes: [0; COOKIE_BYTES_MAX], length: 0 };

    /// A cookie of these bytes; `None` if there cannot be one of that length.
    pub fn new(b: &[u8]) -> Option<Self> {
        if !(b.is_empty() || (4..=COOKIE_BYTES_MAX).contains(&b.len()) && b.len().is_multiple_of(2)) {
            return None;
        }
        let mut bytes = [0; COOKIE_BYTES_MAX];
        bytes[..b.len()].copy_from_slice(b);
        Some(Self { bytes, length: b.len() as u8 })
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Whether it asks for one.
    pub fn is_request(&self) -> bool {
        self.length == 0
    }
}

/// The options that the card knows; of one that occurs twice, the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale, as it was sent.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// User timeout as it stands in the option (RFC 5482, 3.3): granularity bit and number.
    pub user_timeout: Option<u16>,
    /// Fast Open (RFC 7413); means something only beside a SYN.
    pub fast_open: Option<Cookie>,
    /// Selective acknowledgements.
    pub sack: SackBlocks,
}

impl Options {
    /// Reads the bytes between the fixed header and the text; and whether all lengths in them are legal.
    ///
    /// Unknown options are skipped by their length; at an illegal length reading stops, and what was read before counts.
    //= docs/specs/rfc9293.txt#section-3.1
    //# the following options MUST be supported (MUST-4
    //= docs/specs/rfc9293.txt#section-3.1
    //# A TCP implementation MUST be able to receive a TCP Option in any segment (MUST-5).
    //= docs/specs/rfc9293.txt#section-3.2
    //# There is no guarantee that senders will use this option, so receivers MUST be prepared to process options
    //# even if they do not begin on a word boundary (MUST-64).
    #[inline(always)]
    pub fn parse(b: &[u8], steps: &Steps) -> (Self, bool) {
        // What nearly every segment has, and nothing else (RFC 7323, appendix A): two options, and as many steps.
        if let &[1, 1, 8, 10, v0, v1, v2, v3, e0, e1, e2, e3] = b {
            steps.add(2);
            let (value, echo) = (u32::from_be_bytes([v0, v1, v2, v3]), u32::from_be_bytes([e0, e1, e2, e3]));
            return (Self { timestamps: Some(Timestamps { value, echo }), ..Self::default() }, true);
        }
        Self::parse_each(b, steps)
    }

    fn parse_each(mut b: &[u8], steps: &Steps) -> (Self, bool) {
        let mut options = Self::default();
        while let Some(&kind) = b.first() {
            steps.one();
            match kind {
                0 => break,
                1 => {
                    // A run of them is one step.
                    b = &b[b.iter().position(|kind| *kind != 1).unwrap_or(b.len())..];
                    continue;
                }
                _ => {}
            }
            let length = b.get(1).map_or(0, |length| usize::from(*length));
            //= docs/specs/rfc9293.txt#section-3.1
            //# TCP implementations MUST be prepared to handle an illegal option length (e.g., zero); a suggested
            //# procedure is to reset the connection and log the error cause (MUST-7).
            if length < 2 || length > b.len() {
                return (options, false);
            }
            let (option, rest) = b.split_at(length);
            let body = &option[2..];
            match (kind, body.len()) {
                (2, 2) => options.mss = Some(u16::from_be_bytes([body[0], body[1]])),
                (3, 1) => options.window_scale = Some(body[0]),
                (4, 0) => options.sack_permitted = true,
                (5, 8 | 16 | 24 | 32) => {
                    options.sack = SackBlocks::default();
                    for block in body.chunks_exact(8) {
                        steps.one();
                        options.sack.push(Seq(be32(block, 0)), Seq(be32(block, 4)));
                    }
                }
                (28, 2) => options.user_timeout = Some(u16::from_be_bytes([body[0], body[1]])),
                (34, _) => options.fast_open = Cookie::new(body).or(options.fast_open),
                (8, 8) => options.timestamps = Some(Timestamps { value: be32(body, 0), echo: be32(body, 4) }),
                //= docs/specs/rfc9293.txt#section-3.1
                //# A TCP implementation MUST (MUST-6) ignore without error any TCP Option it does not implement,
                //# assuming that the option has a length field.
                _ => {}
            }
            b = rest;
        }
        (options, true)
    }

    /// Writes them, padded to four bytes; gives their length. SACK blocks fill the room that is left.
    ///
    /// The order is that of Linux, whose habits middleboxes expect.
    //= docs/specs/rfc9293.txt#section-3.1
    //# All TCP Options except End of Option List Option (EOL) and No-Operation (NOP) MUST have length fields,
    //# including all future options (MUST-68).
    //= docs/specs/rfc9293.txt#section-3.1
    //# The content of the header beyond the End of Option List Option MUST be header padding of zeros (MUST-69).
    pub fn write(&self, b: &mut [u8; OPTION_BYTES_MAX]) -> usize {
        let mut w = OptionWriter { b, at: 0 };
        if let Some(mss) = self.mss {
            w.put(&[2, 4]);
            w.put(&mss.to_be_bytes());
        }
        if self.sack_permitted {
            // With timestamps the two bytes take the place of their padding.
            w.put(if self.timestamps.is_some() { &[4, 2] } else { &[1, 1, 4, 2] });
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            w.put(if self.sack_permitted { &[8, 10] } else { &[1, 1, 8, 10] });
            w.put(&value.to_be_bytes());
            w.put(&echo.to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            w.put(&[1, 3, 3, scale]);
        }
        if let Some(cookie) = &self.fast_open {
            let cookie = cookie.as_slice();
            if w.at + (2 + cookie.len()).next_multiple_of(4) <= OPTION_BYTES_MAX {
                if cookie.len().is_multiple_of(4) {
                    w.put(&[1, 1]);
                }
                w.put(&[34, 2 + cookie.len() as u8]);
                w.put(cookie);
            }
        }
        if let Some(user_timeout) = self.user_timeout
            && w.at + 4 <= OPTION_BYTES_MAX
        {
            w.put(&[28, 4]);
            w.put(&user_timeout.to_be_bytes());
        }
        let room = (OPTION_BYTES_MAX - w.at).saturating_sub(4) / 8;
        let blocks = &self.sack.as_slice()[..room.min(self.sack.as_slice().len())];
        if !blocks.is_empty() {
            w.put(&[1, 1, 5, 2 + 8 * blocks.len() as u8]);
            for (left, right) in blocks {
                w.put(&left.0.to_be_bytes());
                w.put(&right.0.to_be_bytes());
            }
        }
        w.at
    }
}

struct OptionWriter<'a> {
    b: &'a mut [u8; OPTION_BYTES_MAX],
    at: usize,
}

impl OptionWriter<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.b[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(b: &[u8]) -> Options {
        Options::parse(b, &Steps::default()).0
    }

    fn written(options: &Options) -> Vec<u8> {
        let mut b = [0xee; OPTION_BYTES_MAX];
        let n = options.write(&mut b);
        b[..n].to_vec()
    }

    #[test]
    fn a_syns_options_take_twenty_bytes() {
        let options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 1, echo: 2 }),
            ..Options::default()
        };
        let b = written(&options);
        assert_eq!(b.len(), 20);
        assert_eq!(read(&b), options);
    }

    #[test]
    fn beside_timestamps_three_blocks_fit() {
        let mut options = Options { timestamps: Some(Timestamps { value: 9, echo: 8 }), ..Options::default() };
        for i in 0..5 {
            options.sack.push(Seq(i * 10), Seq(i * 10 + 5));
        }
        assert_eq!(options.sack.as_slice().len(), 4);
        let b = written(&options);
        assert_eq!(b.len(), 40);
        assert_eq!(read(&b).sack.as_slice(), &options.sack.as_slice()[..3]);
    }

    //= docs/specs/rfc9293.txt#section-3.1
    //= type=test
    //# the following options MUST be supported (MUST-4
    //= docs/specs/rfc9293.txt#section-3.1
    //= type=test
    //# A TCP implementation MUST (MUST-6) ignore without error any TCP Option it does not implement, assuming that
    //# the option has a length field.
    //= docs/specs/rfc9293.txt#section-3.1
    //= type=test
    //# TCP implementations MUST be prepared to handle an illegal option length (e.g., zero); a suggested procedure
    //# is to reset the connection and log the error cause (MUST-7).
    //= docs/specs/rfc9293.txt#section-3.2
    //= type=test
    //# There is no guarantee that senders will use this option, so receivers MUST be prepared to process options
    //# even if they do not begin on a word boundary (MUST-64).
    #[test]
    fn the_longest_cookie_fits_into_a_full_syn() {
        let options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 1, echo: 2 }),
            fast_open: Cookie::new(&[9; 16]),
            ..Options::default()
        };
        let b = written(&options);
        assert_eq!((b.len(), read(&b)), (40, options));
        for length in 0..20 {
            let legal = [0, 4, 6, 8, 10, 12, 14, 16].contains(&length);
            assert_eq!(Cookie::new(&[1; 20][..length]).is_some(), legal, "{length}");
            let option = [&[34, 2 + length as u8][..], &[1; 20][..length]].concat();
            assert_eq!(read(&option).fast_open.is_some(), legal, "{length}");
        }
    }

    #[test]
    fn unknown_options_are_skipped_and_illegal_lengths_end_the_list() {
        let mss = [2, 4, 5, 0xb4];
        assert_eq!(read(&[&[253, 3, 7][..], &mss].concat()).mss, Some(1460));
        assert_eq!(read(&[&[1, 1, 1][..], &mss].concat()).mss, Some(1460));
        for bad in [&[253u8, 0][..], &[253, 1], &[253, 200], &[253]] {
            let options = read(&[&mss[..], bad, &[4, 2]].concat());
            assert_eq!(options.mss, Some(1460), "what stood before counts");
            assert!(!options.sack_permitted || bad == [253], "{bad:?}");
        }
        assert_eq!(read(&[0, 2, 4, 5, 0xb4]).mss, None, "nothing counts after the end of the list");
        assert_eq!(read(&[2, 3, 5]).mss, None, "a known option of a wrong length is skipped");
    }

    proptest! {
        #[test]
        fn any_options_are_read_and_come_back(b in proptest::collection::vec(any::<u8>(), 0..=40)) {
            let options = read(&b);
            let mut room = 40i32;
            room -= if options.mss.is_some() { 4 } else { 0 };
            room -= if options.timestamps.is_some() { 12 } else if options.sack_permitted { 4 } else { 0 };
            room -= if options.window_scale.is_some() { 4 } else { 0 };
            let mut fitting = |bytes: i32| {
                let fits = room >= bytes;
                room -= if fits { bytes } else { 0 };
                fits
            };
            let fast_open = options.fast_open.filter(|c| fitting((c.as_slice().len() as i32 + 5) / 4 * 4));
            let user_timeout = options.user_timeout.filter(|_| fitting(4));
            let blocks = options.sack.as_slice();
            let fit = ((room - 4).max(0) as usize / 8).min(blocks.len());
            let again = read(&written(&options));
            prop_assert_eq!(again.sack.as_slice(), &blocks[..fit]);
            prop_assert_eq!(Options { sack: SackBlocks::default(), ..again },
                Options { sack: SackBlocks::default(), fast_open, user_timeout, ..options });
        }
    }
}

//! The kinds of splits that are known, and what the RFCs say of them.

use super::{Alone, Split};

/// A kind of split.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Who stands alone in it.
    pub alone: Alone,
    /// Whether a kind is of this one.
    pub fits: fn(&str) -> bool,
    /// What happens.
    pub what: &'static str,
    /// Who does what.
    pub who: &'static str,
    /// What decides.
    pub rule: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[];

/// The place in [`KNOWN`] of a split's kind.
pub fn find(split: &Split) -> Option<usize> {
    KNOWN.iter().position(|known| known.alone == split.alone && (known.fits)(&split.kind))
}

//! The bytes of one direction of a connection that are kept here: in memory of our own, or in a ring that the card reaches.
//!
//! Bytes have the offsets of their stream in both, so that a buffer can move into a ring while the stream flows.

use std::collections::VecDeque;

use crate::transport::RingPlace;

/// See the module.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// The offset of the first byte.
    start: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Own(VecDeque<u8>),
    Ring { ring: RingPlace, bytes: usize },
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self { start: 0, place: Place::Own(VecDeque::new()) }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.place {
            Place::Own(own) => own.len(),
            Place::Ring { bytes, .. } => *bytes,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len() as u64
    }

    pub(crate) fn is_ring(&self) -> bool {
        matches!(self.place, Place::Ring { .. })
    }

    /// What it has goes into a ring, and so does all that follows. What the card is to be told.
    pub(crate) fn move_into(&mut self, ring: RingPlace) -> u64 {
        let value = ring.value();
        if let Place::Own(own) = &mut self.place {
            let bytes = own.len();
            ring.write(self.start, own.make_contiguous());
            self.place = Place::Ring { ring, bytes };
        }
        value
    }

    /// The ring, which the card uses no more.
    pub(crate) fn give_ring_back(&mut self) {
        if let Place::Ring { ring, .. } = std::mem::replace(&mut self.place, Place::Own(VecDeque::new())) {
            ring.give_back();
        }
    }

    pub(crate) fn extend(&mut self, more: &[u8]) {
        let end = self.end();
        match &mut self.place {
            Place::Own(own) => own.extend(more),
            Place::Ring { ring, bytes } => {
                ring.write(end, more);
                *bytes += more.len();
            }
        }
    }

    /// The card has put so many bytes behind the last one.
    pub(crate) fn found(&mut self, more: usize) {
        match &mut self.place {
            Place::Own(_) => debug_assert!(false, "the card reaches rings alone"),
            Place::Ring { bytes, .. } => *bytes += more,
        }
    }

    /// Forgets the first bytes.
    pub(crate) fn drop_front(&mut self, n: usize) {
        let n = n.min(self.len());
        self.start += n as u64;
        match &mut self.place {
            Place::Own(own) => drop(own.drain(..n)),
            Place::Ring { bytes, .. } => *bytes -= n,
        }
    }

    /// Forgets all bytes.
    pub(crate) fn clear(&mut self) {
        self.drop_front(self.len());
        if let Place::Own(own) = &mut self.place {
            *own = VecDeque::new();
        }
    }

    /// Copies bytes from the `from`th on; they are there.
    pub(crate) fn copy_out(&self, from: usize, to: &mut [u8]) {
        match &self.place {
            Place::Own(own) => copy_out(own, from, to),
            Place::Ring { ring, .. } => ring.read(self.start + from as u64, to),
        }
    }
}

/// Copies bytes from position `from` on; they are there.
fn copy_out(bytes: &VecDeque<u8>, from: usize, to: &mut [u8]) {
    let (a, b) = bytes.as_slices();
    let n = a.len().saturating_sub(from).min(to.len());
    if n > 0 {
        to[..n].copy_from_slice(&a[from..from + n]);
    }
    let rest = to.len() - n;
    if rest > 0 {
        let from = from.saturating_sub(a.len());
        to[n..].copy_from_slice(&b[from..from + rest]);
    }
}

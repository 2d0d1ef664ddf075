//! A bounded buffer of object addresses: what a trace, or the write barrier, hands to the marker.

use crate::sys::MODELLED;
use crate::sys::fatal::fatal;

/// Addresses waiting to be shaded. Never grows: whoever fills it drains it first.
#[derive(Debug)]
pub(crate) struct PtrBuf {
    items: Box<[usize; Self::CAPACITY]>,
    len: usize,
}

impl PtrBuf {
    /// How many addresses fit; small under test tools so that overflow is exercised.
    pub(crate) const CAPACITY: usize = if MODELLED || cfg!(miri) { 8 } else { 512 };

    pub(crate) fn new() -> Self {
        Self {
            items: Box::new([0; Self::CAPACITY]),
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.len == Self::CAPACITY
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `address`; the caller has made sure that there is room.
    #[inline]
    pub(crate) fn push(&mut self, address: usize) {
        match self.items.get_mut(self.len) {
            Some(place) => *place = address,
            None => fatal("pointer buffer overfilled"),
        }
        self.len += 1;
    }

    /// The addresses, oldest first.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.items[..self.len]
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

//! A bounded buffer of object addresses, by which a trace or the write barrier passes them to the
//! marker.

use crate::sys::MODELLED;
use crate::sys::fatal::fatal;

/// Addresses that wait to be shaded. The buffer never grows: its user drains it when it is full.
#[derive(Debug)]
pub(crate) struct PtrBuf {
    items: Box<[usize; Self::CAPACITY]>,
    len: usize,
}

impl PtrBuf {
    /// How many addresses fit. The number is small under test tools, so that they reach the full
    /// buffer.
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

    /// Appends `address`. The caller has checked that there is room.
    #[inline]
    pub(crate) fn push(&mut self, address: usize) {
        match self.items.get_mut(self.len) {
            Some(place) => *place = address,
            None => fatal("pointer buffer overfilled"),
        }
        self.len += 1;
    }

    /// Returns the addresses, oldest first.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.items[..self.len]
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

//! How many workers mark on processors that have nothing else to do, and how many may.
//!
//! Both numbers in one word, so that whoever shares it can change it with a single compare-and-exchange of
//! [`IdleWorkers::bits`].

#![cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "for a host whose workers run on the program's own processors"
    )
)]

/// A count and its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdleWorkers {
    /// The count in the lower half, the bound in the upper.
    bits: u64,
}

impl IdleWorkers {
    /// No worker, and none allowed beyond `most`.
    pub(crate) fn new(most: u32) -> Self {
        Self::default().with_most(most)
    }

    /// The word that [`Self::bits`] gave.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    /// Both numbers as a word.
    pub(crate) fn bits(self) -> u64 {
        self.bits
    }

    /// Workers that mark now.
    pub(crate) fn count(self) -> u32 {
        self.bits as u32
    }

    /// Workers that may.
    pub(crate) fn most(self) -> u32 {
        (self.bits >> 32) as u32
    }

    /// Whether one more may mark.
    pub(crate) fn has_room(self) -> bool {
        self.count() < self.most()
    }

    /// With one more, if it may mark.
    pub(crate) fn add(self) -> Option<Self> {
        self.has_room().then(|| Self {
            bits: self.bits + 1,
        })
    }

    /// With one less; `None` if there is none.
    pub(crate) fn remove(self) -> Option<Self> {
        (self.count() > 0).then(|| Self {
            bits: self.bits - 1,
        })
    }

    /// With another bound. Workers above it stay until they leave by themselves.
    pub(crate) fn with_most(self, most: u32) -> Self {
        Self {
            bits: u64::from(most) << 32 | u64::from(self.count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn add(w: &mut IdleWorkers) {
        assert!(w.has_room());
        *w = w.add().unwrap();
    }

    #[track_caller]
    fn is_full(w: IdleWorkers) {
        assert!(!w.has_room());
        assert_eq!(w.add(), None);
    }

    /// After Go's script (`TestIdleMarkWorkerCount`).
    #[test]
    fn the_script() {
        const MOST: u32 = 10;
        let mut w = IdleWorkers::new(MOST);
        (0..MOST).for_each(|_| add(&mut w));
        is_full(w);
        for _ in 0..MOST {
            w = w.remove().unwrap();
            assert!(w.has_room());
        }
        assert_eq!(w.remove(), None);
        (0..MOST - 1).for_each(|_| add(&mut w));
        for _ in 0..10 {
            add(&mut w);
            is_full(w);
            w = w.remove().unwrap();
        }
        // The bound falls below the count: nobody comes until they have gone, and then nobody either.
        add(&mut w);
        w = w.with_most(0);
        for _ in 0..MOST {
            is_full(w);
            w = w.remove().unwrap();
        }
        is_full(w);
        w = w.with_most(1);
        add(&mut w);
        is_full(w);
    }

    #[test]
    fn both_numbers_survive_the_word() {
        let w = IdleWorkers::new(u32::MAX)
            .add()
            .and_then(IdleWorkers::add)
            .unwrap();
        let w = IdleWorkers::from_bits(w.bits());
        assert_eq!((w.count(), w.most()), (2, u32::MAX));
        let full = IdleWorkers::from_bits(u64::MAX);
        assert_eq!(full.add(), None);
    }
}

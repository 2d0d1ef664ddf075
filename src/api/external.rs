//! Memory outside the heap that is owned by objects inside it.

use std::fmt;
use std::sync::Arc;

use crate::api::mutator::Mutator;
use crate::gc::collector::Collector;
use crate::object::trace::{Rebrand, Trace, Tracer};

/// Counts bytes outside the heap towards its goal and its memory limit, as long as this value
/// lives.
///
/// Use it for memory that an object owns and the collector cannot see: a texture, a memory map, a
/// buffer of another library. Put the value into the object; the bytes then count until the object
/// is dropped, and cycles start earlier because of them. The containers of `std` are counted
/// without it, in an object's fields and in a [`GcLock`](crate::GcLock).
///
/// # Examples
/// ```
/// use greywave::{External, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Picture {
///     texture: u32,
///     counted: External,
/// }
///
/// let heap = Heap::new();
/// let mut m = heap.attach()?;
/// m.alloc(Picture { texture: 7, counted: m.external(4 << 20) });
/// assert_eq!(heap.stats().external_bytes, 4 << 20);
/// m.collect();
/// assert_eq!(heap.stats().external_bytes, 0);
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub struct External {
    collector: Arc<Collector>,
    bytes: usize,
    /// The part of `bytes` that the heap counts.
    counted: u64,
}

impl External {
    /// Returns the number of bytes that were requested.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts `bytes` instead of what was counted before. O(1).
    ///
    /// A heap counts at most 2^62 bytes in total; what exceeds that does not count.
    pub fn resize(&mut self, bytes: usize) {
        let wanted = bytes as u64;
        self.bytes = bytes;
        if wanted >= self.counted {
            self.counted += self.collector.grant_external(wanted - self.counted);
        } else {
            let less = self.counted - wanted;
            self.counted = wanted;
            // The difference is at most 2^62.
            self.collector.add_external(-less.cast_signed());
        }
        self.collector.ask_if_due();
    }
}

impl Drop for External {
    fn drop(&mut self) {
        // The amount is at most 2^62.
        self.collector.add_external(-self.counted.cast_signed());
    }
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

// SAFETY: 1, 3, 4, 6. there is no `Gc` inside. 2. the collector's own locks and atomics protect it;
// any thread may drop its last `Arc`. 5. `trace` does nothing.
unsafe impl Trace for External {
    const NEEDS_TRACE: bool = false;
    fn trace(&self, _: &mut Tracer<'_>) {}
}

// SAFETY: 1, 2. the type has no brand.
unsafe impl Rebrand<'_> for External {
    type To = Self;
}

impl Mutator {
    /// Counts `bytes` outside the heap towards its goal and limit until the result is dropped.
    /// O(1). The call may request a cycle.
    #[must_use = "the bytes are counted while the result lives"]
    pub fn external(&self, bytes: usize) -> External {
        let mut external = External {
            collector: self.heap().handle().collector.clone(),
            bytes: 0,
            counted: 0,
        };
        external.resize(bytes);
        let owed = external.counted.cast_signed();
        self.collector().owe_external(self.state(), owed);
        external
    }
}

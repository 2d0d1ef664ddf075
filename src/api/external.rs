//! Memory outside the heap that belongs to objects inside it.

use std::fmt;
use std::sync::Arc;

use crate::api::mutator::Mutator;
use crate::gc::collector::Collector;
use crate::object::trace::{Rebrand, Trace, Tracer};

/// Bytes outside the heap that count towards its goal and its memory limit while this value lives.
///
/// For what an object owns and the collector cannot see: a texture, a memory map, a buffer of another library. Put it
/// into the object, and the bytes are counted until the object is dropped; cycles start earlier for them. Standard
/// containers in a [`GcLock`](crate::GcLock) or in an object's fields are counted without this.
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
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl External {
    /// The bytes that are counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts `bytes` instead of what was counted before. O(1).
    pub fn resize(&mut self, bytes: usize) {
        let delta = signed(bytes) - signed(self.bytes);
        self.bytes = bytes;
        self.collector.add_external(delta);
        self.collector.ask_if_due();
    }
}

impl Drop for External {
    fn drop(&mut self) {
        self.collector.add_external(-signed(self.bytes));
    }
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

// SAFETY: 1, 3, 4, 6. no `Gc` inside. 2. the collector is shared by its own locks and atomics; its last `Arc` may go on
// any thread. 5. does nothing.
unsafe impl Trace for External {
    const NEEDS_TRACE: bool = false;
    fn trace(&self, _: &mut Tracer<'_>) {}
}

// SAFETY: 1, 2. no brand.
unsafe impl Rebrand<'_> for External {
    type To = Self;
}

impl Mutator {
    /// Counts `bytes` outside the heap towards its goal and limit until the result is dropped. O(1); may ask for a cycle.
    #[must_use = "the bytes are counted while the result lives"]
    pub fn external(&self, bytes: usize) -> External {
        let mut external = External {
            collector: self.heap().handle().collector.clone(),
            bytes: 0,
        };
        external.resize(bytes);
        self.collector().owe_external(self.state(), signed(bytes));
        external
    }
}

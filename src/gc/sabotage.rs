//! Faults put in on purpose, to see that tests catch them.
//!
//! With the feature `sabotage` (debug builds only) a test switches one on; otherwise every question is `false` at compile
//! time and the code behind it is gone.

/// A place where a collector breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "sabotage"),
    allow(unreachable_pub, reason = "public through `internals` only")
)]
pub enum Fault {
    /// An edge that is overwritten during marking is not shaded.
    NoDeletionBarrier = 1,
    /// No root is scanned.
    RootsNotScanned = 2,
    /// What a mutator's barrier buffer holds is thrown away at handshakes and at termination.
    BufferNotFlushed = 3,
    /// Objects allocated during marking are white.
    AllocateWhite = 4,
}

#[cfg(feature = "sabotage")]
static ACTIVE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!(
    "the feature `sabotage` breaks the collector on purpose: it is for debug builds only"
);

/// Puts the fault in, in all heaps of the process.
#[cfg(feature = "sabotage")]
pub fn break_the_collector(fault: Fault) {
    // Relaxed: called before the test begins.
    ACTIVE.store(fault as u32, std::sync::atomic::Ordering::Relaxed);
}

/// Whether the fault is in.
#[inline(always)]
pub(crate) fn is_on(fault: Fault) -> bool {
    #[cfg(feature = "sabotage")]
    {
        // Relaxed: as in `break_the_collector`.
        ACTIVE.load(std::sync::atomic::Ordering::Relaxed) == fault as u32
    }
    #[cfg(not(feature = "sabotage"))]
    {
        let _ = fault;
        false
    }
}

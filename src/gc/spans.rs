//! The `tracing` feature: a span for each phase of a cycle, an event for each stop, a warning for each trouble. Without
//! the feature, nothing.

use crate::gc::events::Event;

/// A phase that is being timed.
#[derive(Debug)]
pub(crate) struct Phase {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

impl Phase {
    /// The phase is over.
    pub(crate) fn end(self) {}
}

/// Enters the span of a phase of cycle `cycle`.
pub(crate) fn phase(name: &'static str, cycle: u64) -> Phase {
    #[cfg(not(feature = "tracing"))]
    let _ = (name, cycle);
    Phase {
        #[cfg(feature = "tracing")]
        _entered: tracing::debug_span!(target: "greywave", "phase", name, cycle).entered(),
    }
}

/// The world was stopped for `total_ns`, the first `stopping_ns` of which went by until the last mutator stood.
pub(crate) fn stopped(total_ns: u64, stopping_ns: u64) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: "greywave", total_ns, stopping_ns, "stop");
    #[cfg(not(feature = "tracing"))]
    let _ = (total_ns, stopping_ns);
}

/// A mutator scanned `bytes` for an allocation.
pub(crate) fn assisted(bytes: u64, cpu_ns: u64) {
    #[cfg(feature = "tracing")]
    tracing::trace!(target: "greywave", bytes, cpu_ns, "assist");
    #[cfg(not(feature = "tracing"))]
    let _ = (bytes, cpu_ns);
}

/// Something goes wrong.
pub(crate) fn warn(event: &Event) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "greywave", "{event}");
    #[cfg(not(feature = "tracing"))]
    let _ = event;
}

//! The end of the process: because an invariant of this crate is broken, or because memory is
//! missing where no error can be returned.

use std::fmt;
#[cfg(not(shuttle))]
use std::io::Write;

/// Writes `message` to standard error and aborts the process.
///
/// Nothing is unwound: an invariant that the heap's safety rests on does not hold, so no more user
/// code may run.
#[cold]
#[inline(never)]
pub(crate) fn fatal(message: &str) -> ! {
    fatal_args(format_args!("{message}"))
}

/// Does what [`fatal`] does, with a formatted report.
#[cold]
#[inline(never)]
#[cfg(not(shuttle))]
pub(crate) fn fatal_args(message: fmt::Arguments<'_>) -> ! {
    let mut err = std::io::stderr().lock();
    // The process ends here whether or not the message could be written.
    let _ = writeln!(err, "greywave: fatal: {message}");
    let _ = err.flush();
    std::process::abort()
}

/// Ends the model, which then reports its schedule.
#[cfg(shuttle)]
#[allow(clippy::panic, reason = "the end of a model")]
pub(crate) fn fatal_args(message: fmt::Arguments<'_>) -> ! {
    panic!("greywave: fatal: {message}")
}

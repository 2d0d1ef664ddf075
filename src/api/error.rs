//! Errors.

use std::error::Error;
use std::fmt;

use crate::gc::brake::NoRoom;
use crate::heap::mheap::Shortage;

/// Says why a heap could not be made: a setting cannot be read, or the OS refuses memory or a
/// thread.
///
/// The message names the thing, the value, and what is allowed.
#[derive(Debug)]
pub struct ConfigError {
    message: String,
    source: Option<std::io::Error>,
}

impl ConfigError {
    /// Makes the error for a setting `name` whose `value` is not one of the `allowed` ones.
    pub(crate) fn unreadable(name: &str, value: &str, allowed: &str) -> Self {
        Self {
            message: format!("{name} is {value:?}; allowed: {allowed}"),
            source: None,
        }
    }

    pub(crate) fn refused(message: String, source: std::io::Error) -> Self {
        Self {
            message,
            source: Some(source),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|e| e as &(dyn Error + 'static))
    }
}

/// Says why a thread could not be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// The thread already has a mutator, of this heap or another. With two licences, one could pass
    /// a safepoint while `Gc`s of the other live.
    AlreadyAttached,
    /// The thread is a collector's, which is running an object's `Drop`. An attach may have to wait
    /// for the collector, which waits for this thread.
    InDrop,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyAttached => "this thread is attached to a heap already",
            Self::InDrop => "a thread cannot be attached while it drops objects for the collector",
        })
    }
}

impl Error for AttachError {}

/// Says that the heap has no room: its reservation or its hard limit is exhausted, or the system
/// refuses memory. The error returns the value that could not be allocated.
///
/// The message says how much was live when the last cycle ended. If that is much less than the heap
/// may use, then the thread has allocated too much since its last safepoint, because no cycle can
/// begin before its next one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AllocError<T> {
    value: T,
    bytes: usize,
    told: NoRoom,
}

impl<T> AllocError<T> {
    pub(crate) fn new(value: T, bytes: usize, told: NoRoom) -> Self {
        Self { value, bytes, told }
    }

    /// Returns the value that could not be allocated.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Returns the number of bytes that were requested.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> AllocError<U> {
        AllocError {
            value: f(self.value),
            bytes: self.bytes,
            told: self.told,
        }
    }
}

impl<T> fmt::Debug for AllocError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllocError")
            .field("bytes", &self.bytes)
            .field("shortage", &self.told.shortage)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for AllocError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.bytes;
        let NoRoom {
            shortage,
            live,
            external,
            cycles,
            waited,
            late,
            is_suspended,
        } = self.told;
        match shortage {
            Shortage::Room(room) => write!(
                f,
                "out of memory: {wanted} bytes do not fit into the {room} bytes that the heap may use"
            )?,
            Shortage::Memory { bytes, of } => write!(
                f,
                "out of memory: {wanted} bytes cannot be allocated: beside the {of} bytes that objects \
                 fill, the system refuses {bytes} bytes more (RLIMIT_DATA, or vm.overcommit_memory=2 \
                 and its limit)"
            )?,
        }
        match cycles {
            0 => write!(f, "; no cycle has ended yet")?,
            _ => write!(f, "; {live} bytes lived when cycle {cycles} ended")?,
        }
        if external > 0 {
            write!(f, "; objects own {external} bytes outside the heap")?;
        }
        f.write_str(if waited {
            "; the running cycle was waited for"
        } else {
            "; no cycle could be waited for: one begins at this thread's next safepoint"
        })?;
        if late > 0 {
            write!(f, "; {late} other mutators are late for a safepoint")?;
        }
        if is_suspended {
            f.write_str(
                "; nothing is collected any more, because a thread has ended without dropping its mutator \
                 (Event::MutatorLost names it)",
            )?;
        }
        Ok(())
    }
}

impl<T> Error for AllocError<T> {}

/// A broken invariant of the heap, described in words. It points to a bug in this crate or in other
/// `unsafe` code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError(String);

impl VerifyError {
    pub(crate) fn new(message: String) -> Self {
        Self(message)
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the heap is broken: {}", self.0)
    }
}

impl Error for VerifyError {}

//! The public types.

pub(crate) mod array;
pub(crate) mod cell;
pub(crate) mod config;
pub(crate) mod current;
pub(crate) mod error;
pub(crate) mod external;
pub(crate) mod frame;
pub(crate) mod gc;
#[cfg(feature = "sched")]
pub(crate) mod gc_chan;
pub(crate) mod heap;
pub(crate) mod lock;
mod lock_books;
mod lock_debug;
pub(crate) mod mutator;
mod poll;
#[doc(hidden)]
pub mod private;
pub(crate) mod root;
#[cfg(feature = "sched")]
pub(crate) mod runtime;
pub(crate) mod stats;
pub(crate) mod weak;
pub(crate) mod word;

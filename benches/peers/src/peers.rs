//! The memory managers: each has a file, with the programs written as its users would write them.

pub mod arc;
pub mod boa;
pub mod boxed;
pub mod dumpster_sync;
pub mod gc_arena;
pub mod grey;
pub mod grey_sched;
mod owned;
pub mod rust_gc;
pub mod tokio;

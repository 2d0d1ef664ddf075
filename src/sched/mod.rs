//! G, M and P: who runs where.
//!
//! A G is a future in one allocation with its header. An M is a thread. A P is the right to run: it has a run queue, timers
//! and a mutator of the heap, so that what a G allocates comes from its P's cache. The rules of who looks for work where,
//! and of who wakes whom, are Go's (runtime, `proc.go`).

pub(crate) mod block_on;
pub(crate) mod blocking;
pub mod chan;
pub(crate) mod context;
pub(crate) mod driver;
pub(crate) mod find;
pub(crate) mod idle;
pub(crate) mod list;
pub(crate) mod machine;
pub(crate) mod memory;
#[cfg(all(test, loom))]
mod models;
pub mod net;
pub(crate) mod proc;
#[cfg(all(test, shuttle))]
mod random_models;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod runq;
pub(crate) mod shared;
pub(crate) mod shutdown;
pub(crate) mod stats;
pub(crate) mod sync;
pub(crate) mod sysmon;
pub(crate) mod task;
pub(crate) mod time;
pub(crate) mod timer;
pub(crate) mod wait;
pub(crate) mod wakers;
pub(crate) mod watch;
pub(crate) mod worker;
pub(crate) mod yielding;

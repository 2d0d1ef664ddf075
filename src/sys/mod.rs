//! The operating system and the standard library, behind the few doors that the rest of the crate
//! uses.

pub(crate) mod blocks;
pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod fatal;
pub(crate) mod inject;
pub(crate) mod lock;
pub(crate) mod mem;
#[cfg(all(test, loom))]
pub(crate) mod model;
pub(crate) mod os_thread;
pub(crate) mod quiet;
#[cfg(all(test, shuttle))]
pub(crate) mod random_model;
pub(crate) mod sabotage;
pub(crate) mod shadow;
pub(crate) mod space;
pub(crate) mod sync;
pub(crate) mod thread;

/// The model checker that this build is for, which provides atomics, locks and threads.
#[cfg(loom)]
pub(crate) use loom as checker;
#[cfg(shuttle)]
pub(crate) use shuttle as checker;

/// Whether this build is for a model checker. If it is, queues are so short that a model reaches
/// their ends, and nobody spins.
pub(crate) const MODELLED: bool = cfg!(any(loom, shuttle));

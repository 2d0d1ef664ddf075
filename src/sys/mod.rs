//! The operating system and the standard library, behind the few doors the rest of the crate uses.

pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod fatal;
pub(crate) mod inject;
pub(crate) mod lock;
pub(crate) mod mem;
#[cfg(all(test, loom))]
pub(crate) mod model;
pub(crate) mod sabotage;
pub(crate) mod shadow;
pub(crate) mod sync;
pub(crate) mod thread;

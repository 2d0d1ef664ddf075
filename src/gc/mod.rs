//! The cycle: phases, safepoints and handshakes, barrier, marking, sweep, weak references, verifier.
//!
//! # Note \[heap fields\]
//! The one deliberate sharing without a lock: a marker reads an edge that a mutator writes. Edges are atomics: the
//! mutator stores with Release (publication: what the new value points to is initialised), the marker loads with
//! Acquire. Plain fields are written before publication and never after. Locked values are read under their lock.

pub(crate) mod alloc;
pub(crate) mod assist;
pub(crate) mod barrier;
pub(crate) mod brake;
pub(crate) mod check;
pub(crate) mod collecting;
pub(crate) mod collector;
pub(crate) mod cycle;
pub(crate) mod duty;
pub(crate) mod events;
pub(crate) mod frames;
pub(crate) mod heaps;
pub(crate) mod held_locks;
pub(crate) mod late;
pub(crate) mod lock_word;
pub(crate) mod lost;
pub(crate) mod mark;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod mutator;
pub(crate) mod notice;
pub(crate) mod pacing;
#[cfg(all(test, shuttle))]
mod random_models;
pub(crate) mod root_jobs;
pub(crate) mod roots;
pub(crate) mod scavenger;
pub(crate) mod seats;
pub(crate) mod shared_bytes;
pub(crate) mod spans;
pub(crate) mod standstill;
pub(crate) mod state_word;
pub(crate) mod stopped;
pub(crate) mod sweeper;
pub(crate) mod trace;
pub(crate) mod verify;
#[cfg(all(test, not(loom)))]
mod verify_tests;
pub(crate) mod weak;
pub(crate) mod work;
pub(crate) mod worker;
pub(crate) mod world;

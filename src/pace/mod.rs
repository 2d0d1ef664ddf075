//! When to collect. This layer is arithmetic only: it has no clock, no atomics and no heap.

#![forbid(unsafe_code)]
pub(crate) mod assist;
pub(crate) mod cons_mark;
pub(crate) mod heap_goal;
pub(crate) mod lag;
pub(crate) mod limiter;
pub(crate) mod pacer;
mod pi;
pub(crate) mod scavenge;
pub(crate) mod survival;
pub(crate) mod sweep_pace;
pub(crate) mod trigger;
pub(crate) mod workers;

#[cfg(test)]
mod external_sim;
#[cfg(test)]
mod outcomes;
// A model does not generate random programs.
#[cfg(all(test, not(any(loom, shuttle))))]
mod properties;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod surprises;

//! When to collect: arithmetic only. No clock, no atomics, no heap.

#![forbid(unsafe_code)]

pub(crate) mod goal;

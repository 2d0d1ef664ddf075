//! The one door to the inside, for benchmarks, fuzzing and tests of this crate. Not covered by semver.

#[cfg(feature = "sabotage")]
pub use crate::gc::sabotage::{Fault, break_the_collector};

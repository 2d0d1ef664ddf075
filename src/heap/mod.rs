//! Memory: spans of slots, the three tiers that hand them out, and the sweep of one span.
//!
//! ```text
//! mcache (one a mutator, no lock)  ->  mcentral (one a span class)  ->  mheap (pages)  ->  sys
//! ```
//! This layer knows no phase, no mutator and no root. Here "black" only means that the mark bits of
//! what is handed out are set.

pub(crate) mod backing;
pub(crate) mod bits;
pub(crate) mod dead;
pub(crate) mod large;
pub(crate) mod mcache;
pub(crate) mod mcentral;
pub(crate) mod mheap;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod page_cache;
pub(crate) mod pages;
pub(crate) mod release;
pub(crate) mod run;
pub(crate) mod size_class;
pub(crate) mod span;
pub(crate) mod span_class;
pub(crate) mod sweep;

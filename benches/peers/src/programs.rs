//! What is measured: each program's arguments, work, threads and clock.

pub mod alloc;
pub mod heap_graph;
pub mod mark;
pub mod ring;
pub mod sched;
pub mod trees;

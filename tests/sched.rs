//! The scheduler keeps its promises: Gs run at once and take turns, no G keeps the others from
//! running for long, panics and aborts come back through handles, deadlocks are reported, and a
//! runtime can end at any time.
//!
//! Many of the programs are those of the tests of Go's runtime (`proc_test.go`), written anew.

#![cfg(feature = "sched")]

#[path = "sched/cleanup.rs"]
mod cleanup;
#[path = "sched/collector.rs"]
mod collector;
#[path = "sched/common.rs"]
mod common;
#[path = "sched/deadlocks.rs"]
mod deadlocks;
#[path = "sched/ending.rs"]
mod ending;
#[path = "sched/everywhere.rs"]
mod everywhere;
#[path = "support/executor.rs"]
mod executor;
#[path = "sched/handles.rs"]
mod handles;
#[path = "sched/hogs.rs"]
mod hogs;
#[path = "sched/polls.rs"]
mod polls;
#[path = "sched/settings.rs"]
mod settings;
#[path = "sched/stuck.rs"]
mod stuck;
#[path = "stress/support.rs"]
mod support;
#[path = "sched/together.rs"]
mod together;
#[path = "sched/turns.rs"]
mod turns;

use support::patience;

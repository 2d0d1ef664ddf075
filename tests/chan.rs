//! Channels have Go's semantics. The tests are the cases of Go's own tests (runtime/chan_test.go,
//! test/chan, test/closedchan.go), and what Go does not have: errors as values, handles that are
//! dropped, futures that are dropped while they wait.

#![cfg(feature = "sched")]

#[path = "chan/cancel.rs"]
mod cancel;
#[path = "support/executor.rs"]
mod executor;
#[path = "support/foreign.rs"]
mod foreign;
#[path = "chan/heap.rs"]
mod heap;
#[path = "support/patience.rs"]
mod patience;
#[path = "chan/programs.rs"]
mod programs;
#[path = "chan/rules.rs"]
mod rules;
#[path = "chan/select.rs"]
mod select;
#[path = "chan/select_race.rs"]
mod select_race;
#[path = "chan/unwinding.rs"]
mod unwinding;

//! Locks, groups, conditions, pools and contexts for tasks: what Go's tests of `sync` and `context`
//! require, and what is added by futures that may be dropped while they wait.

#![cfg(feature = "sched")]

#[path = "sync/cond.rs"]
mod cond;
#[path = "sync/context.rs"]
mod context;
#[path = "sync/gs.rs"]
mod gs;
#[path = "sync/mutex.rs"]
mod mutex;
#[path = "sync/once.rs"]
mod once;
#[path = "sync/pool.rs"]
mod pool;
#[path = "sync/rwlock.rs"]
mod rwlock;
#[path = "sync/support.rs"]
mod support;
#[path = "sync/wait_group.rs"]
mod wait_group;

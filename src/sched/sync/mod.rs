//! Locks and other ways for Gs to wait for each other.
//!
//! Each is a state, a queue of waiters under a plain lock, and futures. A future first tries without waiting; if that cannot be,
//! it joins the queue, which is looked at again under its lock. What a waiter is granted while it waits is its own, and its
//! drop gives that back. Wakers are collected under the lock and woken without it.

mod cond;
mod context;
#[cfg(all(test, loom))]
mod models;
mod mutex;
mod once;
mod pool;
mod queue;
mod rwlock;
mod wait_group;

pub use cond::Cond;
pub use context::{CancelHandle, Context, ContextError};
pub use mutex::{Mutex, MutexGuard};
pub use once::Once;
pub use pool::Pool;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use wait_group::{WaitGroup, WaitGroupGuard};

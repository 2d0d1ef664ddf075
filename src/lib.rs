//! [guide-applications]: guide::applications
//! [guide-virtual-machines]: guide::virtual_machines
//! [guide-services]: guide::services
//! [guide-tuning]: guide::tuning
//! [guide-diagnosing]: guide::diagnosing
//! [guide-safety]: guide::safety
//! [guide-measurements]: guide::measurements
//!
// The first definition of a reference counts: here the links of the README lead to the modules.
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]
#![warn(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod api;
mod base;
mod gc;
pub mod guide;
mod heap;
#[cfg(any(fuzzing, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
mod object;
mod pace;
#[cfg(feature = "sched")]
mod sched;
mod sys;

pub use greywave_derive::Trace;

#[cfg(feature = "sched")]
#[cfg_attr(docsrs, doc(cfg(feature = "sched")))]
pub use crate::api::gc_chan::GcChan;
#[doc(hidden)]
pub use crate::api::private as __private;
#[cfg(feature = "sched")]
#[cfg_attr(docsrs, doc(cfg(feature = "sched")))]
pub use crate::api::runtime::{Runtime, RuntimeBuilder, go, go_named, with};
pub use crate::api::{
    array::GcArray,
    cell::{GcCell, GcOnce},
    config::HeapBuilder,
    error::{AllocError, AttachError, ConfigError, VerifyError},
    external::External,
    frame::{Frame, FrameGuard},
    gc::Gc,
    heap::Heap,
    lock::{GcLock, ReadGuard, WriteGuard},
    mutator::Mutator,
    root::{Root, WeakRoot},
    stats::{HeapStats, Metric, MetricKind, SizeStats, UnmetLimit},
    weak::Weak,
    word::{GcWord, KindAt, KindList, KindOf, Word, WordKinds},
};
pub use crate::gc::events::{Event, PauseSummary, ThreadActivity};
pub use crate::gc::late::{PendingRequest, RequestKind};
pub use crate::object::trace::{
    At, BrandedBy, Collect, Rebrand, RebrandTarget, TargetAt, Trace, Tracer,
};
#[cfg(feature = "sched")]
#[doc(hidden)]
pub use crate::sched::chan::plumbing as __select;
#[cfg(feature = "sched")]
#[cfg_attr(docsrs, doc(cfg(feature = "sched")))]
pub use crate::sched::{
    blocking::{Blocking, blocking},
    chan::{self, Receiver, Sender, chan},
    net,
    report::{Deadlock, DeadlockPolicy, GInfo},
    shutdown::ShutdownError,
    stats::RuntimeStats,
    sync::{
        CancelHandle, Cond, Context, ContextError, Mutex, MutexGuard, Once, Pool, RwLock,
        RwLockReadGuard, RwLockWriteGuard, WaitGroup, WaitGroupGuard,
    },
    task::join::{JoinError, JoinHandle},
    time::{
        After, Elapsed, Interval, Sleep, Timeout, after, interval, sleep, sleep_until, timeout,
    },
    yielding::{Yield, yield_now},
};

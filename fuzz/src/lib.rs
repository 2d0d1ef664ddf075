//! What the fuzz targets do, as functions: a target hands a program to [`check`], and so does a
//! test that repeats one.
//!
//! The pacer, the size classes and the derive are compiled in from their own files: they are plain
//! code without a door of their own, and a proc-macro crate cannot be called.

use std::fmt::Debug;
use std::panic;
use std::sync::{Arc, Mutex, Once, PoisonError};

pub mod derive_input;
pub mod heap_graph;
pub mod pacer;
pub mod scheduler;
pub mod size_classes;

/// A program that a fuzzer makes up.
pub trait Case: Clone + Debug + Send + Sync + 'static {
    /// The module that it belongs to.
    const MODULE: &'static str;

    /// Runs it; panics if something is wrong.
    fn run(&self);
}

/// What runs now, for the panic hook: a fuzzer's own hook ends the process, so nothing comes after
/// it.
static RUNNING: Mutex<Option<Arc<dyn Fn() -> String + Send + Sync>>> = Mutex::new(None);

/// Runs `case`; one that fails prints itself as a test for `tests/replay.rs`, on whatever thread it
/// fails.
///
/// The collector ends the process without a panic when it finds itself broken. With
/// `GREYWAVE_FUZZ_PRINT` in the environment each case prints itself before it runs:
/// `GREYWAVE_FUZZ_PRINT=1 cargo fuzz run heap_graph artifacts/..`.
pub fn check<C: Case>(case: &C) {
    static HOOK: Once = Once::new();
    let copy = case.clone();
    let print = Arc::new(move || as_test(&copy));
    if std::env::var_os("GREYWAVE_FUZZ_PRINT").is_some() {
        eprintln!("{}", print());
    }
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let running = RUNNING
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(print) = running {
                eprintln!("{}", print());
            }
            before(info);
        }));
    });
    let set = |running| *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = running;
    set(Some(print));
    case.run();
    set(None);
}

fn as_test<C: Case>(case: &C) -> String {
    let module = C::MODULE;
    format!(
        "#[test]\nfn found_in_{module}() {{\n    use greywave_fuzz::{module}::{{Op::*, *}};\n    \
         greywave_fuzz::check(&{case:?});\n}}"
    )
}

#[allow(dead_code, reason = "the fuzz targets use a part of it")]
#[path = "../../src/pace/mod.rs"]
mod pace;

#[allow(dead_code, reason = "the fuzz targets use a part of it")]
#[path = "../../src/base/addr.rs"]
mod addr;
#[path = "../../src/base/div.rs"]
mod div;
#[allow(dead_code, reason = "the fuzz targets use a part of it")]
#[path = "../../src/heap/size_class.rs"]
mod size_class;

/// The names by which those files know each other.
mod base {
    pub(crate) use crate::{addr, div};
}

#[path = "../../derive/src/attr.rs"]
mod attr;
#[path = "../../derive/src/bound.rs"]
mod bound;
#[path = "../../derive/src/diag.rs"]
mod diag;
#[path = "../../derive/src/expand.rs"]
mod expand;
#[path = "../../derive/src/input.rs"]
mod input;
#[path = "../../derive/src/rebranding.rs"]
mod rebranding;
#[path = "../../derive/src/uses.rs"]
mod uses;

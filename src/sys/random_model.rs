//! What every shuttle model needs: how often it runs, under which schedules, and with which fault.
//!
//! A model runs under a number of schedules that is fixed in its test, times `GREYWAVE_SHUTTLE_FACTOR` (1). Half of them
//! choose a thread at random at each step; the others let the thread with the highest priority run, and take that from
//! it at a few random steps (Burckhardt et al. 2010, PCT), which reaches what needs one thread to be far behind.
//!
//! A failure prints its schedule. Written to a file that `GREYWAVE_SHUTTLE_REPLAY` names, it is run again, and nothing else
//! is: a model takes its time and its random numbers from the schedule. `SHUTTLE_RANDOM_SEED` fixes what schedules are
//! tried.

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner};

#[cfg(feature = "sabotage")]
use crate::sys::sabotage::{Fault, break_the_collector};

/// Steps at which a thread loses its priority, and one more.
const DEPTH: usize = 4;
/// How often a model with a fault is explored before the fault counts as not seen: chance must not
/// decide what a control says.
#[cfg(feature = "sabotage")]
const ROUNDS: usize = 10;

/// Runs `model` under `times` random schedules, and as many with priorities.
pub(crate) fn explore(times: usize, model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let model = model.clone();
        Runner::new(scheduler, config()).run(move || model());
    };
    if let Some(file) = std::env::var_os("GREYWAVE_SHUTTLE_REPLAY") {
        let replay = ReplayScheduler::new_from_file(file).expect("a file with a schedule");
        return run(Box::new(replay));
    }
    let times = times * factor();
    run(Box::new(RandomScheduler::new(times)));
    run(Box::new(PctScheduler::new(DEPTH, times)));
}

fn factor() -> usize {
    let factor = std::env::var("GREYWAVE_SHUTTLE_FACTOR").ok();
    factor.map_or(1, |n| n.parse().expect("GREYWAVE_SHUTTLE_FACTOR: a number"))
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    // What the other threads hold is leaked: their drops would run in the middle of something.
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    config
}

/// The negative control: `model` fails under one of the schedules, and says one of `expected`.
#[cfg(feature = "sabotage")]
pub(crate) fn fails(times: usize, expected: &[&str], model: impl Fn() + Send + Sync + 'static) {
    said_to_fail("the fault", expected, move || explore(times, model));
}

/// As [`fails`], of a model into whose real functions `fault` is put.
///
/// The model's own checks say one of `expected`; an assertion of the code under test may see the
/// fault before they do. Which one comes first depends on the schedule. Without the fault the same
/// model passes, so either is the fault's doing; a deadlock, or too many steps, is not taken for it.
#[cfg(feature = "sabotage")]
pub(crate) fn fails_with(
    fault: Fault,
    times: usize,
    expected: &[&str],
    model: impl Fn() + Send + Sync + 'static,
) {
    said_to_fail(&format!("{fault:?}"), expected, move || {
        break_the_collector(fault);
        let model = Arc::new(model);
        // The first failure ends it, so rounds cost nothing but to a fault that is not seen.
        for _ in 0..ROUNDS {
            let model = model.clone();
            explore(times, move || model());
        }
    });
}

/// `run` panics, on a thread of the OS that is its own: what a failed model leaves behind, and the fault, go with it.
#[cfg(feature = "sabotage")]
#[allow(
    clippy::disallowed_methods,
    reason = "a thread beside the models, not in one"
)]
fn said_to_fail(name: &str, expected: &[&str], run: impl FnOnce() + Send + 'static) {
    first_panic::watch();
    let said = std::thread::spawn(move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        outcome.err().map(|_| first_panic::said())
    });
    let said = said.join().expect("caught");
    let said = said.unwrap_or_else(|| panic!("{name} is not seen"));
    assert!(
        said.by_the_code_under_test || expected.iter().any(|e| said.what.contains(e)),
        "{name} is seen, but it said: {}",
        said.what
    );
}

/// What a thread of the OS has said when it panicked first; shuttle's own panic says only that there was one.
#[cfg(feature = "sabotage")]
mod first_panic {
    use std::cell::RefCell;
    use std::panic::{set_hook, take_hook};
    use std::sync::Once;

    /// A panic.
    #[derive(Clone, Default)]
    pub(super) struct Said {
        pub(super) what: String,
        /// By the library itself, not by a model, shuttle, or std.
        pub(super) by_the_code_under_test: bool,
    }

    std::thread_local! {
        static SAID: RefCell<Said> = RefCell::default();
    }

    fn is_under_test(file: &str) -> bool {
        file.starts_with("src/") && !file.contains("model")
    }

    /// Listens to every panic from now on.
    pub(super) fn watch() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let before = take_hook();
            set_hook(Box::new(move |info| {
                SAID.with_borrow_mut(|said| {
                    if said.what.is_empty() {
                        let at = info.location().map_or("", |at| at.file());
                        *said = Said {
                            what: info.to_string(),
                            by_the_code_under_test: is_under_test(at),
                        };
                    }
                });
                before(info);
            }));
        });
    }

    pub(super) fn said() -> Said {
        SAID.take()
    }
}

/// A random number below `bound`, of the schedule.
pub(crate) fn random(bound: usize) -> usize {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..bound)
}

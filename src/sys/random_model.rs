//! What every shuttle model needs: how often it runs, under which schedules, and with which fault.
//!
//! The test of a model fixes a number of schedules, which `GREYWAVE_SHUTTLE_FACTOR` multiplies (1
//! if it is not set). Half of the schedules choose a thread at random at each step. The others run
//! the thread with the highest priority, and take that priority from it at a few random steps
//! (Burckhardt et al. 2010, PCT); they reach cases in which one thread is far behind.
//! A failure prints its schedule. If `GREYWAVE_SHUTTLE_REPLAY` names a file with that text, the
//! test runs that schedule and no other: a model takes its time and its random numbers from the
//! schedule. `SHUTTLE_RANDOM_SEED` fixes which schedules are tried.

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner};

#[cfg(feature = "sabotage")]
use crate::sys::sabotage::{Fault, break_the_collector};

/// The number of steps at which a thread loses its priority, plus one.
const DEPTH: usize = 4;
/// How often a model with a fault is explored before the fault counts as not seen, so that chance
/// does not decide the outcome of a control.
#[cfg(feature = "sabotage")]
const ROUNDS: usize = 10;

/// Runs `model` under `times` random schedules, and under as many with priorities.
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
    // What the other threads hold is leaked, because their drops would run in the middle of
    // something.
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    config
}

/// The negative control: `model` must fail under one of the schedules, with one of the `expected`
/// messages.
#[cfg(feature = "sabotage")]
pub(crate) fn fails(times: usize, expected: &[&str], model: impl Fn() + Send + Sync + 'static) {
    said_to_fail("the fault", expected, move || explore(times, model));
}

/// Does what [`fails`] does, for a model into whose real functions `fault` is put.
///
/// The model's own checks give one of the `expected` messages. An assertion of the code under test
/// may see the fault first; that depends on the schedule. The same model passes without the fault,
/// so the fault causes either failure. A deadlock, or too many steps, does not count.
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
        // The first failure ends the search, so only a fault that is not seen takes all rounds.
        for _ in 0..ROUNDS {
            let model = model.clone();
            explore(times, move || model());
        }
    });
}

/// Checks that `run` panics, on an OS thread of its own: when that thread ends, what a failed model
/// leaves behind goes with it, and so does the fault.
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

/// The message of the first panic on an OS thread; shuttle's own panic says only that there was
/// one.
#[cfg(feature = "sabotage")]
mod first_panic {
    use std::cell::RefCell;
    use std::panic::{set_hook, take_hook};
    use std::sync::Once;

    /// A panic.
    #[derive(Clone, Default)]
    pub(super) struct Said {
        pub(super) what: String,
        /// Whether the library itself panicked, and not a model, shuttle or `std`.
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

/// Returns a random number below `bound`, which the schedule determines.
pub(crate) fn random(bound: usize) -> usize {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..bound)
}

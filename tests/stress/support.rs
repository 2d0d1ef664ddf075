//! What the tests of trust share: random numbers, drop counters, a collecting thread, child
//! processes, a time limit.

#![allow(
    dead_code,
    reason = "each test program brings its own copy and uses a part of it"
)]

use std::io::Read;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use greywave::{Heap, Trace};

#[path = "../support/patience.rs"]
pub(crate) mod patience;

#[allow(unused_imports, reason = "each test uses a part")]
pub(crate) use patience::{PATIENCE, Stopwatch, Stretch, Watch, within};

/// A heap that checks each cycle, and whose freed slots are filled.
pub(crate) fn heap() -> Heap {
    Heap::builder()
        .verify(true)
        .poison(true)
        .build()
        .expect("a heap")
}

/// splitmix64: small, and good enough to drive tests.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A hash of one number.
pub(crate) fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

/// The seed of this run: `GREYWAVE_SEED`, or the clock. Printed, so that a failure can be run
/// again.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("GREYWAVE_SEED") {
        Ok(text) => text.parse().expect("GREYWAVE_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos() as u64),
    };
    println!("GREYWAVE_SEED={seed}");
    seed
}

/// How long a timed test runs: `GREYWAVE_STRESS_SECONDS` divided by `share`, or `default`.
pub(crate) fn duration(default: Duration, share: f64) -> Duration {
    match std::env::var("GREYWAVE_STRESS_SECONDS") {
        Ok(text) => {
            let seconds: f64 = text.parse().expect("GREYWAVE_STRESS_SECONDS is a number");
            Duration::from_secs_f64(seconds * share)
        }
        Err(_) => default,
    }
}

/// Counts its drops.
#[derive(Trace)]
pub(crate) struct Counted(pub(crate) Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Collects without a pause on a thread of its own until dropped.
pub(crate) struct Collecting {
    stop: Arc<AtomicBool>,
    cycles: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Collecting {
    pub(crate) fn new(heap: &Heap) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cycles = Arc::new(AtomicU64::new(0));
        let thread = {
            let (heap, stop, cycles) = (heap.clone(), stop.clone(), cycles.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    heap.collect();
                    cycles.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Self {
            stop,
            cycles,
            thread: Some(thread),
        }
    }

    pub(crate) fn cycles(&self) -> u64 {
        self.cycles.load(Ordering::Relaxed)
    }

    /// A race against the cycles, from now on for `time` at least.
    pub(crate) fn race(&self, time: Duration) -> Race {
        Race {
            stretch: Stretch::of(time),
            cycles: self.cycles.clone(),
            before: self.cycles(),
        }
    }
}

/// How long a test goes on that runs against cycles: on a busy machine until there was one.
#[derive(Clone, Debug)]
pub(crate) struct Race {
    stretch: Stretch,
    cycles: Arc<AtomicU64>,
    before: u64,
}

impl Race {
    pub(crate) fn is_over(&self) -> bool {
        self.stretch.is_over() && self.cycles.load(Ordering::Relaxed) > self.before
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(std::thread::panicking() || outcome.is_ok());
        }
    }
}

/// The variable that tells a test that it is the child.
const CHILD: &str = "GREYWAVE_TEST_CHILD";

/// Whether this process was started by [`child`] for `what`.
pub(crate) fn is_child(what: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|v| v == what)
}

/// Whether this process has a fault put in on purpose (`sabotage.rs`): `FAULT/PROGRAM`, where
/// `none` is no fault.
pub(crate) fn is_broken() -> bool {
    std::env::var(CHILD).is_ok_and(|v| v.contains('/') && !v.starts_with("none/"))
}

fn child_command(test: &str, what: &str) -> Command {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(program);
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, what);
    command
}

/// Runs the test `test` of this program again, in a process of its own, where `is_child(what)` is
/// true.
pub(crate) fn child(test: &str, what: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = child_command(test, what);
    for (name, value) in variables {
        command.env(name, value);
    }
    command.output().expect("this program runs again")
}

/// As [`child`], under a limit that the shell sets: `limit` is an option of `ulimit`, and `kib` its
/// value.
#[cfg(unix)]
pub(crate) fn limited_child(test: &str, what: &str, limit: &str, kib: u64) -> Output {
    let inner = child_command(test, what);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit $1 $2 && shift 2 && exec \"$@\"", "sh", limit])
        .arg(kib.to_string())
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(CHILD, what)
        // glibc takes 64 MiB of address space for a thread that allocates, when it first does so:
        // what is left would be a matter of which thread of an earlier heap has come that far.
        .env("MALLOC_ARENA_MAX", "1")
        .env("RUST_BACKTRACE", "0");
    command.output().expect("there is a shell")
}

/// As [`child`], but a process that is not done after `limit` is ended. `None` for the status then;
/// and what it wrote.
pub(crate) fn child_within(
    test: &str,
    what: &str,
    limit: Duration,
) -> (Option<ExitStatus>, String) {
    let mut child = child_command(test, what)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program runs again");
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came before an error is what there is.
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(Box::new(child.stdout.take().expect("piped")));
    let err = read(Box::new(child.stderr.take().expect("piped")));
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) => break Some(status),
            None if Instant::now() >= end => {
                child.kill().expect("a child of ours");
                child.wait().expect("a child of ours");
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let text = [out, err].map(|reader| reader.join().expect("no panic"));
    (status, text.concat())
}

/// What a child wrote, for assertions.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

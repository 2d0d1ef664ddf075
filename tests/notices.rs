//! What the heap reports when a thread keeps it waiting: to a sink, and on standard error.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use greywave::{Event, Heap, ThreadActivity};

type Told = Arc<Mutex<Vec<Event>>>;

/// A heap, and what it tells but for the ends of cycles.
fn heap() -> (Heap, Told) {
    let told = Told::default();
    let seen = told.clone();
    let heap = Heap::builder()
        .on_event(move |event| {
            if !matches!(event, Event::CycleEnd { .. }) {
                seen.lock().expect("no panic").push(event.clone());
            }
        })
        .build()
        .expect("a heap");
    (heap, told)
}

/// The first event for which `find` has an answer.
fn find<R>(told: &Told, find: impl Fn(&Event) -> Option<R>) -> Option<R> {
    told.lock().expect("no panic").iter().find_map(find)
}

#[test]
fn a_late_thread_is_told_of_each_time_the_wait_has_doubled() {
    let (heap, told) = heap();
    let (started, starts) = mpsc::channel();
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut m = heap.attach().expect("attached");
            started.send(()).expect("heard");
            // No safepoint before it has been told of four times.
            while told.lock().expect("no panic").len() < 4 {
                std::thread::sleep(Duration::from_millis(1));
            }
            m.safepoint();
        });
        starts.recv().expect("attached");
        heap.collect();
    });
    let ages: Vec<Duration> = (told.lock().expect("no panic").iter())
        .filter_map(|event| match event {
            Event::SlowSafepoint { waited, .. } => Some(*waited),
            _ => None,
        })
        .collect();
    assert!(ages.len() >= 4, "{ages:?}");
    // The n-th telling is due at 10 ms times 2^n at the earliest.
    for (n, age) in ages.iter().enumerate() {
        assert!(*age >= Duration::from_millis(10) * (1 << n), "{ages:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_late_thread_does_is_told() {
    let (heap, told) = heap();
    let activity = |event: &Event| match event {
        Event::SlowSafepoint {
            activity,
            os_thread: Some(_),
            ..
        } => Some(activity.clone()),
        _ => None,
    };
    let computes = || {
        find(&told, |event| {
            activity(event).filter(|a| matches!(a, ThreadActivity::Computes { .. }))
        })
    };
    let sleeps = || {
        find(&told, |event| match activity(event) {
            Some(ThreadActivity::Sleeps { call }) => Some(call),
            _ => None,
        })
    };
    let (started, starts) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    std::thread::scope(|s| {
        let (heap, computes, started) = (&heap, &computes, &started);
        s.spawn(move || {
            let mut m = heap.attach().expect("attached");
            started.send(()).expect("heard");
            while computes().is_none() {
                std::hint::spin_loop();
            }
            m.safepoint();
        });
        starts.recv().expect("attached");
        heap.collect();
        s.spawn(move || {
            let mut m = heap.attach().expect("attached");
            started.send(()).expect("heard");
            goes_on.recv().expect("told to go on");
            m.safepoint();
        });
        starts.recv().expect("attached");
        s.spawn(|| {
            while sleeps().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            go_on.send(()).expect("heard");
        });
        heap.collect();
    });
    assert!(sleeps().expect("told").contains("futex"));
    let lines: Vec<String> = (told.lock().expect("no panic").iter())
        .map(ToString::to_string)
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("`safepoint` in its loop")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("`blocking`")),
        "{lines:?}"
    );
}

#[test]
#[cfg(all(target_os = "linux", feature = "sched"))]
fn a_late_g_is_named_not_the_thread_that_built_its_runtime() {
    use greywave::{Runtime, go_named, with};

    let (heap, told) = heap();
    let rt = Runtime::builder(&heap).procs(1).build().expect("a runtime");
    let (started, starts) = mpsc::channel();
    let seen = told.clone();
    let (sender, hogs) = mpsc::channel();
    let line = line!() + 2;
    let start = async move {
        let hog = go_named("hog", async move {
            with(|m| {
                started.send(()).expect("heard");
                while seen.lock().expect("no panic").is_empty() {
                    std::hint::spin_loop();
                }
                m.safepoint();
            });
        });
        sender.send(hog).expect("heard");
    };
    rt.block_on(start).expect("no deadlock");
    starts.recv().expect("it runs");
    heap.collect();
    let hog = hogs.recv().expect("sent");
    rt.block_on(hog).expect("no deadlock").expect("no panic");
    let seen = find(&told, |event| match event {
        Event::SlowSafepoint {
            thread,
            attached_at,
            is_g: true,
            g,
            ..
        } => Some((
            thread.clone(),
            attached_at.line(),
            g.clone(),
            event.to_string(),
        )),
        _ => None,
    });
    let (thread, at, g, text) = seen.expect("told");
    assert!(thread.starts_with("greywave-m-"), "{thread:?}");
    assert_eq!((at, g.as_deref()), (line, Some("hog")));
    assert!(text.contains("the G \"hog\", spawned at"), "{text}");
}

/// In which process this is: the test, or a program that it starts.
const CHILD: &str = "GREYWAVE_TEST_CHILD";

/// The program of the tests below: a thread that does not poll until standard input ends.
fn late_program(quiet: Option<bool>) {
    let builder = Heap::builder();
    let builder = match quiet {
        Some(on) => builder.quiet(on),
        None => builder,
    };
    let heap = builder.build().expect("a heap");
    let (started, starts) = mpsc::channel();
    std::thread::scope(|s| {
        let heap = &heap;
        let late = std::thread::Builder::new().name("the late one".to_owned());
        late.spawn_scoped(s, move || {
            let mut m = heap.attach().expect("attached");
            started.send(()).expect("heard");
            let mut rest = String::new();
            std::io::stdin().read_to_string(&mut rest).expect("an end");
            m.safepoint();
        })
        .expect("a thread");
        starts.recv().expect("attached");
        heap.collect();
    });
}

/// Runs test `name` of this file again, in a process of its own.
fn child(name: &str, greywave: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("GREYWAVE", greywave)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process")
}

#[test]
fn a_late_thread_has_a_line_on_standard_error_by_default() {
    if std::env::var_os(CHILD).is_some() {
        return late_program(None);
    }
    let mut child = child("a_late_thread_has_a_line_on_standard_error_by_default", "");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    // It waits until the line is there: without one this ends never.
    let first = lines.next().expect("a line").expect("text");
    drop(child.stdin.take());
    assert!(child.wait().expect("an end").success());
    for part in [
        "greywave: warning: ",
        "\"the late one\"",
        "notices.rs:",
        "safepoint",
        "blocking",
    ] {
        assert!(first.contains(part), "{part} in {first:?}");
    }
    if cfg!(target_os = "linux") {
        assert!(first.contains("sleeps in read"), "{first:?}");
    }
}

#[test]
fn a_quiet_heap_writes_nothing() {
    if std::env::var_os(CHILD).is_some() {
        let by_call = std::env::var_os("GREYWAVE").is_some_and(|list| list.is_empty());
        return late_program(by_call.then_some(true));
    }
    // By the builder's call, and by the environment.
    let mut children = ["", "quiet=1"].map(|list| child("a_quiet_heap_writes_nothing", list));
    // A line would be due after 1 s.
    std::thread::sleep(Duration::from_millis(1500));
    for child in &mut children {
        drop(child.stdin.take());
        let mut written = String::new();
        let mut stderr = child.stderr.take().expect("piped");
        stderr.read_to_string(&mut written).expect("text");
        assert!(child.wait().expect("an end").success());
        assert_eq!(written, "");
    }
}

#[test]
fn a_sink_that_panics_costs_its_event_only() {
    let panicked = Arc::new(AtomicBool::new(false));
    let seen = panicked.clone();
    let heap = Heap::builder()
        .on_event(move |event| {
            if matches!(event, Event::SlowSafepoint { .. }) {
                seen.store(true, Ordering::Relaxed);
                panic!("on purpose");
            }
        })
        .build()
        .expect("a heap");
    let (started, starts) = mpsc::channel();
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut m = heap.attach().expect("attached");
            started.send(()).expect("heard");
            while !panicked.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            m.safepoint();
        });
        starts.recv().expect("attached");
        heap.collect();
    });
    heap.collect();
    assert!(heap.stats().cycles >= 2);
}

/// An object whose drop waits, on the collector's thread.
struct Slow {
    begins: mpsc::Sender<()>,
    goes_on: mpsc::Receiver<()>,
}

impl Slow {
    /// Itself, what hears that its drop has begun, and what lets it go on.
    fn new() -> (Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((begins, begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
        (Self { begins, goes_on }, begun, go_on)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.begins.send(());
        let _ = self.goes_on.recv();
    }
}

// SAFETY: it holds no `Gc`; the receiver is used by its drop only.
unsafe impl greywave::Trace for Slow {
    const NEEDS_TRACE: bool = false;
    fn trace(&self, _: &mut greywave::Tracer<'_>) {}
}

// SAFETY: no brand.
unsafe impl greywave::Rebrand<'_> for Slow {
    type To = Self;
}

#[test]
fn a_heap_that_grows_without_the_end_of_a_cycle_is_told_of() {
    let (heap, told) = heap();
    let (slow, _begun, go_on) = Slow::new();
    let mut m = heap.attach().expect("attached");
    m.alloc(slow);
    let collect = {
        let heap = heap.clone();
        std::thread::spawn(move || heap.collect())
    };
    let overdue = |event: &Event| match event {
        Event::CycleOverdue {
            heap_bytes,
            goal_bytes,
            pending: None,
            lost_mutators: 0,
            ..
        } => Some((*heap_bytes, *goal_bytes, event.to_string())),
        _ => None,
    };
    // All of it lives, so that no brake and no limit is what it waits for.
    let mut kept = Vec::new();
    let found = loop {
        if let Some(found) = find(&told, overdue) {
            break found;
        }
        if kept.len() < 64 {
            kept.push(m.root(m.alloc_slice(1 << 20, |_| 1_u8)));
        } else {
            m.alloc_slice(9000, |_| 1_u8);
        }
        m.safepoint();
    };
    go_on.send(()).expect("the drop waits");
    drop(m);
    collect.join().expect("no panic");
    let (heap_bytes, goal_bytes, text) = found;
    assert!(heap_bytes > 2 * goal_bytes, "{text}");
    assert!(text.contains("`Drop`"), "{text}");
}

/// The end of a runtime waits for a G, and names it.
#[test]
#[cfg(feature = "sched")]
fn the_end_of_a_runtime_that_waits_is_told_of() {
    use greywave::{Runtime, blocking, go_named};

    let (heap, told) = heap();
    let rt = Runtime::builder(&heap).procs(1).build().expect("a runtime");
    let (started, starts) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    rt.block_on(async move {
        drop(go_named("the long call", async move {
            blocking(move || {
                started.send(()).expect("heard");
                let _ = goes_on.recv();
            })
            .await;
        }));
    })
    .expect("no deadlock");
    starts.recv().expect("it has begun");
    let slow = || {
        find(&told, |event| match event {
            Event::SlowShutdown {
                waited,
                gs,
                left: 1,
                ..
            } => Some((*waited, gs.clone(), event.to_string())),
            _ => None,
        })
    };
    std::thread::scope(|s| {
        s.spawn(|| {
            // Without a word this waits for ever.
            while slow().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            go_on.send(()).expect("the call waits");
        });
        drop(rt);
    });
    let (waited, gs, line) = slow().expect("told");
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
    assert!(gs.iter().any(|g| g.contains("the long call")), "{gs:?}");
    assert!(line.contains("in a blocking call"), "{line}");
}

/// A drop that waits is told of to who waits for the cycle.
#[test]
fn a_drop_that_waits_is_told_of() {
    let (heap, told) = heap();
    let (object, _begun, go_on) = Slow::new();
    heap.with(|m| {
        m.alloc(object);
    });
    let slow = || {
        find(&told, |event| match event {
            Event::SlowDrop {
                waited, type_name, ..
            } => Some((*waited, *type_name, event.to_string())),
            _ => None,
        })
    };
    std::thread::scope(|s| {
        s.spawn(|| {
            // Without a word this waits for ever.
            while slow().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            go_on.send(()).expect("the drop waits");
        });
        heap.collect();
    });
    let (waited, type_name, line) = slow().expect("told");
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
    assert!(type_name.ends_with("Slow"), "{type_name}");
    assert!(line.contains("the drop of a"), "{line}");
}

/// A drop waits for a thread that a verification has stopped.
#[test]
fn a_verification_lets_those_go_on_whom_a_drop_waits_for() {
    let heap = Heap::new();
    let (object, begun, go_on) = Slow::new();
    heap.with(|m| {
        m.alloc(object);
    });
    std::thread::scope(|s| {
        let heap = &heap;
        let (attached, attaches) = mpsc::channel();
        let (check, checks) = mpsc::channel();
        s.spawn(move || heap.collect());
        begun.recv().expect("the drop begins");
        s.spawn(move || {
            let mut m = heap.attach().expect("attached");
            attached.send(()).expect("heard");
            // Answers the verification, which stops it, and then goes on for a while.
            let _ = m.blocking(|| checks.recv());
            for _ in 0..100 {
                m.safepoint();
                m.blocking(|| std::thread::sleep(Duration::from_millis(1)));
            }
            go_on.send(()).expect("the drop waits");
        });
        attaches.recv().expect("attached");
        check.send(()).expect("heard");
        heap.verify().expect("whole");
    });
}

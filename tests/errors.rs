//! Bad input and bad use: each is refused with a message that names what is wrong, and nothing
//! breaks.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{AttachError, Event, Frame, Gc, Heap, Trace};

#[path = "stress/support.rs"]
mod support;

use support::{Counted, child, is_child, text, within};

/// The message of the panic in `f`.
fn panic_of(f: impl FnOnce()) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(f)) else {
        return "(no panic)".to_owned();
    };
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_default()
}

#[test]
fn an_unreadable_environment_is_told_and_not_ignored() {
    if is_child("environment") {
        let error = Heap::builder().build().expect_err("GOGC is unreadable");
        println!("error: {error}");
        println!("panic: {}", panic_of(|| drop(Heap::new())));
        // A call wins, so the variable is not read.
        println!("wins: {}", Heap::builder().gogc(Some(5)).build().is_ok());
        return;
    }
    let output = child(
        "an_unreadable_environment_is_told_and_not_ignored",
        "environment",
        &[("GOGC", "plenty")],
    );
    let text = text(&output);
    let message = "GOGC is \"plenty\"; allowed: a number from 0 to 4294967295, or off";
    assert!(text.contains(&format!("error: {message}")), "{text}");
    assert!(
        text.contains(&format!("panic: the heap cannot be made: {message}")),
        "{text}"
    );
    assert!(text.contains("wins: true"), "{text}");
}

#[test]
fn each_switch_of_the_environment_acts() {
    if is_child("switches") {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        let before = heap.stats().cycles;
        m.safepoint();
        m.safepoint();
        println!("cycles: {}", heap.stats().cycles - before);
        println!("limit: {}", heap.set_memory_limit(u64::MAX));
        return;
    }
    let output = child(
        "each_switch_of_the_environment_acts",
        "switches",
        &[
            ("GREYWAVE", "stress=1,verify=1,poison=1"),
            ("GOMEMLIMIT", "64MiB"),
        ],
    );
    let text = text(&output);
    assert!(
        text.contains("cycles: 2") && text.contains("limit: 67108864"),
        "{text}"
    );
}

#[cfg(unix)]
#[test]
fn address_space_that_cannot_be_had() {
    if is_child("address space") {
        let limit = libc::rlimit {
            rlim_cur: 6 << 30,
            rlim_max: 6 << 30,
        };
        // SAFETY: a valid struct; only this process is limited.
        let failed = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(failed, 0);
        let error = Heap::builder()
            .reservation(64 << 30)
            .build()
            .expect_err("more than the limit");
        println!("error: {error}");
        let cause = error.source().map(ToString::to_string);
        println!("caused by: {}", cause.expect("what the system said"));
        let heap = Heap::new();
        println!("reserved: {}", heap.stats().reserved_bytes);
        let mut m = heap.attach().expect("attached");
        let root = m.root(m.alloc_slice(1000, |i| i));
        m.collect();
        println!("works: {}", root.get(&m)[999]);
        return;
    }
    let output = child("address_space_that_cannot_be_had", "address space", &[]);
    let text = text(&output);
    assert!(
        text.contains("a reservation of 68719476736 bytes of address space cannot be had")
            && text.contains("RLIMIT_AS is 6442450944 bytes"),
        "{text}"
    );
    let cause = text.lines().find_map(|l| l.strip_prefix("caused by: "));
    let told = cause.is_some_and(|cause| text.contains(&format!(": {cause}")));
    assert!(told, "{text}");
    let reserved = text
        .lines()
        .find_map(|l| l.split("reserved: ").nth(1))
        .and_then(|n| n.trim().parse::<u64>().ok());
    assert!(
        reserved.is_some_and(|r| (1 << 28..6 << 30).contains(&r)),
        "{text}"
    );
    assert!(text.contains("works: 999"), "{text}");
}

#[test]
fn a_thread_has_one_mutator_of_any_heap() {
    let (a, b) = (Heap::new(), Heap::new());
    let mut m = a.attach().expect("attached");
    assert_eq!(a.attach().err(), Some(AttachError::AlreadyAttached));
    assert_eq!(b.attach().err(), Some(AttachError::AlreadyAttached));
    m.blocking(|| assert_eq!(b.attach().err(), Some(AttachError::AlreadyAttached)));
    drop(m);
    let m = b.attach().expect("detached before");
    assert_eq!(m.alloc(3).to_string(), "3");
}

#[test]
fn roots_of_another_heap_are_refused() {
    let (a, b) = (Heap::new(), Heap::new());
    let (root, weak, mut frame) = {
        let m = a.attach().expect("attached");
        let text = m.alloc_str("a's");
        let frame: Frame<Vec<Gc<'static, str>>> = Frame::new(&m, Vec::new());
        (m.root(text), m.root_weak(Gc::downgrade(text, &m)), frame)
    };
    let m = b.attach().expect("attached");
    let message = "this root belongs to another heap than the mutator";
    assert_eq!(panic_of(|| assert!(!root.get(&m).is_empty())), message);
    assert_eq!(panic_of(|| assert!(weak.get(&m).is_some())), message);
    assert_eq!(
        panic_of(|| assert!(weak.weak(&m).upgrade(&m).is_some())),
        message
    );
    assert_eq!(panic_of(|| assert!(frame.enter(&m).is_empty())), message);
    drop(m);
    let m = a.attach().expect("attached");
    assert_eq!((&*root.get(&m), frame.enter(&m).len()), ("a's", 0));
}

#[test]
fn a_setting_out_of_range_is_refused_by_name() {
    let error = Heap::builder().workers(0).build().expect_err("none");
    assert_eq!(
        error.to_string(),
        "workers is \"0\"; allowed: 1 or more processors"
    );
    assert!(error.source().is_none());
    let heap = Heap::builder().workers(1).build().expect("one is enough");
    heap.collect();
}

#[test]
fn who_cannot_attach_is_told_why() {
    assert_eq!(
        AttachError::AlreadyAttached.to_string(),
        "this thread is attached to a heap already"
    );
    assert_eq!(
        AttachError::InDrop.to_string(),
        "a thread cannot be attached while it drops objects for the collector"
    );
}

#[test]
fn a_root_goes_on_a_thread_with_a_mutator_of_another_heap() {
    let (a, b) = (Heap::new(), Heap::new());
    let drops = Arc::new(AtomicUsize::new(0));
    let root = {
        let m = a.attach().expect("attached");
        m.root(m.alloc(Counted(drops.clone())))
    };
    let mut m = b.attach().expect("attached");
    drop(root);
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), 0, "not this heap's");
    m.blocking(|| a.collect());
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    a.verify().expect("whole");
    b.verify().expect("whole");
}

#[test]
fn a_safepoint_is_due_while_somebody_waits_for_it() {
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    assert!(!m.safepoint_is_due());
    let before = heap.stats().cycles;
    within(Duration::from_secs(60), || {
        std::thread::scope(|scope| {
            let collecting = scope.spawn(|| heap.collect());
            while !m.safepoint_is_due() {
                std::thread::yield_now();
            }
            assert_eq!(heap.stats().cycles, before, "it waits for this thread");
            while !collecting.is_finished() {
                m.safepoint();
            }
        });
    });
    assert_eq!(heap.stats().cycles, before + 1);
    m.safepoint();
    assert!(!m.safepoint_is_due());
}

#[test]
fn a_limit_of_the_container_is_a_limit_or_none() {
    let heap = Heap::builder()
        .memory_limit_from_container()
        .build()
        .expect("a heap");
    let limit = heap.stats().memory_limit_bytes;
    // Nine tenths of whole pages, of no more than the machine has.
    assert!(
        limit == u64::MAX || (1 << 20..1 << 50).contains(&limit),
        "{limit}"
    );
    if is_child("auto") {
        println!(
            "the same: {}",
            Heap::new().stats().memory_limit_bytes == limit
        );
        return;
    }
    let output = child(
        "a_limit_of_the_container_is_a_limit_or_none",
        "auto",
        &[("GOMEMLIMIT", "auto")],
    );
    assert!(
        text(&output).contains("the same: true"),
        "{}",
        text(&output)
    );
}

#[test]
fn huge_pages_change_nothing_that_can_be_seen() {
    let heap = Heap::builder()
        .huge_pages(true)
        .verify(true)
        .poison(true)
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    // Far enough for the arena to ask for them.
    let lists: Vec<_> = (0..24)
        .map(|i| m.root(m.alloc_slice(1 << 18, |j| i * j)))
        .collect();
    m.collect();
    for (i, list) in lists.iter().enumerate() {
        let list = list.get(&m);
        assert!((0..1 << 18).step_by(511).all(|j| list[j] == i * j));
    }
    heap.verify().expect("whole");
}

fn small() -> Heap {
    Heap::builder()
        .reservation(4 << 20)
        .verify(true)
        .build()
        .expect("a heap")
}

#[derive(Trace)]
struct Large {
    number: u64,
    words: [u64; 8_000],
}

#[test]
fn a_full_reservation_is_an_error_that_gives_the_value_back() {
    let heap = small();
    let mut m = heap.attach().expect("attached");
    let drops = Arc::new(AtomicUsize::new(0));
    let mut frame: Frame<Vec<Gc<'static, Large>>> = Frame::new(&m, Vec::new());
    let error = loop {
        let large = Large {
            number: 7,
            words: [3; 8_000],
        };
        match m.try_alloc(large) {
            Ok(gc) => frame.enter(&m).push(gc),
            Err(error) => break error,
        }
    };
    let text = error.to_string();
    assert!(
        text.starts_with(
            "out of memory: 64008 bytes do not fit into the 4194304 bytes that the heap may use; "
        ),
        "{text}"
    );
    let large = error.into_inner();
    assert_eq!((large.number, large.words[7_999]), (7, 3));
    assert!(
        m.try_alloc_slice(1 << 20, |_| panic!("f is not called"))
            .map(|s: Gc<'_, [u64]>| s.len())
            .is_err()
    );
    assert!(m.try_alloc_str(&"x".repeat(5 << 20)).is_err());
    let counted = Counted(drops.clone());
    let refused = m.try_alloc_array(counted, 1 << 21, |_| 0_u64);
    let counted = refused
        .map(|a| a.items().len())
        .expect_err("too much")
        .into_inner();
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(counted);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    let refused: Result<Gc<'_, [u64]>, _> = m.try_alloc_slice(usize::MAX / 4, |_| 0);
    assert!(refused.is_err());
    // With the garbage gone there is room again.
    frame.enter(&m).clear();
    m.collect();
    assert!(m.try_alloc(large).is_ok());
    heap.verify().expect("whole");
}

#[test]
fn small_objects_fill_the_reservation_and_leave_it_usable() {
    let heap = small();
    let mut m = heap.attach().expect("attached");
    let mut frame: Frame<Vec<Gc<'static, [u64; 8]>>> = Frame::new(&m, Vec::new());
    for round in 0..3 {
        let mut open = frame.enter(&m);
        while let Ok(gc) = m.try_alloc([round; 8]) {
            open.push(gc);
        }
        assert!(open.len() > (4 << 20) / 64 / 2, "{} fit", open.len());
        assert!(open.iter().all(|g| g[7] == round));
        open.clear();
        drop(open);
        m.collect();
    }
    heap.verify().expect("whole");
}

#[test]
fn alloc_beyond_the_reservation_ends_the_process_with_a_message() {
    if is_child("beyond") {
        let heap = small();
        let m = heap.attach().expect("attached");
        let _ = m.alloc_slice(1 << 20, |i| i);
        println!("still here");
        return;
    }
    let output = child(
        "alloc_beyond_the_reservation_ends_the_process_with_a_message",
        "beyond",
        &[],
    );
    let text = text(&output);
    assert!(
        !output.status.success() && !text.contains("still here"),
        "{text}"
    );
    assert!(
        text.contains("greywave: fatal: out of memory: 8388608 bytes do not fit"),
        "{text}"
    );
}

#[test]
fn heap_collect_is_for_threads_that_are_not_attached() {
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    assert_eq!(
        panic_of(|| heap.collect()),
        "this thread is attached to a heap: use Mutator::collect"
    );
    m.blocking(|| heap.collect());
    drop(m);
    heap.collect();
    assert!(heap.stats().cycles >= 2);
}

/// Tries in its drop what cannot be done there.
#[derive(Trace)]
struct Meddler {
    #[trace(skip)]
    heap: Heap,
    #[trace(skip)]
    outcome: Arc<Mutex<Vec<String>>>,
}

impl Drop for Meddler {
    fn drop(&mut self) {
        let attached = self.heap.attach().err();
        let verified = self.heap.verify().err();
        let collected = panic_of(|| self.heap.collect());
        let mut outcome = self.outcome.lock().expect("no panic");
        outcome.push(format!(
            "{attached:?}, {:?}, {collected}",
            verified.map(|e| e.to_string())
        ));
    }
}

#[test]
fn a_drop_cannot_attach_collect_or_verify() {
    let outcome = Arc::new(Mutex::new(Vec::new()));
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    let _ = m.alloc(Meddler {
        heap: heap.clone(),
        outcome: outcome.clone(),
    });
    within(Duration::from_secs(30), || m.collect());
    let told = outcome.lock().expect("no panic").clone();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("Some(InDrop), Some("), "{told:?}");
    assert!(
        told[0].ends_with("a drop cannot wait for a cycle"),
        "{told:?}"
    );
}

#[test]
fn a_sink_that_panics_does_not_stop_the_collector() {
    let told = Arc::new(AtomicBool::new(false));
    let seen = told.clone();
    let heap = Heap::builder()
        .on_event(move |event| {
            if matches!(event, Event::CycleEnd { .. }) && !seen.swap(true, Ordering::Relaxed) {
                panic!("a sink's bug");
            }
        })
        .build()
        .expect("a heap");
    within(Duration::from_secs(30), || {
        heap.collect();
        heap.collect();
    });
    assert!(told.load(Ordering::Relaxed) && heap.stats().cycles >= 2);
}

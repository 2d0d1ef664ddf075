//! Mutators that are forgotten or leaked: what they gave out stays, nobody hangs, and the heap
//! reports them.

#![allow(
    clippy::mem_forget,
    reason = "what happens to a mutator that is forgotten is the subject"
)]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{Event, Gc, Heap, Mutator, RequestKind, Root, Trace, dyn_target, unsize};

#[path = "stress/lost.rs"]
mod programs;

use programs::heap;

#[test]
fn what_a_leaked_mutator_gave_stays() {
    programs::what_a_leaked_mutator_gave_stays();
}

#[test]
fn a_lost_mutator_is_counted() {
    programs::a_lost_mutator_is_counted();
}

#[test]
fn a_thread_attaches_again_and_drops_roots_in_between() {
    programs::a_thread_attaches_again_and_drops_roots_in_between();
}

type Told = Arc<Mutex<Vec<Event>>>;

/// A heap that shows what it frees, and what it tells.
fn telling_heap() -> (Heap, Told) {
    let told = Told::default();
    let seen = told.clone();
    let heap = Heap::builder()
        .poison(true)
        .on_event(move |event| seen.lock().expect("no panic").push(event.clone()))
        .build()
        .expect("a heap");
    (heap, told)
}

fn losses(told: &Told) -> Vec<Event> {
    let told = told.lock().expect("no panic");
    let lost = told
        .iter()
        .filter(|e| matches!(e, Event::MutatorLost { .. }));
    lost.cloned().collect()
}

/// Waits until `done`, which does not depend on time.
fn until(done: impl Fn() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_heap_says_who_was_lost_and_goes_on() {
    let (heap, told) = telling_heap();
    let other = heap.clone();
    let forget = std::thread::Builder::new().name("the forgetful".to_owned());
    let line = line!() + 2;
    let forget = forget
        .spawn(move || std::mem::forget(other.attach().expect("attached")))
        .expect("a thread");
    forget.join().expect("no panic");
    heap.collect();
    until(|| !losses(&told).is_empty());
    let lost = losses(&told);
    let [
        Event::MutatorLost {
            thread,
            attached_at,
            ..
        },
    ] = lost.as_slice()
    else {
        panic!("{lost:?}");
    };
    assert_eq!(
        (thread.as_str(), attached_at.line()),
        ("the forgetful", line)
    );
    assert!(lost[0].to_string().contains("tests/lost.rs"), "{}", lost[0]);

    // Another thread attaches, allocates, asks for collections; nothing is freed, nobody waits.
    let cycles = heap.stats().cycles;
    let mut m = heap.attach().expect("attached");
    let kept = m.root(m.alloc(7_u64));
    for n in 0..10_000_u64 {
        m.alloc_slice(100, |_| n);
        m.safepoint();
    }
    m.collect();
    assert_eq!(*kept.get(&m), 7);
    drop(m);
    heap.collect();
    let stats = heap.stats();
    assert_eq!((stats.cycles, stats.freed_bytes), (cycles, 0));
    assert_eq!(
        (stats.lost_mutators, stats.mutators, stats.running_mutators),
        (1, 1, 1)
    );
    // Nobody runs that mutator any more, so the heap can be looked at where the system says so.
    let looked = heap.verify();
    #[cfg(target_os = "linux")]
    looked.expect("the thread has ended, which the system says");
    #[cfg(not(target_os = "linux"))]
    if let Err(error) = looked {
        assert!(error.to_string().contains("the forgetful"), "{error}");
    }
}

#[test]
fn a_forgotten_mutator_has_a_line_on_standard_error() {
    const CHILD: &str = "GREYWAVE_TEST_CHILD";
    let name = "a_forgotten_mutator_has_a_line_on_standard_error";
    if std::env::var_os(CHILD).is_some() {
        let heap = Heap::new();
        let other = heap.clone();
        let forget =
            std::thread::spawn(move || std::mem::forget(other.attach().expect("attached")));
        forget.join().expect("no panic");
        heap.collect();
        // Whoever finds the loss writes the line, and may do so after this thread has gone on. The
        // parent closes standard input when it has read it.
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env_remove("GREYWAVE")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    lines.read_line(&mut said).expect("a line");
    drop(child.stdin.take());
    lines.read_to_string(&mut said).expect("the rest");
    assert!(child.wait().expect("its end").success(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in [
        "greywave: warning: ",
        "without dropping the mutator",
        "lost.rs:",
        "Heap::with",
    ] {
        assert!(said.contains(part), "{part} in {said:?}");
    }
}

/// Which answers a thread gives before it forgets its mutator, in the middle of the next request.
const REQUESTS: [RequestKind; 4] = [
    RequestKind::Stop,
    RequestKind::Handshake,
    RequestKind::Stop,
    RequestKind::Handshake,
];

/// Passes safepoints until the last of `requests` waits for this thread, among others.
fn reach(m: &mut Mutator, requests: &[RequestKind]) {
    let heap = m.heap().clone();
    for (n, &kind) in requests.iter().enumerate() {
        loop {
            let pending = heap.stats().pending.filter(|p| p.late > 0);
            let is_it = pending.is_some_and(|p| p.kind == kind);
            if is_it && n + 1 == requests.len() {
                return;
            }
            m.safepoint();
            if is_it {
                break;
            }
        }
    }
}

/// A node whose object is only held by what a leaked mutator gave out.
fn leak_in_the_middle(requests: &[RequestKind]) {
    let (heap, told) = telling_heap();
    let over = AtomicBool::new(false);
    let text: &'static String = std::thread::scope(|s| {
        let leak = s.spawn(|| {
            let m = Box::leak(Box::new(heap.attach().expect("attached")));
            reach(m, requests);
            let m: &'static Mutator = m;
            m.alloc(String::from("born in the middle")).as_ref()
        });
        // A neighbour that polls has to go on, too.
        let neighbour = s.spawn(|| {
            let mut m = heap.attach().expect("attached");
            while !over.load(Ordering::Relaxed) {
                m.alloc_slice(10, |n| n);
                m.safepoint();
            }
            m.collect();
        });
        while !leak.is_finished() {
            heap.collect();
        }
        let text = leak.join().expect("no panic");
        heap.collect();
        over.store(true, Ordering::Relaxed);
        neighbour.join().expect("no panic");
        text
    });
    heap.collect();
    assert_eq!(text, "born in the middle");
    until(|| losses(&told).len() == 1);
    let mut m = heap.attach().expect("attached");
    for n in 0..10_000_u64 {
        m.alloc_slice(100, |_| n);
        m.safepoint();
    }
    m.collect();
    assert_eq!(text, "born in the middle");
}

#[test]
fn a_mutator_is_leaked_in_the_first_stop() {
    leak_in_the_middle(&REQUESTS[..1]);
}

#[test]
fn a_mutator_is_leaked_while_marking_runs() {
    leak_in_the_middle(&REQUESTS[..2]);
}

#[test]
fn a_mutator_is_leaked_in_the_last_stop() {
    leak_in_the_middle(&REQUESTS[..3]);
}

#[test]
fn a_mutator_is_leaked_before_the_sweep() {
    leak_in_the_middle(&REQUESTS[..4]);
}

#[test]
fn a_mutator_is_forgotten_while_the_heap_is_to_be_verified() {
    let heap = heap();
    std::thread::scope(|s| {
        let forget = s.spawn(|| {
            let mut m = heap.attach().expect("attached");
            reach(&mut m, &[RequestKind::Verify]);
            std::mem::forget(m);
        });
        while !forget.is_finished() {
            // It returns, whatever it finds.
            let _ = heap.verify();
        }
        forget.join().expect("no panic");
    });
    heap.collect();
    assert!(heap.attach().is_ok());
}

#[derive(Trace)]
struct Held<'gc> {
    text: Gc<'gc, String>,
}

/// Hides a brand.
trait Give {
    fn give(&self) -> Gc<'static, String>;
}

impl Give for Held<'static> {
    fn give(&self) -> Gc<'static, String> {
        self.text
    }
}

dyn_target!(dyn Give);

#[test]
fn a_static_pointer_behind_a_trait_object_stays_good() {
    let heap = heap();
    let root: Root<dyn Give> = std::thread::scope(|s| {
        let leak = s.spawn(|| {
            let m: &'static Mutator = Box::leak(Box::new(heap.attach().expect("attached")));
            let text = m.alloc(String::from("behind a trait"));
            let held: Gc<'static, Held<'static>> = m.alloc(Held { text });
            m.root(unsize!(held => dyn Give))
        });
        leak.join().expect("no panic")
    });
    heap.collect();
    let m = heap.attach().expect("attached");
    let text: Gc<'static, String> = root.get(&m).give();
    // The object that led to it is garbage now.
    drop(root);
    drop(m);
    heap.collect();
    assert_eq!(*text, "behind a trait");
}

#[test]
fn allocation_ends_at_the_limit_with_an_error_that_says_why() {
    let heap = Heap::builder()
        .hard_limit(4 << 20)
        .quiet(true)
        .build()
        .expect("a heap");
    let other = heap.clone();
    let forget = std::thread::spawn(move || std::mem::forget(other.attach().expect("attached")));
    forget.join().expect("no panic");
    heap.collect();
    let mut m = heap.attach().expect("attached");
    let mut allocated = 0_u64;
    let error = loop {
        match m.try_alloc([0_u64; 16]) {
            Ok(_) => allocated += 128,
            Err(error) => break error.to_string(),
        }
        m.safepoint();
    };
    assert!(allocated > 2 << 20, "{allocated}");
    assert!(
        error.contains("out of memory") && error.contains("without dropping its mutator"),
        "{error}"
    );
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// A mutator in a thread-local, whose destructor waits for something first.
struct Kept {
    mutator: Option<Mutator>,
    wait: fn(&Heap),
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mutator = self.mutator.take().expect("kept");
        (self.wait)(mutator.heap());
        drop(mutator);
    }
}

fn not_at_all(_: &Heap) {}

fn until_it_is_lost(heap: &Heap) {
    until(|| heap.stats().lost_mutators == 1);
    // This thread runs, and another one cannot stop it.
    let verify = std::thread::scope(|s| s.spawn(|| heap.verify()).join().expect("no panic"));
    let error = verify.expect_err("it cannot be stopped").to_string();
    assert!(error.contains("lost.rs"), "{error}");
}

#[test]
fn a_thread_local_drops_its_mutator_in_time() {
    let heap = heap();
    for _ in 0..20 {
        std::thread::scope(|s| {
            s.spawn(|| {
                // It registers its destructor before the heap does, which runs first therefore.
                KEPT.with_borrow_mut(|kept| {
                    let mutator = Some(heap.attach().expect("attached"));
                    *kept = Some(Kept {
                        mutator,
                        wait: not_at_all,
                    });
                });
            });
            // While the thread ends: its mutator is waited for as any other.
            heap.collect();
        });
    }
    let before = heap.stats().cycles;
    heap.collect();
    let stats = heap.stats();
    assert!(stats.cycles > before, "it collects");
    assert_eq!((stats.mutators, stats.lost_mutators), (0, 0));
}

fn return_in_the_middle(requests: &'static [RequestKind]) {
    let (heap, told) = telling_heap();
    let weak = {
        let m = heap.attach().expect("attached");
        m.root_weak(m.alloc(1_u64).downgrade(&m))
    };
    std::thread::scope(|s| {
        s.spawn(|| {
            KEPT.with_borrow_mut(|kept| {
                let mut mutator = heap.attach().expect("attached");
                reach(&mut mutator, requests);
                let mutator = Some(mutator);
                *kept = Some(Kept {
                    mutator,
                    wait: until_it_is_lost,
                });
            });
        });
        until(|| {
            heap.collect();
            !losses(&told).is_empty()
        });
    });
    // The thread's last destructor may still be at it.
    until(|| heap.stats().mutators == 0);
    let before = heap.stats().cycles;
    heap.collect();
    let stats = heap.stats();
    assert!(stats.cycles > before, "the heap collects again");
    assert_eq!(stats.lost_mutators, 0);
    heap.verify().expect("whole");
    let m = heap.attach().expect("attached");
    assert!(weak.get(&m).is_none(), "what was garbage is gone");
}

#[test]
fn a_lost_mutator_that_is_dropped_in_the_first_stop_sets_the_heap_free() {
    return_in_the_middle(&REQUESTS[..1]);
}

#[test]
fn a_lost_mutator_that_is_dropped_while_marking_runs_sets_the_heap_free() {
    return_in_the_middle(&REQUESTS[..2]);
}

#[test]
fn a_lost_mutator_that_is_dropped_in_the_last_stop_sets_the_heap_free() {
    return_in_the_middle(&REQUESTS[..3]);
}

#[test]
fn a_lost_mutator_that_is_dropped_before_the_sweep_sets_the_heap_free() {
    return_in_the_middle(&REQUESTS[..4]);
}

#[cfg(unix)]
mod keys {
    //! Destructors of pthread keys run after those of thread-locals.

    use std::sync::OnceLock;

    use super::*;

    type Last = Box<dyn FnOnce() + Send>;

    /// Runs `last` as the last thing on this thread.
    fn at_the_very_end(last: impl FnOnce() + Send + 'static) {
        extern "C" fn run(last: *mut libc::c_void) {
            // SAFETY: set below, once for this thread, and run once.
            let last = unsafe { Box::from_raw(last.cast::<Last>()) };
            last();
        }
        static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
        let key = *KEY.get_or_init(|| {
            let mut key = 0;
            // SAFETY: a place for the key, and a plain function.
            let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(run)) };
            assert_eq!(failed, 0);
            key
        });
        let last: *mut Last = Box::into_raw(Box::new(Box::new(last)));
        // SAFETY: the key is never deleted.
        let failed = unsafe { libc::pthread_setspecific(key, last.cast()) };
        assert_eq!(failed, 0);
    }

    /// A value that the last destructor has alone.
    struct Alone<T>(T);
    // SAFETY: made, used and dropped on one thread.
    #[allow(clippy::non_send_fields_in_send_ty, reason = "it stays on its thread")]
    unsafe impl<T> Send for Alone<T> {}
    impl<T> Alone<T> {
        fn take(self) -> T {
            self.0
        }
    }

    #[test]
    fn roots_and_pointers_are_good_in_the_last_destructor() {
        let heap = heap();
        for n in 0..20_u64 {
            let other = heap.clone();
            let thread = std::thread::spawn(move || {
                let m: &'static Mutator = Box::leak(Box::new(other.attach().expect("attached")));
                let root = m.root(m.alloc(n));
                let last = Alone((root, m.alloc(String::from("to the end"))));
                let again = other.clone();
                at_the_very_end(move || {
                    let (root, text) = last.take();
                    assert_eq!(*text, "to the end");
                    assert!(again.attach().is_err(), "it has a mutator");
                    drop(root);
                });
            });
            thread.join().expect("no panic");
            heap.collect();
        }
        assert_eq!(heap.stats().lost_mutators, 20);
    }

    #[test]
    fn a_mutator_is_made_in_the_last_destructor() {
        let heap = heap();
        for forget in [false, true] {
            let other = heap.clone();
            let thread = std::thread::spawn(move || {
                // So that the heap's own destructor has run before.
                drop(other.attach().expect("attached"));
                at_the_very_end(move || {
                    let mut m = other.attach().expect("attached");
                    let root = m.root(m.alloc(1_u64));
                    if forget {
                        std::mem::forget(m);
                    } else {
                        m.collect();
                        assert_eq!(*root.get(&m), 1);
                    }
                });
            });
            thread.join().expect("no panic");
            let cycles = heap.stats().cycles;
            heap.collect();
            assert_eq!(heap.stats().cycles > cycles, !forget);
        }
    }
}

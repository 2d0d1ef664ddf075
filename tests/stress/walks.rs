//! Walks over the heap beside the markers, and what they leave behind: walks of the verifier while
//! a thread writes, and the slots of roots that move elsewhere.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use greywave::{Frame, Gc, GcCell, GcLock, Heap, Rebrand, Root, Trace, Tracer};

use crate::support::heap;

/// Stands for a container that is half moved: nobody may look at it between `begin` and `end`.
#[derive(Clone, Debug)]
struct Watch {
    is_written: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
}

impl Watch {
    fn new() -> Self {
        Self {
            is_written: Arc::new(AtomicBool::new(false)),
            looks: Arc::new(AtomicUsize::new(0)),
        }
    }

    fn begin(&self) {
        self.is_written.store(true, Ordering::SeqCst);
    }

    fn end(&self) {
        self.is_written.store(false, Ordering::SeqCst);
    }

    /// How often it has been looked at.
    fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

// SAFETY: 1. 3. 6. no `Gc` inside. 2. atomics in `Arc`s. 4. true, so that it is traced. 5. it ends
// the process instead of unwinding.
unsafe impl Trace for Watch {
    fn trace(&self, _: &mut Tracer<'_>) {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if self.is_written.load(Ordering::SeqCst) {
            eprintln!("greywave: fatal: somebody looks at what is being written");
            std::process::abort();
        }
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Watch {
    type To = Self;
}

#[derive(Trace)]
struct Watched<'gc> {
    watch: Watch,
    items: Vec<Gc<'gc, u64>>,
}

fn watched<'gc>(watch: &Watch) -> Watched<'gc> {
    Watched {
        watch: watch.clone(),
        items: Vec::new(),
    }
}

/// A thread verifies in the middle of its own write; afterwards, and when guards were forgotten,
/// everything is looked at.
#[allow(clippy::mem_forget, reason = "forgotten guards are a part of it")]
pub(crate) fn what_this_thread_writes_is_left_out() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let (watch, locked) = (Watch::new(), Watch::new());
    let mut frame: Frame<Watched<'static>> = Frame::new(&m, watched(&watch));
    let lock: Root<GcLock<Watched<'static>>> = m.root(m.alloc(GcLock::new(watched(&locked))));
    m.collect();
    let left_out = || {
        heap.verify().expect("whole");
        heap.stats().verify_left_out
    };
    {
        let mut open = frame.enter(&m);
        watch.begin();
        assert_eq!(left_out(), 1, "the frame");
        watch.end();
        open.items.push(m.alloc(1));
    }
    m.collect();
    {
        let mut open = lock.get(&m).as_ref().write(&m);
        locked.begin();
        assert_eq!(left_out(), 1, "the lock");
        locked.end();
        open.items.push(m.alloc(2));
    }
    m.collect();
    for forgets in [false, true] {
        if forgets {
            // A frame guard has no drop: it ends without a trace.
            let _ = frame.enter(&m);
            std::mem::forget(lock.get(&m).write(&m));
            m.collect();
        }
        let before = watch.looks() + locked.looks();
        assert_eq!(left_out(), 0, "nobody writes");
        assert_eq!(
            watch.looks() + locked.looks(),
            before + 2,
            "the frame and the lock"
        );
    }
}

/// Threads verify at the same time, each in the middle of a write: one of them looks while the
/// others wait for their turn.
pub(crate) fn threads_verify_in_the_middle_of_writes() {
    let heap = heap();
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                let mut m = heap.attach().expect("attached");
                let watch = Watch::new();
                let mut frame: Frame<Watched<'static>> = Frame::new(&m, watched(&watch));
                let lock: Root<GcLock<Watched<'static>>> =
                    m.root(m.alloc(GcLock::new(watched(&watch))));
                for round in 0..40 {
                    {
                        let mut open = frame.enter(&m);
                        let mut locked = lock.get(&m).as_ref().write(&m);
                        watch.begin();
                        heap.verify().expect("whole");
                        watch.end();
                        open.items.push(m.alloc(round));
                        locked.items.clear();
                    }
                    m.safepoint();
                }
            });
        }
    });
}

/// A thread waits for the marker inside an allocation, in the middle of a write; marks are verified
/// when marking ends.
pub(crate) fn marks_are_verified_in_the_middle_of_writes() {
    #[derive(Trace)]
    struct Node<'gc>(GcCell<'gc, Node<'gc>>, [u64; 6]);
    let heap = Heap::builder()
        .gogc(Some(20))
        .verify(true)
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    let _list: Root<Node<'static>> = {
        let push = |last, _| Some(m.alloc(Node(GcCell::new(last), [0; 6])));
        m.root((0..30_000).fold(None, push).expect("a list"))
    };
    let watch = Watch::new();
    let mut frame: Frame<Watched<'static>> = Frame::new(&m, watched(&watch));
    let lock: Root<GcLock<Watched<'static>>> = m.root(m.alloc(GcLock::new(watched(&watch))));
    let begun = heap.stats().cycles;
    while heap.stats().cycles < begun + 25 {
        {
            let mut open = frame.enter(&m);
            let mut locked = lock.get(&m).as_ref().write(&m);
            watch.begin();
            for _ in 0..8 {
                let _garbage = m.alloc_slice(32_768, |_| 0_u64);
            }
            watch.end();
            open.items.clear();
            locked.items.clear();
        }
        m.safepoint();
    }
    assert!(watch.looks() > 0);
}

/// One thread makes roots, another one drops them; in the end there are as many blocks as for what
/// lives at once.
#[cfg(feature = "internals")]
pub(crate) fn roots_that_go_elsewhere_leave_no_slots_behind() {
    use std::sync::mpsc::sync_channel;

    use greywave::internals::root_blocks;

    const ROOTS: usize = 1000;
    const ROUNDS: usize = 150;
    let heap = Heap::new();
    let (tx, rx) = sync_channel::<Vec<Root<u64>>>(1);
    std::thread::scope(|s| {
        s.spawn(|| {
            let rx = rx;
            let mut m = heap.attach().expect("attached");
            while let Ok(roots) = m.blocking(|| rx.recv()) {
                drop(roots);
                m.safepoint();
            }
        });
        let mut m = heap.attach().expect("attached");
        for _ in 0..ROUNDS {
            let roots: Vec<_> = (0..ROOTS as u64).map(|n| m.root(m.alloc(n))).collect();
            m.blocking(|| tx.send(roots)).expect("somebody receives");
            m.safepoint();
            // Three lots are under way at most; without a bound there were 150. 254 roots fit into
            // a block.
            assert!(
                root_blocks(&heap) < 8 * ROOTS / 254,
                "{} blocks",
                root_blocks(&heap)
            );
        }
        drop(tx);
    });
    heap.collect();
    assert!(root_blocks(&heap) < 8, "{} blocks", root_blocks(&heap));
}

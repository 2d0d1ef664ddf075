//! The whole heap in a few tests: objects survive when they should, and only then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greywave::{Frame, Gc, GcCell, GcLock, Heap, Root, Trace};

#[derive(Trace)]
struct Node<'gc> {
    value: u64,
    next: GcCell<'gc, Node<'gc>>,
}

struct Counted(Arc<AtomicUsize>);
impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
// SAFETY: no `Gc`, Send + Sync.
unsafe impl Trace for Counted {
    const NEEDS_TRACE: bool = false;
    fn trace(&self, _: &mut greywave::Tracer<'_>) {}
}
// SAFETY: no brand.
unsafe impl greywave::Rebrand<'_> for Counted {
    type To = Self;
}

/// Miri interprets each instruction, and has little memory.
const MANY: u64 = if cfg!(miri) { 100 } else { 10_000 };

fn heap() -> Heap {
    Heap::builder()
        .verify(true)
        .poison(true)
        .build()
        .expect("a heap")
}

#[test]
fn a_list_survives_collections() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let root: Root<Node<'static>> = {
        let mut head = None;
        for value in 0..MANY {
            head = Some(m.alloc(Node {
                value,
                next: GcCell::new(head),
            }));
        }
        m.root(head.expect("not empty"))
    };
    for _ in 0..if cfg!(miri) { 2 } else { 5 } {
        m.collect();
        heap.verify().expect("whole");
        let mut at = Some(root.get(&m));
        let mut want = MANY;
        while let Some(node) = at {
            want -= 1;
            assert_eq!(node.value, want);
            at = node.next.get();
        }
        assert_eq!(want, 0);
        for value in 0..MANY / 10 {
            let _ = m.alloc(Node {
                value,
                next: GcCell::null(),
            });
        }
        m.safepoint();
    }
    let before = heap.stats().live_bytes;
    drop(root);
    m.collect();
    heap.verify().expect("whole");
    assert!(
        heap.stats().live_bytes < before / 2,
        "{} of {before}",
        heap.stats().live_bytes
    );
}

#[test]
fn drops_run_once_each() {
    let drops = Arc::new(AtomicUsize::new(0));
    {
        let heap = heap();
        let mut m = heap.attach().expect("attached");
        let mut keep: Frame<Vec<Gc<'static, Counted>>> = Frame::new(&m, Vec::new());
        for i in 0..MANY {
            let object = m.alloc(Counted(drops.clone()));
            if i % 4 == 0 {
                keep.enter(&m).push(object);
            }
            m.safepoint();
        }
        m.collect();
        assert_eq!(drops.load(Ordering::Relaxed) as u64, MANY * 3 / 4);
        heap.verify().expect("whole");
    }
    assert_eq!(
        drops.load(Ordering::Relaxed) as u64,
        MANY,
        "those alive when the heap goes are dropped too"
    );
}

#[derive(Trace)]
struct Shared<'gc> {
    items: GcLock<Vec<Gc<'gc, Node<'gc>>>>,
}

#[test]
fn two_threads_share_a_lock() {
    let heap = heap();
    let root = {
        let m = heap.attach().expect("attached");
        m.root(m.alloc(Shared {
            items: GcLock::new(Vec::new()),
        }))
    };
    std::thread::scope(|s| {
        for t in 0..2_u64 {
            let (heap, root) = (&heap, &root);
            s.spawn(move || {
                let mut m = heap.attach().expect("attached");
                for i in 0..2 * MANY {
                    {
                        let shared = root.get(&m);
                        let node = m.alloc(Node {
                            value: t * 1_000_000 + i,
                            next: GcCell::null(),
                        });
                        let mut items = shared.items.write(&m);
                        if items.len() > 500 {
                            items.clear();
                        }
                        items.push(node);
                    }
                    m.safepoint();
                    if i % (MANY / 2) == 0 {
                        m.collect();
                    }
                }
            });
        }
    });
    heap.verify().expect("whole");
    assert!(heap.stats().cycles >= 4);
}

//! `Heap::with`: it lends a mutator for the call, or this thread's own mutator while that is
//! blocked.

use std::panic::{AssertUnwindSafe, catch_unwind};

use greywave::{Heap, Mutator, Root};

fn heap() -> Heap {
    Heap::builder().poison(true).build().expect("a heap")
}

/// What `f` panics with.
fn panics(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it has to panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&'static str>().expect("text")).to_owned(),
    }
}

#[test]
fn it_attaches_for_the_call() {
    let heap = heap();
    let root = heap.with(|m| {
        assert_eq!(heap.stats().running_mutators, 1);
        m.root(m.alloc_str("kept"))
    });
    assert_eq!(heap.stats().mutators, 0);
    heap.collect();
    heap.with(|m| {
        m.collect();
        assert_eq!(&*root.get(m), "kept");
        m.safepoint();
    });
    assert!(heap.attach().is_ok());
    heap.verify().expect("whole");
}

#[test]
fn a_panic_inside_detaches_in_order() {
    let heap = heap();
    let message = panics(|| {
        heap.with(|m| {
            let _root = m.root(m.alloc(1));
            panic!("on purpose")
        })
    });
    assert_eq!(message, "on purpose");
    assert_eq!(heap.stats().mutators, 0);
    heap.collect();
    assert_eq!(heap.with(|m| *m.alloc(2)), 2);
}

#[test]
fn a_blocked_thread_gets_its_own_mutator() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let before = m.root(m.alloc(1_u64));
    let inside: Root<u64> = m.blocking(|| {
        heap.collect();
        let root = heap.with(|m| {
            assert_eq!(heap.stats().mutators, 1);
            assert_eq!(heap.stats().running_mutators, 1);
            m.collect();
            // As deep as one likes.
            let more = m.blocking(|| heap.with(|m| m.root(m.alloc(3_u64))));
            assert_eq!(*more.get(m), 3);
            m.root(m.alloc(*before.get(m) + 1))
        });
        // It is blocked again: this does not wait for it.
        assert_eq!(heap.stats().running_mutators, 0);
        heap.collect();
        root
    });
    m.collect();
    assert_eq!(*inside.get(&m), 2);
    drop(m);
    heap.verify().expect("whole");
}

#[test]
fn a_panic_in_a_lent_mutator_blocks_it_again() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let root = m.blocking(|| {
        let message = panics(|| heap.with(|_| panic!("on purpose")));
        assert_eq!(message, "on purpose");
        heap.collect();
        heap.with(|m| m.root(m.alloc(5)))
    });
    assert_eq!(*root.get(&m), 5);
    // The panic goes through both.
    let message = panics(|| m.blocking(|| heap.with(|_| panic!("through both"))));
    assert_eq!(message, "through both");
    m.collect();
    assert_eq!(*root.get(&m), 5);
}

#[test]
fn two_licences_on_one_thread_are_refused() {
    let (heap, other) = (heap(), heap());
    let mut m = heap.attach().expect("attached");
    let message = panics(|| heap.with(|_| ()));
    assert!(
        message.contains("runs") && message.contains("tests/with.rs"),
        "{message}"
    );
    let message = panics(|| other.with(|_| ()));
    assert!(message.contains("another heap"), "{message}");
    let message = m.blocking(|| panics(|| other.with(|_| ())));
    assert!(message.contains("another heap"), "{message}");
    drop(m);
    heap.with(|_| {
        let message = panics(|| heap.with(|_| ()));
        assert!(message.contains("runs"), "{message}");
        assert!(heap.attach().is_err());
    });
    other.with(|_| ());
}

#[test]
fn a_drop_may_not_use_it() {
    struct UsesTheHeap(Heap, std::sync::mpsc::Sender<String>);
    impl Drop for UsesTheHeap {
        fn drop(&mut self) {
            let message = panics(|| self.0.with(|_| ()));
            let _ = self.1.send(message);
        }
    }
    // SAFETY: it holds no `Gc`, and is `Send` and `Sync` but for the sender, which is used by its
    // drop only.
    unsafe impl greywave::Trace for UsesTheHeap {
        const NEEDS_TRACE: bool = false;
        fn trace(&self, _: &mut greywave::Tracer<'_>) {}
    }
    // SAFETY: no brand.
    unsafe impl greywave::Rebrand<'_> for UsesTheHeap {
        type To = Self;
    }
    let heap = heap();
    let (tell, told) = std::sync::mpsc::channel();
    heap.with(|m| {
        m.alloc(UsesTheHeap(heap.clone(), tell));
    });
    heap.collect();
    assert!(told.recv().expect("dropped").contains("drop"));
}

#[test]
fn many_threads_come_and_go_beside_collections() {
    let heap = heap();
    std::thread::scope(|s| {
        for n in 0..3_u64 {
            let heap = &heap;
            s.spawn(move || {
                let mut list: Vec<Root<u64>> = Vec::new();
                for i in 0..300 {
                    list.push(heap.with(|m| m.root(m.alloc(n * 1000 + i))));
                    if i % 7 == 0 {
                        list.swap_remove(list.len() / 2);
                    }
                }
                let sum = |m: &mut Mutator| list.iter().map(|root| *root.get(m)).sum::<u64>();
                let mut m = heap.attach().expect("attached");
                let blocked = m.blocking(|| heap.with(sum));
                assert_eq!(sum(&mut m), blocked);
            });
        }
        for _ in 0..30 {
            heap.collect();
        }
    });
    heap.verify().expect("whole");
}

#[cfg(feature = "sched")]
mod gs {
    use greywave::{Runtime, blocking, with};

    use super::*;

    #[test]
    fn a_section_that_is_blocked_lends_its_mutator() {
        let heap = heap();
        let rt = Runtime::builder(&heap).procs(2).build().expect("a runtime");
        let of_the_heap = heap.clone();
        let sums = rt.block_on(async move {
            let mut all = Vec::new();
            for n in 0..8_u64 {
                let heap = of_the_heap.clone();
                all.push(greywave::go(async move {
                    let mut sum = 0;
                    for i in 0..50 {
                        sum += with(|m| {
                            let root = m.root(m.alloc(n * i));
                            let inside = m.blocking(|| {
                                heap.with(|m| {
                                    m.safepoint();
                                    let deep = m.blocking(|| heap.with(|m| *root.get(m)));
                                    assert_eq!(*root.get(m), deep);
                                    deep
                                })
                            });
                            assert_eq!(*root.get(m), inside);
                            inside
                        });
                        greywave::yield_now().await;
                    }
                    sum
                }));
            }
            let mut sums = Vec::new();
            for g in all {
                sums.push(g.await.expect("no panic"));
            }
            sums
        });
        let expected: Vec<u64> = (0..8).map(|n| n * (0..50).sum::<u64>()).collect();
        assert_eq!(sums.expect("no deadlock"), expected);
        drop(rt);
        heap.verify().expect("whole");
    }

    #[test]
    fn in_a_section_it_is_refused_and_in_a_blocking_call_it_attaches() {
        let heap = heap();
        let rt = Runtime::builder(&heap).procs(1).build().expect("a runtime");
        let of_the_heap = heap.clone();
        let value = rt.block_on(async move {
            let heap = of_the_heap;
            let message = with(|_| panics(|| heap.with(|_| ())));
            assert!(message.contains("runs"), "{message}");
            // A section is refused in turn where the thread has a mutator.
            let message = heap.with(|_| panics(|| with(|_| ())));
            assert!(message.contains("section"), "{message}");
            blocking(|| heap.with(|m| *m.alloc(3))).await + heap.with(|m| *m.alloc(4))
        });
        assert_eq!(value.expect("no deadlock"), 7);
    }
}

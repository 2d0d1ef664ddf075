//! Memory runs out at each kind of allocation in turn. The promised error returns the value, and
//! the heap is whole and has room again when something has died.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::{Frame, Gc, GcCell, GcLock, Heap, HeapBuilder, Mutator, Root, Trace, WeakRoot};

#[path = "stress/support.rs"]
mod support;

use support::{Counted, child, is_child, text, within};

const MINUTE: Duration = Duration::from_secs(60);

fn checked() -> HeapBuilder {
    Heap::builder().verify(true).poison(true)
}

#[derive(Trace)]
struct Node<'gc> {
    list: GcLock<Vec<Gc<'gc, Counted>>>,
    counted: Counted,
}

fn node<'m>(m: &'m Mutator, drops: &Arc<AtomicUsize>) -> Gc<'m, Node<'m>> {
    let counted = || Counted(drops.clone());
    m.alloc(Node {
        list: GcLock::new(vec![m.alloc(counted())]),
        counted: counted(),
    })
}

/// A page, so that the last pages can be given back one by one.
type Page = [u64; 1024];
type Pages = Frame<Vec<Gc<'static, Page>>>;

/// Fills the heap to the last page, then empties `free` pages.
fn fill(m: &mut Mutator, pages: &mut Pages, free: usize) {
    loop {
        let number = pages.enter(m).len() as u64;
        let Ok(page) = m.try_alloc([number; 1024]) else {
            break;
        };
        pages.enter(m).push(page);
    }
    let left = pages.enter(m).len().saturating_sub(free);
    pages.enter(m).truncate(left);
    m.collect();
}

/// An allocation of one kind: what it takes to be dropped, or whether there was room.
type Site = fn(&Mutator, &Arc<AtomicUsize>, &Root<Node<'static>>) -> bool;

const SITES: [(&str, Site); 9] = [
    ("a plain value", |m, _, _| m.try_alloc([7_u64; 6]).is_ok()),
    ("a value with a drop", |m, drops, _| {
        let counted = Counted(drops.clone());
        let given = m
            .try_alloc((counted, [0_u64; 3]))
            .map_err(greywave::AllocError::into_inner);
        given
            .map_err(|(counted, words)| {
                assert_eq!((Arc::strong_count(&counted.0) > 1, words), (true, [0; 3]))
            })
            .is_ok()
    }),
    ("a value with an edge", |m, _, root| {
        m.try_alloc((Some(root.get(m)), 5_u8)).is_ok()
    }),
    ("plain items", |m, _, _| {
        m.try_alloc_slice(900, |i| i as u8).is_ok()
    }),
    ("items with a drop", |m, drops, _| {
        m.try_alloc_slice(40, |_| Counted(drops.clone())).is_ok()
    }),
    ("text", |m, _, _| m.try_alloc_str(&"x".repeat(700)).is_ok()),
    ("an array", |m, drops, root| {
        m.try_alloc_array(Counted(drops.clone()), 70, |_| {
            GcCell::new(Some(root.get(m)))
        })
        .is_ok()
    }),
    ("a weak reference", |m, _, root| {
        root.get(m).try_downgrade(m).is_ok()
    }),
    ("a large value", |m, _, _| {
        m.try_alloc_slice(40_000, |_| 1_u8).is_ok()
    }),
];

fn runs_out(heap: &Heap, (what, site): (&str, Site), free: usize) {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut m = heap.attach().expect("attached");
    let root = m.root(node(&m, &drops));
    let mut pages = Pages::new(&m, Vec::new());
    fill(&mut m, &mut pages, free);
    let mut fitted = 0_usize;
    while site(&m, &drops, &root) {
        fitted += 1;
        assert!(fitted < 1 << 20, "{what}: it never runs out");
    }
    // Once more, from the same state; and in the middle of a section the heap is whole.
    assert!(!site(&m, &drops, &root), "{what}");
    heap.verify().expect("whole");
    for (number, page) in pages.enter(&m).iter().enumerate() {
        assert!(
            page.iter().all(|word| *word == number as u64),
            "{what}: page {number}"
        );
    }
    assert_eq!(root.get(&m).list.read().len(), 1);
    let before = drops.load(Ordering::Relaxed);
    // What was allocated is garbage, and its room can be used again.
    m.collect();
    // A span of several pages may not have fitted in the first place.
    let again = site(&m, &drops, &root);
    assert_eq!(again, fitted > 0, "{what}: with {free} pages free");
    assert!(fitted > 0 || free < 20, "{what}: with {free} pages free");
    drop((pages, root));
    m.collect();
    assert!(drops.load(Ordering::Relaxed) >= before + 2);
    heap.verify().expect("whole");
    assert_eq!(Arc::strong_count(&drops), 1, "{what}: nothing is lost");
}

#[test]
fn memory_runs_out_at_each_kind_of_allocation_in_turn() {
    within(5 * MINUTE, || {
        for site in SITES {
            for free in [1, 2, 7, 30] {
                let reserved = checked().reservation(2 << 20).workers(1).gogc(None);
                runs_out(&reserved.build().expect("a heap"), site, free);
            }
            let limited = checked().hard_limit(1 << 20).workers(1).gogc(None);
            runs_out(&limited.build().expect("a heap"), site, 20);
        }
    });
}

#[test]
fn a_hard_limit_holds_for_objects_of_every_size() {
    for limit in [1_u64 << 20, 3 << 20, 6 << 20] {
        for bytes in [8, 1000, 8192, 20_000, 100_000] {
            let heap = checked()
                .hard_limit(limit)
                .gogc(None)
                .build()
                .expect("a heap");
            let mut m = heap.attach().expect("attached");
            let mut kept: Frame<Vec<Gc<'static, [u8]>>> = Frame::new(&m, Vec::new());
            while let Ok(object) = m.try_alloc_slice(bytes, |_| 1_u8) {
                kept.enter(&m).push(object);
            }
            let spans = heap.stats().span_bytes;
            assert!(
                spans <= limit,
                "{spans} bytes in objects of {bytes} under {limit}"
            );
            assert!(
                spans >= limit / 4 * 3,
                "{spans} bytes in objects of {bytes} under {limit}"
            );
            kept.enter(&m).clear();
            m.collect();
            // Free pages fit for any other size, also those that this thread keeps for itself.
            let most = limit / 2;
            assert!(
                m.try_alloc_slice(most as usize, |_| 1_u8).is_ok(),
                "{most} after {bytes}"
            );
        }
    }
}

#[test]
fn without_an_error_to_return_the_process_ends_and_says_what_it_wanted() {
    const NAME: &str = "without_an_error_to_return_the_process_ends_and_says_what_it_wanted";
    type Allocate = fn(&Mutator);
    const KINDS: [(&str, Allocate); 6] = [
        ("value", |m| drop(m.root(m.alloc([1_u64; 20])))),
        ("items", |m| drop(m.root(m.alloc_slice(20, |i| i)))),
        ("dropped items", |m| {
            drop(m.root(m.alloc_slice(20, |i| vec![i])))
        }),
        ("text", |m| {
            drop(m.root(m.alloc_str("twenty bytes of text")))
        }),
        ("array", |m| drop(m.root(m.alloc_array(1_u8, 20, |i| i)))),
        ("weak", |m| drop(m.root_weak(Gc::downgrade(m.alloc(()), m)))),
    ];
    for (what, allocate) in KINDS {
        if is_child(what) {
            let heap = checked().reservation(2 << 20).gogc(None).build();
            let mut m = heap.expect("a heap").attach().expect("attached");
            let mut pages = Pages::new(&m, Vec::new());
            fill(&mut m, &mut pages, 0);
            for _ in 0..1 << 20 {
                allocate(&m);
            }
            println!("still here");
            return;
        }
    }
    if std::env::var_os("GREYWAVE_TEST_CHILD").is_some() {
        return;
    }
    for (what, _) in KINDS {
        let output = child(NAME, what, &[]);
        let text = text(&output);
        assert!(
            !output.status.success() && !text.contains("still here"),
            "{what}: {text}"
        );
        let message = "bytes do not fit into the 2097152 bytes that the heap may use";
        assert!(
            text.contains("greywave: fatal: out of memory: ") && text.contains(message),
            "{what}: {text}"
        );
    }
}

#[test]
fn memory_that_ran_out_on_one_thread_is_there_again_on_another() {
    let heap = checked()
        .reservation(2 << 20)
        .gogc(None)
        .build()
        .expect("a heap");
    let watched: WeakRoot<Page> = {
        let mut m = heap.attach().expect("attached");
        let mut pages = Pages::new(&m, Vec::new());
        fill(&mut m, &mut pages, 0);
        let first = pages.enter(&m)[0];
        // Not even a cell for a weak reference; with a page less there is.
        assert!(first.try_downgrade(&m).is_err());
        pages.enter(&m).pop();
        m.collect();
        let first = pages.enter(&m)[0];
        let weak = first.try_downgrade(&m).expect("room for a cell");
        m.root_weak(weak)
    };
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut m = heap.attach().expect("attached");
            m.collect();
            let root = m.root(m.alloc_slice(1000, |i| i));
            m.collect();
            assert_eq!(root.get(&m)[999], 999);
        });
    });
    let m = heap.attach().expect("attached");
    assert!(watched.get(&m).is_none(), "the frame is gone");
    assert!(m.try_alloc_slice(1 << 20, |_| 0_u8).is_ok());
}

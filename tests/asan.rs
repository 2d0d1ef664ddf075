//! Accesses that AddressSanitizer must report although they are inside the heap's reservation.
//! `.ci/asan` runs them. Without the sanitizer they would be undefined behaviour, so this file is
//! then empty.

#![cfg(greywave_asan)]

use std::process::Command;

use greywave::{Gc, GcCell, Heap, Trace};

/// Says to the child which access to make.
const ACCESS: &str = "GREYWAVE_TEST_ACCESS";

#[derive(Trace)]
struct Node<'gc> {
    number: u64,
    next: GcCell<'gc, Node<'gc>>,
}

/// Runs the test `name` again in a process of its own, which must end with a report of the
/// sanitizer.
fn is_reported(name: &str, access: impl FnOnce(&Heap)) {
    if std::env::var_os(ACCESS).is_some() {
        access(&Heap::new());
        return;
    }
    let this = std::env::current_exe().expect("a program");
    let child = Command::new(this)
        .args(["--exact", name, "--nocapture"])
        .env(ACCESS, "yes")
        .output()
        .expect("a child");
    let report = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success(), "the access went unseen");
    assert!(report.contains("use-after-poison"), "{report}");
}

/// Reads a byte, as code with a stale pointer would.
fn read(at: *const u8) {
    // SAFETY: none: this is what the sanitizer must stop.
    std::hint::black_box(unsafe { at.read_volatile() });
}

#[test]
fn a_small_object_that_died() {
    is_reported("a_small_object_that_died", |heap| {
        let mut m = heap.attach().expect("attached");
        let at = Gc::as_ptr(m.alloc(7_u64)).cast();
        read(at);
        m.collect();
        read(at);
    });
}

#[test]
fn an_object_with_edges_that_died_beside_one_that_lives() {
    is_reported(
        "an_object_with_edges_that_died_beside_one_that_lives",
        |heap| {
            let mut m = heap.attach().expect("attached");
            let node = |number| Node {
                number,
                next: GcCell::null(),
            };
            let at = Gc::as_ptr(m.alloc(node(1))).cast();
            let kept = m.root(m.alloc(node(2)));
            m.collect();
            let kept = kept.get(&m);
            assert!(kept.number == 2 && kept.next.get().is_none());
            read(at);
        },
    );
}

#[test]
fn an_object_with_a_drop_that_died() {
    is_reported("an_object_with_a_drop_that_died", |heap| {
        let mut m = heap.attach().expect("attached");
        let at = Gc::as_ptr(m.alloc(String::from("text"))).cast();
        m.collect();
        read(at);
    });
}

#[test]
fn a_large_object_that_died() {
    is_reported("a_large_object_that_died", |heap| {
        let mut m = heap.attach().expect("attached");
        let at = m.alloc_slice(100_000, |at| at as u64).as_ref().as_ptr();
        m.collect();
        read(at.wrapping_add(50_000).cast());
    });
}

#[test]
fn what_lies_behind_a_large_object() {
    is_reported("what_lies_behind_a_large_object", |heap| {
        let m = heap.attach().expect("attached");
        let list = m.alloc_slice(100_001, |at| at as u64);
        read(list.as_ref().as_ptr().wrapping_add(100_001).cast());
    });
}

#[test]
fn a_slot_that_was_not_handed_out() {
    is_reported("a_slot_that_was_not_handed_out", |heap| {
        let m = heap.attach().expect("attached");
        let at = Gc::as_ptr(m.alloc(7_u64));
        read(at.wrapping_add(1).cast());
    });
}

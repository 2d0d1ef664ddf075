//! Programs about mutators that are not dropped. Each runs as it is, and against faults.

use greywave::{Heap, Mutator};

/// A heap that shows what it frees.
pub(crate) fn heap() -> Heap {
    Heap::builder()
        .poison(true)
        .quiet(true)
        .build()
        .expect("a heap")
}

/// A leaked mutator gives `&'static T`, which outlives its thread.
pub(crate) fn what_a_leaked_mutator_gave_stays() {
    let heap = heap();
    let text: &'static String = std::thread::scope(|s| {
        let leak = s.spawn(|| {
            let m: &'static Mutator = Box::leak(Box::new(heap.attach().expect("attached")));
            m.alloc(String::from("it stays for ever")).as_ref()
        });
        leak.join().expect("no panic")
    });
    for _ in 0..3 {
        heap.collect();
        // Before its bytes are read: what is freed is poisoned.
        assert_eq!(text.len(), 17, "it was freed");
        assert_eq!(text, "it stays for ever");
    }
}

/// A thread that ends with its mutator is found out, before anybody waits for it.
#[allow(clippy::mem_forget, reason = "forgetting is what is looked at")]
pub(crate) fn a_lost_mutator_is_counted() {
    let heap = heap();
    let other = heap.clone();
    let forget = std::thread::spawn(move || std::mem::forget(other.attach().expect("attached")));
    forget.join().expect("no panic");
    // The joiner may be back a moment before the system forgets the thread; a departure is known.
    let mut looks = 0_u32;
    while heap.stats().lost_mutators == 0 {
        looks += 1;
        assert!(
            looks < 30_000,
            "nobody has noticed that the thread has ended"
        );
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(heap.stats().lost_mutators, 1);
}

/// A thread that has dropped its mutator has none.
pub(crate) fn a_thread_attaches_again_and_drops_roots_in_between() {
    let heap = heap();
    for n in 0..3_u64 {
        let mut m = heap.attach().expect("the one before was dropped");
        let root = m.root(m.alloc(n));
        m.collect();
        assert_eq!(*root.get(&m), n);
        drop(m);
        // On a thread without a mutator.
        drop(root);
        heap.collect();
        heap.verify().expect("whole");
    }
}

//! Limits, bytes outside the heap, and statistics: what a user sets, and what the heap reports.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{Event, External, Frame, Gc, GcLock, Heap, MetricKind, Trace};

#[path = "support/patience.rs"]
mod patience;

use patience::until;

#[derive(Trace)]
struct Texture {
    _counted: External,
}

#[test]
fn external_bytes_start_cycles_and_go_with_their_object() {
    let heap = Heap::builder().gogc(Some(100)).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    for _ in 0..1000 {
        // 16 bytes in the heap, a megabyte outside.
        m.alloc(Texture {
            _counted: m.external(1 << 20),
        });
        m.safepoint();
    }
    // A gigabyte outside has gone by; the first cycle for it may not be over.
    m.blocking(|| until("a cycle", || heap.stats().cycles > 0));
    assert_eq!(heap.stats().forced_cycles, 0);
    m.collect();
    assert_eq!(heap.stats().external_bytes, 0);
}

#[test]
fn external_bytes_may_change_and_outlive_the_mutator() {
    let heap = Heap::new();
    let mut counted = heap.attach().expect("attached").external(1000);
    assert_eq!((counted.bytes(), heap.stats().external_bytes), (1000, 1000));
    counted.resize(50);
    assert_eq!(heap.stats().external_bytes, 50);
    counted.resize(70);
    assert_eq!(heap.stats().external_bytes, 70);
    drop(counted);
    assert_eq!(heap.stats().external_bytes, 0);
    let counted = heap.attach().expect("attached").external(1);
    drop(heap);
    assert_eq!(counted.bytes(), 1);
}

#[test]
fn a_hard_limit_is_an_error_until_something_dies() {
    let heap = Heap::builder().hard_limit(8 << 20).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut kept: Frame<Vec<Gc<'static, [u8]>>> = Frame::new(&m, Vec::new());
    let error = loop {
        let block = vec![1_u8; 100_000];
        let mut open = kept.enter(&m);
        match m.try_alloc_slice(block.len(), |i| block[i]) {
            Ok(slice) => open.push(slice),
            Err(error) => break error.to_string(),
        }
        drop(open);
        m.safepoint();
    };
    assert!(
        error.contains("100000") && error.contains("8388608"),
        "{error}"
    );
    let stats = heap.stats();
    assert!(stats.span_bytes <= 8 << 20, "{stats:?}");
    assert!(kept.enter(&m).len() > 60, "most of the limit is used");
    kept.enter(&m).clear();
    m.collect();
    assert!(m.try_alloc_slice(100_000, |_| 2_u8).is_ok());
    heap.verify().expect("whole");
}

#[test]
fn an_idle_heap_has_a_cycle_now_and_then() {
    let heap = Heap::builder()
        .period(Duration::from_millis(5))
        .build()
        .expect("a heap");
    until("a periodic cycle", || heap.stats().cycles >= 3);
    assert_eq!(heap.stats().forced_cycles, 0);
}

#[test]
fn a_limit_that_cannot_be_met_is_told() {
    let told = Arc::new(AtomicU64::new(0));
    let seen = told.clone();
    let heap = Heap::builder()
        .memory_limit(4 << 20)
        .on_event(move |event| {
            if let Event::LimitUnmet {
                needed_bytes,
                limit_bytes,
                ..
            } = event
            {
                assert!(*needed_bytes >= 6 << 20 && *limit_bytes == 4 << 20);
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    m.collect();
    assert_eq!(heap.stats().unmet_limit, None);
    let kept = m.root(m.alloc_slice(6 << 20, |_| 0_u8));
    m.collect();
    let unmet = heap.stats().unmet_limit.expect("6 of 4 MiB");
    assert!(unmet.to_string().contains("of 4194304 bytes"), "{unmet}");
    until("the event", || told.load(Ordering::Relaxed) > 0);
    drop(kept);
    m.collect();
    assert_eq!(heap.stats().unmet_limit, None);
}

#[test]
fn objects_are_counted_by_size() {
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    for i in 0..1000_u64 {
        m.alloc([i; 3]);
    }
    m.alloc_slice(100_000, |_| 0_u8);
    m.collect();
    m.collect();
    let stats = heap.stats();
    let of = |slot: usize| stats.by_size.iter().find(|s| s.slot_bytes == slot);
    let small = of(24).expect("objects of 24 bytes");
    assert_eq!((small.allocated_objects, small.freed_objects), (1000, 1000));
    assert_eq!((small.allocated_bytes, small.freed_bytes), (24_000, 24_000));
    let large = of(0).expect("a large object");
    assert_eq!((large.allocated_objects, large.freed_objects), (1, 1));
    let bytes: u64 = stats.by_size.iter().map(|s| s.allocated_bytes).sum();
    assert_eq!(bytes, stats.allocated_bytes);
    let freed: u64 = stats.by_size.iter().map(|s| s.freed_bytes).sum();
    assert_eq!(freed, stats.freed_bytes);
}

#[test]
fn metrics_have_names_of_their_own_and_finite_values() {
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    heap.collect();
    let metrics: Vec<_> = heap.stats().metrics().collect();
    let names: BTreeSet<_> = metrics.iter().map(|m| m.name).collect();
    assert_eq!(names.len(), metrics.len());
    assert!(!names.contains("greywave_goal_bytes"), "it is no bound");
    for metric in &metrics {
        assert!(metric.name.starts_with("greywave_"), "{metric:?}");
        assert!(metric.value.is_finite(), "{metric:?}");
    }
    let cycles = metrics.iter().find(|m| m.name == "greywave_cycles");
    assert_eq!(
        cycles.map(|m| (m.kind, m.value)),
        Some((MetricKind::Counter, 1.0))
    );
}

#[test]
fn a_line_for_each_cycle_goes_to_the_sink() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let heap = Heap::builder()
        .trace_to(move |line| sink.lock().expect("not poisoned").push(line.to_owned()))
        .build()
        .expect("a heap");
    heap.collect();
    heap.collect();
    until("the second line", || {
        lines.lock().expect("not poisoned").len() == 2
    });
    for (i, line) in lines.lock().expect("not poisoned").iter().enumerate() {
        let begins = format!("gc {} @", i + 1);
        assert!(
            line.starts_with(&begins) && line.ends_with(" P (forced)"),
            "{line}"
        );
        for part in ["s ", "%: ", " ms clock, ", " ms cpu, ", " MB goal, "] {
            assert!(line.contains(part), "{line} has no {part:?}");
        }
    }
}

/// What an object of each kind owns, seen by the heap.
#[test]
fn what_items_own_is_counted() {
    use std::borrow::Cow;
    use std::collections::{BTreeMap, HashMap, VecDeque};
    const KIB: usize = 1024;
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let buffer = || vec![1_u8; 64 * KIB];
    let text = || "x".repeat(64 * KIB);
    macro_rules! counted {
        ($($kib:literal: $value:expr;)*) => { $({
            let root = m.root(m.alloc($value));
            m.collect();
            let counted = heap.stats().external_bytes as usize;
            let expected = $kib * KIB..$kib * KIB + 2000;
            assert!(expected.contains(&counted), "{}: {counted}", stringify!($value));
            drop(root);
            m.collect();
            assert_eq!(heap.stats().external_bytes, 0, "{}", stringify!($value));
        })* };
    }
    counted! {
        64: buffer();
        128: vec![buffer(), buffer()];
        128: vec![text(), text()];
        64: Box::new(buffer());
        64: Some(Box::new(Some(text())));
        64: HashMap::from([(1, text())]);
        128: HashMap::from([(text(), text())]);
        64: BTreeMap::from([(1, text())]);
        64: VecDeque::from([buffer()]);
        64: Arc::<[u8]>::from(buffer());
        64: buffer().into_boxed_slice();
        64: Box::pin(buffer());
        64: Cow::<'static, str>::Owned(text());
        0: Cow::Borrowed("text");
        128: (buffer(), [text()]);
        64: std::path::PathBuf::from(text());
        64: GcLock::new(vec![buffer()]);
        64: vec![GcLock::new(vec![buffer()])];
        64: GcLock::new(vec![GcLock::new(buffer())]);
    }
    let list = m.root(m.alloc_slice(4, |_| vec![buffer()]));
    let array = m.root(m.alloc_array(text(), 4, |_| vec![buffer()]));
    m.collect();
    assert!(heap.stats().external_bytes as usize > 9 * 64 * KIB);
    drop((list, array));
    m.collect();
    assert_eq!(heap.stats().external_bytes, 0);
}

/// One table that many objects share is one table.
#[test]
fn what_is_shared_is_counted_once() {
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let table: Arc<[u8]> = vec![0; 1 << 20].into();
    let roots: Vec<_> = (0..1000).map(|_| m.root(m.alloc(table.clone()))).collect();
    m.collect();
    assert_eq!(heap.stats().external_bytes, (1 << 20) + 16);
    let mut roots = roots.into_iter();
    let last = roots.next_back();
    drop(roots);
    m.collect();
    assert_eq!(heap.stats().external_bytes, (1 << 20) + 16);
    drop(last);
    m.collect();
    assert_eq!(heap.stats().external_bytes, 0);
    assert_eq!(Arc::strong_count(&table), 1);
}

/// The books of things that change in a lock end at 0, whatever was changed.
#[test]
fn books_of_what_changes_end_at_zero() {
    use std::collections::HashMap;
    type Table = GcLock<HashMap<u64, Vec<String>>>;
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut seen = 0;
    for round in 0..20 {
        let tables: Vec<greywave::Root<Table>> =
            (0..50).map(|_| m.root(m.alloc(Table::default()))).collect();
        for step in 0..1000_u64 {
            let table = &tables[(step * 7 % 50) as usize];
            let table = table.get(&m);
            let mut table = table.write(&m);
            match (step + round) % 5 {
                0 => drop(table.remove(&(step % 31))),
                1 => table.values_mut().for_each(Vec::clear),
                _ => {
                    let row = table.entry(step % 31).or_default();
                    row.push("text".repeat(step as usize % 40));
                }
            }
        }
        m.collect();
        seen = seen.max(heap.stats().external_bytes);
        drop(tables);
        m.collect();
        assert_eq!(heap.stats().external_bytes, 0, "round {round}");
    }
    assert!(seen > 0);
}

/// A lock's strings are seen as they come, within what a container's doubling hides.
#[test]
fn what_grows_in_a_lock_is_counted() {
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let list: greywave::Root<GcLock<Vec<String>>> =
        m.root(m.alloc(GcLock::new(Vec::<String>::new())));
    let mut pushed = 0;
    for _ in 0..10_000 {
        list.get(&m).write(&m).push("x".repeat(1000));
        pushed += 1000;
    }
    // Changed in place: the container itself stays as it is.
    for i in 0..10_000 {
        list.get(&m).write(&m)[i] = "x".repeat(2000);
        pushed += 1000;
    }
    m.collect();
    let counted = heap.stats().external_bytes;
    assert!(
        counted > pushed * 3 / 4 && counted < pushed * 5 / 4,
        "{counted} of {pushed}"
    );
    drop(list);
    m.collect();
    assert_eq!(heap.stats().external_bytes, 0);
}

/// What is asked of an object while it is locked for writing is answered without its content.
#[test]
fn bytes_may_be_asked_for_at_any_time() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let on_the_stack = GcLock::new(vec![1_u8; 100]);
    assert_eq!(on_the_stack.external_bytes(), 100);
    {
        let mut open = on_the_stack.write(&m);
        open.reserve_exact(1000);
        assert_eq!(on_the_stack.external_bytes(), 0);
    }
    let lock = m.alloc(on_the_stack).as_ref();
    let counted = lock.external_bytes();
    assert!(counted >= 1100);
    let mut open = lock.write(&m);
    open.reserve_exact(10_000);
    assert_eq!(lock.external_bytes(), counted);
    drop(open);
    assert!(lock.external_bytes() >= 10_100);
}

/// A measure by hand that unwinds: no slot is left with nothing in it, and no lock stays locked.
#[test]
fn a_measure_may_unwind() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    static UNWINDS: AtomicBool = AtomicBool::new(true);
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Odd(#[expect(dead_code, reason = "more than no bytes")] u64);
    impl Drop for Odd {
        fn drop(&mut self) {
            DROPS.fetch_add(1, SeqCst);
        }
    }
    // SAFETY: no `Gc`; `Send + Sync`.
    unsafe impl Trace for Odd {
        const NEEDS_TRACE: bool = false;
        fn trace(&self, _: &mut greywave::Tracer<'_>) {}
        fn external_bytes(&self) -> usize {
            assert!(!UNWINDS.load(SeqCst), "a measure that unwinds");
            10
        }
    }
    // SAFETY: no brand.
    unsafe impl greywave::Rebrand<'_> for Odd {
        type To = Self;
    }
    let heap = Heap::builder().poison(true).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let unwinds = |f: &mut dyn FnMut()| {
        catch_unwind(AssertUnwindSafe(f)).expect_err("it unwinds");
    };
    unwinds(&mut || {
        m.alloc(Odd(1));
    });
    unwinds(&mut || {
        m.alloc_array(Odd(2), 1, |_| 0_u8);
    });
    assert_eq!(DROPS.load(SeqCst), 2, "each was dropped by the unwinding");
    unwinds(&mut || {
        m.alloc_slice(2, |_| Odd(3));
    });
    m.collect();
    assert_eq!(
        DROPS.load(SeqCst),
        4,
        "a list was whole when it was measured"
    );

    UNWINDS.store(false, SeqCst);
    let lock = m.root(m.alloc(GcLock::new(Odd(4))));
    UNWINDS.store(true, SeqCst);
    unwinds(&mut || drop(lock.get(&m).write(&m)));
    assert!(lock.get(&m).try_read().is_some(), "it is given back");
}

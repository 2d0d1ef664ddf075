//! Limits, bytes outside the heap, and figures: what a user sets, and what he is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{Event, External, Frame, Gc, Heap, MetricKind, Trace};

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

//! The heap at its edges: large, small, many and odd objects.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{Event, Gc, GcArray, GcCell, Heap, Mutator, Root, Trace, dyn_target, unsize};

#[path = "stress/support.rs"]
mod support;

use support::{Collecting, Counted, heap, within};

#[derive(Trace)]
struct Leaf {
    value: u64,
}

#[derive(Trace)]
struct Wide<'gc, const N: usize>([GcCell<'gc, Leaf>; N]);

/// Items whose size does not divide the piece in which a long list is scanned.
fn long_lists<const N: usize>(heap: &Heap, len: usize) {
    let mut m = heap.attach().expect("attached");
    let root = {
        let list = m.alloc_slice(len, |_| Wide::<N>(std::array::from_fn(|_| GcCell::null())));
        for (i, item) in list.iter().enumerate() {
            item.0[0].set(&m, m.alloc(Leaf { value: i as u64 }));
            item.0[N - 1].set(&m, m.alloc(Leaf { value: i as u64 }));
        }
        m.root(list)
    };
    for _ in 0..2 {
        m.collect();
        for (i, item) in root.get(&m).iter().enumerate() {
            for edge in [&item.0[0], &item.0[N - 1]] {
                assert_eq!(edge.get().map(|l| l.value), Some(i as u64));
            }
        }
    }
    heap.verify().expect("whole");
}

#[test]
fn long_lists_of_items_of_any_size_are_scanned_whole() {
    let heap = heap();
    long_lists::<1>(&heap, 100_000);
    long_lists::<3>(&heap, 100_000);
    long_lists::<5000>(&heap, 45);
    long_lists::<8400>(&heap, 20);
    long_lists::<20_000>(&heap, 12);
}

#[test]
fn a_large_header_before_items_without_a_size() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    type Odd<'gc> = GcArray<Wide<'gc, 5000>, ()>;
    let root = {
        let header = Wide::<5000>(std::array::from_fn(|_| GcCell::null()));
        let array: Gc<'_, Odd<'_>> = m.alloc_array(header, 1_000_000, |_| ());
        array.header().0[4999].set(&m, m.alloc(Leaf { value: 3 }));
        m.root(array)
    };
    m.collect();
    let array = root.get(&m);
    assert_eq!(array.items().len(), 1_000_000);
    assert_eq!(array.header().0[4999].get().map(|l| l.value), Some(3));
}

/// The collector's threads end with the heap, whenever it goes.
#[test]
fn a_heap_that_goes_right_after_a_cycle_does_not_wait() {
    within(Duration::from_secs(60), || {
        for _ in 0..400 {
            let heap = Heap::builder()
                .workers(4)
                .reservation(8 << 20)
                .build()
                .expect("a heap");
            heap.collect();
        }
    });
}

#[derive(Trace)]
struct Link<'gc> {
    value: u64,
    next: GcCell<'gc, Link<'gc>>,
}

#[test]
fn a_list_of_millions_lives_and_dies_on_a_small_stack() {
    let n: u64 = if cfg!(debug_assertions) {
        1_000_000
    } else {
        10_000_000
    };
    let body = move || {
        let heap = Heap::builder().build().expect("a heap");
        let mut m = heap.attach().expect("attached");
        let head: Root<Link<'static>> = m.root(m.alloc(Link {
            value: 0,
            next: GcCell::null(),
        }));
        for value in 1..n {
            {
                let head = head.get(&m);
                let link = m.alloc(Link {
                    value,
                    next: GcCell::new(head.next.get()),
                });
                head.next.set(&m, link);
            }
            m.safepoint();
        }
        m.collect();
        assert!(heap.stats().live_bytes >= n * 16);
        let mut at = head.get(&m).next.get();
        let mut want = n;
        while let Some(link) = at {
            want -= 1;
            assert_eq!(link.value, want);
            at = link.next.get();
        }
        assert_eq!(want, 1);
        drop(head);
        m.collect();
        assert!(
            heap.stats().live_bytes < 1000,
            "{}",
            heap.stats().live_bytes
        );
        heap.verify().expect("whole");
    };
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(body)
        .expect("a thread")
        .join()
        .expect("no panic");
}

macro_rules! aligned {
    ($m:ident, $roots:ident, $($align:literal)*) => { $({
        #[derive(Trace)]
        #[repr(align($align))]
        struct Aligned(u8);
        #[derive(Trace)]
        #[repr(align($align))]
        struct Holder<'gc>(GcCell<'gc, Leaf>, Counted);
        let check = |at: *const ()| assert!(at.addr().is_multiple_of($align), "{at:?} is not aligned to {}", $align);
        for i in 0..5_u8 {
            let one = $m.alloc(Aligned(i));
            check(one.as_ptr().cast());
            let many = $m.alloc_slice(3, |j| Aligned(j as u8));
            check(many.as_ptr().cast());
            let array = $m.alloc_array(Aligned(i), 2, |j| Aligned(j as u8));
            check((&raw const *array.header()).cast());
            check(array.items().as_ptr().cast());
            let leaf = $m.alloc(Leaf { value: $align });
            let holder = $m.alloc(Holder(GcCell::new(Some(leaf)), Counted($roots.1.clone())));
            check(holder.as_ptr().cast());
            let holders = $m.alloc_slice(2, |_| Holder(GcCell::new(Some(leaf)), Counted($roots.1.clone())));
            check(holders.as_ptr().cast());
            $roots.2 += 3;
            if i == 3 {
                let (one, many, holder) = ($m.root(one), $m.root(many), $m.root(holder));
                let holders = $m.root(holders);
                $roots.0.push(Box::new(move |m: &Mutator| {
                    assert_eq!((one.get(m).0, many.get(m)[2].0), (3, 2));
                    assert_eq!(holder.get(m).0.get().map(|l| l.value), Some($align));
                    assert_eq!(holders.get(m)[1].0.get().map(|l| l.value), Some($align));
                    assert!(holder.get(m).1.0.load(Ordering::Relaxed) > 0);
                }));
            }
        }
    })* };
}

type Check = Box<dyn Fn(&Mutator)>;

#[test]
fn every_alignment_up_to_sixteen_pages() {
    // An unoptimized build keeps each of these values on the stack several times.
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(all_alignments)
        .expect("a thread")
        .join()
        .expect("no panic");
}

fn all_alignments() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let drops = Arc::new(AtomicUsize::new(0));
    let mut roots: (Vec<Check>, Arc<AtomicUsize>, usize) = (Vec::new(), drops.clone(), 0);
    aligned!(m, roots, 1 2 4 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536);
    let (checks, _, made) = roots;
    for _ in 0..2 {
        m.collect();
        heap.verify().expect("whole");
        checks.iter().for_each(|check| check(&m));
    }
    assert_eq!(drops.load(Ordering::Relaxed), made - 3 * 17);
    drop(checks);
    m.collect();
    assert_eq!(drops.load(Ordering::Relaxed), made);
    heap.verify().expect("whole");
}

/// Sizes at which the heap changes its ways.
fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..300).collect();
    for around in [512, 1024, 2048, 4096, 8192, 16 << 10, 32 << 10] {
        sizes.extend(around - 17..=around + 17);
    }
    for around in [64 << 10, 128 << 10, 256 << 10] {
        sizes.extend([around - 8, around - 1, around, around + 1, around + 8]);
    }
    for page in 1..=9 {
        sizes.extend(page * 8192 - 1..=page * 8192 + 1);
    }
    sizes
}

#[test]
fn slices_of_every_size_around_every_boundary() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let mut roots: Vec<Root<[u8]>> = Vec::new();
    let mut texts: Vec<Root<str>> = Vec::new();
    let mut typed: Vec<Root<[Wide<'static, 1>]>> = Vec::new();
    for &size in &sizes() {
        let byte = |i: usize| (i ^ size) as u8;
        roots.push(m.root(m.alloc_slice(size, byte)));
        // A neighbour that dies.
        assert_eq!(m.alloc_slice(size, byte).len(), size);
        texts.push(m.root(m.alloc_str(&"x".repeat(size))));
        let len = size / 8;
        let leaf = m.alloc(Leaf { value: size as u64 });
        let slice = m.alloc_slice(len, |_| Wide::<1>([GcCell::new(Some(leaf))]));
        typed.push(m.root(slice));
        m.safepoint();
    }
    for round in 0..2 {
        m.collect();
        for (i, &size) in sizes().iter().enumerate() {
            let slice = roots[i].get(&m);
            assert_eq!(slice.len(), size);
            assert!(
                slice
                    .iter()
                    .enumerate()
                    .all(|(at, b)| *b == (at ^ size) as u8),
                "{size}"
            );
            let text = texts[i].get(&m);
            assert!(text.len() == size && text.bytes().all(|b| b == b'x'));
            let list = typed[i].get(&m);
            assert_eq!(list.len(), size / 8);
            for edge in list.iter() {
                assert_eq!(edge.0[0].get().map(|l| l.value), Some(size as u64));
            }
        }
        heap.verify().expect("whole");
        if round == 0 {
            // Every other one dies, and its slot is used again.
            for i in (0..roots.len()).step_by(2) {
                let size = roots[i].get(&m).len();
                roots[i] = m.root(m.alloc_slice(0, |_| 0_u8));
                if i % 64 == 0 {
                    m.collect();
                }
                roots[i] = m.root(m.alloc_slice(size, |at| (at ^ size) as u8));
            }
        }
    }
}

/// Items of 1 KiB, so that an unoptimized build is done with 100 MiB in time.
type Kilo = [u64; 128];

#[test]
fn objects_of_very_large_size() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    for size in [(32 << 10) - 8, 32 << 10, (32 << 10) + 8, 1 << 20] {
        let root = m.root(m.alloc_slice(size / 8, |i| i as u64));
        let edges = m.root(m.alloc_slice(size / 8, |i| {
            let leaf = (i % 1000 == 0).then(|| m.alloc(Leaf { value: i as u64 }));
            Wide::<1>([GcCell::new(leaf)])
        }));
        m.collect();
        let live = heap.stats().live_bytes;
        assert!(
            (2 * size as u64..2 * size as u64 + (64 << 10)).contains(&live),
            "{live} for {size}"
        );
        let words = root.get(&m);
        assert!(words.iter().enumerate().all(|(i, word)| *word == i as u64));
        for (i, edge) in edges.get(&m).iter().enumerate() {
            let want = (i % 1000 == 0).then_some(i as u64);
            assert_eq!(edge.0[0].get().map(|l| l.value), want);
        }
        drop((root, edges));
        m.collect();
        assert!(heap.stats().live_bytes < 1000);
        heap.verify().expect("whole");
    }
    let root = m.root(m.alloc_slice::<Kilo>(100 << 10, |i| [i as u64; 128]));
    let edges = m.root(m.alloc_slice(100 << 10, |i| {
        let leaf = m.alloc(Leaf { value: i as u64 });
        Wide::<128>(std::array::from_fn(|j| {
            GcCell::new((j == 127).then_some(leaf))
        }))
    }));
    m.collect();
    assert!(heap.stats().live_bytes >= 200 << 20);
    assert!(
        root.get(&m)
            .iter()
            .enumerate()
            .all(|(i, kilo)| kilo[127] == i as u64)
    );
    for (i, edge) in edges.get(&m).iter().enumerate() {
        assert_eq!(edge.0[127].get().map(|l| l.value), Some(i as u64));
    }
    drop((root, edges));
    m.collect();
    assert!(heap.stats().live_bytes < 1000);
    heap.verify().expect("whole");
}

#[derive(Trace)]
struct Numbered<'gc, const N: usize> {
    number: usize,
    leaf: GcCell<'gc, Leaf>,
}

trait Number {
    fn numbers(&self) -> (usize, Option<u64>);
}

impl<const N: usize> Number for Numbered<'_, N> {
    fn numbers(&self) -> (usize, Option<u64>) {
        assert_eq!(self.number, N);
        (N, self.leaf.get().map(|l| l.value))
    }
}

dyn_target!(dyn Number);

fn numbered<const N: usize>(m: &Mutator) -> Root<dyn Number> {
    let leaf = GcCell::new(Some(m.alloc(Leaf { value: N as u64 })));
    let object = m.alloc(Numbered::<'_, N> { number: N, leaf });
    m.root(unsize!(object => dyn Number))
}

macro_rules! digits {
    ($go:ident $($done:tt)*) => {
        $go!($($done)* 0); $go!($($done)* 1); $go!($($done)* 2); $go!($($done)* 3); $go!($($done)* 4);
        $go!($($done)* 5); $go!($($done)* 6); $go!($($done)* 7); $go!($($done)* 8); $go!($($done)* 9);
    };
}

/// From 30 to 999.
#[cfg(not(debug_assertions))]
macro_rules! for_the_rest {
    ($ten:ident) => {
        digits!(one 0 0 3); digits!(one 0 0 4); digits!(one 0 0 5); digits!(one 0 0 6);
        digits!(one 0 0 7); digits!(one 0 0 8); digits!(one 0 0 9);
        digits!($ten 0 1); digits!($ten 0 2); digits!($ten 0 3); digits!($ten 0 4); digits!($ten 0 5);
        digits!($ten 0 6); digits!($ten 0 7); digits!($ten 0 8); digits!($ten 0 9);
    };
}

#[test]
fn many_types() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let mut roots: Vec<Root<dyn Number>> = Vec::new();
    {
        macro_rules! one {
            ($a:tt $b:tt $c:tt $d:tt) => {
                roots.push(numbered::<{ $a * 1000 + $b * 100 + $c * 10 + $d }>(&m));
            };
        }
        #[cfg(not(debug_assertions))]
        macro_rules! ten {
            ($a:tt $b:tt $c:tt) => { digits!(one $a $b $c); };
        }
        digits!(one 0 0 0);
        digits!(one 0 0 1);
        digits!(one 0 0 2);
        // An optimized build takes the time that more types need.
        #[cfg(not(debug_assertions))]
        {
            for_the_rest!(ten);
        }
    }
    assert_eq!(roots.len(), if cfg!(debug_assertions) { 30 } else { 1000 });
    for _ in 0..2 {
        m.collect();
        for (i, root) in roots.iter().enumerate() {
            assert_eq!(root.get(&m).numbers(), (i, Some(i as u64)));
        }
    }
    heap.verify().expect("whole");
    drop(roots);
    m.collect();
    assert!(heap.stats().live_bytes < 1000);
}

#[test]
fn things_without_a_size() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let unit = m.root(m.alloc(()));
    let units = m.root(m.alloc_slice(1000, |_| ()));
    let nothing: Root<[u64]> = m.root(m.alloc_slice(0, |i| i as u64));
    let text = m.root(m.alloc_str(""));
    m.collect();
    assert_eq!(*unit.get(&m), ());
    assert_eq!(
        (
            units.get(&m).len(),
            nothing.get(&m).len(),
            text.get(&m).len()
        ),
        (1000, 0, 0)
    );
    let array: Gc<'_, GcArray<(), ()>> = m.alloc_array((), 3, |_| ());
    assert_eq!(array.items().len(), 3);
    heap.verify().expect("whole");
}

#[test]
fn attached_threads_verify_while_others_allocate_and_collect() {
    let heap = heap();
    let collecting = Collecting::new(&heap);
    within(Duration::from_secs(120), || {
        std::thread::scope(|s| {
            for t in 0..3_u64 {
                let (heap, collecting) = (&heap, &collecting);
                s.spawn(move || {
                    let mut m = heap.attach().expect("attached");
                    let root = m.root(m.alloc(Link {
                        value: t,
                        next: GcCell::null(),
                    }));
                    for i in 0.. {
                        if i >= 60 && collecting.cycles() > 0 {
                            break;
                        }
                        for value in 0..50 {
                            let head = root.get(&m);
                            let next = GcCell::new(head.next.get());
                            head.next.set(&m, m.alloc(Link { value, next }));
                        }
                        if i % 5 == t {
                            // In the middle of a section: what it holds stays valid.
                            let held = root.get(&m).next.get();
                            heap.verify().expect("whole");
                            assert_eq!(held.map(|l| l.value), Some(49));
                            if i % 15 == t {
                                m.blocking(|| heap.verify()).expect("whole");
                            }
                        }
                        m.safepoint();
                    }
                });
            }
            s.spawn(|| {
                for _ in 0..10 {
                    heap.verify().expect("whole");
                }
            });
        });
    });
}

#[test]
fn a_thread_that_does_not_reach_a_safepoint_is_named() {
    type Told = Vec<(Duration, String, u32)>;
    let told: Arc<Mutex<Told>> = Arc::default();
    let seen = told.clone();
    let heap = Heap::builder()
        .on_event(move |event| {
            if let Event::SlowSafepoint {
                waited,
                thread,
                attached_at,
                ..
            } = event
            {
                assert!(attached_at.file().ends_with("limits.rs"));
                let mut seen = seen.lock().expect("no panic");
                seen.push((*waited, thread.clone(), attached_at.line()));
            }
        })
        .build()
        .expect("a heap");
    let busy = {
        let heap = heap.clone();
        std::thread::Builder::new()
            .name("the slow one".to_owned())
            .spawn(move || {
                let mut m = heap.attach().expect("attached");
                let line = line!() - 1;
                std::thread::sleep(Duration::from_millis(150));
                m.safepoint();
                line
            })
            .expect("a thread")
    };
    while heap.stats().cycles < 1 {
        heap.collect();
        std::thread::sleep(Duration::from_millis(5));
    }
    let line = busy.join().expect("no panic");
    let told = told.lock().expect("no panic");
    assert!(!told.is_empty() || heap.stats().stopping.max_ns < 10_000_000);
    for (waited, thread, at) in told.iter() {
        assert!(*waited >= Duration::from_millis(5), "{waited:?}");
        assert_eq!((thread.as_str(), *at), ("the slow one", line));
    }
}

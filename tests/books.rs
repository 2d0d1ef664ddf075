//! The heap counts what objects own outside it. Each type that can be in an object counts what it
//! owns at birth, counts its later growth, and gives back exactly that at death. Sizes that a user
//! invents break nothing.

#![cfg(feature = "sched")]

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use greywave::{
    External, Gc, GcCell, GcChan, GcLock, GcOnce, GcWord, Heap, Mutator, Root, Runtime, Trace,
    Weak, WeakRoot, Word, WordKinds,
};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest};

const MIB: usize = 1 << 20;

/// What is counted.
fn counted(heap: &Heap) -> usize {
    usize::try_from(heap.stats().external_bytes).expect("a size")
}

/// A type by the name that the source has for it, and what makes an object with a megabyte in it.
struct Row {
    name: &'static str,
    make: fn(&Mutator),
}

/// A megabyte, and nothing else.
fn buffer() -> Vec<u8> {
    Vec::with_capacity(MIB)
}

fn text() -> String {
    String::with_capacity(MIB)
}

/// So many small ones that they take a megabyte.
fn numbers() -> impl Iterator<Item = u64> {
    0..(MIB / 8) as u64
}

macro_rules! rows {
    ($($name:literal $m:ident $value:expr;)*) => {
        &[$(Row { name: $name, make: |$m| { let _ = $m.alloc($value); } }),*]
    };
}

/// One for each type that is `Trace` and can own something which grows with its content.
const OWNERS: &[Row] = rows! {
    "String" m text();
    "OsString" m std::ffi::OsString::with_capacity(MIB);
    "PathBuf" m PathBuf::with_capacity(MIB);
    "CString" m std::ffi::CString::new(vec![b'x'; MIB]).expect("no zero inside");
    "Vec" m buffer();
    "VecDeque" m VecDeque::<u64>::with_capacity(MIB / 8);
    "LinkedList" m numbers().collect::<LinkedList<u64>>();
    "BinaryHeap" m BinaryHeap::<u64>::with_capacity(MIB / 8);
    "BTreeSet" m numbers().collect::<BTreeSet<u64>>();
    "BTreeMap" m numbers().map(|n| (n, n)).collect::<BTreeMap<u64, u64>>();
    "HashMap" m HashMap::<u64, u64>::with_capacity(MIB / 8);
    "HashSet" m HashSet::<u64>::with_capacity(MIB / 8);
    "Box" m vec![0_u8; MIB].into_boxed_slice();
    "Pin" m Box::pin([buffer(), Vec::new()]);
    "Arc" m Arc::<[u8]>::from(vec![0; MIB]);
    "Cow" m Cow::<'static, str>::Owned(text());
    "Cow" m Cow::<'static, [f32]>::Owned(Vec::with_capacity(MIB / 4));
    "Option" m Some(buffer());
    "Result" m Err::<String, _>(buffer());
    "Poll" m Poll::Ready(buffer());
    "Reverse" m std::cmp::Reverse(buffer());
    "Wrapping" m std::num::Wrapping(buffer());
    "Saturating" m std::num::Saturating(buffer());
    "ManuallyDrop" m (String::new(), Vec::<std::mem::ManuallyDrop<u8>>::with_capacity(MIB));
    "Range" m String::new()..text();
    "RangeInclusive" m text()..=String::new();
    "RangeFrom" m text()..;
    "RangeTo" m ..text();
    "Bound" m Bound::Excluded(buffer());
    "ControlFlow" m ControlFlow::<Vec<u8>, String>::Continue(text());
    "array" m [Vec::new(), buffer()];
    "tuple" m (1_u8, buffer(), 'x');
    "slice" m Vec::from([buffer()]).into_boxed_slice();
    "GcLock" m GcLock::new(buffer());
    "GcChan" m full_channel(m);
    "External" m m.external(MIB);
    "GcArray" m nothing_but(m.alloc_array(buffer(), 2, |_| 0_u8));
};

/// Those that own nothing which the heap can see, and why.
const OTHERS: &[(&str, &str)] = &[
    ("Gc", "an edge"),
    ("Weak", "an edge"),
    ("GcCell", "an edge"),
    ("GcOnce", "an edge"),
    ("Word", "an edge or a small value"),
    ("GcWord", "an edge or a small value"),
    ("Root", "a slot of the root table"),
    ("WeakRoot", "a slot of the root table"),
    ("PhantomData", "no value"),
];

fn nothing_but<T>(_: T) {}

fn full_channel(m: &Mutator) -> GcChan<'_, u64> {
    let channel = GcChan::new(MIB);
    let item = m.alloc(7);
    for _ in 0..MIB / size_of::<usize>() {
        channel.try_send(m, item).expect("there is room");
    }
    channel
}

/// At birth a megabyte or more, but not much more (a list's node has two links); after death as
/// before.
#[test]
fn what_an_object_owns_is_counted_at_birth_and_given_back_exactly() {
    for Row { name, make } in OWNERS {
        let heap = Heap::builder().gogc(None).build().expect("a heap");
        let mut m = heap.attach().expect("attached");
        for _ in 0..3 {
            make(&m);
            // What is counted is told in steps of 64 KiB.
            let counted_at_birth = counted(&heap);
            assert!(
                (MIB..=4 * MIB).contains(&counted_at_birth),
                "{name}: {counted_at_birth} bytes for 1 MiB"
            );
            m.collect();
            assert_eq!(counted(&heap), 0, "{name}: what is dead is given back");
        }
    }
}

/// The same in a part of an object, where the type is reached through another one's count.
#[test]
fn what_is_nested_is_counted_once() {
    #[derive(Trace)]
    struct Inner<'gc> {
        text: String,
        lock: GcLock<Vec<u8>>,
        next: GcCell<'gc, Inner<'gc>>,
    }
    #[derive(Trace)]
    enum Outer<'gc> {
        Many(Vec<Option<Box<Inner<'gc>>>>),
        #[allow(dead_code, reason = "the other variant is what is counted")]
        None,
    }
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let inner = || {
        Some(Box::new(Inner {
            text: text(),
            lock: GcLock::new(buffer()),
            next: GcCell::null(),
        }))
    };
    let outer = m.alloc(Outer::Many(vec![inner(), None, inner()]));
    let at_birth = counted(&heap);
    assert!((4 * MIB..5 * MIB).contains(&at_birth), "{at_birth}");
    if let Outer::Many(items) = &*outer
        && let Some(inner) = &items[0]
    {
        inner.lock.write(&m).reserve_exact(3 * MIB);
        assert!(counted(&heap) >= at_birth + 2 * MIB - (64 << 10));
        assert!(inner.next.get().is_none() && inner.text.is_empty());
    }
    m.collect();
    assert_eq!(counted(&heap), 0);
}

/// A channel that grows after its birth counts its growth, so that dead channels are collected
/// under a limit.
#[test]
fn dead_channels_do_not_pass_the_memory_limit() {
    const LIMIT: usize = 16 << 20;
    let heap = Heap::builder()
        .memory_limit(LIMIT as u64)
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    let mut peak = 0;
    for _ in 0..200 {
        let channel = m.alloc(GcChan::<'_, u64>::new(100_000));
        let item = m.alloc(7);
        for _ in 0..20_000 {
            channel.try_send(&m, item).expect("there is room");
        }
        m.safepoint();
        peak = peak.max(counted(&heap));
    }
    // 50 MiB in all.
    assert!(heap.stats().cycles > 2, "{} cycles", heap.stats().cycles);
    assert!(peak > MIB && peak <= LIMIT, "{} MiB", peak / MIB);
    m.collect();
    assert_eq!(counted(&heap), 0);
}

#[test]
fn every_type_that_is_traced_has_a_row() {
    fn walk(at: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).expect("the source tree can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|end| end == "rs") {
                into.push(path);
            }
        }
    }
    let mut files = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for layer in ["object", "sched", "api"] {
        walk(&src.join(layer), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let all = fs::read_to_string(&file).expect("a source file is UTF-8");
        let code = all.split("\nmod tests {").next().unwrap_or("");
        for (number, line) in code.lines().enumerate() {
            let line = line.trim_start();
            let is_impl = line.contains("unsafe impl") && line.contains(" Trace for ");
            let target = line.split(" Trace for ").nth(1).filter(|_| is_impl);
            let container = line.strip_prefix('[').and_then(|rest| {
                // A row of `container!`: parameters, more of them, the type, what it becomes.
                let (_, rest) = rest.split_once("] [")?;
                let (_, rest) = rest.split_once("] ")?;
                rest.contains(" => ").then_some(rest)
            });
            let Some(target) = target.or(container) else {
                continue;
            };
            let target = target.split(" => ").next().unwrap_or(target).trim();
            let name = match target {
                _ if target.starts_with("$name") => {
                    // A macro over names: its calls are lines of `traits! { A B }`.
                    let calls = code.lines().filter_map(|l| {
                        let (_, rest) = l.split_once("_traits! { ")?;
                        rest.strip_suffix(" }")
                    });
                    names.extend(calls.flat_map(str::split_whitespace).map(str::to_owned));
                    continue;
                }
                // Leaves, whose macros have no place for bytes, and the macros themselves.
                _ if target.starts_with("$t") => continue,
                _ if target.starts_with("[T; N]") => "array",
                _ if target.starts_with("[T]") => "slice",
                _ if target.starts_with("($(") => "tuple",
                _ => {
                    let path = target.split('<').next().unwrap_or(target);
                    path.rsplit("::").next().unwrap_or(path)
                }
            };
            let name = name.trim_end_matches(" {");
            assert!(
                !name.is_empty(),
                "{}:{}: {line}",
                file.display(),
                number + 1
            );
            names.insert(name.to_owned());
        }
    }
    // The leaves that own a buffer.
    let impls = fs::read_to_string(src.join("object/impls.rs")).expect("the file is there");
    let buffers = impls
        .split("\nbuffer! {")
        .nth(1)
        .expect("the list of buffers");
    for line in buffers.split('}').next().unwrap_or("").lines() {
        let Some((target, _)) = line.trim().split_once("; |") else {
            continue;
        };
        names.insert(target.rsplit("::").next().unwrap_or(target).to_owned());
    }
    assert!(names.len() > 35, "the list is read: {names:?}");
    let known: BTreeSet<&str> = OWNERS.iter().map(|row| row.name).collect();
    let others: BTreeSet<&str> = OTHERS.iter().map(|(name, _)| *name).collect();
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !known.contains(name.as_str()) && !others.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    let gone: Vec<_> = known
        .union(&others)
        .filter(|name| !names.contains(**name))
        .collect();
    assert!(gone.is_empty(), "no type for {gone:?}");
}

/// A table that many objects share is counted once where the heap keeps a list of its holders, and
/// by shares where a lock keeps an account; not once for each.
#[test]
fn what_a_thousand_objects_share_is_not_counted_a_thousand_times() {
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let table: Arc<[u8]> = vec![0; MIB].into();
    let fields: Vec<_> = (0..1000).map(|_| m.root(m.alloc(table.clone()))).collect();
    let once = counted(&heap);
    assert!((MIB..MIB + MIB / 8).contains(&once), "{once}");
    drop(fields);
    m.collect();
    assert_eq!(counted(&heap), 0);
    let locks: Vec<_> = (0..1000)
        .map(|_| m.root(m.alloc(GcLock::new(table.clone()))))
        .collect();
    let shares = counted(&heap);
    // 1 + ln 1000 is 7.9.
    assert!((MIB / 2..8 * MIB).contains(&shares), "{} MiB", shares / MIB);
    // What is written into them changes the accounts, and what is left is given back.
    for lock in &locks {
        *lock.get(&m).write(&m) = Arc::from([1_u8; 400].as_slice());
    }
    drop(locks);
    m.collect();
    assert_eq!(counted(&heap), 0);
    assert_eq!(Arc::strong_count(&table), 1);
}

/// A type of the user's may lend another value each time that it is asked. The books do not ask it.
#[test]
fn what_a_user_lends_is_not_what_is_counted() {
    struct Lent<T: ?Sized>(#[allow(dead_code, reason = "its size is what matters")] T);
    /// With something to drop, or nothing is asked of it.
    struct Lender(#[allow(dead_code, reason = "its drop is what matters")] Box<u8>);
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    impl Borrow<Lent<[u8]>> for Lender {
        fn borrow(&self) -> &Lent<[u8]> {
            static SMALL: Lent<[u8; 1]> = Lent([0]);
            static LARGE: Lent<[u8; MIB]> = Lent([0; MIB]);
            // Relaxed: a count.
            match ASKED.fetch_add(1, Ordering::Relaxed) % 2 {
                0 => &SMALL,
                _ => &LARGE,
            }
        }
    }
    impl ToOwned for Lent<[u8]> {
        type Owned = Lender;
        fn to_owned(&self) -> Lender {
            Lender(Box::new(0))
        }
    }
    let heap = Heap::builder().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let true_bytes = m.root(m.alloc(vec![0_u8; 64 * MIB]));
    for _ in 0..50 {
        m.alloc(Cow::<'static, Lent<[u8]>>::Owned(Lender(Box::new(0))));
    }
    m.collect();
    assert_eq!(counted(&heap), 64 * MIB);
    // Relaxed: as above.
    assert_eq!(ASKED.load(Ordering::Relaxed), 0);
    drop(true_bytes);
}

/// The types of [`OTHERS`], in an object: nothing is counted for them.
#[test]
fn what_owns_nothing_counts_nothing() {
    struct Kinds;
    impl WordKinds for Kinds {
        type List = (u64,);
    }
    #[derive(Trace)]
    #[allow(dead_code, reason = "that they are there is all")]
    struct Edges<'gc> {
        gc: Option<Gc<'gc, u64>>,
        weak: Option<Weak<'gc, u64>>,
        cell: GcCell<'gc, u64>,
        once: GcOnce<'gc, u64>,
        word: Word<'gc, Kinds>,
        gc_word: GcWord<'gc, Kinds>,
        root: Root<u64>,
        weak_root: WeakRoot<u64>,
        phantom: std::marker::PhantomData<Vec<u8>>,
    }
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let to = m.alloc(1);
    let edges = m.alloc(Edges {
        gc: Some(to),
        weak: Some(to.downgrade(&m)),
        cell: GcCell::null(),
        once: GcOnce::empty(),
        word: Word::from_gc::<0>(to),
        gc_word: GcWord::new(Word::from_gc::<0>(to)),
        root: m.root(to),
        weak_root: m.root_weak(to.downgrade(&m)),
        phantom: std::marker::PhantomData,
    });
    assert_eq!(greywave::__private::external_bytes(&*edges), 0);
}

// ---- numbers that a user makes up ---------------------------------------------------------------

/// Any size, the extremes more often than chance would have them.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(usize::MAX),
        Just(usize::MAX - 1),
        Just(isize::MAX as usize),
        Just(isize::MAX as usize + 1),
        Just(1 << 62),
        0..MIB,
        any::<usize>(),
    ]
}

/// The most bytes outside the heap that are counted.
const MOST: u128 = 1 << 62;

/// What is done with one of a few [`External`]s.
#[derive(Clone, Copy, Debug)]
enum Step {
    Resize(usize, usize),
    Drop(usize),
    IntoObject(usize),
    Alloc,
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8_usize;
    prop_oneof![
        4 => (which.clone(), size()).prop_map(|(at, bytes)| Step::Resize(at, bytes)),
        1 => which.clone().prop_map(Step::Drop),
        1 => which.prop_map(Step::IntoObject),
        1 => Just(Step::Alloc),
        1 => Just(Step::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Books of sizes that no machine has neither wrap nor drift, and the heap goes on.
    #[test]
    fn sums_of_made_up_sizes_end_somewhere_and_come_back(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let heap = Heap::new();
        let mut m = heap.attach().expect("attached");
        let mut held: Vec<Option<External>> = (0..8).map(|_| None).collect();
        let mut most = 0;
        for step in steps {
            match step {
                Step::Resize(at, bytes) => match &mut held[at] {
                    Some(external) => external.resize(bytes),
                    place => *place = Some(m.external(bytes)),
                },
                Step::Drop(at) => drop(held[at].take()),
                Step::IntoObject(at) => {
                    if let Some(external) = held[at].take() {
                        m.alloc(external);
                    }
                }
                Step::Alloc => {
                    for number in 0..1000_u64 {
                        m.alloc([number; 4]);
                    }
                    m.safepoint();
                }
                Step::Collect => m.collect(),
            }
            let stats = heap.stats();
            let sum = held.iter().flatten().map(|e| e.bytes() as u128).sum::<u128>();
            most = most.max(sum);
            // Past the end of what is counted, what came last is not; up to there everything is.
            let least = if most < MOST { sum } else { 0 };
            let now = u128::from(stats.external_bytes);
            prop_assert!((least..=MOST).contains(&now), "{now} of {sum}");
            prop_assert!(stats.heap_bytes <= 1 << 63 && stats.goal_bytes >= 1);
        }
        drop(held);
        m.collect();
        prop_assert!(heap.stats().external_bytes == 0, "{}", heap.stats().external_bytes);
        prop_assert!(heap.stats().heap_bytes < 64 << 20, "{}", heap.stats().heap_bytes);
    }

    /// Limits of any size are taken or refused, and a heap with one of them works.
    #[test]
    fn a_heap_of_made_up_limits_works_or_says_why_not(
        limit in size(),
        later in size(),
        hard in size(),
        gogc in any::<u32>(),
        workers in size(),
        external in size(),
    ) {
        let builder = Heap::builder().memory_limit(limit as u64).gogc(Some(gogc));
        let builder = builder.hard_limit(hard as u64).workers(workers.min(4));
        let heap = match builder.build() {
            Ok(heap) => heap,
            Err(error) => {
                prop_assert!(error.to_string().len() > 20, "{error}");
                return Ok(());
            }
        };
        let mut m = heap.attach().expect("attached");
        let _external = m.external(external);
        heap.set_memory_limit(later as u64);
        for number in 0..1000_u64 {
            prop_assert!(m.try_alloc([number; 4]).is_ok() || hard < MIB);
        }
        m.safepoint();
        m.collect();
        prop_assert!(heap.stats().cycles >= 1);
    }

    /// Lists of lengths that no heap has are refused, whatever their items are, and leave nothing
    /// behind: what is asked for and not had is not owed, not charged, and not remembered.
    #[test]
    fn a_list_of_a_made_up_length_is_refused_and_leaves_nothing_behind(length in size()) {
        let heap = Heap::builder().reservation(64 << 20).build().expect("a heap");
        let mut m = heap.attach().expect("attached");
        m.collect();
        let before = heap.stats();
        if length > 64 << 20 {
            prop_assert!(m.try_alloc_slice(length, |_| 0_u8).is_err());
            prop_assert!(m.try_alloc_slice(length, |_| Some(m.alloc(1_u64))).is_err());
            prop_assert!(m.try_alloc_array(text(), length, |_| 0_u64).is_err());
        }
        let after = heap.stats();
        prop_assert!(after.heap_bytes <= before.heap_bytes + (64 << 10), "{}", after.heap_bytes);
        prop_assert!(after.external_bytes == 0);
        for number in 0..1000_u64 {
            m.alloc([number; 4]);
        }
        m.collect();
    }
}

/// What could not be had is not waited for: after it a heap that is nearly full is collected in
/// time, as before.
#[test]
fn a_refused_length_does_not_make_the_heap_blind_to_its_end() {
    let heap = Heap::builder()
        .gogc(None)
        .reservation(64 << 20)
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("attached");
    for length in [1 << 40, isize::MAX as usize - 7] {
        assert!(m.try_alloc_slice(length, |_| 0_u8).is_err());
    }
    let mut refused = 0;
    for number in 0..400_000_u64 {
        refused += usize::from(m.try_alloc([number; 64]).is_err());
        m.safepoint();
    }
    // 200 MiB of garbage.
    assert_eq!(refused, 0);
    assert!(heap.stats().cycles > 2);
}

/// Two sizes of which the sum is no number, and allocations beside them.
#[test]
fn two_externals_of_the_largest_size_are_no_trouble() {
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    let both = [m.external(usize::MAX), m.external(usize::MAX)];
    for round in 0..20_000_u64 {
        m.alloc([round; 4]);
        if round % 1000 == 0 {
            m.safepoint();
        }
    }
    assert_eq!(heap.stats().external_bytes, 1 << 62);
    assert_eq!(both[1].bytes(), usize::MAX);
    drop(both);
    m.collect();
    assert_eq!(heap.stats().external_bytes, 0);
}

/// Channels, timers and the scheduler's settings take any number, too, or say what is allowed.
#[test]
fn the_scheduler_takes_extremes() {
    let heap = Heap::new();
    let rt = Runtime::builder(&heap)
        .procs(1)
        .max_threads(usize::MAX)
        .build();
    let rt = rt.expect("a runtime");
    let sum = rt.block_on(async {
        let (to, from) = greywave::chan::<u8>(isize::MAX as usize);
        to.send(3).await.expect("it is open");
        let never = greywave::timeout(std::time::Duration::MAX, async { 4 });
        from.recv().await.unwrap_or(0) + never.await.unwrap_or(0)
    });
    assert_eq!(sum.expect("no deadlock"), 7);
}

//! Several heaps in a process: the mutators of one heap refuse what belongs to another, before
//! anything has changed; and ordinary use of several heaps works.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use greywave::{
    Frame, Gc, GcArray, GcCell, GcLock, GcOnce, Heap, Root, Trace, Weak, dyn_target, unsize,
};

#[path = "stress/two_heaps.rs"]
mod programs;

use programs::{OPERATIONS, Text, Things, heap_with_things, leaked};

#[test]
fn a_mutator_is_for_its_own_heap() {
    programs::a_mutator_is_for_its_own_heap();
}

#[test]
fn a_mutator_knows_of_younger_heaps() {
    programs::a_mutator_knows_of_younger_heaps();
}

#[test]
fn another_heaps_writer_is_left_out() {
    programs::another_heaps_writer_is_left_out();
}

#[derive(Trace)]
struct Sheet<'gc> {
    text: Text<'gc>,
    boxed: Box<GcLock<Vec<Text<'gc>>>>,
    by_name: HashMap<u32, GcLock<Vec<Text<'gc>>>>,
}

trait GiveSheet {
    fn give(&self) -> Gc<'static, Sheet<'static>>;
}
#[derive(Trace)]
struct SheetHolder<'gc>(Gc<'gc, Sheet<'gc>>);
impl GiveSheet for SheetHolder<'static> {
    fn give(&self) -> Gc<'static, Sheet<'static>> {
        self.0
    }
}
dyn_target!(dyn GiveSheet);

/// The same with containers that are written for real, and taken and given back meanwhile: whoever
/// looks finds a whole one.
#[test]
fn another_heap_writes_while_this_one_is_verified() {
    let first = programs::quiet_heap();
    let root: Root<dyn GiveSheet> = std::thread::scope(|s| {
        let leak = s.spawn(|| {
            let m = leaked(&first);
            let sheet = m.alloc(Sheet {
                text: m.alloc(String::from("text")),
                boxed: Box::default(),
                by_name: HashMap::from([(7, GcLock::default())]),
            });
            m.root(unsize!(m.alloc(SheetHolder(sheet)) => dyn GiveSheet))
        });
        leak.join().expect("no panic")
    });
    let (is_over, verified) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|s| {
        s.spawn(|| {
            let sheet = first.with(|m| root.get(m).give());
            let second = Heap::new();
            let mut m = second.attach().expect("a thread without a mutator");
            // Each write finds the lock as the verifier has left it.
            while verified.load(Ordering::SeqCst) < 300 && !is_over.load(Ordering::SeqCst) {
                for lock in [&*sheet.boxed, &sheet.by_name[&7]] {
                    let mut texts = lock.write(&m);
                    for _ in 0..20 {
                        *texts = vec![sheet.text; 5000];
                    }
                    // Or the next look would find that it is the first heap's.
                    *texts = Vec::new();
                }
                m.safepoint();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        while !is_over.load(Ordering::SeqCst) {
            let is_whole = first.verify();
            if is_whole.is_err() {
                is_over.store(true, Ordering::SeqCst);
            }
            is_whole.expect("whole");
            verified.fetch_add(1, Ordering::SeqCst);
        }
    });
}

/// A channel in a box is refused as one in an object, and gives back the place or the item that was
/// meant for it.
#[cfg(feature = "sched")]
#[test]
fn a_boxed_channel_that_is_refused_loses_nothing() {
    use greywave::GcChan;
    use greywave::chan::TrySendError;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Trace)]
    struct Desk<'gc>(Box<GcChan<'gc, String>>);
    trait GiveDesk {
        fn give(&self) -> Gc<'static, Desk<'static>>;
    }
    #[derive(Trace)]
    struct DeskHolder<'gc>(Gc<'gc, Desk<'gc>>);
    impl GiveDesk for DeskHolder<'static> {
        fn give(&self) -> Gc<'static, Desk<'static>> {
            self.0
        }
    }
    dyn_target!(dyn GiveDesk);

    let first = programs::quiet_heap();
    let root: Root<dyn GiveDesk> = std::thread::scope(|s| {
        let leak = s.spawn(|| {
            let m = leaked(&first);
            let desk = m.alloc(Desk(Box::new(GcChan::new(2))));
            assert!(desk.0.try_send(m, m.alloc(String::from("item"))).is_ok());
            m.root(unsize!(m.alloc(DeskHolder(desk)) => dyn GiveDesk))
        });
        leak.join().expect("no panic")
    });
    let desk = first.with(|m| root.get(m).give());
    let ends_with_a_panic = |act: &dyn Fn()| {
        let end = catch_unwind(AssertUnwindSafe(act)).expect_err("refused");
        let message = end.downcast::<String>().expect("a message with numbers");
        assert!(message.contains("with a mutator of heap"), "{message}");
    };
    std::thread::scope(|s| {
        let others = s.spawn(|| {
            let desk = first.with(|m| root.get(m).give());
            let m = leaked(&programs::quiet_heap());
            for _ in 0..3 {
                let item = m.alloc(String::from("another"));
                ends_with_a_panic(&|| assert!(desk.0.try_send(m, item).is_ok()));
                ends_with_a_panic(&|| assert!(desk.0.try_recv(m).is_ok()));
            }
        });
        others.join().expect("no panic");
    });
    first.with(|m| {
        let item = desk.0.try_recv(m).expect("the item is there");
        assert_eq!(item.as_str(), "item");
        assert!((0..2).all(|_| desk.0.try_send(m, item).is_ok()));
        let third = desk.0.try_send(m, item);
        assert!(matches!(third, Err(TrySendError::Full(_))));
    });
}

/// A pointer that lives for ever may be used with every mutator of its heap, whatever other heaps
/// there are.
#[test]
fn a_static_pointer_is_good_for_its_own_heap() {
    let _other = Heap::new();
    for (name, act) in OPERATIONS {
        let (heap, root) = heap_with_things();
        let worker = std::thread::spawn(move || {
            let m = leaked(&heap);
            let things: Gc<'static, Things<'static>> = root.get(m).give();
            assert!(things.is_as_new());
            act(m, things);
            heap.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        });
        worker.join().expect("no panic");
    }
}

#[test]
fn a_frame_brings_no_foreign_object_into_a_section() {
    programs::a_frame_brings_no_foreign_object_into_a_section();
}

/// Both heaps have a leaked mutator: then an object of one in an object of the other stays, whoever
/// sees it.
#[test]
fn two_heaps_with_leaked_mutators_keep_what_they_have() {
    let (first, root) = heap_with_things();
    let (second, _root) = heap_with_things();
    let of = second.clone();
    let worker = std::thread::spawn(move || {
        let things = first.with(|m| root.get(m).give());
        let m = leaked(&of);
        things.empty_outside[0].set(m, m.alloc(String::from("hidden")));
        for heap in [&first, &of] {
            heap.verify().expect("whole");
        }
        let hidden = things.empty_outside[0].get().expect("set above");
        hidden.len()
    });
    assert_eq!(worker.join().expect("no panic"), "hidden".len());
    // No cycle ends any more, so this comes back at once.
    let before = second.stats().cycles;
    second.collect();
    assert_eq!(second.stats().cycles, before);
}

#[derive(Trace)]
struct Mine<'gc> {
    kept: Text<'gc>,
    list: GcLock<Vec<Text<'gc>>>,
}

/// What an object, a lock or a frame keeps of another heap is no concern of its own heap's
/// collector and verifier.
#[test]
fn what_is_kept_of_another_heap_is_passed_over() {
    let (first, root) = heap_with_things();
    let worker = std::thread::spawn(move || {
        let things = first.with(|m| root.get(m).give());
        let second = (Heap::builder().verify(true).poison(true).build()).expect("a heap");
        let mut m = second.attach().expect("a thread without a mutator");
        let mut frame: Frame<Vec<Text<'static>>> = Frame::new(&m, Vec::new());
        let mine = {
            let mine = m.alloc(Mine {
                kept: things.text,
                list: GcLock::new(vec![things.text]),
            });
            mine.list.write(&m).push(things.text);
            let (slice, array) = (
                m.alloc_slice(2, |_| things.text),
                m.alloc_array(things.text, 2, |_| things.text),
            );
            assert!(slice[1].ptr_eq(array.items()[1]));
            frame.enter(&m).extend([things.text; 3]);
            m.root(mine)
        };
        for _ in 0..3 {
            m.collect();
            second.verify().expect("whole");
            let here = mine.get(&m);
            assert!(here.kept.as_str() == "first" && here.list.read().len() == 2);
            assert!(frame.enter(&m).iter().all(|text| text.as_str() == "first"));
        }
        drop(m);
        // The other heap does not know of it, and keeps the object all the same.
        first.verify().expect("whole");
        assert!(things.is_as_new());
    });
    worker.join().expect("no panic");
}

/// A G's mutator is its P's: refused as any other.
#[cfg(feature = "sched")]
#[test]
fn a_g_changes_its_own_heap_only() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    thread_local! {
        static THINGS: std::cell::Cell<Option<Gc<'static, Things<'static>>>> = const { std::cell::Cell::new(None) };
    }
    let (first, root) = heap_with_things();
    let rt = (greywave::Runtime::builder(&Heap::new()).procs(1).build()).expect("a runtime");
    rt.block_on(async move {
        // Outside of `with` the thread has no mutator, and may use that of another heap.
        first.with(|m| THINGS.set(Some(root.get(m).give())));
        greywave::with(|m| {
            let things = THINGS.get().expect("the same thread, no await in between");
            let refused = catch_unwind(AssertUnwindSafe(|| things.full.set(m, None)));
            assert!(refused.is_err() && things.is_as_new());
            let refused = catch_unwind(AssertUnwindSafe(|| things.lock.write(m).clear()));
            assert!(refused.is_err() && things.is_as_new());
        });
    })
    .expect("no deadlock");
}

/// More than a page wants.
#[repr(align(65536))]
#[derive(Clone, Copy, Trace)]
struct Aligned;

type Named<'gc> = (Text<'gc>, Weak<'gc, ()>);

#[derive(Trace)]
struct Mixed<'gc> {
    unit: GcCell<'gc, ()>,
    aligned: GcCell<'gc, Aligned>,
    large: GcCell<'gc, [u64; 20_000]>,
    array: GcCell<'gc, GcArray<(), u8>>,
    once: GcOnce<'gc, ()>,
    wide: GcLock<Vec<Gc<'gc, [u8]>>>,
    name: GcLock<Option<Gc<'gc, str>>>,
    outside: Vec<GcCell<'gc, String>>,
    boxed: Box<GcLock<Vec<Named<'gc>>>>,
}

fn use_everything(heap: &Heap) {
    let mut stack: Frame<Vec<Gc<'static, Mixed<'static>>>> =
        heap.with(|m| Frame::new(m, Vec::new()));
    let roots = heap.with(|m| {
        let on_the_stack = GcCell::new(None);
        on_the_stack.set(m, m.alloc(1_u64));
        assert!(on_the_stack.swap(m, None).is_some());
        let before: GcLock<Vec<Text<'_>>> = GcLock::new(Vec::new());
        before.write(m).push(m.alloc(String::from("before")));
        before.write(m).clear();
        let mixed = m.alloc(Mixed {
            unit: GcCell::null(),
            aligned: GcCell::null(),
            large: GcCell::null(),
            array: GcCell::null(),
            once: GcOnce::empty(),
            wide: GcLock::default(),
            name: GcLock::new(None),
            outside: (0..4).map(|_| GcCell::null()).collect(),
            boxed: Box::default(),
        });
        for _ in 0..3 {
            mixed.unit.set(m, m.alloc(()));
            mixed.aligned.set(m, m.alloc(Aligned));
            mixed.large.set(m, m.alloc([7; 20_000]));
            mixed.array.set(m, m.alloc_array((), 0, |_| 0_u8));
            let _ = mixed.once.set(m, m.alloc(()));
            let mut wide = mixed.wide.write(m);
            wide.push(m.alloc_slice(0, |_| 0));
            wide.push(m.alloc_slice(9, |_| 9));
            drop(wide);
            *mixed.name.write(m) = Some(m.alloc_str(""));
            for cell in &mixed.outside {
                cell.set(m, m.alloc(String::from("outside")));
                let old = cell.get();
                assert!(cell.compare_exchange(m, old, None).is_ok());
                cell.set(m, m.alloc(String::from("outside")));
            }
            let weak = Gc::downgrade(m.alloc(()), m);
            assert!(weak.upgrade(m).is_some());
            let text = m.alloc(String::from("boxed"));
            mixed.boxed.write(m).push((text, weak));
            mixed.boxed.try_write(m).expect("free").rotate_left(1);
        }
        stack.enter(m).push(mixed);
        let aligned = m.root_weak(Gc::downgrade(m.alloc(Aligned), m));
        assert!(aligned.get(m).is_some());
        (
            m.root(m.alloc(())),
            m.root(m.alloc(Aligned)),
            m.root(m.alloc_str("")),
        )
    });
    heap.collect();
    heap.verify().expect("whole");
    heap.with(|m| {
        assert_eq!(stack.enter(m)[0].boxed.read().len(), 3);
        assert_eq!(roots.2.get(m).len(), 0);
    });
}

/// Objects of all kinds, of several heaps, by one thread in turn, and by several at a time.
#[test]
fn several_heaps_are_used_side_by_side() {
    let heaps = [Heap::new(), Heap::new(), Heap::new()];
    for heap in heaps.iter().chain(&heaps) {
        use_everything(heap);
    }
    std::thread::scope(|s| {
        for heap in heaps.iter().chain(&heaps) {
            s.spawn(|| use_everything(heap));
        }
    });
}

/// What a public function does with something of another heap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A panic, before anything has changed: a row of `OPERATIONS`.
    Refused,
    /// A panic because the handle says whose it is: `tests/errors.rs`.
    RefusedByItsHandle,
    /// It is kept, and passed over by the collector: its own heap keeps it, since it is `'static`.
    Kept,
    /// It takes nothing of a heap.
    Nothing,
}
use Answer::{Kept, Nothing, Refused, RefusedByItsHandle};

/// All public functions that are given a mutator.
const ANSWERS: &[(&str, Answer)] = &[
    ("array.rs alloc_array", Kept),
    ("array.rs alloc_slice", Kept),
    ("array.rs alloc_str", Nothing),
    ("array.rs try_alloc_array", Kept),
    ("array.rs try_alloc_slice", Kept),
    ("array.rs try_alloc_str", Nothing),
    ("cell.rs compare_exchange", Refused),
    ("cell.rs set", Refused),
    ("cell.rs swap", Refused),
    ("external.rs external", Nothing),
    ("frame.rs enter", RefusedByItsHandle),
    ("frame.rs new", Refused),
    ("gc_chan.rs recv", RefusedByItsHandle),
    ("gc_chan.rs send", RefusedByItsHandle),
    ("gc_chan.rs try_recv", Refused),
    ("gc_chan.rs try_send", Refused),
    ("heap.rs attach", Nothing),
    ("heap.rs with", Nothing),
    ("lock.rs try_write", Refused),
    ("lock.rs write", Refused),
    ("mutator.rs alloc", Kept),
    ("mutator.rs blocking", Nothing),
    ("mutator.rs collect", Nothing),
    ("mutator.rs heap", Nothing),
    ("mutator.rs safepoint", Nothing),
    ("mutator.rs try_alloc", Kept),
    ("poll.rs safepoint_is_due", Nothing),
    ("root.rs get", RefusedByItsHandle),
    ("root.rs is_dead", RefusedByItsHandle),
    ("root.rs root", Refused),
    ("root.rs root_weak", Refused),
    ("root.rs weak", RefusedByItsHandle),
    ("runtime.rs with", Nothing),
    ("weak.rs downgrade", Refused),
    ("weak.rs try_downgrade", Refused),
    ("weak.rs upgrade", Refused),
    ("word.rs compare_exchange", Refused),
    ("word.rs set", Refused),
    ("word.rs swap", Refused),
];

/// `file name` of each public function of a file that takes a mutator, or is a method of one.
fn functions_with_a_mutator(file: &str, text: &str, found: &mut BTreeSet<String>) {
    let mut of_mutator = false;
    let code = text
        .lines()
        .take_while(|line| !line.starts_with("mod tests"));
    let mut lines = code.peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("impl") {
            of_mutator = line.starts_with("impl Mutator");
        }
        let head = line.trim_start();
        let Some(rest) = (head.strip_prefix("pub fn "))
            .or_else(|| head.strip_prefix("pub async fn "))
            .or_else(|| head.strip_prefix("pub const fn "))
        else {
            continue;
        };
        let mut whole = rest.to_owned();
        while !whole.contains('{') {
            whole.push_str(lines.next().expect("a body"));
        }
        let takes = whole
            .split("->")
            .next()
            .is_some_and(|part| part.contains("Mutator"))
            || whole.contains("Mutator)")
            || whole.contains("Mutator,");
        let has_self = of_mutator && whole.contains("self");
        if takes || has_self {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            found.insert(format!("{file} {name}"));
        }
    }
}

/// Whoever adds a public function that takes a mutator says here what it does with another heap's
/// pointer.
#[test]
fn every_function_with_a_mutator_has_an_answer() {
    let mut found = BTreeSet::new();
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    for entry in fs::read_dir(api).expect("the sources are here") {
        let path = entry.expect("a file").path();
        let file = path
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        functions_with_a_mutator(&file, &fs::read_to_string(&path).expect("text"), &mut found);
    }
    let answered: BTreeSet<String> = ANSWERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, answered, "functions of src/api, and the table above");
    #[cfg(feature = "sched")]
    for (name, answer) in ANSWERS {
        let (file, function) = name.split_once(' ').expect("two words");
        let is_tried = OPERATIONS.iter().any(|(tried, _)| {
            let mut parts = tried.split([' ', ':']).filter(|part| !part.is_empty());
            parts.next() == Some(file) && parts.nth(1) == Some(function)
        });
        assert_eq!(is_tried, *answer == Refused, "{name}");
    }
}

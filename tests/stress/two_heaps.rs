//! A pointer to an object of one heap, on a thread whose mutator belongs to another. The programs
//! run as they are, and against faults.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use greywave::{
    Frame, Gc, GcCell, GcLock, GcOnce, GcWord, Heap, Mutator, Rebrand, Root, Trace, Tracer, Weak,
    Word, WordKinds, dyn_target, unsize,
};

pub(crate) type Text<'gc> = Gc<'gc, String>;

pub(crate) struct Kinds;
impl WordKinds for Kinds {
    type List = (String,);
}

pub(crate) type Value<'gc> = Word<'gc, Kinds>;

/// One of everything that may change.
#[derive(Trace)]
pub(crate) struct Things<'gc> {
    pub(crate) text: Text<'gc>,
    pub(crate) full: GcCell<'gc, String>,
    pub(crate) empty: GcCell<'gc, String>,
    pub(crate) once: GcOnce<'gc, String>,
    pub(crate) word: GcWord<'gc, Kinds>,
    pub(crate) lock: GcLock<Vec<Text<'gc>>>,
    pub(crate) weak: Weak<'gc, String>,
    pub(crate) cells_outside: Vec<GcCell<'gc, String>>,
    pub(crate) empty_outside: Vec<GcCell<'gc, String>>,
    pub(crate) lock_outside: Box<GcLock<Vec<Text<'gc>>>>,
    #[cfg(feature = "sched")]
    pub(crate) queue: greywave::GcChan<'gc, String>,
}

impl<'gc> Things<'gc> {
    fn new(m: &'gc Mutator) -> Self {
        let text = m.alloc(String::from("first"));
        Self {
            text,
            full: GcCell::new(Some(text)),
            empty: GcCell::null(),
            once: GcOnce::empty(),
            word: GcWord::new(Value::from_gc::<0>(text)),
            lock: GcLock::new(vec![text]),
            weak: Gc::downgrade(text, m),
            cells_outside: vec![GcCell::new(Some(text))],
            empty_outside: vec![GcCell::null()],
            lock_outside: Box::new(GcLock::new(vec![text])),
            #[cfg(feature = "sched")]
            queue: {
                let queue = greywave::GcChan::new(2);
                assert!(queue.try_send(m, text).is_ok());
                queue
            },
        }
    }

    /// Whether nothing has changed since [`new`](Self::new).
    pub(crate) fn is_as_new(&self) -> bool {
        let is_text = |at: Option<Text<'gc>>| at.is_some_and(|at| at.ptr_eq(self.text));
        let of_queue = {
            #[cfg(feature = "sched")]
            {
                self.queue.len() == 1
            }
            #[cfg(not(feature = "sched"))]
            true
        };
        let is_alone = |lock: &GcLock<Vec<Text<'gc>>>| {
            // Also given back: a writer would be in the way.
            (lock.try_read()).is_some_and(|texts| texts.len() == 1 && texts[0].ptr_eq(self.text))
        };
        is_text(self.full.get())
            && self.empty.get().is_none()
            && self.once.get().is_none()
            && is_text(self.word.get().as_gc::<0>())
            && is_alone(&self.lock)
            && !self.weak.is_dead()
            && is_text(self.cells_outside[0].get())
            && self.empty_outside[0].get().is_none()
            && is_alone(&self.lock_outside)
            && of_queue
            && self.text.as_str() == "first"
    }
}

#[derive(Trace)]
struct Holder<'gc> {
    things: Gc<'gc, Things<'gc>>,
}

pub(crate) trait Give {
    fn give(&self) -> Gc<'static, Things<'static>>;
}
impl Give for Holder<'static> {
    fn give(&self) -> Gc<'static, Things<'static>> {
        self.things
    }
}
dyn_target!(dyn Give);

/// A heap that says nothing of the mutators that it loses.
pub(crate) fn quiet_heap() -> Heap {
    (Heap::builder().quiet(true).poison(true).build()).expect("a heap")
}

/// While a marker comes by it waits here.
#[derive(Clone, Debug, Default)]
struct Gate {
    comes: Arc<AtomicUsize>,
    is_open: Arc<AtomicBool>,
}

// SAFETY: 1. 3. 6. no `Gc` inside. 2. atomics in an `Arc`. 4. true, so that it is traced. 5. it
// waits for a test that takes no lock of the collector meanwhile.
unsafe impl Trace for Gate {
    fn trace(&self, _: &mut Tracer<'_>) {
        self.comes.fetch_add(1, Ordering::SeqCst);
        while !self.is_open.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Gate {
    type To = Self;
}

/// A heap that is being marked, as long as this lives.
struct Marking {
    gate: Gate,
    cycle: Option<JoinHandle<()>>,
    _root: Root<Gate>,
}

impl Marking {
    fn of(heap: &Heap) -> Self {
        let gate = Gate::default();
        let root = heap.with(|m| m.root(m.alloc(gate.clone())));
        let of = heap.clone();
        let cycle = std::thread::spawn(move || of.collect());
        while gate.comes.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        Self {
            gate,
            cycle: Some(cycle),
            _root: root,
        }
    }
}

impl Drop for Marking {
    fn drop(&mut self) {
        self.gate.is_open.store(true, Ordering::SeqCst);
        // Its mutator is lost, so nobody waits for a cycle for long.
        let ended = self.cycle.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|end| end.is_ok()));
    }
}

/// A heap with a mutator that is leaked, and a root of what that has made.
pub(crate) fn heap_with_things() -> (Heap, Root<dyn Give>) {
    let heap = quiet_heap();
    let root = things_in(&heap);
    (heap, root)
}

/// What a mutator has made that is leaked.
pub(crate) fn things_in(heap: &Heap) -> Root<dyn Give> {
    std::thread::scope(|s| {
        let leak = s.spawn(|| {
            let m: &'static Mutator = leaked(heap);
            let things = m.alloc(Things::new(m));
            m.root(unsize!(m.alloc(Holder { things }) => dyn Give))
        });
        leak.join().expect("no panic")
    })
}

/// A mutator of this thread that is never dropped.
pub(crate) fn leaked(heap: &Heap) -> &'static Mutator {
    Box::leak(Box::new(heap.attach().expect("a thread without a mutator")))
}

/// Something that is done with a mutator to the things of a heap.
pub(crate) type Operation = (
    &'static str,
    fn(&'static Mutator, Gc<'static, Things<'static>>),
);

fn own(m: &'static Mutator) -> Text<'static> {
    m.alloc(String::from("another"))
}

/// Every function that takes a mutator and something of a heap.
pub(crate) const OPERATIONS: &[Operation] = &[
    ("cell.rs GcCell::set", |m, t| t.full.set(m, None)),
    ("cell.rs GcCell::set to an own one", |m, t| {
        t.empty.set(m, own(m))
    }),
    ("cell.rs GcCell::set outside", |m, t| {
        t.cells_outside[0].set(m, None)
    }),
    ("cell.rs GcCell::set outside to an own one", |m, t| {
        t.cells_outside[0].set(m, own(m));
    }),
    ("cell.rs GcCell::set of an own cell", |m, t| {
        let cell = m.alloc(GcCell::null());
        cell.set(m, t.text);
    }),
    ("cell.rs GcCell::swap", |m, t| {
        let _ = t.full.swap(m, None);
    }),
    ("cell.rs GcCell::swap outside", |m, t| {
        let _ = t.cells_outside[0].swap(m, own(m));
    }),
    ("cell.rs GcCell::compare_exchange", |m, t| {
        let _ = t.full.compare_exchange(m, t.full.get(), None);
    }),
    ("cell.rs GcCell::compare_exchange of nothing", |m, t| {
        let _ = t.empty.compare_exchange(m, None, Some(own(m)));
    }),
    ("cell.rs GcOnce::set", |m, t| {
        let _ = t.once.set(m, own(m));
    }),
    ("cell.rs GcOnce::set of an own cell", |m, t| {
        let _ = m.alloc(GcOnce::empty()).set(m, t.text);
    }),
    ("word.rs GcWord::set", |m, t| {
        t.word.set(m, Value::number(1.0))
    }),
    ("word.rs GcWord::set of an own one", |m, t| {
        let word = m.alloc(GcWord::new(Value::number(1.0)));
        word.set(m, Value::from_gc::<0>(t.text));
    }),
    ("word.rs GcWord::swap", |m, t| {
        let _ = t.word.swap(m, Value::number(1.0));
    }),
    ("word.rs GcWord::compare_exchange", |m, t| {
        let _ = t.word.compare_exchange(m, t.word.get(), Value::number(1.0));
    }),
    ("frame.rs Frame::new", |m, t| drop(Frame::new(m, vec![t]))),
    ("frame.rs Frame::new of a boxed slice", |m, t| {
        drop(Frame::new(m, vec![None, Some(t.text)].into_boxed_slice()));
    }),
    ("frame.rs Frame::new of a lock", |m, t| {
        drop(Frame::new(m, GcLock::new(vec![own(m), t.text])));
    }),
    ("frame.rs Frame::new of a weak reference", |m, t| {
        drop(Frame::new(m, t.weak));
    }),
    ("lock.rs GcLock::write", |m, t| t.lock.write(m).clear()),
    ("lock.rs GcLock::write outside", |m, t| {
        t.lock_outside.write(m).clear()
    }),
    ("lock.rs GcLock::try_write", |m, t| {
        t.lock.try_write(m).expect("free").clear();
    }),
    ("lock.rs GcLock::try_write outside", |m, t| {
        t.lock_outside.try_write(m).expect("free").clear();
    }),
    ("weak.rs Gc::downgrade", |m, t| {
        let _ = Gc::downgrade(t.text, m);
    }),
    ("weak.rs Gc::try_downgrade", |m, t| {
        let _ = Gc::try_downgrade(t.text, m);
    }),
    ("weak.rs Weak::upgrade", |m, t| {
        let _ = t.weak.upgrade(m);
    }),
    ("root.rs Mutator::root", |m, t| drop(m.root(t.text))),
    ("root.rs Mutator::root_weak", |m, t| {
        drop(m.root_weak(t.weak))
    }),
    #[cfg(feature = "sched")]
    ("gc_chan.rs GcChan::try_send", |m, t| {
        let _ = t.queue.try_send(m, own(m));
    }),
    #[cfg(feature = "sched")]
    ("gc_chan.rs GcChan::try_send into an own one", |m, t| {
        let _ = m.alloc(greywave::GcChan::new(1)).try_send(m, t.text);
    }),
    #[cfg(feature = "sched")]
    ("gc_chan.rs GcChan::try_recv", |m, t| {
        let _ = t.queue.try_recv(m);
    }),
];

fn heap_number(heap: &Heap) -> String {
    let shown = format!("{heap:?}");
    let digits = shown.chars().skip_while(|c| !c.is_ascii_digit());
    digits.take_while(char::is_ascii_digit).collect()
}

/// The operation with a mutator of the second heap on things of the first one ends with a panic
/// that names both, before it has changed anything.
#[track_caller]
pub(crate) fn refuses(
    operation: &Operation,
    m: &'static Mutator,
    first: &Heap,
    things: Gc<'static, Things<'static>>,
) {
    let (name, act) = operation;
    let end = catch_unwind(AssertUnwindSafe(|| act(m, things)));
    let message = match end {
        Ok(()) => panic!("{name} was not refused"),
        Err(payload) => *payload
            .downcast::<String>()
            .expect("a message with numbers"),
    };
    for part in [
        format!("an object of heap {} ", heap_number(first)),
        format!("with a mutator of heap {}:", heap_number(m.heap())),
    ] {
        assert!(
            message.contains(&part),
            "{name}: {message:?} without {part:?}"
        );
    }
    assert!(
        things.is_as_new(),
        "{name} was refused and has changed something"
    );
}

/// Every operation is refused, with a mutator that was attached when both heaps were there, whether
/// the one is being marked or the other.
pub(crate) fn a_mutator_is_for_its_own_heap() {
    for (first_is_marked, second_is_marked) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let (first, second) = (quiet_heap(), quiet_heap());
        let first_marking = first_is_marked.then(|| Marking::of(&first));
        let second_marking = second_is_marked.then(|| Marking::of(&second));
        let worker = std::thread::spawn(move || {
            let root = things_in(&first);
            let things = first.with(|m| root.get(m).give());
            let m = leaked(&second);
            for operation in OPERATIONS {
                refuses(operation, m, &first, things);
            }
        });
        worker.join().expect("no panic");
        drop((first_marking, second_marking));
    }
}

/// The same with a mutator that is older than the other heap, and has come to no safepoint since:
/// somebody else puts the pointer into an object of its heap.
pub(crate) fn a_mutator_knows_of_younger_heaps() {
    let old = quiet_heap();
    let m = leaked(&old);
    let (young, root) = heap_with_things();
    let mine = std::thread::scope(|s| {
        let bring = s.spawn(|| {
            let things = young.with(|m| root.get(m).give());
            let m = leaked(&old);
            m.root(unsize!(m.alloc(Holder { things }) => dyn Give))
        });
        bring.join().expect("no panic")
    });
    let things = mine.get(m).give();
    for operation in OPERATIONS {
        refuses(operation, m, &young, things);
    }
}

/// A frame would give another heap's object out with a section's brand, so that an object of the
/// section's heap could be stored in it where that heap's marker does not look.
pub(crate) fn a_frame_brings_no_foreign_object_into_a_section() {
    let (first, root) = heap_with_things();
    let worker = std::thread::spawn(move || {
        let things = first.with(|m| root.get(m).give());
        let second = (Heap::builder().verify(true).poison(true).build()).expect("a heap");
        let mut m = second.attach().expect("a thread without a mutator");
        let made = catch_unwind(AssertUnwindSafe(|| Frame::new(&m, vec![things])));
        if let Ok(mut frame) = made {
            frame.enter(&m)[0].empty_outside[0].set(&m, m.alloc(String::from("hidden")));
            m.collect();
            let hidden = frame.enter(&m)[0].empty_outside[0].get();
            let hidden = hidden.expect("set above");
            let text = hidden.as_bytes();
            panic!("the frame was made; then the object behind it was {text:?}");
        }
        assert!(things.is_as_new());
        // It lets in what is its own, and what is no heap's.
        let frame = Frame::new(&m, vec![None, Some(1_u64)]);
        let mut own: Frame<Vec<Text<'static>>> = Frame::new(&m, Vec::with_capacity(1));
        own.enter(&m).push(m.alloc(String::from("own")));
        m.collect();
        assert_eq!(own.enter(&m)[0].as_str(), "own");
        drop(frame);
    });
    worker.join().expect("no panic");
}

/// Stands for a container that is half moved: nobody may look at it between `begin` and `end`.
#[derive(Clone, Default)]
struct Fragile {
    is_written: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
}

// SAFETY: 1. 3. 6. no `Gc` inside. 2. atomics in `Arc`s. 4. true, so that it is traced. 5. it ends
// the process instead of unwinding.
unsafe impl Trace for Fragile {
    fn trace(&self, _: &mut Tracer<'_>) {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if self.is_written.load(Ordering::SeqCst) {
            eprintln!("greywave: fatal: somebody looks at what is being written");
            std::process::abort();
        }
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Fragile {
    type To = Self;
}

/// Says that a marker has come by.
#[derive(Clone, Default)]
struct Bell(Arc<AtomicUsize>);

// SAFETY: 1. 3. 6. no `Gc` inside. 2. an atomic in an `Arc`. 4. true, so that it is traced. 5. it
// adds.
unsafe impl Trace for Bell {
    fn trace(&self, _: &mut Tracer<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: no brand.
unsafe impl Rebrand<'_> for Bell {
    type To = Self;
}

/// Locks of which nothing says whose they are: they are empty, and lie outside the heap.
#[derive(Trace)]
struct Page<'gc> {
    boxed: Box<GcLock<(Fragile, Vec<Text<'gc>>)>>,
    listed: Vec<GcLock<(Fragile, Vec<Text<'gc>>)>>,
    bell: Bell,
}

#[derive(Trace)]
struct PageHolder<'gc>(Gc<'gc, Page<'gc>>);

trait GivePage {
    fn give(&self) -> Gc<'static, Page<'static>>;
}
impl GivePage for PageHolder<'static> {
    fn give(&self) -> Gc<'static, Page<'static>> {
        self.0
    }
}
dyn_target!(dyn GivePage);

#[derive(Trace)]
struct Entrance<'gc> {
    gate: Gate,
    page: Gc<'gc, Page<'gc>>,
}

/// A mutator of another heap writes to an empty lock in a box or a list of this heap's object,
/// while this heap's verifier comes by, or its marker: neither stops that mutator, so both leave
/// the lock out until it is given back.
pub(crate) fn another_heaps_writer_is_left_out() {
    for marks in [false, true] {
        let (first, second) = (quiet_heap(), quiet_heap());
        let (fragile, bell, gate) = (Fragile::default(), Bell::default(), Gate::default());
        let entrance: Root<Entrance<'static>> = first.with(|m| {
            let page = m.alloc(Page {
                boxed: Box::new(GcLock::new((fragile.clone(), Vec::new()))),
                listed: vec![GcLock::new((fragile.clone(), Vec::new()))],
                bell: bell.clone(),
            });
            let gate = gate.clone();
            m.root(m.alloc(Entrance { gate, page }))
        });
        let rings = || bell.0.load(Ordering::SeqCst);
        let cycle = marks.then(|| {
            let of = first.clone();
            let cycle = std::thread::spawn(move || of.collect());
            while gate.comes.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
            cycle
        });
        gate.is_open.store(!marks, Ordering::SeqCst);
        let root: Root<dyn GivePage> = std::thread::scope(|s| {
            let leak = s.spawn(|| {
                let m = leaked(&first);
                let holder = PageHolder(entrance.get(m).page);
                m.root(unsize!(m.alloc(holder) => dyn GivePage))
            });
            leak.join().expect("no panic")
        });
        let page = first.with(|m| root.get(m).give());
        let m = second.attach().expect("a thread without a mutator");
        let locks = (page.boxed.write(&m), page.listed[0].try_write(&m));
        let before = (fragile.looks.load(Ordering::SeqCst), rings());
        fragile.is_written.store(true, Ordering::SeqCst);
        if marks {
            gate.is_open.store(true, Ordering::SeqCst);
            while rings() == before.1 {
                std::thread::sleep(Duration::from_micros(50));
            }
        } else {
            std::thread::scope(|s| {
                let verified = s.spawn(|| first.verify());
                verified.join().expect("no panic").expect("whole");
            });
            assert_ne!(rings(), before.1, "the page was looked at");
        }
        assert_eq!(fragile.looks.load(Ordering::SeqCst), before.0);
        fragile.is_written.store(false, Ordering::SeqCst);
        assert!(locks.1.is_some());
        drop(locks);
        drop(m);
        if let Some(cycle) = cycle {
            cycle.join().expect("no panic");
        }
        first.verify().expect("whole");
        let looks = fragile.looks.load(Ordering::SeqCst);
        assert_eq!(looks, before.0 + 2, "what was given back is looked at");
    }
}

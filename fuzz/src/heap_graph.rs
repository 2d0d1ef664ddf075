//! Random programs over `Gc`, `GcCell`, `GcOnce`, `GcLock`, `Weak`, `Root`, `WeakRoot` and `Frame`,
//! by one or two mutators, against a model that knows what is reachable: that must live, and after
//! a collection everything else must be dropped, once.
//!
//! The two mutators take turns, so that a program does the same each time; one that waits is
//! blocked, and so are the collector's threads not part of the turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;

use arbitrary::Arbitrary;
use greywave::{Frame, Gc, GcCell, GcLock, GcOnce, Heap, Mutator, Root, Trace, Weak, WeakRoot};

use crate::Case;

/// A place that holds an object: the first half are roots, the second half are in a frame.
pub type Place = u8;

/// One step of a program. Where a place must hold an object and does not, nothing happens.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    /// A new object, with plain, cell and weak edges to what these places hold, into a place.
    New(Place, Place, Place, Place),
    /// So many objects, and bytes each, that nobody holds.
    Garbage(u8, u16),
    /// Sets the cell of the one to the other.
    Set(Place, Place),
    /// Empties the cell.
    Clear(Place),
    /// Swaps the cell with the place.
    Swap(Place, Place),
    /// Exchanges the cell for the third if it leads to the second.
    Exchange(Place, Place, Place),
    /// Writes the edge that is written once.
    Once(Place, Place),
    /// Adds to the locked list.
    Push(Place, Place),
    /// Takes the last of the locked list into a place.
    Pop(Place, Place),
    /// Moves the locked list of the one to the end of the other's.
    Pour(Place, Place),
    /// Sets the weak edge.
    Know(Place, Place),
    /// Follows the plain, the cell, the once, the weak edge or the first of the list, into a place.
    Follow(Place, u8, Place),
    /// Copies one place into another.
    Copy(Place, Place),
    /// Empties a place.
    Forget(Place),
    /// A weak root, by number, to what a place holds.
    Watch(u8, Place),
    /// What a weak root leads to, into a place.
    Wake(u8, Place),
    /// The other mutator goes on.
    Turn,
    /// A safepoint only.
    Safepoint,
    /// A whole cycle, and a look at who was dropped.
    Collect,
    /// The verifier, in the middle of a section.
    Verify,
}

/// See the module.
#[derive(Arbitrary, Clone, Debug)]
pub struct Program {
    /// Marks with the world stopped.
    pub stop_the_world: bool,
    /// A cycle at every safepoint.
    pub stress: bool,
    /// The second mutator starts.
    pub second: bool,
    /// What to do.
    pub ops: Vec<Op>,
}

const PLACES: usize = 16;
const ROOTS: usize = PLACES / 2;
const WATCHES: usize = 4;
const MOST_OBJECTS: usize = 400;

/// Notes in a table that it was dropped.
#[derive(Trace)]
struct Dropped {
    #[trace(skip)]
    table: Arc<[AtomicU8]>,
    id: usize,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let before = self.table[self.id].fetch_add(1, Ordering::Relaxed);
        assert_eq!(before, 0, "object {} is dropped twice", self.id);
    }
}

#[derive(Trace)]
struct Node<'gc> {
    dropped: Dropped,
    plain: Option<Gc<'gc, Node<'gc>>>,
    cell: GcCell<'gc, Node<'gc>>,
    once: GcOnce<'gc, Node<'gc>>,
    list: GcLock<Vec<Gc<'gc, Node<'gc>>>>,
    weak: GcLock<Option<Weak<'gc, Node<'gc>>>>,
}

type N<'gc> = Gc<'gc, Node<'gc>>;

/// The same object in the model; edges by number.
#[derive(Clone, Debug, Default)]
struct Model {
    plain: Option<usize>,
    cell: Option<usize>,
    once: Option<usize>,
    list: Vec<usize>,
    weak: Option<usize>,
}

/// What goes from mutator to mutator.
struct State {
    roots: [Option<Root<Node<'static>>>; ROOTS],
    frame: Frame<Vec<Option<N<'static>>>>,
    watches: [Option<(WeakRoot<Node<'static>>, usize)>; WATCHES],
    places: [Option<usize>; PLACES],
    objects: Vec<Model>,
    table: Arc<[AtomicU8]>,
}

impl State {
    fn new(m: &Mutator) -> Self {
        Self {
            roots: Default::default(),
            frame: Frame::new(m, vec![None; PLACES - ROOTS]),
            watches: Default::default(),
            places: [None; PLACES],
            objects: Vec::new(),
            table: (0..MOST_OBJECTS).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// What a place holds, by its pointer and by its number. It is alive, and it is the right one.
    fn get<'m>(&mut self, m: &'m Mutator, place: Place) -> Option<(N<'m>, usize)> {
        let place = usize::from(place) % PLACES;
        let node = if place < ROOTS {
            self.roots[place].as_ref().map(|root| root.get(m))
        } else {
            self.frame.enter(m)[place - ROOTS]
        };
        let id = self.places[place];
        assert_eq!(node.map(|node| node.dropped.id), id, "place {place}");
        let (node, id) = node.zip(id)?;
        self.is_alive(id);
        Some((node, id))
    }

    fn is_alive(&self, id: usize) {
        let drops = self.table[id].load(Ordering::Relaxed);
        assert_eq!(drops, 0, "object {id} is in use and was dropped");
    }

    fn put<'m>(&mut self, m: &'m Mutator, place: Place, what: Option<(N<'m>, usize)>) {
        let place = usize::from(place) % PLACES;
        self.places[place] = what.map(|(_, id)| id);
        let node = what.map(|(node, _)| node);
        if place < ROOTS {
            self.roots[place] = node.map(|node| m.root(node));
        } else {
            self.frame.enter(m)[place - ROOTS] = node;
        }
    }

    /// Which objects can be reached.
    fn reachable(&self) -> Vec<bool> {
        let mut seen = vec![false; self.objects.len()];
        let mut todo: Vec<usize> = self.places.iter().flatten().copied().collect();
        while let Some(id) = todo.pop() {
            if !std::mem::replace(&mut seen[id], true) {
                let object = &self.objects[id];
                todo.extend(
                    [object.plain, object.cell, object.once]
                        .into_iter()
                        .flatten(),
                );
                todo.extend(&object.list);
            }
        }
        seen
    }

    /// What lives has not been dropped; `all_dead`: and the rest has.
    fn check_drops(&self, all_dead: bool) {
        for (id, reachable) in self.reachable().into_iter().enumerate() {
            let drops = self.table[id].load(Ordering::Relaxed);
            if reachable {
                assert_eq!(drops, 0, "object {id} is reachable and was dropped");
            } else if all_dead {
                assert_eq!(drops, 1, "object {id} is garbage and was not dropped");
            }
        }
    }

    fn new_node<'m>(
        &mut self,
        m: &'m Mutator,
        edges: [Option<(N<'m>, usize)>; 3],
    ) -> (N<'m>, usize) {
        let [plain, cell, weak] = edges;
        let id = self.objects.len();
        let dropped = Dropped {
            table: self.table.clone(),
            id,
        };
        let to_weak = weak.map(|(node, _)| Gc::downgrade(node, m));
        let node = m.alloc(Node {
            dropped,
            plain: plain.map(|(node, _)| node),
            cell: GcCell::new(cell.map(|(node, _)| node)),
            once: GcOnce::empty(),
            list: GcLock::new(Vec::new()),
            weak: GcLock::new(to_weak),
        });
        self.objects.push(Model {
            plain: plain.map(|(_, id)| id),
            cell: cell.map(|(_, id)| id),
            weak: weak.map(|(_, id)| id),
            ..Model::default()
        });
        (node, id)
    }

    /// A weak reference to `id` was upgraded, or not.
    fn check_upgrade<'m>(&self, up: Option<N<'m>>, id: usize) -> Option<(N<'m>, usize)> {
        match up {
            Some(node) => {
                self.is_alive(id);
                assert_eq!(node.dropped.id, id, "upgraded to another object");
                Some((node, id))
            }
            None => {
                assert!(
                    !self.reachable()[id],
                    "object {id} lives and is not upgraded"
                );
                None
            }
        }
    }

    fn follow<'m>(&mut self, m: &'m Mutator, from: Place, edge: u8) -> Option<(N<'m>, usize)> {
        let (node, id) = self.get(m, from)?;
        let model = self.objects[id].clone();
        let (to, want) = match edge % 5 {
            0 => (node.plain, model.plain),
            1 => (node.cell.get(), model.cell),
            2 => (node.once.get(), model.once),
            3 => {
                let list = node.as_ref().list.read();
                let ids: Vec<_> = list.iter().map(|node| node.dropped.id).collect();
                assert_eq!(ids, model.list, "the list of object {id}");
                (list.first().copied(), model.list.first().copied())
            }
            _ => {
                let weak = *node.as_ref().weak.read();
                assert_eq!(weak.is_some(), model.weak.is_some());
                let (weak, to) = weak.zip(model.weak)?;
                return self.check_upgrade(weak.upgrade(m), to);
            }
        };
        assert_eq!(
            to.map(|node| node.dropped.id),
            want,
            "edge {edge} of object {id}"
        );
        to.zip(want)
    }

    fn apply(&mut self, m: &Mutator, op: &Op) {
        match *op {
            Op::New(place, plain, cell, weak) => {
                if self.objects.len() < MOST_OBJECTS {
                    let edges = [plain, cell, weak].map(|place| self.get(m, place));
                    let new = self.new_node(m, edges);
                    self.put(m, place, Some(new));
                }
            }
            Op::Garbage(count, bytes) => {
                for _ in 0..count % 32 {
                    std::hint::black_box(m.alloc_slice(usize::from(bytes), |_| 0xA5_u8));
                }
            }
            Op::Copy(from, to) => {
                let what = self.get(m, from);
                self.put(m, to, what);
            }
            Op::Forget(place) => self.put(m, place, None),
            Op::Follow(from, edge, to) => {
                let what = self.follow(m, from, edge);
                self.put(m, to, what);
            }
            Op::Watch(watch, place) => {
                let what = self.get(m, place);
                let weak = what.map(|(node, id)| (m.root_weak(Gc::downgrade(node, m)), id));
                self.watches[usize::from(watch) % WATCHES] = weak;
            }
            Op::Wake(watch, place) => {
                if let Some((weak, id)) = self.watches[usize::from(watch) % WATCHES].clone() {
                    let what = self.check_upgrade(weak.get(m), id);
                    self.put(m, place, what);
                }
            }
            _ => self.change(m, op),
        }
    }

    /// The operations that change an object.
    fn change(&mut self, m: &Mutator, op: &Op) {
        let (from, to) = match *op {
            Op::Clear(from) => (from, from),
            Op::Set(from, to)
            | Op::Swap(from, to)
            | Op::Exchange(from, to, _)
            | Op::Once(from, to)
            | Op::Push(from, to)
            | Op::Pop(from, to)
            | Op::Pour(from, to)
            | Op::Know(from, to) => (from, to),
            _ => return,
        };
        let Some((node, id)) = self.get(m, from) else {
            return;
        };
        let what = self.get(m, to);
        let number = what.map(|(_, id)| id);
        let pointer = what.map(|(node, _)| node);
        match *op {
            Op::Set(..) => {
                node.cell.set(m, pointer);
                self.objects[id].cell = number;
            }
            Op::Clear(_) => {
                node.cell.set(m, None);
                self.objects[id].cell = None;
            }
            Op::Swap(..) => {
                let old = node.cell.swap(m, pointer);
                let want = std::mem::replace(&mut self.objects[id].cell, number);
                assert_eq!(old.map(|node| node.dropped.id), want);
                self.put(m, to, old.zip(want));
            }
            Op::Exchange(_, _, new) => {
                let new = self.get(m, new);
                let done = node
                    .cell
                    .compare_exchange(m, pointer, new.map(|(node, _)| node));
                assert_eq!(done.is_ok(), self.objects[id].cell == number);
                if done.is_ok() {
                    self.objects[id].cell = new.map(|(_, id)| id);
                }
            }
            Op::Once(..) => {
                if let Some((to, number)) = what {
                    let done = node.once.set(m, to);
                    assert_eq!(done.is_ok(), self.objects[id].once.is_none());
                    self.objects[id].once.get_or_insert(number);
                }
            }
            Op::Push(..) => {
                if let Some((to, number)) = what {
                    node.list.write(m).push(to);
                    self.objects[id].list.push(number);
                }
            }
            Op::Pop(..) => {
                let last = node.list.write(m).pop();
                let want = self.objects[id].list.pop();
                assert_eq!(last.map(|node| node.dropped.id), want);
                self.put(m, to, last.zip(want));
            }
            Op::Pour(..) => {
                if let Some((other, number)) = what
                    && number != id
                {
                    let all = std::mem::take(&mut *node.list.write(m));
                    let mut list = other.as_ref().list.try_write(m).expect("nobody holds it");
                    list.extend(all);
                    let all = std::mem::take(&mut self.objects[id].list);
                    self.objects[number].list.extend(all);
                    assert!(other.list.try_read().is_none() && other.list.try_write(m).is_none());
                }
            }
            Op::Know(..) => {
                *node.list_of_weak(m) = pointer.map(|node| Gc::downgrade(node, m));
                self.objects[id].weak = number;
            }
            _ => {}
        }
    }
}

impl<'gc> Node<'gc> {
    fn list_of_weak<'a, 'm>(
        &'a self,
        m: &'m Mutator,
    ) -> greywave::WriteGuard<'a, 'm, Option<Weak<'gc, Node<'gc>>>> {
        self.weak.write(m)
    }
}

/// Runs operations until the other's turn; says how many there were.
fn turn(m: &mut Mutator, state: &mut State, ops: &[Op]) -> usize {
    for (done, op) in ops.iter().enumerate() {
        match op {
            Op::Turn => return done + 1,
            Op::Safepoint => {}
            Op::Verify => m.heap().verify().expect("whole"),
            Op::Collect => {
                m.collect();
                state.check_drops(true);
            }
            op => state.apply(m, op),
        }
        state.check_drops(false);
        m.safepoint();
    }
    ops.len()
}

/// The state on its way, with how many operations are done.
type Baton = (State, usize);

impl Program {
    fn ops(&self) -> &[Op] {
        // A cycle at each safepoint takes its time.
        &self.ops[..self.ops.len().min(if self.stress { 40 } else { 160 })]
    }

    /// One of the mutators: takes the baton, runs, and hands it on; the last one returns it.
    fn mutate(
        &self,
        m: &mut Mutator,
        here: &mpsc::Receiver<Baton>,
        there: &mpsc::Sender<Baton>,
    ) -> Option<State> {
        let ops = self.ops();
        loop {
            let (mut state, mut done) = m.blocking(|| here.recv()).ok()?;
            done += turn(m, &mut state, &ops[done..]);
            if done == ops.len() {
                return Some(state);
            }
            if there.send((state, done)).is_err() {
                return None;
            }
        }
    }
}

impl Case for Program {
    const MODULE: &'static str = "heap_graph";

    fn run(&self) {
        let heap = Heap::builder()
            .reservation(64 << 20)
            .workers(2)
            .verify(true)
            .poison(true)
            .stop_the_world(self.stop_the_world)
            .stress(self.stress)
            .build()
            .expect("a heap");
        let (to_first, first) = mpsc::channel();
        let (to_second, second) = mpsc::channel();
        let end = std::thread::scope(|s| {
            let heap = &heap;
            let start = (self.second, to_first.clone(), to_second.clone());
            let other = s.spawn(move || {
                let mut m = heap.attach().expect("not attached");
                let state = self.mutate(&mut m, &second, &to_first);
                drop(to_first);
                state
            });
            let mut m = heap.attach().expect("not attached");
            let baton = (State::new(&m), 0);
            let (second_starts, to_first, to_second_start) = start;
            let sent = if second_starts {
                to_second_start.send(baton)
            } else {
                to_first.send(baton)
            };
            assert!(sent.is_ok(), "both listen");
            drop((to_first, to_second_start));
            let mine = self.mutate(&mut m, &first, &to_second);
            drop(to_second);
            let theirs = m.blocking(|| other.join());
            drop(m);
            match theirs {
                Ok(theirs) => mine.or(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        let state = end.expect("one of them came to the end");
        heap.collect();
        heap.verify().expect("whole");
        state.check_drops(true);
        let (table, made) = (state.table.clone(), state.objects.len());
        drop(state);
        heap.collect();
        let once = |n: &AtomicU8| n.load(Ordering::Relaxed) == 1;
        assert!(table[..made].iter().all(once), "roots and frame are gone");
        assert_eq!(heap.stats().drop_panics, 0);
    }
}

//! Random graphs on several threads, each with a plain model beside it.
//!
//! Each thread owns nodes, and only it changes their edges; an edge may lead to any thread's node.
//! The model says which of the thread's own nodes are reachable from its own entries (roots and a
//! frame), and what every edge leads to. What the model can no longer reach becomes garbage, unless
//! another thread still holds it; then nobody changes it any more.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use greywave::{Frame, Gc, GcCell, GcLock, GcOnce, Heap, Mutator, Root, WeakRoot};
use parking_lot::Mutex;

use crate::nodes::{Board, CELLS, Known, Node, Slot, edges, read};
use crate::support::{Random, Stretch, mix, within};

/// How the heap is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain,
    Verified,
    /// A cycle at every safepoint.
    Stressed,
}

const THREADS: u64 = 4;
/// Own nodes at which a thread lets go of half of its entries.
const MANY: usize = 1500;

/// What all threads share.
struct Shared {
    heap: Heap,
    board: Mutex<Option<Root<Board<'static>>>>,
    next_id: AtomicU64,
    /// Takes roots that a thread without a mutator drops.
    drops: SyncSender<Root<Node<'static>>>,
    end: Stretch,
    stressed: bool,
}

/// A thread's part.
struct Worker<'a> {
    shared: &'a Shared,
    board: Root<Board<'static>>,
    random: Random,
    model: HashMap<u64, Known>,
    weak: HashMap<u64, WeakRoot<Node<'static>>>,
    roots: Vec<(Root<Node<'static>>, u64)>,
    frame: Frame<Vec<Gc<'static, Node<'static>>>>,
    framed: Vec<u64>,
}

impl Worker<'_> {
    fn new_node<'m>(
        &mut self,
        m: &'m Mutator,
        first: Option<Gc<'m, Node<'m>>>,
    ) -> Gc<'m, Node<'m>> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let words = match self.random.below(400) {
            0 => 5000 + self.random.below(3000),
            n => 1 + n % 20,
        };
        let node = m.alloc(Node {
            id,
            check: mix(id),
            text: m.alloc_str(&format!("node {id:x}")),
            bulk: m.alloc_slice(words, |at| mix(id + at as u64)),
            cells: [GcCell::new(first), GcCell::null(), GcCell::null()],
            list: GcLock::default(),
            map: GcLock::default(),
            once: GcOnce::empty(),
            array: GcCell::null(),
            weak: GcLock::new(None),
        });
        let mut known = Known::default();
        known.cells[0] = first.map(|n| n.id);
        self.model.insert(id, known);
        self.weak.insert(id, m.root_weak(Gc::downgrade(node, m)));
        node
    }

    fn entry<'m>(&mut self, m: &'m Mutator) -> Option<Gc<'m, Node<'m>>> {
        let at = self.random.below(self.roots.len() + self.framed.len() + 1);
        if let Some((root, id)) = self.roots.get(at) {
            let node = root.get(m);
            assert_eq!(node.check(), *id);
            return Some(node);
        }
        let at = at - self.roots.len();
        let id = *self.framed.get(at)?;
        let node = self.frame.enter(m)[at];
        assert_eq!(node.check(), id);
        Some(node)
    }

    /// An own node, some random steps from an entry; every step is compared with the model.
    fn walk<'m>(&mut self, m: &'m Mutator) -> Option<Gc<'m, Node<'m>>> {
        let mut at = self.entry(m)?;
        for _ in 0..self.random.below(12) {
            let i = self.random.below(CELLS);
            let next = match self.random.below(4) {
                0 => {
                    let list = at.list.read();
                    let known = &self.model[&at.id].list;
                    assert_eq!(list.len(), known.len());
                    if list.is_empty() {
                        continue;
                    }
                    let i = self.random.below(list.len());
                    assert_eq!(list[i].id, known[i]);
                    Some(list[i])
                }
                1 => {
                    let once = at.once.get();
                    assert_eq!(once.map(|n| n.id), self.model[&at.id].once);
                    once
                }
                _ => {
                    let next = at.cells[i].get();
                    assert_eq!(next.map(|n| n.check()), self.model[&at.id].cells[i]);
                    next
                }
            };
            match next {
                Some(next) if self.model.contains_key(&next.check()) => at = next,
                _ => {}
            }
        }
        Some(at)
    }

    /// Any node: an own one, one from the board, or what one of these leads to.
    fn target<'m>(&mut self, m: &'m Mutator) -> Option<Gc<'m, Node<'m>>> {
        let board = self.board.get(m);
        let mut node = {
            let shown = board.0.read();
            match self.random.below(4) {
                0 if !shown.is_empty() => Some(shown[self.random.below(shown.len())]),
                _ => None,
            }
        };
        if node.is_none() {
            node = self.walk(m);
        }
        let node = node?;
        node.check();
        if self.random.one_in(4) {
            // One that somebody else may own, or nobody any more. An own one must be one the model
            // sees.
            let next = edges(node);
            if !next.is_empty() {
                let next = next[self.random.below(next.len())];
                next.check();
                return Some(next);
            }
        }
        Some(node)
    }

    /// One change of an edge, or of what is held.
    fn change(&mut self, m: &Mutator) {
        let Some(node) = self.walk(m) else {
            let node = self.new_node(m, None);
            self.roots.push((m.root(node), node.id));
            return;
        };
        let i = self.random.below(CELLS);
        match self.random.below(16) {
            0..=2 => {
                let new = self.new_node(m, node.cells[i].get());
                node.cells[i].set(m, new);
                self.known(node).cells[i] = Some(new.id);
            }
            3 | 4 => {
                // An edge is loaded and cut; a new node is all that keeps what it led to.
                let in_hand = node.cells[i].swap(m, None);
                self.known(node).cells[i] = None;
                let new = self.new_node(m, in_hand);
                if let Some(other) = self.walk(m) {
                    let j = self.random.below(CELLS);
                    other.cells[j].set(m, new);
                    self.known(other).cells[j] = Some(new.id);
                }
            }
            5 | 6 => {
                let to = self.target(m);
                let old = node.cells[i].get();
                assert!(node.cells[i].compare_exchange(m, old, to).is_ok());
                self.known(node).cells[i] = to.map(|n| n.id);
            }
            7 => {
                node.cells[i].set(m, None);
                self.known(node).cells[i] = None;
            }
            8 | 9 => self.change_list(m, node),
            10 => self.change_map(m, node),
            11 => {
                let to = self.target(m).unwrap_or(node);
                if node.once.set(m, to).is_ok() {
                    assert!(self.known(node).once.replace(to.id).is_none());
                }
            }
            12 => self.change_array(m, node),
            13 => {
                let target = self.target(m).unwrap_or(node);
                *node.weak.write(m) = Some(Gc::downgrade(target, m));
            }
            14 => self.change_entries(m, node),
            _ => {
                let weak = *node.weak.read();
                if let Some(up) = weak.and_then(|w| w.upgrade(m)) {
                    // Perhaps the last reference to it; from here on it is held by this edge.
                    up.check();
                    let own = self.model.contains_key(&up.id);
                    node.cells[i].set(m, up);
                    self.known(node).cells[i] = Some(up.id);
                    assert!(own || up.id != node.id);
                }
            }
        }
    }

    fn known(&mut self, node: Gc<'_, Node<'_>>) -> &mut Known {
        self.model.get_mut(&node.id).expect("an own node")
    }

    fn change_list<'m>(&mut self, m: &'m Mutator, node: Gc<'m, Node<'m>>) {
        let to = self.target(m);
        let other = self.walk(m).unwrap_or(node);
        match (self.random.below(4), to) {
            (0, _) if other.id != node.id => {
                let (a, b) = if node.id < other.id {
                    (node, other)
                } else {
                    (other, node)
                };
                let (mut a_list, mut b_list) = (a.list.write(m), b.list.write(m));
                std::mem::swap(&mut *a_list, &mut *b_list);
                let a_known = std::mem::take(&mut self.known(a).list);
                let b_known = std::mem::replace(&mut self.known(b).list, a_known);
                self.known(a).list = b_known;
            }
            (1, _) => {
                let popped = node.list.write(m).pop();
                assert_eq!(popped.map(|n| n.check()), self.known(node).list.pop());
            }
            (2, _) => {
                node.list.write(m).truncate(2);
                self.known(node).list.truncate(2);
            }
            (_, Some(to)) => {
                node.list.write(m).push(to);
                self.known(node).list.push(to.id);
            }
            _ => {}
        }
    }

    fn change_map<'m>(&mut self, m: &'m Mutator, node: Gc<'m, Node<'m>>) {
        let key = self.random.below(6) as u64;
        let to = self.target(m);
        let mut map = node.map.write(m);
        let old = match to {
            Some(to) if !self.random.one_in(3) => {
                let known = self.known(node).map.insert(key, to.id);
                (map.insert(key, to), known)
            }
            _ => (map.remove(&key), self.known(node).map.remove(&key)),
        };
        assert_eq!(old.0.map(|n| n.check()), old.1);
    }

    fn change_array<'m>(&mut self, m: &'m Mutator, node: Gc<'m, Node<'m>>) {
        let to = self.target(m);
        match node.array.get() {
            Some(array) if !self.random.one_in(10) => {
                let at = self.random.below(array.items().len());
                array.items()[at].0.set(m, to);
                let (_, known) = self.known(node).array.as_mut().expect("it has one");
                match to {
                    Some(to) => known.insert(at, to.id),
                    None => known.remove(&at),
                };
            }
            _ => {
                let len = if self.random.one_in(60) { 6000 } else { 5 };
                let array = m.alloc_array(node.id, len, |i| {
                    Slot(GcCell::new(if i == 2 { to } else { None }))
                });
                node.array.set(m, array);
                self.known(node).array = Some((len, to.map(|n| (2, n.id)).into_iter().collect()));
            }
        }
    }

    fn change_entries<'m>(&mut self, m: &'m Mutator, node: Gc<'m, Node<'m>>) {
        match self.random.below(9) {
            0 | 1 if self.roots.len() < 40 => self.roots.push((m.root(node), node.id)),
            2 if self.roots.len() > 4 => {
                let at = self.random.below(self.roots.len());
                let (root, id) = self.roots.swap_remove(at);
                // In this thread's hands, and dropped here or on a thread that is not attached.
                let in_hand = root.get(m);
                if self.random.one_in(2) {
                    drop(root);
                } else {
                    let _ = self.shared.drops.try_send(root);
                }
                assert_eq!(in_hand.check(), id);
                let new = self.new_node(m, Some(in_hand));
                node.cells[0].set(m, new);
                self.known(node).cells[0] = Some(new.id);
            }
            3 => {
                let (root, _) = &self.roots[self.random.below(self.roots.len())];
                let _ = self.shared.drops.try_send(root.clone());
            }
            4 | 5 => {
                self.frame.enter(m).push(node);
                self.framed.push(node.id);
            }
            6 => {
                let popped = self.frame.enter(m).pop();
                assert_eq!(popped.map(|n| n.check()), self.framed.pop());
            }
            7 => {
                let board = self.board.get(m);
                let mut shown = board.0.write(m);
                if shown.len() > 30 {
                    shown.drain(..20);
                }
                shown.push(node);
            }
            _ => {
                if self.framed.len() > 50 {
                    self.frame.enter(m).drain(..40);
                    self.framed.drain(..40);
                }
            }
        }
    }

    /// Own nodes that the model reaches; the others are forgotten.
    fn forget(&mut self) {
        let mut seen = HashSet::new();
        let mut stack: Vec<u64> = self.roots.iter().map(|(_, id)| *id).collect();
        stack.extend(&self.framed);
        while let Some(id) = stack.pop() {
            if let Some(known) = self.model.get(&id)
                && seen.insert(id)
            {
                stack.extend(known.edges());
            }
        }
        self.model.retain(|id, _| seen.contains(id));
        self.weak.retain(|id, _| seen.contains(id));
    }

    /// The whole model against the heap.
    fn compare(&mut self, m: &Mutator) {
        self.forget();
        let mut seen = HashSet::new();
        let mut stack: Vec<_> = self.roots.iter().map(|(root, _)| root.get(m)).collect();
        stack.extend(self.frame.enter(m).iter());
        while let Some(node) = stack.pop() {
            if let Some(known) = self.model.get(&node.check())
                && seen.insert(node.id)
            {
                assert_eq!(&read(node), known, "node {}", node.id);
                let up = self.weak[&node.id].get(m).expect("it is reachable");
                assert!(
                    up.ptr_eq(node),
                    "a weak reference to node {} is another's",
                    node.id
                );
                stack.extend(edges(node));
            }
        }
        assert_eq!(seen.len(), self.model.len(), "nodes that the model reaches");
    }

    /// What needs the mutator itself.
    fn pause(&mut self, m: &mut Mutator) {
        let shared = self.shared;
        match self.random.below(300) {
            0..=4 => m.blocking(|| std::thread::sleep(Duration::from_micros(200))),
            5 => {
                // A thread of short life, with a root that is read and dropped there.
                let root = self.roots.last().map(|(root, id)| (root.clone(), *id));
                m.blocking(|| {
                    std::thread::scope(|s| {
                        s.spawn(|| {
                            let mut m = shared.heap.attach().expect("a new thread");
                            if let Some((root, id)) = root {
                                assert_eq!(root.get(&m).check(), id);
                            }
                            m.safepoint();
                            std::hint::black_box(m.alloc_str("short"));
                        });
                    });
                });
            }
            6 if !shared.stressed => m.collect(),
            7 => shared.heap.verify().expect("whole"),
            _ => m.safepoint(),
        }
    }

    /// Some hundred sections with one mutator; returns their number.
    fn stint(&mut self, m: &mut Mutator) -> u64 {
        let mut sections = 0;
        while !self.shared.end.is_over() && !self.random.one_in(400) {
            for _ in 0..1 + self.random.below(12) {
                self.change(m);
            }
            if self.model.len() > MANY {
                self.forget();
                if self.model.len() > MANY {
                    self.roots.drain(..self.roots.len() / 2);
                    self.frame.enter(m).clear();
                    self.framed.clear();
                    self.forget();
                }
            }
            if self.random.one_in(400) {
                self.compare(m);
            }
            self.pause(m);
            sections += 1;
        }
        sections
    }
}

/// Runs random graphs on a heap for that long.
pub(crate) fn run(mode: Mode, time: Duration, seed: u64) {
    let heap = Heap::builder()
        .verify(mode != Mode::Plain)
        .poison(mode == Mode::Verified)
        .stress(mode == Mode::Stressed)
        .workers(2)
        .build()
        .expect("a heap");
    let (drops, dropped) = std::sync::mpsc::sync_channel(64);
    let shared = Shared {
        heap: heap.clone(),
        board: Mutex::new(None),
        next_id: AtomicU64::new(1),
        drops,
        end: Stretch::of(time),
        stressed: mode == Mode::Stressed,
    };
    let sections = AtomicU64::new(0);
    within(time * 4 + Duration::from_secs(120), || {
        let dropper = std::thread::spawn(move || dropped.into_iter().for_each(drop));
        std::thread::scope(|s| {
            let workers: Vec<_> = (0..THREADS)
                .map(|t| {
                    let (shared, sections) = (&shared, &sections);
                    s.spawn(move || {
                        let n = work(shared, seed ^ mix(t));
                        sections.fetch_add(n, Ordering::Relaxed);
                    })
                })
                .collect();
            for worker in workers {
                worker.join().expect("the model and the heap agree");
            }
        });
        drop(shared);
        dropper.join().expect("no panic");
    });
    heap.verify().expect("whole");
    let stats = heap.stats();
    println!(
        "{mode:?}: {} sections, {} cycles, {} MiB allocated",
        sections.load(Ordering::Relaxed),
        stats.cycles,
        stats.allocated_bytes >> 20
    );
    assert!(stats.cycles > 0);
    heap.collect();
    assert_eq!(stats.drop_panics, 0);
}

fn work(shared: &Shared, seed: u64) -> u64 {
    let mut m = shared.heap.attach().expect("attached");
    assert!(shared.heap.attach().is_err(), "a thread has one mutator");
    let board = {
        let mut board = shared.board.lock();
        let make = || m.root(m.alloc(Board(GcLock::default())));
        board.get_or_insert_with(make).clone()
    };
    let mut worker = Worker {
        shared,
        board,
        random: Random::new(seed),
        model: HashMap::new(),
        weak: HashMap::new(),
        roots: Vec::new(),
        frame: Frame::new(&m, Vec::new()),
        framed: Vec::new(),
    };
    let mut sections = 0;
    while !shared.end.is_over() {
        sections += worker.stint(&mut m);
        // Away, and here again: roots and frame stay.
        drop(m);
        m = shared.heap.attach().expect("detached before");
    }
    worker.compare(&m);
    m.collect();
    worker.compare(&m);
    sections
}

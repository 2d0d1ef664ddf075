//! greywave.

use std::hint::black_box;

use greywave::{Frame, Gc, GcArray, GcCell, Heap, Mutator, Root, Trace};

use crate::programs::alloc::{Alloc, BATCH, Run, words};
use crate::programs::heap_graph::{HeapGraph, Recording};
use crate::programs::mark::{Clock, Graph, Mark};
use crate::programs::ring::{self, Ring};
use crate::programs::trees::Trees;

/// The programs as a user writes them.
#[derive(Debug)]
pub struct Plain;

/// The allocation program, with each object stored in a field of a live object: the store that
/// makes an object escape in Go has a write barrier too.
#[derive(Debug)]
pub struct IntoCell;

#[derive(Trace)]
struct Noscan<const W: usize>([u64; W]);

#[derive(Trace)]
struct Scan<'gc, const K: usize> {
    next: Option<Gc<'gc, Scan<'gc, K>>>,
    data: [u64; K],
}

#[derive(Trace)]
struct NoscanSink<'gc, const W: usize>(GcCell<'gc, Noscan<W>>);

#[derive(Trace)]
struct ScanSink<'gc, const K: usize>(GcCell<'gc, Scan<'gc, K>>);

fn attach(heap: &Heap) -> Mutator {
    heap.attach().expect("the thread is new")
}

impl Alloc for Plain {
    type Shared = Heap;

    fn shared() -> Heap {
        Heap::new()
    }

    fn noscan<const W: usize>(heap: &Heap, run: &mut Run) {
        let mut m = attach(heap);
        while run.more() {
            for i in 0..BATCH {
                let object = m.alloc(Noscan::<W>(words(i)));
                black_box(object.as_ptr());
            }
            m.safepoint();
        }
    }

    fn scan<const K: usize>(heap: &Heap, run: &mut Run) {
        let mut m = attach(heap);
        while run.more() {
            for i in 0..BATCH {
                let object = m.alloc(Scan::<K> {
                    next: None,
                    data: words(i),
                });
                black_box(object.as_ptr());
            }
            m.safepoint();
        }
    }
}

impl Alloc for IntoCell {
    type Shared = Heap;

    fn shared() -> Heap {
        Heap::new()
    }

    fn noscan<const W: usize>(heap: &Heap, run: &mut Run) {
        let mut m = attach(heap);
        let sink = m.root(m.alloc(NoscanSink::<W>(GcCell::null())));
        while run.more() {
            let sink = sink.get(&m);
            for i in 0..BATCH {
                sink.0.set(&m, m.alloc(Noscan::<W>(words(i))));
            }
            m.safepoint();
        }
    }

    fn scan<const K: usize>(heap: &Heap, run: &mut Run) {
        let mut m = attach(heap);
        let sink = m.root(m.alloc(ScanSink::<K>(GcCell::null())));
        while run.more() {
            let sink = sink.get(&m);
            for i in 0..BATCH {
                sink.0.set(
                    &m,
                    m.alloc(Scan::<K> {
                        next: None,
                        data: words(i),
                    }),
                );
            }
            m.safepoint();
        }
    }
}

#[derive(Trace)]
struct Node<'gc> {
    children: Option<[Gc<'gc, Node<'gc>>; 2]>,
}

impl<'gc> Node<'gc> {
    fn bottom_up(m: &'gc Mutator, depth: u32) -> Gc<'gc, Self> {
        let children =
            (depth > 0).then(|| [Self::bottom_up(m, depth - 1), Self::bottom_up(m, depth - 1)]);
        m.alloc(Self { children })
    }

    fn count(&self) -> u64 {
        1 + self
            .children
            .iter()
            .flatten()
            .map(|child| child.count())
            .sum::<u64>()
    }
}

/// Nodes that are alive across safepoints. A large tree is built and counted in parts of
/// [`PART_DEPTH`], with a safepoint after each, so that no thread keeps the others waiting.
struct Held(Frame<Vec<Gc<'static, Node<'static>>>>);

/// Depth of a tree of 2,047 nodes: some 10 microseconds of work.
const PART_DEPTH: u32 = 10;

impl Held {
    fn new(m: &Mutator) -> Self {
        Self(Frame::new(m, Vec::new()))
    }

    /// Builds a tree and leaves it on top.
    fn push_tree(&mut self, m: &mut Mutator, depth: u32) {
        if depth > PART_DEPTH {
            self.push_tree(m, depth - 1);
            self.push_tree(m, depth - 1);
            let mut held = self.0.enter(m);
            let right = held.pop();
            let children = held.pop().zip(right).map(|(left, right)| [left, right]);
            held.push(m.alloc(Node { children }));
        } else {
            self.0.enter(m).push(Node::bottom_up(m, depth));
            m.safepoint();
        }
    }

    /// Counts the nodes of the tree on top, of that depth, and lets it go.
    fn count_top(&mut self, m: &mut Mutator, depth: u32) -> u64 {
        let mut held = self.0.enter(m);
        let tree = held.pop().expect("a tree was pushed");
        if depth > PART_DEPTH {
            held.extend(tree.children.into_iter().flatten());
            drop(held);
            1 + self.count_top(m, depth - 1) + self.count_top(m, depth - 1)
        } else {
            drop(held);
            let count = tree.count();
            m.safepoint();
            count
        }
    }

    fn build_and_count(&mut self, m: &mut Mutator, depth: u32) -> u64 {
        self.push_tree(m, depth);
        self.count_top(m, depth)
    }
}

impl Trees for Plain {
    type Shared = Heap;

    fn shared() -> Heap {
        Heap::new()
    }

    fn long_lived(heap: &Heap, depth: u32, during: impl FnOnce() + Send) -> u64 {
        let mut m = attach(heap);
        let mut held = Held::new(&m);
        let stretch = held.build_and_count(&mut m, depth + 1);
        held.push_tree(&mut m, depth);
        m.blocking(during);
        stretch + held.count_top(&mut m, depth)
    }

    fn worker(heap: &Heap, jobs: impl Iterator<Item = u32>) -> u64 {
        let mut m = attach(heap);
        let mut held = Held::new(&m);
        jobs.map(|depth| held.build_and_count(&mut m, depth)).sum()
    }
}

#[derive(Trace)]
struct Object<'gc> {
    links: [GcCell<'gc, Object<'gc>>; 4],
    data: [u64; 4],
}

impl Mark for Plain {
    fn collections(graph: &Graph, clock: &mut Clock) {
        let heap = Heap::new();
        let mut m = attach(&heap);
        // No safepoint while it is built, so no collection either.
        let roots = build(&m, graph);
        clock.time(|| m.collect());
        drop(roots);
    }
}

fn build(m: &Mutator, graph: &Graph) -> Root<GcArray<(), Gc<'static, Object<'static>>>> {
    let object = |i| Object {
        links: [const { GcCell::null() }; 4],
        data: words(i as u64),
    };
    let objects: Vec<Gc<'_, Object<'_>>> = (0..graph.objects).map(|i| m.alloc(object(i))).collect();
    let roots = graph.link(|from, field, to| objects[from].links[field].set(m, objects[to]));
    m.root(m.alloc_array((), roots.len(), |i| objects[roots[i] as usize]))
}

/// An object of the recording: its words, of which the first ones are edges.
type Recorded<'gc> = GcArray<(), Edge<'gc>>;

#[derive(Trace)]
struct Edge<'gc>(GcCell<'gc, Recorded<'gc>>);

impl HeapGraph for Plain {
    fn collections(recording: &Recording, clock: &mut Clock) {
        let heap = Heap::new();
        let mut m = attach(&heap);
        let root = load(&m, recording);
        clock.time(|| m.collect());
        drop(root);
    }
}

fn load(m: &Mutator, recording: &Recording) -> Root<Recorded<'static>> {
    // The length of a `GcArray` is one of the words.
    let length = |words: usize, edges: usize| edges.max(words - 1);
    let object = |words, edges| m.alloc_array((), length(words, edges), |_| Edge(GcCell::null()));
    let objects: Vec<Gc<'_, Recorded<'_>>> = recording
        .nodes()
        .map(|node| object(node.words, node.edges.len()))
        .collect();
    for (from, node) in objects.iter().zip(recording.nodes()) {
        for (link, &to) in from.items().iter().zip(node.edges) {
            link.0.set(m, objects[to as usize]);
        }
    }
    m.root(objects[0])
}

#[derive(Trace)]
struct Message {
    number: u64,
    words: [u64; ring::WORDS],
}

#[derive(Trace)]
struct Place<'gc>(GcCell<'gc, Message>);

impl Ring for Plain {
    fn run(messages: usize, clock: &mut ring::Clock) {
        let heap = Heap::new();
        let mut m = attach(&heap);
        let ring = m.root(m.alloc_slice(messages, |_| Place(GcCell::null())));
        clock.start();
        let mut at = 0;
        for number in 0..clock.inserts() {
            let message = m.alloc(Message {
                number,
                words: ring::content(number),
            });
            ring.get(&m)[at].0.set(&m, message);
            m.safepoint();
            at = if at + 1 == messages { 0 } else { at + 1 };
            clock.lap();
        }
        for (place, slot) in ring.get(&m).iter().enumerate() {
            if let Some(message) = slot.0.get() {
                clock.look(place, message.number, &message.words);
            }
        }
    }
}

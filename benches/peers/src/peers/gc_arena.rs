//! gc-arena: an arena for each thread, incremental, collected between calls of `mutate`.

use std::hint::black_box;

use gc_arena::{Arena, Collect, Gc, Lock, Mutation, RefLock, Rootable};

use crate::programs::alloc::{Alloc, BATCH, Run, words};
use crate::programs::heap_graph::{HeapGraph, Recording};
use crate::programs::mark::{Clock, Graph, Mark};
use crate::programs::trees::Trees;

/// The peer.
#[derive(Debug)]
pub struct Peer;

#[derive(Collect)]
#[collect(require_static)]
struct Noscan<const W: usize>([u64; W]);

#[derive(Collect)]
#[collect(no_drop)]
struct Scan<'gc, const K: usize> {
    next: Option<Gc<'gc, Scan<'gc, K>>>,
    data: [u64; K],
}

impl Alloc for Peer {
    type Shared = ();

    fn shared() {}

    fn noscan<const W: usize>((): &(), run: &mut Run) {
        let mut arena = Arena::<Rootable![()]>::new(|_| ());
        while run.more() {
            arena.mutate(|mc, ()| {
                for i in 0..BATCH {
                    let object = Gc::new(mc, Noscan::<W>(words(i)));
                    black_box(Gc::as_ptr(object));
                }
            });
            arena.collect_debt();
        }
    }

    fn scan<const K: usize>((): &(), run: &mut Run) {
        let mut arena = Arena::<Rootable![()]>::new(|_| ());
        while run.more() {
            arena.mutate(|mc, ()| {
                for i in 0..BATCH {
                    let object = Gc::new(
                        mc,
                        Scan::<K> {
                            next: None,
                            data: words(i),
                        },
                    );
                    black_box(Gc::as_ptr(object));
                }
            });
            arena.collect_debt();
        }
    }
}

#[derive(Collect)]
#[collect(no_drop)]
struct Node<'gc> {
    children: Option<[Gc<'gc, Node<'gc>>; 2]>,
}

impl<'gc> Node<'gc> {
    fn bottom_up(mc: &Mutation<'gc>, depth: u32) -> Gc<'gc, Self> {
        let children = (depth > 0).then(|| {
            [
                Self::bottom_up(mc, depth - 1),
                Self::bottom_up(mc, depth - 1),
            ]
        });
        Gc::new(mc, Self { children })
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

impl Trees for Peer {
    type Shared = ();

    fn shared() {}

    fn long_lived((): &(), depth: u32, during: impl FnOnce() + Send) -> u64 {
        let mut arena = Arena::<Rootable![Option<Gc<'_, Node<'_>>>]>::new(|_| None);
        let stretch = arena.mutate(|mc, _| Node::bottom_up(mc, depth + 1).count());
        arena.collect_debt();
        arena.mutate_root(|mc, kept| *kept = Some(Node::bottom_up(mc, depth)));
        arena.collect_debt();
        during();
        stretch + arena.mutate(|_, kept| kept.map_or(0, |kept| kept.count()))
    }

    fn worker((): &(), jobs: impl Iterator<Item = u32>) -> u64 {
        let mut arena = Arena::<Rootable![()]>::new(|_| ());
        jobs.map(|depth| {
            let count = arena.mutate(|mc, ()| Node::bottom_up(mc, depth).count());
            arena.collect_debt();
            count
        })
        .sum()
    }
}

#[derive(Clone, Copy, Collect)]
#[collect(no_drop)]
struct Object<'gc> {
    links: [Option<Gc<'gc, Lock<Object<'gc>>>>; 4],
    data: [u64; 4],
}

type Roots<'gc> = Vec<Gc<'gc, Lock<Object<'gc>>>>;

impl Mark for Peer {
    fn collections(graph: &Graph, clock: &mut Clock) {
        let mut arena = Arena::<Rootable![Roots<'_>]>::new(|mc| {
            let object = |i| Object {
                links: [None; 4],
                data: words(i as u64),
            };
            let objects: Roots<'_> = (0..graph.objects)
                .map(|i| Gc::new(mc, Lock::new(object(i))))
                .collect();
            let roots = graph.link(|from, field, to| {
                let mut object = objects[from].get();
                object.links[field] = Some(objects[to]);
                objects[from].set(mc, object);
            });
            roots.iter().map(|&i| objects[i as usize]).collect()
        });
        clock.time(|| arena.finish_cycle());
    }
}

type Edges<'gc> = Gc<'gc, RefLock<Recorded<'gc>>>;

/// An object of the recording: its words, of which the first ones are edges.
#[derive(Collect)]
#[collect(no_drop)]
struct Recorded<'gc>(Box<[Option<Edges<'gc>>]>);

impl HeapGraph for Peer {
    fn collections(recording: &Recording, clock: &mut Clock) {
        let mut arena = Arena::<Rootable![Edges<'_>]>::new(|mc| {
            let object = |words| RefLock::new(Recorded(vec![None; words].into()));
            let objects: Vec<Edges<'_>> = recording
                .nodes()
                .map(|node| Gc::new(mc, object(node.words)))
                .collect();
            for (from, node) in objects.iter().zip(recording.nodes()) {
                let mut links = from.borrow_mut(mc);
                for (link, &to) in links.0.iter_mut().zip(node.edges) {
                    *link = Some(objects[to as usize]);
                }
            }
            objects[0]
        });
        clock.time(|| arena.finish_cycle());
    }
}

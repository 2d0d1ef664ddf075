//! The patterns by which a concurrent marker loses objects. Each runs against a collector that
//! never rests.
//!
//! The heaps verify every marking, so an object that is lost ends the process with `greywave:
//! fatal: verify: ..`. So each of these is also a test that a fault must fail.

#![allow(dead_code, reason = "each test program runs a part of these")]

use std::time::Duration;

use greywave::{Frame, Gc, GcArray, GcCell, GcLock, GcOnce, Heap, Mutator, Root, Trace, WeakRoot};
use parking_lot::Mutex;

use crate::support::{Collecting, Race, Random, mix, within};

/// A binary tree; the leaves are numbered.
#[derive(Trace)]
pub(crate) struct Tree<'gc> {
    check: u64,
    leaf: u64,
    sides: [GcCell<'gc, Tree<'gc>>; 2],
}

pub(crate) const DEPTH: usize = 11;

pub(crate) fn grow<'m>(m: &'m Mutator, depth: usize, next_leaf: &mut u64) -> Gc<'m, Tree<'m>> {
    if depth == 0 {
        *next_leaf += 1;
        return m.alloc(Tree {
            check: mix(*next_leaf),
            leaf: *next_leaf,
            sides: [GcCell::null(), GcCell::null()],
        });
    }
    let sides = [
        GcCell::new(Some(grow(m, depth - 1, next_leaf))),
        GcCell::new(Some(grow(m, depth - 1, next_leaf))),
    ];
    m.alloc(Tree {
        check: mix(0),
        leaf: 0,
        sides,
    })
}

/// Number and sum of the leaves below; every object on the way is checked.
pub(crate) fn leaves(tree: Gc<'_, Tree<'_>>) -> (u64, u64) {
    assert_eq!(tree.check, mix(tree.leaf), "an object's content is damaged");
    if tree.leaf != 0 {
        return (1, tree.leaf);
    }
    let (mut count, mut sum) = (0, 0);
    for side in &tree.sides {
        if let Some(below) = side.get() {
            let (c, s) = leaves(below);
            count += c;
            sum += s;
        }
    }
    (count, sum)
}

/// The edge that a random path of `depth` steps ends in.
fn edge<'m>(root: Gc<'m, Tree<'m>>, depth: usize, random: &mut Random) -> &'m GcCell<'m, Tree<'m>> {
    let mut at = root.as_ref();
    for _ in 1..depth {
        at = at.sides[random.below(2)]
            .get()
            .expect("an inner node")
            .as_ref();
    }
    &at.sides[random.below(2)]
}

/// How an edge is changed.
#[derive(Clone, Copy, Debug)]
enum How {
    Set,
    Swap,
    CompareExchange,
}

fn change<'m>(
    m: &Mutator,
    edge: &GcCell<'m, Tree<'m>>,
    to: Option<Gc<'m, Tree<'m>>>,
    how: How,
) -> Option<Gc<'m, Tree<'m>>> {
    match how {
        How::Set => {
            let old = edge.get();
            edge.set(m, to);
            old
        }
        How::Swap => edge.swap(m, to),
        How::CompareExchange => {
            let old = edge.get();
            edge.compare_exchange(m, old, to)
                .unwrap_or_else(|_| panic!("only this thread writes"))
        }
    }
}

/// Two edges are cut, and what they led to is stored in new objects, crosswise: for a while it is
/// held by locals only, and then by objects that the running cycle does not scan.
fn exchange<'m>(m: &'m Mutator, root: Gc<'m, Tree<'m>>, random: &mut Random) {
    let depth = 1 + random.below(DEPTH);
    let how = [How::Set, How::Swap, How::CompareExchange][random.below(3)];
    let (a, b) = (edge(root, depth, random), edge(root, depth, random));
    if std::ptr::eq(a, b) {
        return;
    }
    let below_a = change(m, a, None, how);
    let below_b = change(m, b, None, how);
    let again = |old: Option<Gc<'m, Tree<'m>>>| {
        old.map(|old| {
            m.alloc(Tree {
                check: old.check,
                leaf: old.leaf,
                sides: [
                    GcCell::new(old.sides[0].get()),
                    GcCell::new(old.sides[1].get()),
                ],
            })
        })
    };
    change(m, a, again(below_b), how);
    change(m, b, again(below_a), how);
}

/// A heap whose marking is checked each time.
pub(crate) fn heap(stress: bool) -> Heap {
    Heap::builder()
        .verify(true)
        .poison(true)
        .stress(stress)
        .workers(2)
        .build()
        .expect("a heap")
}

/// Runs `body` on `threads` threads against a collector that never rests.
fn race(seconds: Duration, threads: u64, body: impl Fn(&Heap, &mut Mutator, u64, Race) + Sync) {
    let heap = heap(false);
    within(seconds * 4 + Duration::from_secs(120), || {
        let collecting = Collecting::new(&heap);
        let end = collecting.race(seconds);
        std::thread::scope(|s| {
            for t in 0..threads {
                let (heap, body, end) = (&heap, &body, end.clone());
                s.spawn(move || {
                    let mut m = heap.attach().expect("attached");
                    body(heap, &mut m, t, end);
                });
            }
        });
    });
    heap.verify().expect("whole");
}

pub(crate) fn subtrees_change_places(seconds: Duration, seed: u64) {
    race(seconds, 2, |_, m, t, end| {
        let mut random = Random::new(seed ^ t);
        let root: Root<Tree<'static>> = m.root(grow(m, DEPTH, &mut 0));
        let n = 1 << DEPTH;
        while !end.is_over() {
            for _ in 0..50 {
                for _ in 0..1 + random.below(25) {
                    exchange(m, root.get(m), &mut random);
                }
                m.safepoint();
            }
            assert_eq!(leaves(root.get(m)), (n, n * (n + 1) / 2));
        }
    });
}

#[derive(Trace)]
pub(crate) struct Item<'gc> {
    id: u64,
    check: u64,
    pub(crate) next: GcCell<'gc, Item<'gc>>,
}

impl Item<'_> {
    /// The number; the object is whole.
    pub(crate) fn check(&self) -> u64 {
        assert_eq!(self.check, mix(self.id), "an object's content is damaged");
        self.id
    }
}

pub(crate) fn new_item<'m>(m: &'m Mutator, id: u64) -> Gc<'m, Item<'m>> {
    new_item_before(m, id, None)
}

/// An item that leads to `next` from its birth, which no barrier sees.
pub(crate) fn new_item_before<'m>(
    m: &'m Mutator,
    id: u64,
    next: Option<Gc<'m, Item<'m>>>,
) -> Gc<'m, Item<'m>> {
    m.alloc(Item {
        id,
        check: mix(id),
        next: GcCell::new(next),
    })
}

/// A root goes, on a thread that is not attached, right after another thread has read it.
pub(crate) fn roots_go_after_a_get(seconds: Duration) {
    let (send, receive) = std::sync::mpsc::sync_channel::<Root<Item<'static>>>(16);
    std::thread::scope(|s| {
        let dropper = s.spawn(move || receive.into_iter().for_each(drop));
        race(seconds, 2, |_, m, t, end| {
            let board: Root<Item<'static>> = m.root(new_item(m, 0));
            let mut id = t << 32;
            let mut on_board = 0;
            while !end.is_over() {
                id += 1;
                // A list that only the root keeps, from one section to the next.
                let root = {
                    let first = new_item(m, id);
                    first.next.set(m, new_item(m, id));
                    m.root(first)
                };
                for _ in 0..id % 5 {
                    m.safepoint();
                }
                {
                    let in_hand = root.get(m);
                    match id % 3 {
                        0 => drop(root),
                        1 => {
                            // The clone goes here, the other on the other thread.
                            drop(root.clone());
                            let _ = send.try_send(root);
                        }
                        _ => {
                            let _ = send.try_send(root);
                        }
                    }
                    std::hint::black_box(new_item(m, id));
                    // Kept by a new object that the running cycle does not scan.
                    let keep = new_item(m, id);
                    keep.next.set(m, in_hand);
                    board.get(m).next.set(m, keep);
                    on_board += 1;
                }
                m.safepoint();
                let mut count = 0;
                let mut at = board.get(m).next.get();
                while let Some(item) = at {
                    assert_eq!(item.check(), id);
                    count += 1;
                    at = item.next.get();
                }
                assert_eq!(count, 3);
            }
            assert!(on_board > 0);
        });
        drop(send);
        dropper.join().expect("no panic");
    });
}

/// A frame is opened for the first time while marking runs; what it held moves into new objects,
/// and back.
pub(crate) fn frames_open_during_marking(seconds: Duration, seed: u64) {
    race(seconds, 2, |_, m, t, end| {
        let mut random = Random::new(seed ^ t);
        let n = 200;
        let mut frames: Vec<Frame<Vec<Gc<'static, Item<'static>>>>> = Vec::new();
        let board: Root<Item<'static>> = m.root(new_item(m, 0));
        let mut sizes = Vec::new();
        while !end.is_over() {
            if frames.len() < 8 {
                let mut frame = Frame::new(m, Vec::new());
                {
                    let mut open = frame.enter(m);
                    for id in 0..n {
                        open.push(new_item(m, id));
                    }
                }
                frames.push(frame);
                sizes.push(n);
            }
            let at = random.below(frames.len());
            match random.below(4) {
                0 => {
                    // All of it through a chain of new objects, and into another frame.
                    let to = random.below(frames.len());
                    if to != at {
                        {
                            let mut open = frames[at].enter(m);
                            let mut chain = None;
                            for old in open.drain(..) {
                                let fresh = new_item(m, old.check());
                                fresh.next.set(m, chain);
                                chain = Some(fresh);
                            }
                            drop(open);
                            board.get(m).next.set(m, chain);
                        }
                        m.safepoint();
                        let chain = board.get(m).next.get();
                        let mut open = frames[to].enter(m);
                        let mut link = chain;
                        while let Some(item) = link {
                            open.push(item);
                            link = item.next.get();
                        }
                        drop(open);
                        board.get(m).next.set(m, None);
                        sizes[to] += std::mem::take(&mut sizes[at]);
                    }
                }
                1 => {
                    let frame = frames.swap_remove(at);
                    sizes.swap_remove(at);
                    match random.below(3) {
                        0 => drop(frame),
                        1 => m.blocking(|| drop(frame)),
                        _ => m.blocking(|| {
                            std::thread::spawn(move || drop(frame))
                                .join()
                                .expect("no panic");
                        }),
                    }
                }
                _ => {
                    let mut open = frames[at].enter(m);
                    assert_eq!(open.len() as u64, sizes[at]);
                    for item in open.iter() {
                        item.check();
                    }
                    if let Some(last) = open.pop() {
                        let id = last.check();
                        open.push(new_item(m, id));
                        open.push(last);
                        sizes[at] += 1;
                        if open.len() > 2000 {
                            open.truncate(100);
                            sizes[at] = 100;
                        }
                    }
                }
            }
            m.safepoint();
        }
    });
}

#[derive(Trace)]
struct Bags<'gc> {
    bags: [GcLock<Vec<Gc<'gc, Item<'gc>>>>; 4],
}

/// The content of locks moves from one to another, by `mem::take`, between threads.
pub(crate) fn locks_pass_their_content_on(seconds: Duration, seed: u64) {
    const N: u64 = 2000;
    let shared: Mutex<Option<Root<Bags<'static>>>> = Mutex::new(None);
    race(seconds, 3, |_, m, t, end| {
        let mut random = Random::new(seed ^ t);
        let root = {
            let mut shared = shared.lock();
            shared
                .get_or_insert_with(|| {
                    let bags = m.alloc(Bags {
                        bags: std::array::from_fn(|_| GcLock::new(Vec::new())),
                    });
                    bags.bags[0]
                        .write(m)
                        .extend((0..N).map(|id| new_item(m, id)));
                    m.root(bags)
                })
                .clone()
        };
        while !end.is_over() {
            {
                let bags = root.get(m);
                let (a, b) = (random.below(4), random.below(4));
                if a < b {
                    // In order, so that threads do not wait for each other in a ring.
                    let (mut from, mut to) = (bags.bags[a].write(m), bags.bags[b].write(m));
                    if random.one_in(2) {
                        std::mem::swap(&mut *from, &mut *to);
                    } else {
                        let all = std::mem::take(&mut *from);
                        to.extend(all);
                    }
                } else if let Some(mut bag) = bags.bags[a].try_write(m)
                    && let Some(one) = bag.pop()
                {
                    // Again as a new object; the old one goes to waste.
                    let id = one.check();
                    bag.insert(0, new_item(m, id));
                }
            }
            m.safepoint();
            if random.one_in(50) {
                let bags = root.get(m);
                let open: Vec<_> = bags.bags.iter().map(GcLock::read).collect();
                let (mut count, mut sum) = (0, 0);
                for item in open.iter().flat_map(|bag| bag.iter()) {
                    count += 1;
                    sum += item.check();
                }
                assert_eq!((count, sum), (N, N * (N - 1) / 2));
            }
        }
    });
}

/// A slot of an array that is scanned in pieces.
#[derive(Trace)]
struct Slot<'gc>(GcCell<'gc, Item<'gc>>);

/// Items change places in an array that is scanned in pieces.
pub(crate) fn a_large_array_is_shuffled(seconds: Duration, seed: u64) {
    const N: usize = 40_000;
    race(seconds, 2, |_, m, t, end| {
        let mut random = Random::new(seed ^ t);
        let root = {
            let array: Gc<'_, GcArray<u64, Slot<'_>>> =
                m.alloc_array(7, N, |i| Slot(GcCell::new(Some(new_item(m, i as u64)))));
            m.root(array)
        };
        while !end.is_over() {
            for _ in 0..40 {
                {
                    let array = root.get(m);
                    for _ in 0..50 {
                        let (a, b) = (random.below(N), random.below(N));
                        let (a, b) = (&array.items()[a].0, &array.items()[b].0);
                        let in_hand = a.swap(m, None);
                        let other = b.swap(m, in_hand);
                        if !std::ptr::eq(a, b) {
                            a.set(m, other);
                        }
                    }
                }
                m.safepoint();
            }
            let array = root.get(m);
            let sum: u64 = array
                .items()
                .iter()
                .map(|slot| slot.0.get().expect("every slot is full").check())
                .sum();
            assert_eq!((*array.header(), sum), (7, (N * (N - 1) / 2) as u64));
        }
    });
}

#[derive(Trace)]
struct Late<'gc> {
    id: u64,
    once: GcOnce<'gc, Item<'gc>>,
    up: GcOnce<'gc, Late<'gc>>,
}

/// Cycles tied late, by edges that are written once, and weak references to them.
pub(crate) fn late_edges_hold(seconds: Duration) {
    race(seconds, 2, |_, m, t, end| {
        let mut id = t << 32;
        let mut kept: Vec<(Root<Late<'static>>, WeakRoot<Item<'static>>, u64)> = Vec::new();
        while !end.is_over() {
            id += 1;
            {
                let a = m.alloc(Late {
                    id,
                    once: GcOnce::empty(),
                    up: GcOnce::empty(),
                });
                let b = m.alloc(Late {
                    id,
                    once: GcOnce::empty(),
                    up: GcOnce::empty(),
                });
                assert!(a.up.set(m, b).is_ok() && b.up.set(m, a).is_ok());
                let weak = m.root_weak(Gc::downgrade(new_item(m, 0), m));
                kept.push((m.root(b), weak, id));
            }
            m.safepoint();
            {
                // Published, scanned perhaps, and written only now.
                let (root, weak, id) = kept.last_mut().expect("just pushed");
                let item = new_item(m, *id);
                let a = root.get(m).up.get().expect("set");
                assert!(a.once.set(m, item).is_ok());
                *weak = m.root_weak(Gc::downgrade(item, m));
            }
            m.safepoint();
            if kept.len() > 300 {
                kept.drain(..150);
            }
            let (root, weak, id) = &kept[id as usize % kept.len()];
            let a = root.get(m).up.get().expect("set");
            let item = a.once.get().expect("set");
            assert_eq!((a.id, item.check()), (*id, *id));
            assert!(
                weak.get(m).is_some_and(|w| w.ptr_eq(item)),
                "it is reachable"
            );
        }
    });
}

/// New objects go into a frame and into edges that led to nothing: no barrier tells the collector
/// of them, so it must take what is allocated during marking as alive.
pub(crate) fn new_objects_stay(seconds: Duration) {
    race(seconds, 2, |_, m, t, end| {
        // Something to mark meanwhile.
        let ballast: Root<Tree<'static>> = m.root(grow(m, DEPTH, &mut 0));
        let mut frame: Frame<Vec<Gc<'static, Item<'static>>>> = Frame::new(m, Vec::new());
        let mut sections = t << 32;
        while !end.is_over() {
            for _ in 0..30 {
                {
                    let mut open = frame.enter(m);
                    let (first, second) = (new_item(m, sections), new_item(m, sections));
                    if let Some(last) = open.last() {
                        let last = last.next.get().expect("two in a row");
                        assert!(last.next.swap(m, first).is_none());
                    }
                    first.next.set(m, second);
                    open.push(first);
                }
                sections += 1;
                m.safepoint();
            }
            let mut open = frame.enter(m);
            let mut link = open.first().copied();
            for item in open.iter() {
                for in_list in [true, false] {
                    let at = link.expect("not the end yet");
                    assert_eq!(at.check(), item.check());
                    assert!(!in_list || at.ptr_eq(*item));
                    link = at.next.get();
                }
            }
            assert!(link.is_none());
            if open.len() > 3000 {
                open.clear();
            }
        }
        assert_eq!(ballast.get(m).leaf, 0);
    });
}

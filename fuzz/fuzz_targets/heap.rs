//! Random programs over the public interface against a model that knows what must live and with
//! what content.

#![no_main]

use arbitrary::Arbitrary;
use greywave::{Frame, Gc, GcArray, GcCell, Heap, Trace};
use libfuzzer_sys::fuzz_target;

#[derive(Trace)]
struct Edge<'gc>(GcCell<'gc, Object<'gc>>);

/// Header: the object's number. Items: edges.
type Object<'gc> = GcArray<u64, Edge<'gc>>;

#[derive(Arbitrary, Debug)]
enum Op {
    /// An object with that many edges, into a slot of the frame.
    New(u8, u16),
    /// Bytes of that size, stamped and dropped at once.
    Garbage(u16),
    /// `frame[a].edge[i] = frame[b]`
    Link(u8, u8, u8),
    /// `frame[a] = frame[a].edge[i]`
    Follow(u8, u8),
    Forget(u8),
    Collect,
    Verify,
}

#[derive(Clone, Debug)]
struct Model {
    edges: Vec<Option<usize>>,
}

const SLOTS: usize = 16;

fuzz_target!(|ops: Vec<Op>| {
    let heap = Heap::builder()
        .reservation(64 << 20)
        .verify(true)
        .poison(true)
        .build()
        .expect("a heap");
    let mut m = heap.attach().expect("not attached");
    let mut frame: Frame<Vec<Option<Gc<'static, Object<'static>>>>> =
        Frame::new(&m, vec![None; SLOTS]);
    let mut objects: Vec<Model> = Vec::new();
    let mut slots: Vec<Option<usize>> = vec![None; SLOTS];
    for op in ops.into_iter().take(200) {
        match op {
            Op::New(slot, edges) => {
                let (slot, edges) = (usize::from(slot) % SLOTS, usize::from(edges) % 6000);
                let number = objects.len();
                let Ok(object) = m.try_alloc_array(number as u64, edges, |_| Edge(GcCell::null()))
                else {
                    continue;
                };
                frame.enter(&m)[slot] = Some(object);
                slots[slot] = Some(number);
                objects.push(Model {
                    edges: vec![None; edges],
                });
            }
            Op::Garbage(size) => {
                let bytes = m.alloc_slice(usize::from(size), |i| i as u8);
                assert!(bytes.iter().enumerate().all(|(i, &b)| b == i as u8));
            }
            Op::Link(a, i, b) => {
                let (a, b) = (usize::from(a) % SLOTS, usize::from(b) % SLOTS);
                let open = frame.enter(&m);
                let (Some(from), to) = (open[a], open[b]) else {
                    continue;
                };
                if let Some(edge) = from.items().get(usize::from(i)) {
                    edge.0.set(&m, to);
                    objects[slots[a].expect("as the frame")].edges[usize::from(i)] = slots[b];
                }
            }
            Op::Follow(a, i) => {
                let a = usize::from(a) % SLOTS;
                let mut open = frame.enter(&m);
                let Some(from) = open[a] else { continue };
                let to = from.items().get(usize::from(i)).and_then(|e| e.0.get());
                let want =
                    slots[a].and_then(|n| objects[n].edges.get(usize::from(i)).copied().flatten());
                assert_eq!(to.map(|o| *o.header()), want.map(|n| n as u64));
                open[a] = to;
                slots[a] = want;
            }
            Op::Forget(a) => {
                frame.enter(&m)[usize::from(a) % SLOTS] = None;
                slots[usize::from(a) % SLOTS] = None;
            }
            Op::Collect => m.collect(),
            Op::Verify => heap.verify().expect("whole"),
        }
        m.safepoint();
    }
    m.collect();
    heap.verify().expect("whole");
    let open = frame.enter(&m);
    for (slot, want) in slots.iter().enumerate() {
        assert_eq!(open[slot].map(|o| *o.header()), want.map(|n| n as u64));
    }
});

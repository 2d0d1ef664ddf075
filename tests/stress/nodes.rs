//! The nodes of the random graphs, and what a model knows about a node.

use std::collections::{BTreeMap, HashMap};

use greywave::{Gc, GcArray, GcCell, GcLock, GcOnce, Trace, Weak};

use crate::support::mix;

pub(crate) const CELLS: usize = 3;

#[derive(Trace)]
pub(crate) struct Node<'gc> {
    pub(crate) id: u64,
    pub(crate) check: u64,
    pub(crate) text: Gc<'gc, str>,
    /// Words that follow from the id; more than 32 KiB sometimes.
    pub(crate) bulk: Gc<'gc, [u64]>,
    pub(crate) cells: [GcCell<'gc, Node<'gc>>; CELLS],
    pub(crate) list: GcLock<Vec<Gc<'gc, Node<'gc>>>>,
    pub(crate) map: GcLock<HashMap<u64, Gc<'gc, Node<'gc>>>>,
    pub(crate) once: GcOnce<'gc, Node<'gc>>,
    pub(crate) array: GcCell<'gc, GcArray<u64, Slot<'gc>>>,
    pub(crate) weak: GcLock<Option<Weak<'gc, Node<'gc>>>>,
}

#[derive(Trace)]
pub(crate) struct Slot<'gc>(pub(crate) GcCell<'gc, Node<'gc>>);

/// Nodes that threads show each other.
#[derive(Trace)]
pub(crate) struct Board<'gc>(pub(crate) GcLock<Vec<Gc<'gc, Node<'gc>>>>);

impl Node<'_> {
    /// The id; everything that follows from it is looked at.
    pub(crate) fn check(&self) -> u64 {
        assert_eq!(self.check, mix(self.id), "an object's content is damaged");
        assert_eq!(&*self.text, format!("node {:x}", self.id));
        let last = self.bulk.len() - 1;
        for at in [0, last / 2, last] {
            assert_eq!(
                self.bulk[at],
                mix(self.id + at as u64),
                "a slice is damaged"
            );
        }
        self.id
    }
}

/// What the model knows of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) cells: [Option<u64>; CELLS],
    pub(crate) list: Vec<u64>,
    pub(crate) map: BTreeMap<u64, u64>,
    pub(crate) once: Option<u64>,
    /// The array's length and its edges.
    pub(crate) array: Option<(usize, BTreeMap<usize, u64>)>,
}

impl Known {
    pub(crate) fn edges(&self) -> impl Iterator<Item = u64> + '_ {
        self.cells
            .iter()
            .flatten()
            .chain(&self.list)
            .chain(self.map.values())
            .chain(&self.once)
            .chain(self.array.iter().flat_map(|(_, slots)| slots.values()))
            .copied()
    }
}

/// The same, read from the heap.
pub(crate) fn read(node: Gc<'_, Node<'_>>) -> Known {
    let id = |n: Gc<'_, Node<'_>>| n.check();
    Known {
        cells: std::array::from_fn(|i| node.cells[i].get().map(id)),
        list: node.list.read().iter().map(|n| id(*n)).collect(),
        map: node.map.read().iter().map(|(k, n)| (*k, id(*n))).collect(),
        once: node.once.get().map(id),
        array: node.array.get().map(|array| {
            assert_eq!(*array.header(), node.id);
            let slots = array.items().iter().enumerate();
            let slots = slots.filter_map(|(i, s)| s.0.get().map(|n| (i, id(n))));
            (array.items().len(), slots.collect())
        }),
    }
}

pub(crate) fn edges<'m>(node: Gc<'m, Node<'m>>) -> Vec<Gc<'m, Node<'m>>> {
    let mut all: Vec<_> = node.cells.iter().filter_map(GcCell::get).collect();
    all.extend(node.list.read().iter());
    all.extend(node.map.read().values());
    all.extend(node.once.get());
    if let Some(array) = node.array.get() {
        all.extend(array.items().iter().filter_map(|s| s.0.get()));
    }
    all
}

//! A doubly linked list whose links are inside its members: nothing is allocated to wait.
//!
//! **Invariant**
//! - `[Y2]` A node is in at most one list; while it is, it does not move, and its links and the list are touched only by
//!   whoever holds the lock that guards the list.

use std::cell::Cell;
use std::fmt;
use std::ptr::NonNull;

/// The links of a node.
pub(crate) struct Links<T> {
    previous: Cell<Option<NonNull<T>>>,
    next: Cell<Option<NonNull<T>>>,
}

impl<T> Links<T> {
    pub(crate) const fn new() -> Self {
        Self {
            previous: Cell::new(None),
            next: Cell::new(None),
        }
    }
}

impl<T> fmt::Debug for Links<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

/// What can be in a [`List`].
///
/// # Safety
/// 1. `links` returns the place of the one [`Links`] inside `node`, and makes no reference to the rest of it.
pub(crate) unsafe trait Linked: Sized {
    fn links(node: NonNull<Self>) -> NonNull<Links<Self>>;
}

/// See the module's head. First in, first out.
pub(crate) struct List<T> {
    first: Option<NonNull<T>>,
    last: Option<NonNull<T>>,
    len: usize,
}

// SAFETY: [Y2] a list is a few pointers; who may follow them is the holder of its lock, on whichever thread.
unsafe impl<T> Send for List<T> {}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("len", &self.len).finish()
    }
}

impl<T: Linked> List<T> {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            len: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The oldest node.
    pub(crate) fn first(&self) -> Option<NonNull<T>> {
        self.first
    }

    /// The node behind `node`.
    ///
    /// # Safety
    /// 1. `node` is in this list, and the list's lock is held.
    pub(crate) unsafe fn next(&self, node: NonNull<T>) -> Option<NonNull<T>> {
        // SAFETY: [Y2] clause 1.
        unsafe { T::links(node).as_ref() }.next.get()
    }

    /// Puts `node` at the end.
    ///
    /// # Safety
    /// 1. `node` is in no list, and lives and stays where it is until it is taken out.
    /// 2. The list's lock is held.
    pub(crate) unsafe fn push_back(&mut self, node: NonNull<T>) {
        // SAFETY: [Y2] clauses 1 and 2.
        let links = unsafe { T::links(node).as_ref() };
        links.previous.set(self.last);
        links.next.set(None);
        match self.last {
            // SAFETY: [Y2] it is in this list.
            Some(last) => unsafe { T::links(last).as_ref() }.next.set(Some(node)),
            None => self.first = Some(node),
        }
        self.last = Some(node);
        self.len += 1;
    }

    /// Takes the oldest node out.
    ///
    /// # Safety
    /// 1. The list's lock is held.
    pub(crate) unsafe fn pop_front(&mut self) -> Option<NonNull<T>> {
        let first = self.first?;
        // SAFETY: it is in this list, and clause 1.
        unsafe { self.remove(first) };
        Some(first)
    }

    /// Takes `node` out.
    ///
    /// # Safety
    /// 1. `node` is in this list, and the list's lock is held.
    pub(crate) unsafe fn remove(&mut self, node: NonNull<T>) {
        // SAFETY: [Y2] clause 1.
        let links = unsafe { T::links(node).as_ref() };
        let (previous, next) = (links.previous.take(), links.next.take());
        match previous {
            // SAFETY: [Y2] a neighbour is in this list.
            Some(previous) => unsafe { T::links(previous).as_ref() }.next.set(next),
            None => self.first = next,
        }
        match next {
            // SAFETY: [Y2] as above.
            Some(next) => unsafe { T::links(next).as_ref() }.previous.set(previous),
            None => self.last = previous,
        }
        self.len -= 1;
    }
}

/// The link of a node in a [`Chain`].
pub(crate) struct Next<T>(Cell<Option<NonNull<T>>>);

impl<T> Next<T> {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(None))
    }
}

/// What can be in a [`Chain`].
///
/// # Safety
/// 1. `next` returns the place of the one [`Next`] inside `node`, and makes no reference to the rest of it.
pub(crate) unsafe trait Chained: Sized {
    fn next(node: NonNull<Self>) -> NonNull<Next<Self>>;
}

/// A list with one link a node: first in, first out, and nobody leaves from the middle. [Y2]
pub(crate) struct Chain<T> {
    first: Option<NonNull<T>>,
    last: Option<NonNull<T>>,
    len: usize,
}

// SAFETY: [Y2] as for `List`.
unsafe impl<T> Send for Chain<T> {}

impl<T> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("len", &self.len).finish()
    }
}

impl<T: Chained> Chain<T> {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts `node` at the end.
    ///
    /// # Safety
    /// 1. `node` is in no chain, and lives and stays where it is until it is taken out.
    /// 2. The chain's lock is held.
    pub(crate) unsafe fn push_back(&mut self, node: NonNull<T>) {
        // SAFETY: [Y2] clauses 1 and 2.
        unsafe { T::next(node).as_ref() }.0.set(None);
        match self.last.replace(node) {
            // SAFETY: [Y2] it is in this chain.
            Some(last) => unsafe { T::next(last).as_ref() }.0.set(Some(node)),
            None => self.first = Some(node),
        }
        self.len += 1;
    }

    /// Takes the oldest node out.
    ///
    /// # Safety
    /// 1. The chain's lock is held.
    pub(crate) unsafe fn pop_front(&mut self) -> Option<NonNull<T>> {
        let first = self.first?;
        // SAFETY: [Y2] it is in this chain, and clause 1.
        self.first = unsafe { T::next(first).as_ref() }.0.take();
        if self.first.is_none() {
            self.last = None;
        }
        self.len -= 1;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node {
        number: u32,
        links: Links<Self>,
    }

    // SAFETY: 1. `links` is the only one.
    unsafe impl Linked for Node {
        fn links(node: NonNull<Self>) -> NonNull<Links<Self>> {
            // SAFETY: inside the node.
            NonNull::from(unsafe { &(*node.as_ptr()).links })
        }
    }

    fn numbers(list: &List<Node>) -> Vec<u32> {
        let mut out = Vec::new();
        let mut at = list.first();
        while let Some(node) = at {
            // SAFETY: in the list, whose owner this is.
            out.push(unsafe { node.as_ref() }.number);
            // SAFETY: as above.
            at = unsafe { list.next(node) };
        }
        out
    }

    #[test]
    fn nodes_leave_from_anywhere_and_the_rest_keeps_its_order() {
        let nodes: Vec<Box<Node>> = (0..6)
            .map(|number| {
                Box::new(Node {
                    number,
                    links: Links::new(),
                })
            })
            .collect();
        let at = |i: usize| NonNull::from(&*nodes[i]);
        let mut list = List::new();
        for i in 0..6 {
            // SAFETY: in no list; the boxes outlive the list; one thread.
            unsafe { list.push_back(at(i)) };
        }
        for gone in [2, 0, 5] {
            // SAFETY: in the list.
            unsafe { list.remove(at(gone)) };
        }
        assert_eq!((numbers(&list), list.len()), (vec![1, 3, 4], 3));
        // SAFETY: one thread.
        while unsafe { list.pop_front() }.is_some() {}
        assert!(list.is_empty());
        // SAFETY: as at first; a node may come back.
        unsafe { list.push_back(at(2)) };
        assert_eq!(numbers(&list), [2]);
    }

    struct Bead {
        number: u32,
        next: Next<Self>,
    }

    // SAFETY: 1. `next` is the only one.
    unsafe impl Chained for Bead {
        fn next(node: NonNull<Self>) -> NonNull<Next<Self>> {
            // SAFETY: inside the node.
            NonNull::from(unsafe { &(*node.as_ptr()).next })
        }
    }

    #[test]
    fn a_chain_keeps_the_order() {
        let beads: Vec<Box<Bead>> = (0..4)
            .map(|number| {
                Box::new(Bead {
                    number,
                    next: Next::new(),
                })
            })
            .collect();
        let mut chain = Chain::new();
        let mut seen = Vec::new();
        for _ in 0..2 {
            for bead in &beads {
                // SAFETY: in no chain; the boxes outlive it; one thread.
                unsafe { chain.push_back(NonNull::from(&**bead)) };
            }
            assert_eq!(chain.len(), 4);
            // SAFETY: one thread.
            while let Some(bead) = unsafe { chain.pop_front() } {
                // SAFETY: one of the boxes.
                seen.push(unsafe { bead.as_ref() }.number);
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 0, 1, 2, 3]);
    }
}

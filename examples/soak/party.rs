//! A party works on the heap, with a plain model of its own data. It runs on a thread, or as a G.

use std::collections::HashMap;
use std::sync::Arc;

use greywave::{External, Frame, Gc, GcCell, GcLock, Mutator, Root, WeakRoot};

use crate::common::rng::Rng;
use crate::objects::{Heavy, Link, Node, NodePtr, Slots, check_heavy, heavy_words};
use crate::shared::Shared;

/// Places in a party's table.
const PLACES: usize = 2_000;
/// Entries of a node's list at which it is cut short.
const LONG_LIST: usize = 400;
/// Own entries of the index at which they all go.
const MANY_KEYS: usize = 6_000;
/// Large objects of a party.
const HEAVY: usize = 4;

/// What the model knows of a node.
#[derive(Clone, Debug, Default)]
struct Known {
    id: u64,
    next: Option<u64>,
    list: Vec<u64>,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Party {
    shared: Arc<Shared>,
    number: u64,
    pub(crate) rng: Rng,
    slots: Root<Slots<'static>>,
    known: Vec<Option<Known>>,
    weak: HashMap<usize, (u64, WeakRoot<Node<'static>>)>,
    stack: Frame<Vec<NodePtr<'static>>>,
    stacked: Vec<u64>,
    heavy: Root<Heavy<'static>>,
    keys: Vec<(u64, u64)>,
    outside: Option<External>,
}

impl Party {
    pub(crate) fn new(m: &Mutator, shared: &Arc<Shared>) -> Self {
        let number = shared.new_party();
        let slots = m.alloc_slice(PLACES, |_| GcCell::null());
        Self {
            shared: shared.clone(),
            number,
            rng: Rng::new(shared.seed, number),
            slots: m.root(m.alloc(Slots(slots))),
            known: vec![None; PLACES],
            weak: HashMap::new(),
            stack: Frame::new(m, Vec::new()),
            stacked: Vec::new(),
            heavy: m.root(m.alloc(Heavy(GcLock::default()))),
            keys: Vec::new(),
            outside: None,
        }
    }

    /// Does one thing; an error says where heap and model differ.
    pub(crate) fn step(&mut self, m: &Mutator) -> Result<(), String> {
        match self.rng.below(1000) {
            0..200 => self.put(m),
            200..300 => self.link(m),
            300..360 => self.clear(m),
            360..500 => self.change_list(m),
            500..750 => self.check(m),
            750..800 => self.show(m),
            800..860 => self.look_at_board(m),
            860..900 => self.change_index(m),
            900..940 => self.change_weak(m),
            940..990 => self.change_stack(m),
            990..992 => self.change_heavy(m),
            992..994 => self.change_outside(m),
            994 => self.chain(m),
            _ => Ok(()),
        }
    }

    fn place(&mut self) -> usize {
        self.rng.below(PLACES)
    }

    /// The node at a place, which must be the one that the model knows.
    fn at<'m>(&self, m: &'m Mutator, place: usize) -> Result<Option<NodePtr<'m>>, String> {
        let node = self.slots.get(m).0[place].get();
        let id = node.map(|node| node.checked()).transpose()?;
        let known = self.known[place].as_ref().map(|known| known.id);
        if id != known {
            return Err(self.differs(place, "its node", id, known));
        }
        Ok(node)
    }

    fn differs<T: std::fmt::Debug>(&self, place: usize, what: &str, is: T, known: T) -> String {
        let number = self.number;
        format!("place {place} of party {number}: {what} is {is:?}, and should be {known:?}")
    }

    /// A node at a random place, and what is known of it.
    fn any<'m>(&mut self, m: &'m Mutator) -> Result<Option<(usize, NodePtr<'m>)>, String> {
        let place = self.place();
        Ok(self.at(m, place)?.map(|node| (place, node)))
    }

    fn put(&mut self, m: &Mutator) -> Result<(), String> {
        let next = self.any(m)?;
        let place = self.place();
        // What goes leads nowhere any more, or histories would grow for ever.
        if let Some(old) = self.at(m, place)? {
            old.clear(m);
            self.forget_edges(place);
        }
        let next = next.filter(|(from, _)| *from != place);
        let id = self.shared.new_id();
        let node = Node::alloc(m, id, &mut self.rng);
        node.next.set(m, next.map(|(_, node)| node));
        self.slots.get(m).0[place].set(m, node);
        self.known[place] = Some(Known {
            id,
            next: next.map(|(_, node)| node.id),
            list: Vec::new(),
        });
        Ok(())
    }

    fn forget_edges(&mut self, place: usize) {
        if let Some(known) = &mut self.known[place] {
            known.next = None;
            known.list.clear();
        }
    }

    fn link(&mut self, m: &Mutator) -> Result<(), String> {
        let (Some((place, from)), Some((_, to))) = (self.any(m)?, self.any(m)?) else {
            return Ok(());
        };
        from.next.set(m, to);
        if let Some(known) = &mut self.known[place] {
            known.next = Some(to.id);
        }
        Ok(())
    }

    fn clear(&mut self, m: &Mutator) -> Result<(), String> {
        let Some((place, node)) = self.any(m)? else {
            return Ok(());
        };
        node.clear(m);
        self.slots.get(m).0[place].set(m, None);
        self.known[place] = None;
        Ok(())
    }

    fn change_list(&mut self, m: &Mutator) -> Result<(), String> {
        let (Some((place, node)), Some((_, to))) = (self.any(m)?, self.any(m)?) else {
            return Ok(());
        };
        let Some(known) = &mut self.known[place] else {
            return Ok(());
        };
        let mut list = node.list.write(m);
        match self.rng.below(8) {
            0 => {
                let popped = list.pop().map(|node| node.id);
                let expected = known.list.pop();
                if popped != expected {
                    return Err(self.differs(place, "the end of its list", popped, expected));
                }
            }
            1 => {
                // A resize that moves the entries.
                list.truncate(3);
                list.shrink_to_fit();
                known.list.truncate(3);
            }
            2 if known.list.len() < LONG_LIST => {
                list.extend(std::iter::repeat_n(to, 60));
                known.list.extend(std::iter::repeat_n(to.id, 60));
            }
            _ if known.list.len() < LONG_LIST => {
                list.push(to);
                known.list.push(to.id);
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything at a place against the model.
    fn check(&mut self, m: &Mutator) -> Result<(), String> {
        let Some((place, node)) = self.any(m)? else {
            return Ok(());
        };
        let known = self.known[place].clone().unwrap_or_default();
        let next = node.next.get().map(|node| node.checked()).transpose()?;
        if next != known.next {
            return Err(self.differs(place, "the next one", next, known.next));
        }
        let list = node.list.read();
        let list: Result<Vec<u64>, String> = list.iter().map(|node| node.checked()).collect();
        let list = list?;
        if list != known.list {
            return Err(self.differs(place, "the list", list, known.list));
        }
        if let Some(foreign) = node.foreign.get() {
            foreign.checked()?;
        }
        Ok(())
    }

    fn show(&mut self, m: &Mutator) -> Result<(), String> {
        if let Some((_, node)) = self.any(m)? {
            let shown = self.shared.board.get(m).shown;
            shown[self.rng.below(shown.len())].set(m, node);
        }
        Ok(())
    }

    fn look_at_board(&mut self, m: &Mutator) -> Result<(), String> {
        let shown = self.shared.board.get(m).shown;
        let Some(seen) = shown[self.rng.below(shown.len())].get() else {
            return Ok(());
        };
        seen.checked()?;
        if let Some((_, node)) = self.any(m)? {
            node.foreign.set(m, seen);
        }
        Ok(())
    }

    /// The index grows, by all parties, and each takes its own part out again.
    fn change_index(&mut self, m: &Mutator) -> Result<(), String> {
        let board = self.shared.board.get(m);
        if self.keys.len() < MANY_KEYS {
            if let Some((_, node)) = self.any(m)? {
                let key = self.shared.new_id();
                self.keys.push((key, node.id));
                board.index.write(m).insert(key, node);
            }
            return Ok(());
        }
        let mut index = board.index.write(m);
        for (key, id) in self.keys.drain(..) {
            let found = index.remove(&key).map(|node| node.checked()).transpose()?;
            if found != Some(id) {
                return Err(format!(
                    "key {key} of the index leads to {found:?}, and should to {id}"
                ));
            }
        }
        index.shrink_to_fit();
        Ok(())
    }

    fn change_weak(&mut self, m: &Mutator) -> Result<(), String> {
        let Some((place, node)) = self.any(m)? else {
            return Ok(());
        };
        let new = (node.id, m.root_weak(Gc::downgrade(node, m)));
        let Some((id, weak)) = self.weak.insert(place, new) else {
            return Ok(());
        };
        let up = weak.get(m).map(|node| node.checked()).transpose()?;
        // The old node may be held by others; the present one is.
        let may_be_gone = node.id != id;
        if up == Some(id) || up.is_none() && may_be_gone {
            return Ok(());
        }
        Err(self.differs(place, "what a weak reference leads to", up, Some(id)))
    }

    fn change_stack(&mut self, m: &Mutator) -> Result<(), String> {
        let any = self.any(m)?;
        let mut stack = self.stack.enter(m);
        match any {
            Some((_, node)) if self.stacked.len() < 100 => {
                stack.push(node);
                self.stacked.push(node.id);
            }
            _ => {
                let popped = stack.pop().map(|node| node.checked()).transpose()?;
                let expected = self.stacked.pop();
                if popped != expected {
                    let number = self.number;
                    return Err(format!(
                        "the stack of party {number} had {popped:?}, and should have {expected:?}"
                    ));
                }
                if self.rng.below(20) == 0 {
                    stack.clear();
                    self.stacked.clear();
                }
            }
        }
        Ok(())
    }

    /// Objects of 32 KiB to 4 MiB, larger ones rarely.
    fn change_heavy(&mut self, m: &Mutator) -> Result<(), String> {
        let heavy = self.heavy.get(m);
        let words = 4096_usize << self.rng.below(8).min(self.rng.below(8));
        let new = heavy_words(m, words, self.rng.next());
        let mut heavy = heavy.0.write(m);
        if heavy.len() < HEAVY {
            heavy.push(new);
            return Ok(());
        }
        let old = std::mem::replace(&mut heavy[self.rng.below(HEAVY)], new);
        drop(heavy);
        check_heavy(&old)
    }

    fn change_outside(&mut self, m: &Mutator) -> Result<(), String> {
        let bytes = self.rng.below(4 << 20);
        match &mut self.outside {
            Some(outside) if self.rng.below(3) > 0 => outside.resize(bytes),
            Some(_) => self.outside = None,
            None => self.outside = Some(m.external(bytes)),
        }
        Ok(())
    }

    /// A long chain, walked and let go.
    fn chain(&mut self, m: &Mutator) -> Result<(), String> {
        let len = 1 + self.rng.below(8_000) as u64;
        let mut first: Option<Gc<'_, Link<'_>>> = None;
        for number in 0..len {
            first = Some(m.alloc(Link {
                number,
                next: GcCell::new(first),
            }));
        }
        let links = std::iter::successors(first, |link| link.next.get());
        let sum: u64 = links.map(|link| link.number).sum();
        if sum != len * (len - 1) / 2 {
            return Err(format!("a chain of {len} links adds up to {sum}"));
        }
        Ok(())
    }

    /// All of its own, at the end of its time.
    pub(crate) fn check_all(&mut self, m: &Mutator) -> Result<(), String> {
        for place in 0..PLACES {
            self.at(m, place)?;
        }
        let heavy = self.heavy.get(m);
        heavy.0.read().iter().try_for_each(|it| check_heavy(it))?;
        let board = self.shared.board.get(m);
        let mut index = board.index.write(m);
        for (key, _) in self.keys.drain(..) {
            index.remove(&key);
        }
        Ok(())
    }
}

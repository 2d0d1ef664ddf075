//! Each container of the standard library keeps its content alive when nothing else does.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::hash::{Hash, Hasher};
use std::mem::ManuallyDrop;
use std::num::{Saturating, Wrapping};
use std::ops::{Bound, ControlFlow, Range, RangeFrom, RangeInclusive, RangeTo};
use std::pin::Pin;
use std::task::Poll;

use greywave::{Gc, Trace};

use crate::{Leaf, keeps_its_leaves};

/// A leaf by number, which may be a key.
#[derive(Trace)]
struct Key<'gc> {
    number: u32,
    leaf: Gc<'gc, Leaf>,
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// A test for each container: its type, and how one is made of a function that makes leaves.
macro_rules! containers {
    ($($name:ident<$gc:lifetime>: $held:ty = |$leaf:ident, $key:ident| $made:expr;)*) => { $(
        #[test]
        fn $name() {
            #[derive(Trace)]
            struct Holder<$gc> {
                held: $held,
            }
            keeps_its_leaves(|m, new| {
                let $leaf = || new();
                let $key = |number| Key { number, leaf: new() };
                let _ = (&$leaf, &$key);
                let held = $made;
                Box::new(m.root(m.alloc(Holder { held })))
            });
        }
    )* };
}

containers! {
    a_vec<'gc>: Vec<Gc<'gc, Leaf>> = |leaf, key| (0..9).map(|_| leaf()).collect();
    a_deque_that_has_turned<'gc>: VecDeque<Gc<'gc, Leaf>> = |leaf, key| {
        let mut deque: VecDeque<_> = (0..8).map(|_| leaf()).collect();
        deque.rotate_left(5);
        deque.push_front(leaf());
        deque
    };
    a_linked_list<'gc>: LinkedList<Gc<'gc, Leaf>> = |leaf, key| (0..9).map(|_| leaf()).collect();
    a_binary_heap<'gc>: BinaryHeap<Key<'gc>> = |leaf, key| (0..9).map(key).collect();
    a_set<'gc>: HashSet<Key<'gc>> = |leaf, key| (0..99).map(key).collect();
    an_ordered_set<'gc>: BTreeSet<Key<'gc>> = |leaf, key| (0..99).map(key).collect();
    a_map_of_keys_and_values<'gc>: HashMap<Key<'gc>, Gc<'gc, Leaf>> =
        |leaf, key| (0..99).map(|n| (key(n), leaf())).collect();
    an_ordered_map_of_keys_and_values<'gc>: BTreeMap<Key<'gc>, Gc<'gc, Leaf>> =
        |leaf, key| (0..99).map(|n| (key(n), leaf())).collect();
    an_option<'gc>: [Option<Gc<'gc, Leaf>>; 2] = |leaf, key| [None, Some(leaf())];
    a_result<'gc>: [Result<Gc<'gc, Leaf>, Gc<'gc, Leaf>>; 2] = |leaf, key| [Ok(leaf()), Err(leaf())];
    a_poll<'gc>: [Poll<Gc<'gc, Leaf>>; 2] = |leaf, key| [Poll::Pending, Poll::Ready(leaf())];
    numbers_that_wrap<'gc>: (Wrapping<Gc<'gc, Leaf>>, Saturating<Gc<'gc, Leaf>>, Reverse<Gc<'gc, Leaf>>) =
        |leaf, key| (Wrapping(leaf()), Saturating(leaf()), Reverse(leaf()));
    what_is_dropped_by_hand<'gc>: ManuallyDrop<Gc<'gc, Leaf>> = |leaf, key| ManuallyDrop::new(leaf());
    ranges<'gc>: (
        Range<Gc<'gc, Leaf>>,
        RangeInclusive<Gc<'gc, Leaf>>,
        RangeFrom<Gc<'gc, Leaf>>,
        RangeTo<Gc<'gc, Leaf>>,
    ) = |leaf, key| (leaf()..leaf(), leaf()..=leaf(), leaf().., ..leaf());
    bounds<'gc>: [Bound<Gc<'gc, Leaf>>; 3] =
        |leaf, key| [Bound::Unbounded, Bound::Included(leaf()), Bound::Excluded(leaf())];
    a_way_to_go_on<'gc>: [ControlFlow<Gc<'gc, Leaf>, Gc<'gc, Leaf>>; 2] =
        |leaf, key| [ControlFlow::Break(leaf()), ControlFlow::Continue(leaf())];
    a_box<'gc>: Box<Gc<'gc, Leaf>> = |leaf, key| Box::new(leaf());
    a_box_of_many<'gc>: Box<[Gc<'gc, Leaf>]> = |leaf, key| (0..9).map(|_| leaf()).collect();
    a_pinned_box<'gc>: Pin<Box<Gc<'gc, Leaf>>> = |leaf, key| Box::pin(leaf());
    containers_of_containers<'gc>: Vec<HashMap<u8, Option<Box<VecDeque<Gc<'gc, Leaf>>>>>> =
        |leaf, key| vec![HashMap::from([(1, Some(Box::new(VecDeque::from([leaf(), leaf()])))), (2, None)])];
    beside_what_is_borrowed_or_owned<'gc>: (Cow<'static, str>, Gc<'gc, Leaf>, Cow<'static, [u8]>) =
        |leaf, key| (Cow::Borrowed("a"), leaf(), Cow::Owned(vec![1]));
}

//! The cases of boa_gc's tests, for this collector. `peers.md` says which test follows which.

#![allow(dead_code, reason = "some fields are there to be traced or dropped")]

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use greywave::{
    Gc, GcCell, GcLock, GcOnce, Mutator, Root, Trace, Weak, WeakRoot, dyn_target, unsize,
};

#[path = "peers/common.rs"]
mod common;

use common::support::Counted;
use common::{heap, needs_trace, run};

/// What an interpreter's values are: of a type that is found out at run time.
trait Value {
    fn as_any(&self) -> &dyn Any;
}
dyn_target!(dyn Value);

impl<T: Any> Value for T {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn an_object_whose_type_was_forgotten_knows_it() {
    run(|m, _| {
        let (root, erased): (Root<Vec<i32>>, Root<dyn Value>) = {
            let object = m.alloc(vec![1, 2, 3]);
            let erased = unsize!(object => dyn Value);
            (m.root(object), m.root(erased))
        };
        m.collect();
        let erased = erased.get(m);
        let any = Gc::as_ref(erased).as_any();
        assert_eq!(any.type_id(), TypeId::of::<Vec<i32>>());
        assert!(any.downcast_ref::<i32>().is_none());
        let back = any.downcast_ref::<Vec<i32>>().expect("its own type");
        assert_eq!(back, &[1, 2, 3]);
        assert!(std::ptr::eq(back, root.get(m).as_ptr()));
    });
}

trait Item {
    fn value(&self) -> i32;
    fn next(&self) -> Option<&dyn Item>;
}
dyn_target!(dyn Item);

#[derive(Trace)]
struct List<'gc> {
    value: i32,
    next: Option<Gc<'gc, dyn Item + 'gc>>,
}

impl Item for List<'_> {
    fn value(&self) -> i32 {
        self.value
    }
    fn next(&self) -> Option<&dyn Item> {
        self.next.as_deref().map(|next| next as &dyn Item)
    }
}

#[test]
fn a_list_of_erased_objects_has_the_bytes_of_its_nodes() {
    run(|m, _| {
        let root: Root<dyn Item> = {
            let mut head: Option<Gc<'_, dyn Item>> = None;
            for value in 0..100 {
                head = Some(unsize!(m.alloc(List { value, next: head }) => dyn Item));
            }
            m.root(head.expect("not empty"))
        };
        for _ in 0..2 {
            m.collect();
            assert_eq!(
                m.heap().stats().live_bytes,
                100 * size_of::<List<'_>>() as u64
            );
        }
        let root = root.get(m);
        let mut at: Option<&dyn Item> = Some(root.as_ref());
        for value in (0..100).rev() {
            let item = at.expect("not the end");
            assert_eq!(item.value(), value);
            at = item.next();
        }
        assert!(at.is_none());
    });
}

#[test]
fn a_weak_root_lives_as_long_as_the_last_of_two_roots() {
    run(|m, _| {
        let root = m.root(m.alloc(3));
        let clone = root.clone();
        let weak = m.root_weak(Gc::downgrade(clone.get(m), m));
        assert_eq!(weak.get(m).as_deref(), Some(&3));
        drop(clone);
        m.collect();
        assert_eq!(weak.get(m).as_deref(), Some(&3));
        drop(root);
        m.collect();
        assert!(weak.get(m).is_none());
    });
}

#[derive(Trace)]
struct Wrap<'gc>(Weak<'gc, String>);

#[test]
fn a_weak_reference_in_an_object_that_is_weakly_known() {
    run(|m, _| {
        let (text, wrap, to_wrap): (Root<String>, Root<Wrap<'static>>, WeakRoot<Wrap<'static>>) = {
            let text = m.alloc(String::from("foo"));
            let wrap = m.alloc(Wrap(Gc::downgrade(text, m)));
            (
                m.root(text),
                m.root(wrap),
                m.root_weak(Gc::downgrade(wrap, m)),
            )
        };
        let seen = |m: &Mutator| {
            let up = to_wrap.get(m)?;
            Some(up.0.upgrade(m).map(|text| text.as_str().to_owned()))
        };
        m.collect();
        assert_eq!(seen(m), Some(Some("foo".to_owned())));
        drop(text);
        m.collect();
        assert_eq!(seen(m), Some(None), "the wrapper lives, the text does not");
        drop(wrap);
        m.collect();
        assert_eq!(seen(m), None);
    });
}

#[test]
fn a_weak_reference_among_unrelated_objects() {
    run(|m, _| {
        let first = m.root(m.alloc(String::from("here")));
        let _second = m.root(m.alloc("unrelated"));
        let weak = m.root_weak(Gc::downgrade(first.get(m), m));
        let _last = m.root(m.alloc("tail"));
        m.collect();
        assert!(weak.get(m).is_some_and(|up| up.ptr_eq(first.get(m))));
    });
}

#[test]
fn what_was_upgraded_does_not_need_the_weak_reference() {
    run(|m, _| {
        let first = m.root(m.alloc(String::from("foo")));
        let weak = m.root_weak(Gc::downgrade(first.get(m), m));
        let second = m.root(weak.get(m).expect("alive"));
        drop(weak);
        m.collect();
        drop(first);
        m.collect();
        assert_eq!(&**second.get(m), "foo");
    });
}

#[test]
fn a_clone_of_a_weak_root_goes_on_without_the_first() {
    run(|m, _| {
        let root = m.root(m.alloc(String::from("bar")));
        let weak = m.root_weak(Gc::downgrade(root.get(m), m));
        let clone = weak.clone();
        drop(weak);
        m.collect();
        assert_eq!(clone.get(m).map(|up| up.len()), Some(3));
        drop(root);
        m.collect();
        assert!(clone.get(m).is_none());
        assert!(
            clone.clone().get(m).is_none(),
            "a clone of a dead one is dead"
        );
    });
}

type Own<'gc> = Option<Gc<'gc, SelfKnown<'gc>>>;

#[derive(Trace)]
struct SelfKnown<'gc> {
    own: GcLock<Option<Weak<'gc, SelfKnown<'gc>>>>,
    strong: GcLock<(Own<'gc>, Own<'gc>)>,
    counted: Counted,
}

fn self_known<'m>(m: &'m Mutator, counted: Counted) -> Gc<'m, SelfKnown<'m>> {
    let object = m.alloc(SelfKnown {
        own: GcLock::new(None),
        strong: GcLock::new((None, None)),
        counted,
    });
    *object.own.write(m) = Some(Gc::downgrade(object, m));
    object
}

#[test]
fn an_object_that_knows_itself_weakly_dies() {
    run(|m, drops| {
        let root = m.root(self_known(m, drops.one()));
        m.collect();
        {
            let object = root.get(m);
            let own = *object.own.read();
            assert!(
                own.and_then(|own| own.upgrade(m))
                    .is_some_and(|up| up.ptr_eq(object))
            );
        }
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn an_object_that_holds_itself_twice_and_is_weakly_known_dies() {
    run(|m, drops| {
        let (root, weak) = {
            let object = self_known(m, drops.one());
            *object.strong.write(m) = (Some(object), Some(object));
            (m.root(object), m.root_weak(Gc::downgrade(object, m)))
        };
        m.collect();
        assert!(
            weak.get(m)
                .is_some_and(|up| up.strong.read().0.is_some_and(|s| s.ptr_eq(up)))
        );
        let before = m.heap().stats().live_bytes;
        drop(root);
        m.collect();
        assert!(weak.get(m).is_none());
        assert_eq!(drops.count(), 1);
        let freed = before - m.heap().stats().live_bytes;
        assert!(freed >= size_of::<SelfKnown<'_>>() as u64);
    });
}

#[test]
fn weak_and_strong_edges_in_turn_form_a_ring_that_dies() {
    run(|m, drops| {
        let (root, weak) = {
            let chain = [0, 1, 2, 3].map(|_| self_known(m, drops.one()));
            for i in 0..4 {
                let next = chain[(i + 1) % 4];
                if i % 2 == 0 {
                    chain[i].strong.write(m).0 = Some(next);
                } else {
                    *chain[i].own.write(m) = Some(Gc::downgrade(next, m));
                }
            }
            (m.root(chain[0]), m.root_weak(Gc::downgrade(chain[2], m)))
        };
        m.collect();
        assert_eq!(drops.count(), 2, "the half that is known only weakly");
        assert!(weak.get(m).is_none());
        drop(root);
        m.collect();
        assert_eq!(drops.count(), 4);
    });
}

#[test]
fn std_values_are_no_edges() {
    assert!(!needs_trace::<(
        Instant,
        PathBuf,
        std::fs::File,
        std::time::Duration
    )>());
    run(|m, _| {
        let file = std::fs::File::open(file!()).ok();
        let is_open = file.is_some();
        let at = Instant::now();
        let root = m.root(m.alloc((at, PathBuf::from("."), file)));
        m.collect();
        let value = root.get(m);
        assert!(value.0 == at && value.1.as_os_str() == ".");
        let length = value
            .2
            .as_ref()
            .map(|file| file.metadata().expect("open").len() > 1000);
        assert_eq!(length, is_open.then_some(true), "the file is still open");
    });
}

#[test]
fn a_lock_that_grows_past_every_capacity() {
    type Cell = GcLock<[u8; 10]>;
    run(|m, _| {
        let root = m.root(m.alloc(GcLock::new(Vec::<Gc<'_, Cell>>::new())));
        for i in 1..=259 {
            let cell = m.alloc(GcLock::new([i as u8; 10]));
            root.get(m).write(m).push(cell);
            if i % 37 == 0 {
                m.collect();
            }
        }
        let all = root.get(m);
        let all = all.read();
        assert_eq!(all.len(), 259);
        assert!(
            all.iter()
                .zip(1..)
                .all(|(cell, i)| *cell.read() == [i as u8; 10])
        );
    });
}

#[test]
fn a_locked_number_has_its_bytes_and_can_be_written() {
    run(|m, _| {
        let root = m.root(m.alloc(GcLock::new(16_u16)));
        let cycles = m.heap().stats().cycles;
        m.collect();
        let stats = m.heap().stats();
        assert_eq!(stats.cycles, cycles + 1);
        assert_eq!(stats.live_bytes, size_of::<GcLock<u16>>() as u64);
        *root.get(m).write(m) += 1;
        assert_eq!(*root.get(m).read(), 17);
    });
}

#[test]
fn a_number_has_its_bytes_and_leaves_nothing() {
    let heap = heap();
    let mut m = heap.attach().expect("attached");
    let root = m.root(m.alloc(16_u8));
    m.collect();
    assert!((1..=16).contains(&heap.stats().live_bytes));
    assert_eq!(*root.get(&m), 16);
    drop(root);
    m.collect();
    let stats = heap.stats();
    assert_eq!((stats.live_bytes, stats.forced_cycles), (0, 2));
    assert_eq!(stats.allocated_bytes - stats.freed_bytes, 0);
}

#[derive(Trace)]
struct Link<'gc> {
    number: usize,
    next: GcCell<'gc, Link<'gc>>,
}

#[test]
fn a_long_list_has_the_bytes_of_its_links_and_leaves_nothing() {
    const COUNT: usize = 200_000;
    run(|m, _| {
        let root = {
            let mut head = None;
            for number in 0..COUNT {
                let next = GcCell::new(head);
                head = Some(m.alloc(Link { number, next }));
            }
            m.root(head.expect("not empty"))
        };
        m.collect();
        assert_eq!(
            m.heap().stats().live_bytes,
            (COUNT * size_of::<Link<'_>>()) as u64
        );
        assert_eq!(root.get(m).number, COUNT - 1);
        drop(root);
        m.collect();
        assert_eq!(m.heap().stats().live_bytes, 0);
    });
}

/// Weak keys, as a program without ephemerons writes them: by address, looked at again after each
/// collection.
#[derive(Trace)]
struct WeakTable<'gc>(GcLock<HashMap<usize, (Weak<'gc, String>, u32)>>);

impl<'gc> WeakTable<'gc> {
    fn insert(&self, m: &Mutator, key: Gc<'gc, String>, value: u32) {
        let weak = Gc::downgrade(key, m);
        (self.0.write(m)).insert(key.as_ptr().addr(), (weak, value));
    }

    fn get(&self, key: Gc<'gc, String>, m: &'gc Mutator) -> Option<u32> {
        let table = self.0.read();
        let (weak, value) = table.get(&key.as_ptr().addr())?;
        weak.upgrade(m).filter(|up| up.ptr_eq(key)).map(|_| *value)
    }

    fn purge(&self, m: &'gc Mutator) -> usize {
        let mut table = self.0.write(m);
        table.retain(|_, (weak, _)| weak.upgrade(m).is_some());
        table.len()
    }
}

fn keys(m: &Mutator) -> Vec<Root<String>> {
    (1..=3)
        .map(|i| m.root(m.alloc(format!("key{i}"))))
        .collect()
}

#[test]
fn a_table_with_weak_keys_loses_them_one_by_one() {
    run(|m, _| {
        let table = m.root(m.alloc(WeakTable(GcLock::new(HashMap::new()))));
        let mut keys = keys(m);
        for (i, key) in keys.iter().enumerate() {
            table.get(m).insert(m, key.get(m), i as u32);
        }
        for left in (0..=3).rev() {
            m.collect();
            assert_eq!(table.get(m).purge(m), left);
            for (i, key) in keys.iter().enumerate() {
                assert_eq!(table.get(m).get(key.get(m), m), Some(i as u32));
            }
            keys.pop();
        }
    });
}

#[test]
fn two_tables_with_weak_keys_do_not_know_each_others() {
    run(|m, _| {
        let one = m.root(m.alloc(WeakTable(GcLock::new(HashMap::new()))));
        let two = m.root(m.alloc(WeakTable(GcLock::new(HashMap::new()))));
        let mut keys = keys(m);
        one.get(m).insert(m, keys[0].get(m), 1);
        one.get(m).insert(m, keys[1].get(m), 2);
        two.get(m).insert(m, keys[2].get(m), 3);
        m.collect();
        let seen = |m: &Mutator, table: &Root<WeakTable<'static>>| {
            keys.iter()
                .map(|key| table.get(m).get(key.get(m), m))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(m, &one), [Some(1), Some(2), None]);
        assert_eq!(seen(m, &two), [None, None, Some(3)]);
        keys.drain(..2);
        m.collect();
        assert_eq!((one.get(m).purge(m), two.get(m).purge(m)), (0, 1));
        assert_eq!(one.get(m).get(keys[0].get(m), m), None);
        drop(one);
        m.collect();
        assert_eq!(two.get(m).get(keys[0].get(m), m), Some(3));
    });
}

#[test]
fn a_key_that_is_removed_and_inserted_again_lives_by_its_other_root() {
    run(|m, _| {
        let table = m.root(m.alloc(WeakTable(GcLock::new(HashMap::new()))));
        let key = m.root(m.alloc(String::from("key")));
        let copy = key.clone();
        table.get(m).insert(m, key.get(m), 1);
        assert_eq!(table.get(m).get(copy.get(m), m), Some(1));
        let address = key.get(m).as_ptr().addr();
        assert!(table.get(m).0.write(m).remove(&address).is_some());
        assert_eq!(table.get(m).get(copy.get(m), m), None);
        table.get(m).insert(m, key.get(m), 2);
        drop(key);
        m.collect();
        assert_eq!(table.get(m).get(copy.get(m), m), Some(2));
    });
}

#[test]
fn a_value_that_is_made_from_its_own_weak_reference() {
    #[derive(Trace)]
    struct Class<'gc> {
        name: Gc<'gc, str>,
        own: GcOnce<'gc, Class<'gc>>,
    }
    run(|m, _| {
        let root = {
            let class = m.alloc(Class {
                name: m.alloc_str("Class"),
                own: GcOnce::empty(),
            });
            let weak = Gc::downgrade(class, m);
            let up = weak.upgrade(m).expect("in hand");
            assert!(class.own.set(m, up).is_ok());
            m.root_weak(weak)
        };
        assert_eq!(
            root.get(m)
                .and_then(|c| c.own.get())
                .map(|c| &*c.name == "Class"),
            Some(true)
        );
        m.collect();
        assert!(root.get(m).is_none(), "its own edge does not keep it");
    });
}

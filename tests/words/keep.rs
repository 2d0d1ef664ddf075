//! An object that only a word leads to is kept alive, in each kind of place, even if the word is
//! moved before a marker has seen it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greywave::{Frame, Gc, GcArray, GcLock, GcWord, Mutator, Root, Trace, Word, WordKinds};

use crate::stage::{Gate, Stage, checked};
use crate::support::Counted;
use crate::{ITEM, Item, Place, TEXT, UNIT, Unit, Value, item_of, new_item, new_text, text_of};

/// An object that is traced up to its gate: what its words lead to is found only after the gate is
/// open.
#[derive(Trace)]
struct Gated<'gc> {
    gate: Gate,
    place: Place<'gc>,
    lock: GcLock<Vec<Value<'gc>>>,
    many: Gc<'gc, GcArray<(), Place<'gc>>>,
}

/// Words that lead to item 1 (the place), item 2 (the lock), and texts from 0 (the array).
fn gated<'m>(stage: &Stage, m: &'m Mutator, many: usize) -> Gc<'m, Gated<'m>> {
    let item = |id| Value::from_gc::<ITEM>(new_item(m, id, Value::immediate(0)));
    m.alloc(Gated {
        gate: stage.gate(),
        place: GcWord::new(item(1)),
        lock: GcLock::new(vec![Value::number(0.5), item(2)]),
        many: m.alloc_array((), many, |i| {
            GcWord::new(Value::from_gc::<TEXT>(new_text(m, i as u64)))
        }),
    })
}

/// Keeps `word` by an object that was made just now, which a running cycle does not scan.
fn keep<'m>(m: &'m Mutator, word: Value<'m>) -> Root<Item<'static>> {
    m.root(new_item(m, 0, word))
}

/// What [`keep`] kept is there, now and after another cycle.
fn assert_kept(
    stage: &Stage,
    m: &mut Mutator,
    kept: &[Root<Item<'static>>],
    id: impl Fn(Value<'_>) -> u64,
) {
    for _ in 0..2 {
        for (expected, kept) in (1..).zip(kept) {
            assert_eq!(id(kept.get(m).next.get()), expected);
        }
        stage.heap.verify().expect("whole");
        m.collect();
    }
}

#[test]
fn a_word_is_overwritten_before_its_scan() {
    for way in 0..5 {
        let stage = Stage::new();
        let mut m = stage.attach();
        let gated: Root<Gated<'static>> = m.root(gated(&stage, &m, 0));
        let cycle = stage.begin(&mut m);
        let kept = {
            let place = &gated.get(&m).place;
            let item = place.get();
            let text = Value::from_gc::<TEXT>(new_text(&m, 9));
            match way {
                0 => place.set(&m, Value::number(2.5)),
                1 => place.set(&m, text),
                2 => assert!(place.swap(&m, Value::immediate(7)).is(item)),
                3 => assert!(place.swap(&m, text).is(item)),
                _ => assert!(
                    place
                        .compare_exchange(&m, item, Value::number(f64::NAN))
                        .is_ok()
                ),
            }
            keep(&m, item)
        };
        cycle.end(&mut m);
        assert_kept(&stage, &mut m, &[kept], item_of);
        // What was written is there, too.
        let text = gated.get(&m).place.get().as_gc::<TEXT>().map(|t| t.check());
        assert_eq!(text, [1, 3].contains(&way).then_some(9));
    }
}

#[test]
fn more_words_are_overwritten_before_their_scan_than_a_buffer_holds() {
    const MANY: usize = 2000;
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = m.root(gated(&stage, &m, MANY));
    let cycle = stage.begin(&mut m);
    let kept: Vec<_> = {
        let gated = gated.get(&m);
        let places = gated.many.items().iter().skip(1).enumerate();
        places
            .map(|(i, place)| keep(&m, place.swap(&m, Value::immediate(i as u32))))
            .collect()
    };
    cycle.end(&mut m);
    assert_kept(&stage, &mut m, &kept, text_of);
}

#[test]
fn a_lock_of_words_is_emptied_before_its_scan() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = m.root(gated(&stage, &m, 0));
    let cycle = stage.begin(&mut m);
    let kept = {
        let word = gated.get(&m).lock.write(&m).pop().expect("the item's word");
        assert_eq!(item_of(word), 2);
        keep(&m, word)
    };
    cycle.end(&mut m);
    for _ in 0..2 {
        assert_eq!(item_of(kept.get(&m).next.get()), 2);
        stage.heap.verify().expect("whole");
        m.collect();
    }
    let left = gated.get(&m).lock.read().len();
    assert_eq!(left, 1);
}

#[test]
fn a_number_is_overwritten_by_a_pointer_while_marking_runs() {
    let stage = Stage::new();
    let mut m = stage.attach();
    let gated: Root<Gated<'static>> = m.root(gated(&stage, &m, 0));
    gated.get(&m).place.set(&m, Value::number(1.5));
    let cycle = stage.begin(&mut m);
    let text = Value::from_gc::<TEXT>(new_text(&m, 4));
    assert_eq!(gated.get(&m).place.swap(&m, text).as_number(), Some(1.5));
    cycle.end(&mut m);
    m.collect();
    assert_eq!(text_of(gated.get(&m).place.get()), 4);
    stage.heap.verify().expect("whole");
}

/// Every kind of place that a word can be in.
#[derive(Trace)]
struct Places<'gc> {
    plain: Value<'gc>,
    place: Place<'gc>,
    pair: [Place<'gc>; 2],
    optional: Option<Value<'gc>>,
    boxed: Box<[Value<'gc>]>,
    list: GcLock<Vec<Value<'gc>>>,
    map: GcLock<HashMap<u32, Value<'gc>>>,
    tree: GcLock<BTreeMap<u32, (Value<'gc>, u8)>>,
    slice: Gc<'gc, [Place<'gc>]>,
}

#[test]
fn an_object_is_kept_by_a_word_in_any_container() {
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let item =
        |m, id| Value::from_gc::<ITEM>(new_item(m, id, Value::from_gc::<TEXT>(new_text(m, id))));
    let places: Root<Places<'static>> = {
        let m = &m;
        m.root(m.alloc(Places {
            plain: item(m, 0),
            place: GcWord::new(item(m, 1)),
            pair: [GcWord::new(Value::number(2.0)), GcWord::new(item(m, 2))],
            optional: Some(item(m, 3)),
            boxed: Box::new([Value::immediate(4), item(m, 4)]),
            list: GcLock::new(vec![item(m, 5), Value::number(f64::NAN)]),
            map: GcLock::new(HashMap::from([(6, item(m, 6))])),
            tree: GcLock::new(BTreeMap::from([(7, (item(m, 7), 7))])),
            slice: m.alloc_slice(3, |i| GcWord::new(item(m, 8 + i as u64))),
        }))
    };
    let mut stack: Frame<Vec<Value<'static>>> = Frame::new(&m, Vec::new());
    stack.enter(&m).extend([Value::number(0.0), item(&m, 11)]);
    for _ in 0..3 {
        m.collect();
        let at = places.get(&m);
        let (list, map, tree) = (at.list.read(), at.map.read(), at.tree.read());
        let words = [
            at.plain,
            at.place.get(),
            at.pair[1].get(),
            at.optional.expect("a word"),
            at.boxed[1],
            list[0],
            map[&6],
            tree[&7].0,
            at.slice[0].get(),
            at.slice[1].get(),
            at.slice[2].get(),
            stack.enter(&m)[1],
        ];
        for (id, word) in (0..).zip(words) {
            assert_eq!(item_of(word), id);
            let item = word.as_gc::<ITEM>().expect("an item");
            assert_eq!(text_of(item.next.get()), id);
        }
    }
    heap.verify().expect("whole");
}

#[test]
fn an_object_without_a_size_is_itself_after_any_collection() {
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let place = m.root(m.alloc(Place::new(Value::from_gc::<UNIT>(m.alloc(Unit)))));
    for _ in 0..2 {
        m.collect();
        let word = place.get(&m).get();
        assert!(word.as_gc::<UNIT>().is_some() && word.as_gc::<ITEM>().is_none());
    }
    heap.verify().expect("whole");
}

/// Kinds that count their drops.
struct Dropping;

impl WordKinds for Dropping {
    type List = (Counted,);
}

#[test]
fn what_is_overwritten_is_dropped_and_a_number_with_its_bits_keeps_nothing() {
    let heap = checked().gogc(None).build().expect("a heap");
    let mut m = heap.attach().expect("attached");
    let drops = Arc::new(AtomicUsize::new(0));
    let place: Root<GcWord<'static, Dropping>> = m.root(m.alloc(GcWord::new(Word::immediate(0))));
    for round in 1..=4 {
        let address = {
            let counted = m.alloc(Counted(drops.clone()));
            place.get(&m).set(&m, Word::from_gc::<0>(counted));
            std::ptr::from_ref(&*counted).addr() as u64
        };
        m.collect();
        assert_eq!(drops.load(Ordering::Relaxed), round - 1, "it is kept");
        match round {
            1 => place.get(&m).set(&m, Word::number(f64::from_bits(address))),
            2 => place.get(&m).set(&m, Word::immediate(address as u32)),
            3 => assert!(
                place
                    .get(&m)
                    .swap(&m, Word::number(0.0))
                    .as_gc::<0>()
                    .is_some()
            ),
            _ => {
                let there = place.get(&m).get();
                let cut = place
                    .get(&m)
                    .compare_exchange(&m, there, Word::number(f64::NAN));
                assert!(cut.is_ok());
            }
        }
        m.collect();
        assert_eq!(drops.load(Ordering::Relaxed), round, "nothing keeps it");
    }
    heap.verify().expect("whole");
}

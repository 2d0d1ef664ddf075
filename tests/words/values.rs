//! Numbers, immediates and pointers in a word: each comes back as itself, and as nothing else.

use greywave::{GcWord, Heap, KindOf, Word, WordKinds};

use crate::{ITEM, Kinds, Place, TEXT, UNIT, Unit, Value, new_item, new_text};

/// Seven kinds, as many as there may be; two of them are the same type.
struct Seven;

impl WordKinds for Seven {
    type List = (u8, u16, u32, u64, u32, String, ());
}

fn twin<T: Clone>(value: &T) -> T {
    value.clone()
}

#[test]
fn numbers_keep_their_bits_in_a_place() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let place = m.alloc(Place::new(Value::immediate(0)));
    for number in [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::MIN,
        f64::MAX,
        f64::EPSILON,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        f64::INFINITY,
        f64::NEG_INFINITY,
    ] {
        place.set(&m, Value::number(number));
        let back = place.get().as_number().expect("a number");
        assert_eq!(back.to_bits(), number.to_bits(), "{number:?}");
        assert!(place.get().as_immediate().is_none());
        assert!(place.get().as_gc::<TEXT>().is_none());
    }
    assert!(!Value::number(0.0).is(Value::number(-0.0)));
}

#[test]
fn every_nan_is_the_same_number_and_never_a_pointer() {
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    let address = std::ptr::from_ref(&*m.alloc(7_u64)).addr() as u64;
    let zero = std::hint::black_box(0.0);
    let signs = [zero / zero, -(zero / zero)];
    let made_by_hand = (0..8_u64).map(|kind| f64::from_bits((0xFFF8 + kind) << 48 | address));
    let place = m.root(m.alloc(Place::new(Value::number(f64::NAN))));
    for nan in signs.into_iter().chain(made_by_hand) {
        let word = Value::number(nan);
        place.get(&m).set(&m, word);
        assert!(word.as_number().is_some_and(f64::is_nan), "{nan:?}");
        assert!(word.as_immediate().is_none());
        assert!(word.as_gc::<TEXT>().is_none() && word.as_gc::<ITEM>().is_none());
        assert_eq!(
            place
                .get(&m)
                .swap(&m, Value::immediate(1))
                .as_number()
                .map(f64::is_nan),
            Some(true)
        );
        // The object is not there any more, and nothing was followed to it.
        place.get(&m).set(&m, Value::number(nan));
        m.collect();
    }
    heap.verify().expect("whole");
}

#[test]
fn immediates_are_the_numbers_that_they_were_made_of() {
    for n in [0, 1, 0x10_FFFF, u32::MAX - 1, u32::MAX] {
        let word = Value::immediate(n);
        assert_eq!((word.as_immediate(), word.as_number()), (Some(n), None));
        assert!(word.as_gc::<TEXT>().is_none() && word.as_gc::<UNIT>().is_none());
        assert!(word.is(Value::immediate(n)) && !word.is(Value::immediate(n ^ 1)));
        assert!(!word.is(Value::number(f64::from(n))));
    }
}

#[test]
fn seven_kinds_are_told_apart_even_of_one_type() {
    fn kinds(word: Word<'_, Seven>) -> [bool; 7] {
        [
            word.as_gc::<0>().is_some(),
            word.as_gc::<1>().is_some(),
            word.as_gc::<2>().is_some(),
            word.as_gc::<3>().is_some(),
            word.as_gc::<4>().is_some(),
            word.as_gc::<5>().is_some(),
            word.as_gc::<6>().is_some(),
        ]
    }
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let number = m.alloc(2_u32);
    let words = [
        Word::from_gc::<0>(m.alloc(0_u8)),
        Word::from_gc::<1>(m.alloc(1_u16)),
        Word::from_gc::<2>(number),
        Word::from_gc::<3>(m.alloc(3_u64)),
        Word::from_gc::<4>(number),
        Word::from_gc::<5>(m.alloc("5".to_owned())),
        Word::from_gc::<6>(m.alloc(())),
    ];
    for (kind, word) in words.into_iter().enumerate() {
        let mut expected = [false; 7];
        expected[kind] = true;
        assert_eq!(kinds(word), expected);
        assert_eq!(format!("{word:?}"), format!("Word(kind {kind})"));
        assert!((0..7).all(|other| words[other].is(word) == (other == kind)));
    }
    let text: &KindOf<'_, Seven, 5> = &words[5].as_gc::<5>().expect("a text");
    assert_eq!(text, "5");
    assert_eq!(words[4].as_gc::<4>().map(|n| *n), Some(2));
}

#[test]
fn debug_shows_numbers_and_immediates_and_of_a_pointer_its_kind() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let shown = |word: Value<'_>| format!("{word:?}");
    assert_eq!(shown(Value::number(1.5)), "Word(1.5)");
    assert_eq!(shown(Value::number(-0.0)), "Word(-0.0)");
    assert_eq!(shown(Value::number(f64::NAN)), "Word(NaN)");
    assert_eq!(shown(Value::number(f64::NEG_INFINITY)), "Word(-inf)");
    assert_eq!(shown(Value::immediate(7)), "Word(immediate 7)");
    assert_eq!(shown(Value::from_gc::<UNIT>(m.alloc(Unit))), "Word(kind 2)");
    // A cycle is not followed.
    let item = new_item(&m, 1, Value::immediate(0));
    item.next.set(&m, Value::from_gc::<ITEM>(item));
    assert_eq!(format!("{:?}", item.next), "GcWord(Word(kind 1))");
}

#[test]
fn a_clone_of_a_word_leads_to_the_same_object() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let text = new_text(&m, 5);
    let word = Value::from_gc::<TEXT>(text);
    let twin = twin(&word);
    assert!(twin.is(word) && twin.as_gc::<TEXT>().is_some_and(|t| t.ptr_eq(text)));
}

#[test]
fn an_exchange_succeeds_only_against_what_is_there() {
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let (one, two) = (
        Value::from_gc::<TEXT>(new_text(&m, 1)),
        Value::from_gc::<TEXT>(new_text(&m, 2)),
    );
    let place: GcWord<'_, Kinds> = GcWord::new(one);
    let place = m.alloc(place);
    let there = place.compare_exchange(&m, two, Value::number(3.0));
    assert!(there.is_err_and(|now| now.is(one)));
    assert!(place.get().is(one), "nothing was written");
    assert!(
        place
            .compare_exchange(&m, one, two)
            .is_ok_and(|old| old.is(one))
    );
    assert!(place.swap(&m, Value::number(-0.0)).is(two));
    // Numbers are compared by their bits.
    let zero = place.compare_exchange(&m, Value::number(0.0), one);
    assert!(zero.is_err_and(|now| now.is(Value::number(-0.0))));
    assert!(place.compare_exchange(&m, Value::number(-0.0), one).is_ok());
    assert!(place.get().is(one));
}

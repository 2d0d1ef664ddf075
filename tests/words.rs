//! Words: a value that is put into one comes back, and an object that only a word leads to stays
//! alive, whatever a marker does meanwhile.

#[path = "stress/directed.rs"]
mod directed;
#[path = "words/keep.rs"]
mod keep;
#[path = "words/race.rs"]
mod race;
#[path = "stress/stage.rs"]
mod stage;
#[path = "stress/support.rs"]
mod support;
#[path = "words/values.rs"]
mod values;

use greywave::{Gc, GcWord, Mutator, Trace, Word, WordKinds};

use support::mix;

/// The kinds of these tests.
pub(crate) struct Kinds;

impl WordKinds for Kinds {
    type List = (Text, Item<'static>, Unit);
}

pub(crate) const TEXT: usize = 0;
pub(crate) const ITEM: usize = 1;
pub(crate) const UNIT: usize = 2;

pub(crate) type Value<'gc> = Word<'gc, Kinds>;
pub(crate) type Place<'gc> = GcWord<'gc, Kinds>;

/// An object that is not traced.
#[derive(Debug, Trace)]
pub(crate) struct Text {
    pub(crate) id: u64,
    check: u64,
}

/// An object that leads to others.
#[derive(Trace)]
pub(crate) struct Item<'gc> {
    id: u64,
    check: u64,
    pub(crate) next: Place<'gc>,
}

/// An object without a size.
#[derive(Debug, Trace)]
pub(crate) struct Unit;

pub(crate) fn new_text<'m>(m: &'m Mutator, id: u64) -> Gc<'m, Text> {
    m.alloc(Text { id, check: mix(id) })
}

pub(crate) fn new_item<'m>(m: &'m Mutator, id: u64, next: Value<'m>) -> Gc<'m, Item<'m>> {
    m.alloc(Item {
        id,
        check: mix(id),
        next: GcWord::new(next),
    })
}

impl Text {
    /// The number; the object must be whole.
    pub(crate) fn check(&self) -> u64 {
        assert_eq!(self.check, mix(self.id), "an object's content is damaged");
        self.id
    }
}

impl Item<'_> {
    /// The number; the object must be whole.
    pub(crate) fn check(&self) -> u64 {
        assert_eq!(self.check, mix(self.id), "an object's content is damaged");
        self.id
    }
}

/// The number of the item that `word` leads to.
pub(crate) fn item_of(word: Value<'_>) -> u64 {
    word.as_gc::<ITEM>().expect("an item").check()
}

/// The number of the text that `word` leads to.
pub(crate) fn text_of(word: Value<'_>) -> u64 {
    word.as_gc::<TEXT>().expect("a text").check()
}

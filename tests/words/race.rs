//! Threads pass words around while the collector never rests. Each word is in exactly one place,
//! and its object is whole.

use std::collections::BTreeSet;
use std::time::Duration;

use greywave::{Frame, GcArray, GcWord, Mutator, Root};

use crate::stage::checked;
use crate::support::{Collecting, Random, seed, within};
use crate::{ITEM, Place, TEXT, Value, new_item, new_text};

const THREADS: u64 = 4;
/// Places that all threads change; after them comes one for each thread.
const SHARED: u64 = 4;
const PLACES: u64 = SHARED + THREADS;
const STEPS: usize = 300_000;

/// A word that says which it is: a number, an immediate, a text, or an item that leads to a text.
fn word<'m>(m: &'m Mutator, id: u64) -> Value<'m> {
    match id % 4 {
        0 => Value::number(id as f64),
        1 => Value::immediate(id as u32),
        2 => Value::from_gc::<TEXT>(new_text(m, id)),
        _ => Value::from_gc::<ITEM>(new_item(m, id, Value::from_gc::<TEXT>(new_text(m, id)))),
    }
}

/// The number that [`word`] was made with; what the word leads to is looked at.
fn id_of(word: Value<'_>) -> u64 {
    if let Some(text) = word.as_gc::<TEXT>() {
        return text.check();
    }
    if let Some(item) = word.as_gc::<ITEM>() {
        let text = item.next.get().as_gc::<TEXT>().expect("an item's text");
        assert_eq!(text.check(), item.check());
        return item.check();
    }
    match word.as_immediate() {
        Some(n) => u64::from(n),
        None => word.as_number().expect("the last that it can be") as u64,
    }
}

/// Passes words between the shared places, the place of this thread, and its hand; a new word with
/// the same number takes the place of an old one now and then.
fn pass_words(
    m: &mut Mutator,
    places: &Root<GcArray<(), Place<'static>>>,
    own: u64,
    hand: &mut Frame<Vec<Value<'static>>>,
    random: &mut Random,
    collecting: &Collecting,
) {
    for step in 0.. {
        // On a busy machine until there was a cycle.
        if step >= STEPS && collecting.cycles() > 0 {
            break;
        }
        {
            let all = places.get(m).items();
            let place = &all[random.below(SHARED as usize)];
            let mut hand = hand.enter(m);
            let mine = hand.pop().expect("one word each");
            let got = match random.below(4) {
                0 => place.swap(m, mine),
                1 => {
                    let seen = place.get();
                    match place.compare_exchange(m, seen, mine) {
                        Ok(old) => {
                            assert!(old.is(seen));
                            old
                        }
                        Err(now) => {
                            assert!(!now.is(seen));
                            mine
                        }
                    }
                }
                2 => {
                    let place = &all[own as usize];
                    let old = place.get();
                    place.set(m, mine);
                    old
                }
                _ => word(m, id_of(mine)),
            };
            hand.push(got);
        }
        if step % 16 == 0 {
            m.safepoint();
        }
    }
}

#[test]
fn words_that_threads_swap_are_each_somewhere_once() {
    let seed = seed();
    let heap = checked().build().expect("a heap");
    within(Duration::from_secs(300), || {
        let m = heap.attach().expect("attached");
        let places: Root<GcArray<(), Place<'static>>> =
            m.root(m.alloc_array((), PLACES as usize, |i| GcWord::new(word(&m, i as u64))));
        drop(m);
        let collecting = Collecting::new(&heap);
        let hands: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (heap, places, collecting) = (&heap, &places, &collecting);
                    scope.spawn(move || {
                        let mut m = heap.attach().expect("attached");
                        let mut hand = Frame::new(&m, Vec::new());
                        hand.enter(&m).push(word(&m, PLACES + thread));
                        let mut random = Random::new(seed ^ thread);
                        let own = SHARED + thread;
                        pass_words(&mut m, places, own, &mut hand, &mut random, collecting);
                        id_of(hand.enter(&m).pop().expect("one word each"))
                    })
                })
                .collect();
            let joined = threads.into_iter().map(|t| t.join().expect("no panic"));
            joined.collect()
        });
        drop(collecting);
        let m = heap.attach().expect("attached");
        let places = places.get(&m);
        let all = places.items().iter().map(|place| id_of(place.get()));
        let all: Vec<u64> = all.chain(hands).collect();
        assert_eq!(all.len() as u64, PLACES + THREADS);
        let once: BTreeSet<u64> = all.into_iter().collect();
        assert!(
            once.into_iter().eq(0..PLACES + THREADS),
            "a word was lost or came twice"
        );
        heap.verify().expect("whole");
    });
}

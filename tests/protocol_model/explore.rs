//! The search: breadth first, so the first violation found is one of the shortest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasherDefault, Hasher};

use rayon::prelude::{ParallelIterator, ParallelSlice};

use crate::model::Model;
use crate::state::State;

/// Mixes the bits of a state's number.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a state's number is a u128");
    }

    fn write_u128(&mut self, key: u128) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let low = (key as u64).wrapping_mul(ODD);
        let both = (low ^ low >> 29 ^ (key >> 64) as u64).wrapping_mul(ODD);
        self.0 = both ^ both >> 32;
    }
}

/// Every state seen, with the one that it was first reached from (an initial one: itself).
type Seen = HashMap<u128, u128, BuildHasherDefault<Mix>>;

/// What a search came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) states: usize,
    /// How many steps it takes to the farthest state.
    depth: usize,
    /// States in which the cycle is over.
    pub(crate) ends: usize,
    /// What went wrong, and how it came to it.
    pub(crate) violation: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.violation.as_deref().unwrap_or("nothing is wrong");
        write!(
            f,
            "{} states, depth {}, {} ends: {found}",
            self.states, self.depth, self.ends
        )
    }
}

/// How many states are looked at before what they lead to is entered, and how many of these one
/// thread takes at a time.
const BATCH: usize = 1 << 14;
const PIECE: usize = 1 << 9;

/// What some states look like, up to the first that is wrong.
#[derive(Default)]
struct Look {
    ends: usize,
    /// The number of that state, and what is wrong.
    wrong: Option<(u128, &'static str)>,
    /// What they lead to, but for what had been seen before their batch: the number of the state
    /// that leads there, its own, and itself.
    after: Vec<(u128, u128, State)>,
}

impl Look {
    fn at(model: &Model, states: &[State], seen: &Seen) -> Self {
        let mut look = Self::default();
        for state in states {
            let from = state.key();
            let mut is_stuck = true;
            model.steps(state, &mut |_, next| {
                is_stuck = false;
                let key = next.key();
                if !seen.contains_key(&key) {
                    look.after.push((from, key, next));
                }
            });
            let is_over = model.is_over(state);
            look.ends += usize::from(is_over);
            let stuck = (is_stuck && !is_over).then_some("nobody can go on");
            if let Some(wrong) = model.wrong(state).or(stuck) {
                look.wrong = Some((from, wrong));
                break;
            }
        }
        look
    }
}

/// Visits every state that `model` can come to, up to the first violation. All processors look at
/// the states of a batch; what they found is entered in the order of the states, so the outcome
/// does not depend on who was faster.
pub(crate) fn explore(model: &Model) -> Outcome {
    let mut seen = Seen::default();
    let mut outcome = Outcome::default();
    let mut level = model.initial_states();
    level.retain(|state| seen.insert(state.key(), state.key()).is_none());
    let mut next: Vec<State> = Vec::new();
    while !level.is_empty() {
        for batch in level.chunks(BATCH) {
            let looks: Vec<Look> = batch
                .par_chunks(PIECE)
                .map(|states| Look::at(model, states, &seen))
                .collect();
            for look in looks {
                for (from, key, after) in look.after {
                    if let Entry::Vacant(entry) = seen.entry(key) {
                        entry.insert(from);
                        next.push(after);
                    }
                }
                outcome.ends += look.ends;
                if let Some((key, wrong)) = look.wrong {
                    outcome.violation = Some(trace(model, &seen, key, wrong));
                    outcome.states = seen.len();
                    return outcome;
                }
            }
        }
        outcome.depth += usize::from(!next.is_empty());
        level.clear();
        std::mem::swap(&mut level, &mut next);
    }
    outcome.states = seen.len();
    outcome
}

/// The steps from an initial state to the state numbered `last`, where `wrong` shows. They are
/// taken once more, so that objects and mutators keep their names.
fn trace(model: &Model, seen: &Seen, last: u128, wrong: &str) -> String {
    let mut path = vec![last];
    let mut at = last;
    while seen[&at] != at {
        at = seen[&at];
        path.push(at);
    }
    let first = model.initial_states().into_iter().find(|s| s.key() == at);
    let mut state = first.expect("a path begins at an initial state");
    let mut text = format!("{wrong}\n  at stop 1: {}\n", model.describe(&state));
    for (number, &key) in path.iter().rev().enumerate().skip(1) {
        let mut taken = None;
        model.steps(&state, &mut |label, after| {
            if taken.is_none() && after.key() == key {
                taken = Some((label.to_string(), after));
            }
        });
        let (label, after) = taken.expect("each state of a path is one step from the one before");
        let _ = writeln!(text, "  {number:3}. {label}");
        state = after;
    }
    let _ = writeln!(text, "  in the end: {}", model.describe(&state));
    text
}

//! The search: breadth first, so the first violation found is one of the shortest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasherDefault, Hasher};

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

/// Visits every state that `model` can come to, up to the first violation.
pub(crate) fn explore(model: &Model) -> Outcome {
    let mut seen = Seen::default();
    let mut outcome = Outcome::default();
    let mut level = model.initial_states();
    level.retain(|state| seen.insert(state.key(), state.key()).is_none());
    let mut next: Vec<State> = Vec::new();
    while !level.is_empty() {
        for state in &level {
            let key = state.key();
            let mut is_stuck = true;
            model.steps(state, &mut |_, after| {
                is_stuck = false;
                if let Entry::Vacant(entry) = seen.entry(after.key()) {
                    entry.insert(key);
                    next.push(after);
                }
            });
            let is_over = model.is_over(state);
            outcome.ends += usize::from(is_over);
            let stuck = (is_stuck && !is_over).then_some("nobody can go on");
            if let Some(wrong) = model.wrong(state).or(stuck) {
                outcome.violation = Some(trace(model, &seen, key, wrong));
                outcome.states = seen.len();
                return outcome;
            }
        }
        outcome.depth += usize::from(!next.is_empty());
        level.clear();
        std::mem::swap(&mut level, &mut next);
    }
    outcome.states = seen.len();
    outcome
}

/// The steps from an initial state to the state numbered `last`, where `wrong` shows. They are taken once more, so that
/// objects and mutators keep their names.
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

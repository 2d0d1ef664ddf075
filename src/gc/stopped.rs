//! The right to do what may be done only while the world is stopped, as a type.
//!
//! A function that needs the stop takes a reference to a token. `World` makes the tokens, one for
//! each stop that has succeeded, and takes them back when it ends the stop; nobody else can make
//! one. A comment "the world is stopped" would hold until the first caller that had not read it.
//!
//! | token | made by | who is stopped | what its owner may do |
//! |---|---|---|---|
//! | [`Stopped`] | `World::stop` | every mutator | change the phase |
//! | [`StoppedToRead`] | `World::stop_to_verify` | every mutator but the verifier's own | read the heap |
//!
//! A stop is not a safepoint for everybody: who may be in the middle of a write is another
//! question, which `standstill.rs` answers.

use std::marker::PhantomData;
use std::ops::Deref;

/// Every mutator is stopped, but for the one that verifies. It stays with its thread.
#[derive(Debug)]
pub(crate) struct StoppedToRead<'w>(PhantomData<(&'w (), *const ())>);

impl<'w> StoppedToRead<'w> {
    /// For `World::stop_to_verify`: a token of a stop of `_world`.
    pub(in crate::gc) fn of<W>(_world: &'w W) -> Self {
        Self(PhantomData)
    }
}

/// Every mutator is stopped: the phase may change.
#[derive(Debug)]
pub(crate) struct Stopped<'w>(StoppedToRead<'w>);

impl<'w> Stopped<'w> {
    /// For `World::stop`: a token of a stop of `world`.
    pub(in crate::gc) fn of<W>(world: &'w W) -> Self {
        Self(StoppedToRead::of(world))
    }

    /// For a test that has no world, or nobody in it.
    #[cfg(test)]
    pub(crate) fn in_a_test() -> Self {
        Self(StoppedToRead(PhantomData))
    }
}

impl<'w> Deref for Stopped<'w> {
    type Target = StoppedToRead<'w>;
    fn deref(&self) -> &StoppedToRead<'w> {
        &self.0
    }
}

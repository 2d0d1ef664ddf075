//! The names that the code of `#[derive(Trace)]` needs. They are not for people.
//!
//! The questions that this code puts to the type checker are not here, because a user can choose
//! where a path to this module leads. They are functions of [`Tracer`](crate::Tracer) and of
//! [`Brand`] (`object/questions.rs`).

pub use core;

pub use crate::object::counting::{Counting, external_bytes};
pub use crate::object::questions::{
    Brand, HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead, Is,
    ItImplementsDrop,
};
pub use crate::object::trace::RebrandTarget;

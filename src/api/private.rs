//! The derive macro's door: what the code that `#[derive(Trace)]` writes needs to name. Nothing here is for people.
//!
//! The questions that it puts to the type checker are not here, where a path leads that a user may choose: they are functions
//! of [`Tracer`](crate::Tracer) and of [`Brand`] (`object/questions.rs`).

pub use core;

pub use crate::object::counting::{Counting, external_bytes};
pub use crate::object::questions::{
    Brand, HoldsGc_so_it_must_not_implement_Drop__drop_a_field_without_Gc_instead, Is,
    ItImplementsDrop,
};
pub use crate::object::trace::RebrandTarget;

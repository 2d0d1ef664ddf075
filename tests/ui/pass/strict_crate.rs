//! The strictest crate compiles: no lint sees what the derive writes.
#![no_implicit_prelude]
#![forbid(unsafe_code)]
#![forbid(warnings)]
#![deny(
    missing_docs,
    missing_debug_implementations,
    rust_2018_idioms,
    unused,
    non_local_definitions
)]
#![deny(
    single_use_lifetimes,
    unused_lifetimes,
    unused_qualifications,
    unreachable_pub
)]

use ::greywave::{Gc, GcCell, Trace};
use ::std::boxed::Box;
use ::std::option::Option;
use ::std::vec::Vec;

/// A node.
#[derive(Trace)]
#[expect(missing_debug_implementations, reason = "a cycle has no end")]
pub struct Node<'gc, T> {
    /// An edge.
    pub next: GcCell<'gc, Node<'gc, T>>,
    /// A value.
    pub value: Option<Box<T>>,
    /// More values.
    pub more: Vec<Gc<'gc, T>>,
}

/// A choice.
#[derive(Trace, Debug)]
pub enum Choice {
    /// One of two.
    One(u8),
    /// The other.
    Other {
        /// A number.
        tracer: u8,
    },
}

fn main() {}

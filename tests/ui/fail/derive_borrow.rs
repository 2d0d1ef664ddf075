//! A heap object owns what it holds. All mistakes of a type are reported at once.
use std::borrow::Cow;
use std::marker::PhantomData;

use greywave::{Gc, Trace};

#[derive(Trace)]
struct Node<'gc> {
    text: &'gc str,
    many: Vec<Option<&'gc mut u8>>,
    pointer: *const u8,
    stale: Gc<'static, u8>,
    hook: fn(Gc<'gc, u8>),
    fine: &'static str,
    also_fine: PhantomData<&'gc str>,
}

#[derive(Trace)]
struct Borrowed<'a> {
    text: Cow<'a, str>,
}

fn main() {}

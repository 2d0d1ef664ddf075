//! Bounds that the derive cannot use say what to write instead.
use greywave::{Collect, Gc, Trace};

#[derive(Trace)]
struct Bounded<T: Collect>(T);

trait Language<'gc> {
    type Value;
}

#[derive(Trace)]
struct Object<'gc, L: Language<'gc>> {
    fields: Vec<L::Value>,
    class: Gc<'gc, u8>,
}

fn main() {}

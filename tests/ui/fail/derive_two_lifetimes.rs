use greywave::{Gc, Trace};

#[derive(Trace)]
struct Node<'gc, 'a, 'b> {
    next: Gc<'gc, Node<'gc, 'a, 'b>>,
    name: &'a str,
    other: Gc<'b, u8>,
}

fn main() {}

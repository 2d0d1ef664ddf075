//! A value that borrows from the stack cannot be allocated, in whatever it is hidden.
use std::marker::PhantomData;

use greywave::{Heap, Trace};

#[derive(Trace)]
struct Marker<T>(PhantomData<T>);

fn main() {
    let heap = Heap::new();
    let m = heap.attach().unwrap();

    let local = 1;
    m.alloc(&local);
    m.alloc(vec![&local]);
    fn marked<T>(_: &T) -> Marker<T> {
        Marker(PhantomData)
    }
    m.alloc(marked(&&local));
}

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;

use greywave::{Gc, Trace};

#[derive(Trace)]
struct Node<'gc> {
    count: RefCell<u32>,
    next: Gc<'gc, u8>,
}

#[derive(Trace)]
enum Kind {
    Shared(Rc<u8>),
}

struct Foreign;

#[derive(Trace)]
struct Generic<T> {
    held: T,
    foreign: Foreign,
}

#[derive(Trace)]
struct Locked<'gc>(Mutex<Gc<'gc, u8>>);

fn main() {}

//! A skipped field holds no `Gc`.
use std::cell::Cell;
use std::sync::Arc;

use greywave::{Gc, GcCell, Trace};

#[derive(Trace)]
struct Pointer<'gc> {
    #[trace(skip)]
    next: Gc<'gc, u8>,
}

#[derive(Trace)]
enum Stale<'gc> {
    Cell {
        #[trace(skip)]
        cell: GcCell<'static, u8>,
        next: Gc<'gc, u8>,
    },
}

#[derive(Trace)]
struct NotShared {
    #[trace(skip)]
    count: Cell<u32>,
}

#[derive(Trace)]
struct Both<T> {
    held: T,
    #[trace(skip)]
    skipped: Arc<T>,
}

fn main() {}

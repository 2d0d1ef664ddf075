//! A type that may hold a `Gc` cannot implement `Drop`.
use greywave::{Gc, Trace};

#[derive(Trace)]
struct Node<'gc> {
    next: Option<Gc<'gc, Node<'gc>>>,
}

impl Drop for Node<'_> {
    fn drop(&mut self) {}
}

#[derive(Trace)]
enum Held<T> {
    Value(T),
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {}
}

#[derive(Trace)]
struct Item<I: Iterator> {
    item: I::Item,
}

impl<I: Iterator> Drop for Item<I> {
    fn drop(&mut self) {}
}

#[derive(Trace)]
#[edits::becomes(struct DropAdded<'gc> { seen: Gc<'gc, u8> } impl Drop for DropAdded<'_> { fn drop(&mut self) {} })]
struct DropAdded<'gc> {
    seen: Gc<'gc, u8>,
}

fn main() {}

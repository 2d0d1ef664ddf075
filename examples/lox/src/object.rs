//! The objects of the language, each an object of the heap.
//!
//! What never changes is a plain field. What changes is a [`Slot`] or a cell of greywave, so that
//! other threads and the marker may read it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use greywave::{Gc, GcArray, GcOnce, Trace};

use crate::native::Native;
use crate::op::Op;
use crate::proto::Capture;
use crate::shape::Shape;
use crate::thread::{ChannelSync, ThreadSync};
use crate::value::{Slot, Value};

/// A string: its hash and its UTF-8 bytes. Strings of one program with the same text are one
/// object.
pub(crate) type Text = GcArray<u64, u8>;

/// A global variable.
#[derive(Debug, Trace)]
pub(crate) struct Global<'gc> {
    pub(crate) name: Gc<'gc, Text>,
    pub(crate) value: Slot<'gc>,
}

/// A place in the code that uses a property, and what it found there last.
#[derive(Debug, Trace)]
pub(crate) struct Site<'gc> {
    pub(crate) name: Gc<'gc, Text>,
    /// See `shape.rs`.
    pub(crate) cache: AtomicU64,
}

/// A function without what it captures.
#[derive(Debug, Trace)]
pub(crate) struct Function<'gc> {
    pub(crate) name: Option<Gc<'gc, Text>>,
    pub(crate) arity: u8,
    #[trace(skip)]
    pub(crate) code: Box<[Op]>,
    pub(crate) lines: Box<[u32]>,
    pub(crate) constants: Box<[Value<'gc>]>,
    pub(crate) globals: Box<[Gc<'gc, Global<'gc>>]>,
    pub(crate) sites: Box<[Site<'gc>]>,
    pub(crate) names: Box<[Gc<'gc, Text>]>,
    pub(crate) functions: Box<[Gc<'gc, Function<'gc>>]>,
    #[trace(skip)]
    pub(crate) captures: Box<[Capture]>,
}

/// A function, and the values or boxes of the variables it captured.
pub(crate) type Closure<'gc> = GcArray<Gc<'gc, Function<'gc>>, Value<'gc>>;

/// The box of a captured variable that is assigned to.
#[derive(Debug, Trace)]
pub(crate) struct Cell<'gc> {
    pub(crate) value: Slot<'gc>,
}

/// A method under its name.
#[derive(Clone, Copy, Debug, Trace)]
pub(crate) struct Method<'gc> {
    pub(crate) name: Gc<'gc, Text>,
    pub(crate) closure: Gc<'gc, Closure<'gc>>,
}

/// A class. It is made whole when its declaration ends, so nothing in it needs a lock.
#[derive(Debug, Trace)]
pub(crate) struct Class<'gc> {
    pub(crate) name: Gc<'gc, Text>,
    /// Its own methods and the inherited ones, in the order of the addresses of their names.
    pub(crate) methods: Box<[Method<'gc>]>,
    pub(crate) init: Option<Gc<'gc, Closure<'gc>>>,
    /// The shape of an object without fields.
    pub(crate) shape: GcOnce<'gc, Shape<'gc>>,
    /// The most fields that an object of this class has had: room that new ones get at once.
    pub(crate) room: AtomicU32,
    /// What the caches know the class by.
    pub(crate) id: u32,
}

/// The fixed part of an object.
#[derive(Debug, Trace)]
pub(crate) struct InstanceHead<'gc> {
    /// Which fields it has, and where.
    pub(crate) shape: greywave::GcCell<'gc, Shape<'gc>>,
    /// The fields that the room at its end has no place for.
    pub(crate) more: greywave::GcCell<'gc, Fields<'gc>>,
}

/// An object: the head and its first fields.
pub(crate) type Instance<'gc> = GcArray<InstanceHead<'gc>, Slot<'gc>>;

/// More fields of an object, and a link to still more.
pub(crate) type Fields<'gc> = GcArray<MoreFields<'gc>, Slot<'gc>>;

/// The link from some fields to more.
#[derive(Debug, Trace)]
pub(crate) struct MoreFields<'gc>(pub(crate) greywave::GcCell<'gc, Fields<'gc>>);

/// A method with the object it was taken from.
#[derive(Debug, Trace)]
pub(crate) struct Bound<'gc> {
    pub(crate) receiver: Value<'gc>,
    pub(crate) method: Gc<'gc, Closure<'gc>>,
}

/// What Lox knows by name only.
#[derive(Debug, Trace)]
pub(crate) enum Foreign<'gc> {
    /// A native function.
    Native(#[trace(skip)] Native),
    /// A thread, and what its function returned.
    Thread {
        /// Whether it has ended.
        #[trace(skip)]
        sync: Arc<ThreadSync>,
        /// The result.
        result: Slot<'gc>,
    },
    /// A channel.
    Channel {
        /// Who waits, and where the next value goes.
        #[trace(skip)]
        sync: Arc<ChannelSync>,
        /// The values on their way.
        ring: Gc<'gc, GcArray<(), Slot<'gc>>>,
    },
}

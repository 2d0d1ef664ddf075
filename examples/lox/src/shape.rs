//! Shapes: which fields an object has, and in which of its slots.
//!
//! Objects of a class that got the same fields in the same order have the same shape. A place in
//! the code that uses a property remembers the shape it saw and what it found ([`Site::cache`]);
//! when the next object has that shape, no name is compared.
//!
//! Threads may add fields to one object at the same time. A field is added by an exchange of the
//! shape, so each gets a slot of its own; slots never move. Between the exchange and the first
//! store the slot is `Undefined`, and a reader takes the field for one that is not there yet.

use std::sync::atomic::{AtomicU32, Ordering};

use greywave::{Gc, GcCell, GcLock, Mutator, Trace};

use crate::object::{Class, Closure, Fields, Instance, InstanceHead, MoreFields, Site, Text};
use crate::value::{Slot, Value};

/// Which fields an object has: those of the parent, and one more.
#[derive(Debug, Trace)]
pub(crate) struct Shape<'gc> {
    pub(crate) class: Gc<'gc, Class<'gc>>,
    parent: Option<Gc<'gc, Shape<'gc>>>,
    /// The name of the last field.
    name: Option<Gc<'gc, Text>>,
    /// How many fields there are; the last one is in slot `count - 1`.
    count: u32,
    /// What the caches know the shape by; 0: not to be cached.
    id: u32,
    /// The first shape that was made from this one by adding a field.
    next: GcCell<'gc, Shape<'gc>>,
    /// The others.
    others: GcLock<Vec<Gc<'gc, Shape<'gc>>>>,
}

/// A number that no other shape or class has; 0 when they have run out.
pub(crate) fn fresh_id() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let next = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        last.checked_add(1)
    });
    next.map_or(0, |last| last + 1)
}

impl<'gc> Shape<'gc> {
    /// The shape of a class's objects without fields.
    pub(crate) fn root(m: &'gc Mutator, class: Gc<'gc, Class<'gc>>) -> Gc<'gc, Self> {
        m.alloc(Self {
            class,
            parent: None,
            name: None,
            count: 0,
            id: fresh_id(),
            next: GcCell::null(),
            others: GcLock::new(Vec::new()),
        })
    }

    /// The slot of the field `name`.
    fn find(this: Gc<'gc, Self>, name: Gc<'gc, Text>) -> Option<u32> {
        let mut shape = Some(this);
        while let Some(here) = shape {
            if here.name.is_some_and(|n| n.ptr_eq(name)) {
                return Some(here.count - 1);
            }
            shape = here.parent;
        }
        None
    }

    /// The shape with one field more.
    #[inline]
    fn with(m: &'gc Mutator, this: Gc<'gc, Self>, name: Gc<'gc, Text>) -> Gc<'gc, Self> {
        match this.next.get() {
            Some(next) if next.name.is_some_and(|n| n.ptr_eq(name)) => next,
            _ => Self::with_slow(m, this, name),
        }
    }

    #[cold]
    #[inline(never)]
    fn with_slow(m: &'gc Mutator, this: Gc<'gc, Self>, name: Gc<'gc, Text>) -> Gc<'gc, Self> {
        let mut others = this.others.write(m);
        let known = this.next.get().into_iter().chain(others.iter().copied());
        for shape in known {
            if shape.name.is_some_and(|n| n.ptr_eq(name)) {
                return shape;
            }
        }
        let new = m.alloc(Self {
            class: this.class,
            parent: Some(this),
            name: Some(name),
            count: this.count + 1,
            id: fresh_id(),
            next: GcCell::null(),
            others: GcLock::new(Vec::new()),
        });
        if this.next.get().is_none() {
            this.next.set(m, new);
        } else {
            others.push(new);
        }
        new
    }
}

// ---- caches -------------------------------------------------------------------------------------

/// In a cache word: the index is a method's, not a slot's. The word is the id of a shape (or
/// class), this, an index.
const METHOD: u64 = 1 << 31;

fn cache_word(id: u32, index: usize, flags: u64) -> u64 {
    match u32::try_from(index) {
        Ok(index) if id != 0 && u64::from(index) < METHOD => {
            u64::from(id) << 32 | flags | u64::from(index)
        }
        _ => 0,
    }
}

/// What the site found in objects of `shape`: an index with or without [`METHOD`].
#[inline(always)]
fn cached(site: &Site<'_>, id: u32) -> Option<u64> {
    // Relaxed: one word that means the same wherever it is read.
    let word = site.cache.load(Ordering::Relaxed);
    ((word >> 32) as u32 == id).then_some(word & 0xffff_ffff)
}

fn remember(site: &Site<'_>, word: u64) {
    // Relaxed: as above.
    site.cache.store(word, Ordering::Relaxed);
}

/// What an object has under a name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Property<'gc> {
    Field(Value<'gc>),
    Method(Gc<'gc, Closure<'gc>>),
}

/// The object's field at `site`, if the site has seen objects like it.
#[inline(always)]
pub(crate) fn cached_field<'gc>(
    object: Gc<'gc, Instance<'gc>>,
    site: &Site<'gc>,
) -> Option<Value<'gc>> {
    let shape = object.header().shape.get()?;
    let index = cached(site, shape.id)?;
    if index >= METHOD {
        return None;
    }
    let value = slot(object, index as usize)?.get();
    (!value.is_undefined()).then_some(value)
}

/// The method of the object's class at `site`, if the site has seen objects like it.
#[inline(always)]
pub(crate) fn cached_method<'gc>(
    object: Gc<'gc, Instance<'gc>>,
    site: &Site<'gc>,
) -> Option<Gc<'gc, Closure<'gc>>> {
    let shape = object.header().shape.get()?;
    cached_method_of(shape.class, shape.id, site)
}

/// The method of the superclass at `site`, if the site has seen that class.
#[inline(always)]
pub(crate) fn cached_super<'gc>(
    class: Gc<'gc, Class<'gc>>,
    site: &Site<'gc>,
) -> Option<Gc<'gc, Closure<'gc>>> {
    cached_method_of(class, class.id, site)
}

/// The method of `class` that `site` remembers for `id`.
#[inline(always)]
fn cached_method_of<'gc>(
    class: Gc<'gc, Class<'gc>>,
    id: u32,
    site: &Site<'gc>,
) -> Option<Gc<'gc, Closure<'gc>>> {
    // A slot's index is larger than any class.
    let index = cached(site, id)? ^ METHOD;
    let method = class.as_ref().methods.get(index as usize)?;
    Some(method.closure)
}

/// Looks the property up by its name, and lets the site remember where it was.
#[inline(never)]
pub(crate) fn find_property<'gc>(
    object: Gc<'gc, Instance<'gc>>,
    site: &Site<'gc>,
) -> Option<Property<'gc>> {
    let shape = object.header().shape.get()?;
    if let Some(index) = Shape::find(shape, site.name)
        && let Some(slot) = slot(object, index as usize)
    {
        let value = slot.get();
        if !value.is_undefined() {
            remember(site, cache_word(shape.id, index as usize, 0));
            return Some(Property::Field(value));
        }
    }
    let index = shape.class.find_method(site.name)?;
    remember(site, cache_word(shape.id, index, METHOD));
    Some(Property::Method(shape.class.methods[index].closure))
}

/// As [`find_property`], for `super.name`.
#[inline(never)]
pub(crate) fn find_super<'gc>(
    class: Gc<'gc, Class<'gc>>,
    site: &Site<'gc>,
) -> Option<Gc<'gc, Closure<'gc>>> {
    let index = class.find_method(site.name)?;
    remember(site, cache_word(class.id, index, METHOD));
    Some(class.methods[index].closure)
}

impl<'gc> Class<'gc> {
    /// The index of the method `name`.
    pub(crate) fn find_method(&self, name: Gc<'gc, Text>) -> Option<usize> {
        let key = name.as_ptr().addr();
        self.methods
            .binary_search_by_key(&key, |method| method.name.as_ptr().addr())
            .ok()
    }
}

// ---- fields -------------------------------------------------------------------------------------

/// A new object of the class, without fields.
#[inline]
pub(crate) fn new_instance<'gc>(
    m: &'gc Mutator,
    class: Gc<'gc, Class<'gc>>,
) -> Gc<'gc, Instance<'gc>> {
    let head = InstanceHead {
        shape: GcCell::new(class.as_ref().shape.get()),
        more: GcCell::null(),
    };
    // Relaxed: a guess.
    let room = class.room.load(Ordering::Relaxed) as usize;
    m.alloc_array(head, room, |_| Slot::new(Value::UNDEFINED))
}

/// The slot at `index`, if the object has room for it.
#[inline(always)]
fn slot<'gc>(object: Gc<'gc, Instance<'gc>>, index: usize) -> Option<&'gc Slot<'gc>> {
    match object.items().get(index) {
        Some(slot) => Some(slot),
        None => slot_in_more(object, index),
    }
}

#[cold]
#[inline(never)]
fn slot_in_more<'gc>(object: Gc<'gc, Instance<'gc>>, index: usize) -> Option<&'gc Slot<'gc>> {
    let mut index = index - object.items().len();
    let mut link = &object.header().more;
    loop {
        let fields = link.get()?;
        match fields.items().get(index) {
            Some(slot) => return Some(slot),
            None => index -= fields.items().len(),
        }
        link = &fields.header().0;
    }
}

/// Makes room for the slot at `index`.
fn make_room<'gc>(m: &'gc Mutator, object: Gc<'gc, Instance<'gc>>, index: usize) -> &'gc Slot<'gc> {
    loop {
        if let Some(slot) = slot(object, index) {
            return slot;
        }
        let mut link = &object.header().more;
        let mut len = 4;
        while let Some(fields) = link.get() {
            link = &fields.header().0;
            len = fields.items().len() * 2;
        }
        let fields: Gc<'gc, Fields<'gc>> = m.alloc_array(MoreFields(GcCell::null()), len, |_| {
            Slot::new(Value::UNDEFINED)
        });
        // If another thread was quicker, its room will do.
        let _ = link.compare_exchange(m, None, Some(fields));
    }
}

/// Sets the object's field at `site`, if the site has seen objects like it.
#[inline(always)]
pub(crate) fn set_cached_field<'gc>(
    m: &'gc Mutator,
    object: Gc<'gc, Instance<'gc>>,
    site: &Site<'gc>,
    value: Value<'gc>,
) -> bool {
    let Some(shape) = object.header().shape.get() else {
        return false;
    };
    if let Some(index) = cached(site, shape.id)
        && index < METHOD
        && let Some(slot) = slot(object, index as usize)
    {
        slot.set(m, value);
        return true;
    }
    // A field that objects of this shape usually get next.
    if let Some(next) = shape.next.get()
        && next.name.is_some_and(|name| name.ptr_eq(site.name))
        && let Some(slot) = object.items().get(shape.count as usize)
    {
        return add_field(m, object, shape, next, slot, value);
    }
    false
}

#[inline(always)]
fn add_field<'gc>(
    m: &'gc Mutator,
    object: Gc<'gc, Instance<'gc>>,
    shape: Gc<'gc, Shape<'gc>>,
    next: Gc<'gc, Shape<'gc>>,
    slot: &Slot<'gc>,
    value: Value<'gc>,
) -> bool {
    let exchanged = object
        .header()
        .shape
        .compare_exchange(m, Some(shape), Some(next));
    if exchanged.is_ok() {
        slot.set(m, value);
    }
    exchanged.is_ok()
}

/// Sets a field by its name, adding it if it is new, and lets the site remember where it was.
#[inline(never)]
pub(crate) fn set_field<'gc>(
    m: &'gc Mutator,
    object: Gc<'gc, Instance<'gc>>,
    site: &Site<'gc>,
    value: Value<'gc>,
) {
    while let Some(shape) = object.header().shape.get() {
        if let Some(index) = Shape::find(shape, site.name)
            && let Some(slot) = slot(object, index as usize)
        {
            remember(site, cache_word(shape.id, index as usize, 0));
            slot.set(m, value);
            return;
        }
        let next = Shape::with(m, shape, site.name);
        let slot = make_room(m, object, shape.count as usize);
        if add_field(m, object, shape, next, slot, value) {
            // Relaxed: a guess for new objects.
            shape.class.room.fetch_max(next.count, Ordering::Relaxed);
            return;
        }
    }
}

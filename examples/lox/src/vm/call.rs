//! What happens at a call before the callee runs, and how classes come to be.

use std::sync::atomic::{AtomicU32, Ordering};

use greywave::{Gc, GcOnce, Mutator};

use super::ops::{self, Result};
use super::{ClassDraft, MAX_FRAMES};
use crate::error::RuntimeError;
use crate::native::{Native, Outcome};
use crate::object::{Class, Closure, Foreign, Function, Method, Text};
use crate::proto::Capture;
use crate::shape::{self, Shape};
use crate::strings::text_of;
use crate::thread::Shared;
use crate::value::Value;

/// What a call of a value that is not a closure comes to.
pub(super) enum Called<'m> {
    /// This closure is to run; the value goes to its register 0.
    Closure(Gc<'m, Closure<'m>>, Value<'m>),
    /// The call is over.
    Result(Value<'m>),
    /// A native function waits.
    Wait(crate::thread::Wait),
}

/// Calls anything.
#[inline(never)]
pub(super) fn call_value<'m>(
    m: &'m Mutator,
    shared: &Shared,
    callee: Value<'m>,
    arguments: &[Value<'m>],
) -> Result<Called<'m>> {
    if let Some(closure) = callee.as_closure() {
        return Ok(Called::Closure(closure, callee));
    }
    if let Some(class) = callee.as_class() {
        return call_class(m, class, arguments.len());
    }
    if let Some(bound) = callee.as_bound() {
        return Ok(Called::Closure(bound.method, bound.receiver));
    }
    match callee.as_foreign().map(Gc::as_ref) {
        Some(Foreign::Native(native)) => call_native(m, shared, *native, arguments),
        _ => Err(Box::new(RuntimeError::NotCallable(ops::kind_of(callee)))),
    }
}

/// Makes an object; its initializer is to run.
#[inline(always)]
pub(super) fn call_class<'m>(
    m: &'m Mutator,
    class: Gc<'m, Class<'m>>,
    count: usize,
) -> Result<Called<'m>> {
    let object = Value::instance(shape::new_instance(m, class));
    match class.as_ref().init {
        Some(init) => Ok(Called::Closure(init, object)),
        None if count == 0 => Ok(Called::Result(object)),
        None => Err(Box::new(RuntimeError::Arity {
            name: "init".to_owned(),
            expected: 0,
            got: count,
        })),
    }
}

fn call_native<'m>(
    m: &'m Mutator,
    shared: &Shared,
    native: Native,
    arguments: &[Value<'m>],
) -> Result<Called<'m>> {
    match native.call(m, shared, arguments)? {
        Outcome::Value(value) => Ok(Called::Result(value)),
        Outcome::Wait(wait) => Ok(Called::Wait(wait)),
    }
}

/// Why a closure cannot be entered: too many calls, or the wrong number of arguments.
#[cold]
#[inline(never)]
pub(super) fn refusal(function: &Function<'_>, count: usize, frames: usize) -> Box<RuntimeError> {
    if usize::from(function.arity) == count && frames >= MAX_FRAMES {
        return Box::new(RuntimeError::StackOverflow);
    }
    Box::new(RuntimeError::Arity {
        name: function.name.map_or_else(String::new, text_of),
        expected: usize::from(function.arity),
        got: count,
    })
}

/// A closure of `function`, made by `maker` with these registers.
#[inline(never)]
pub(super) fn make_closure<'m>(
    m: &'m Mutator,
    function: Gc<'m, Function<'m>>,
    maker: Gc<'m, Closure<'m>>,
    registers: &[Value<'m>],
) -> Value<'m> {
    let captures = &function.as_ref().captures;
    Value::closure(
        m.alloc_array(function, captures.len(), |i| match captures[i] {
            Capture::Register(reg) => registers[usize::from(reg)],
            Capture::Captured(index) => maker.items()[usize::from(index)],
        }),
    )
}

// ---- classes ------------------------------------------------------------------------------------

/// A class declaration begins.
pub(super) fn begin_class<'m>(
    name: Gc<'m, Text>,
    superclass: Option<Value<'m>>,
) -> Result<ClassDraft<'m>> {
    let Some(value) = superclass else {
        return Ok(ClassDraft {
            name,
            room: 0,
            methods: Vec::new(),
        });
    };
    match value.as_class() {
        Some(class) => Ok(ClassDraft {
            name,
            // Relaxed: a guess.
            room: class.room.load(Ordering::Relaxed),
            methods: class.methods.to_vec(),
        }),
        None => Err(Box::new(RuntimeError::NotAClass(ops::kind_of(value)))),
    }
}

impl<'m> ClassDraft<'m> {
    /// Adds a method, in the place of an inherited one if there is one.
    pub(super) fn add(&mut self, method: Method<'m>) {
        match self.methods.iter_mut().find(|m| m.name.ptr_eq(method.name)) {
            Some(old) => *old = method,
            None => self.methods.push(method),
        }
    }

    /// The class.
    pub(super) fn finish(
        mut self,
        m: &'m Mutator,
        init: Option<Gc<'m, Text>>,
        fields: u32,
    ) -> Value<'m> {
        self.methods.sort_by_key(|m| m.name.as_ptr().addr());
        let initializer = self
            .methods
            .iter()
            .find(|m| init.is_some_and(|init| init.ptr_eq(m.name)));
        let class = m.alloc(Class {
            name: self.name,
            init: initializer.map(|m| m.closure),
            methods: self.methods.into_boxed_slice(),
            shape: GcOnce::empty(),
            room: AtomicU32::new(self.room + fields),
            id: shape::fresh_id(),
        });
        let _ = class.shape.set(m, Shape::root(m, class));
        Value::class(class)
    }
}

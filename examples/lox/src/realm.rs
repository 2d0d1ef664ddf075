//! What the functions of one program have in common: strings, global variables, and how a compiled
//! function is put into the heap.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use greywave::{Gc, GcLock, Mutator, Trace};

use crate::native::Native;
use crate::object::{Closure, Foreign, Function, Global, Site, Text};
use crate::proto::{Constant, Proto};
use crate::strings::Strings;
use crate::value::{Slot, Value};

/// A program's world.
#[derive(Debug, Trace)]
pub(crate) struct Realm<'gc> {
    pub(crate) strings: Strings<'gc>,
    globals: GcLock<HashMap<String, Gc<'gc, Global<'gc>>>>,
    /// The name of initializers; set with the first string.
    pub(crate) init: greywave::GcOnce<'gc, Text>,
}

impl<'gc> Realm<'gc> {
    /// A world that knows the native functions.
    pub(crate) fn new(m: &'gc Mutator) -> Gc<'gc, Self> {
        let realm = m.alloc(Self {
            strings: Strings::new(),
            globals: GcLock::new(HashMap::new()),
            init: greywave::GcOnce::empty(),
        });
        let _ = realm.init.set(m, realm.strings.intern(m, b"init"));
        for native in Native::ALL {
            let value = Value::foreign(m.alloc(Foreign::Native(native)));
            realm.global(m, native.name()).value.set(m, value);
        }
        realm
    }

    /// The global variable of this name, defined or not.
    pub(crate) fn global(&self, m: &'gc Mutator, name: &str) -> Gc<'gc, Global<'gc>> {
        if let Some(&global) = self.globals.read().get(name) {
            return global;
        }
        let text = self.strings.intern(m, name.as_bytes());
        *self
            .globals
            .write(m)
            .entry(name.to_owned())
            .or_insert_with(|| {
                m.alloc(Global {
                    name: text,
                    value: Slot::new(Value::UNDEFINED),
                })
            })
    }

    /// Puts a function into the heap.
    pub(crate) fn load(&self, m: &'gc Mutator, proto: &Proto) -> Gc<'gc, Function<'gc>> {
        let text = |name: &str| self.strings.intern(m, name.as_bytes());
        let constant = |constant: &Constant| match constant {
            Constant::Number(number) => Value::number(*number),
            Constant::Text(name) => Value::text(text(name)),
        };
        let site = |name| Site {
            name,
            cache: AtomicU64::new(0),
        };
        m.alloc(Function {
            name: proto.name.as_deref().map(text),
            arity: proto.arity,
            code: proto.code.as_slice().into(),
            lines: proto.lines.as_slice().into(),
            constants: proto.constants.iter().map(constant).collect(),
            globals: proto.globals.iter().map(|n| self.global(m, n)).collect(),
            sites: proto.sites.iter().map(|n| site(text(n))).collect(),
            names: proto.names.iter().map(|n| text(n)).collect(),
            functions: proto.functions.iter().map(|f| self.load(m, f)).collect(),
            captures: proto.captures.as_slice().into(),
        })
    }

    /// Puts a function that captures nothing into the heap.
    pub(crate) fn load_closure(&self, m: &'gc Mutator, proto: &Proto) -> Gc<'gc, Closure<'gc>> {
        m.alloc_array(self.load(m, proto), 0, |_| Value::NIL)
    }
}

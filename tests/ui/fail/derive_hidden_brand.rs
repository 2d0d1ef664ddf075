//! Every field changes its brand with its type. What hides its brand from the derive does not hide it from the type
//! checker.
use greywave::{Collect, Gc, Trace};

type Stale = Gc<'static, u8>;
type Hook<'a> = fn(Gc<'a, u8>);

/// Would be taken for a type that holds no `Gc`.
#[derive(Trace)]
struct Unbranded {
    stale: Stale,
}

/// Would keep a `Gc` of a brand that is gone.
#[derive(Trace)]
struct Branded<'gc> {
    stale: Option<Stale>,
    fresh: Gc<'gc, u8>,
}

/// Would call a function with a `Gc` of a brand that it is not for.
#[derive(Trace)]
struct Hooked<'gc> {
    hook: Hook<'gc>,
    fresh: Gc<'gc, u8>,
}

macro_rules! hook {
    () => {
        Hook<'gc>
    };
}

/// The same, by a macro.
#[derive(Trace)]
struct HookedByMacro<'gc> {
    hook: hook!(),
    fresh: Gc<'gc, u8>,
}

/// Not what their names say.
mod false_friends {
    #[derive(greywave::Trace)]
    pub struct PhantomData<T>(pub T);
    #[derive(greywave::Trace)]
    pub struct Arc<T>(pub T);
}

#[derive(Trace)]
struct Phantom<T: Trace>(false_friends::PhantomData<T>);

#[derive(Trace)]
struct Shared<T: Trace>(false_friends::Arc<T>);

/// Holds a `T` that its bound does not speak of.
#[derive(Trace)]
#[trace(bound = "")]
struct Unbounded<T: Trace>(T);

fn collect<T: Collect>() {}

fn main() {
    collect::<Shared<u8>>();
    collect::<Shared<Gc<'static, u8>>>();
}

//! A path that leads to the real traits beside checks of somebody else's: the checks are not found by that path.

use std::cell::{Cell, RefCell};

use greywave::{Gc, Trace};

/// The real traits, and what looks like the derive's door.
mod near {
    pub use greywave::{Rebrand, Trace, Tracer};
    pub mod __private {
        pub use greywave::__private::{Brand, Counting, core, external_bytes};
        pub fn a_skipped_field_must_be_send_sync_and_static<F: ?Sized>(_: &mut F) {}
        pub fn a_type_that_may_hold_a_gc_must_not_implement_drop<T: ?Sized>() {}
    }
}

/// Functions of the same names on what the real types point to, by a trait that is in scope.
trait Obliging: Sized {
    fn a_skipped_field_must_be_send_sync_and_static<F: ?Sized>(_: &F) {}
    fn a_function_pointer_must_be_send_and_sync<F: ?Sized>(_: &F) {}
    fn a_field_must_be_rebranded_with_its_type<F: ?Sized, To: ?Sized>(_: &mut F, _: &mut To) {}
}
impl<T> Obliging for T {}

#[derive(Trace)]
#[trace(crate = near)]
struct Hides<'gc> {
    #[trace(skip)]
    hidden: RefCell<Option<Gc<'gc, u8>>>,
}

#[derive(Trace)]
#[trace(crate = near)]
struct Drops<'gc>(Gc<'gc, u8>);
impl Drop for Drops<'_> {
    fn drop(&mut self) {}
}

#[derive(Trace)]
#[trace(crate = near)]
struct Keeps {
    kept: Keeper,
}
type Keeper = Gc<'static, u8>;

/// The questions are asked of another type.
mod other_brand {
    pub use greywave::{Rebrand, Trace, Tracer};
    pub mod __private {
        pub use greywave::__private::{Counting, core, external_bytes};
        pub struct Brand<'b>(&'b ());
        impl Brand<'_> {
            pub fn a_field_must_be_rebranded_with_its_type<F, To>(_: &mut F, _: &mut To) {}
        }
    }
}

#[derive(Trace)]
#[trace(crate = other_brand)]
struct Unasked(u8);

mod other_tracer {
    pub use greywave::{__private, Rebrand, Trace};
    pub struct Tracer<'a>(&'a ());
    impl Tracer<'_> {
        pub fn a_skipped_field_must_be_send_sync_and_static<F>(_: &F) {}
    }
}

#[derive(Trace)]
#[trace(crate = other_tracer)]
struct UnaskedToo(#[trace(skip)] Cell<u8>);

fn main() {}

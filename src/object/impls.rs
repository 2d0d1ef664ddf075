//! `Trace` and `Rebrand` for the types of the standard library.
//!
//! There are three groups. *Leaves* hold no `Gc` and are `Send + Sync`. *Shared* types (`Arc`, the
//! locks of `std`, `&'static T`) are allowed if their content is `Send + Sync + 'static`; a `Gc` is
//! neither `Send` nor `Sync`, so no `Gc` can be inside. *Containers* own their items, and trace
//! each item.

#![allow(clippy::disallowed_types, reason = "std's locks are named, not used")]

use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use crate::object::counting::{Counting, external_bytes};
use crate::object::trace::{Rebrand, Trace, Tracer};

macro_rules! leaf {
    ($($(#[$m:meta])* [$($p:tt)*] $t:ty;)*) => { $(
        // SAFETY: 1. to 4. and 6. the type holds no `Gc` and is Send + Sync by its bounds. 5.
        // `trace` does nothing.
        $(#[$m])* unsafe impl<$($p)*> Trace for $t {
            const NEEDS_TRACE: bool = false;
            #[inline]
            fn trace(&self, _: &mut Tracer<'_>) {}
        }
    )* };
}

macro_rules! leaf_sized {
    ($($(#[$m:meta])* [$($p:tt)*] $t:ty;)*) => { $(
        leaf! { $(#[$m])* [$($p)*] $t; }
        // SAFETY: the type has no brand, so it is its own rebranding.
        $(#[$m])* unsafe impl<'b, $($p)*> Rebrand<'b> for $t
        where
            $t: 'b,
        {
            type To = Self;
        }
    )* };
}

leaf_sized! {
    [] (); [] bool; [] char;
    [] u8; [] u16; [] u32; [] u64; [] u128; [] usize;
    [] i8; [] i16; [] i32; [] i64; [] i128; [] isize;
    [] f32; [] f64;
    [] std::num::NonZeroU8; [] std::num::NonZeroU16; [] std::num::NonZeroU32; [] std::num::NonZeroU64;
    [] std::num::NonZeroU128; [] std::num::NonZeroUsize;
    [] std::num::NonZeroI8; [] std::num::NonZeroI16; [] std::num::NonZeroI32; [] std::num::NonZeroI64;
    [] std::num::NonZeroI128; [] std::num::NonZeroIsize;
    [] std::sync::atomic::AtomicBool;
    [] std::sync::atomic::AtomicU8; [] std::sync::atomic::AtomicU16; [] std::sync::atomic::AtomicU32;
    [] std::sync::atomic::AtomicU64; [] std::sync::atomic::AtomicUsize;
    [] std::sync::atomic::AtomicI8; [] std::sync::atomic::AtomicI16; [] std::sync::atomic::AtomicI32;
    [] std::sync::atomic::AtomicI64; [] std::sync::atomic::AtomicIsize;
    [] std::cmp::Ordering; [] std::sync::atomic::Ordering;
    [] std::time::Duration; [] std::time::Instant; [] std::time::SystemTime;
    [] std::net::IpAddr; [] std::net::Ipv4Addr; [] std::net::Ipv6Addr;
    [] std::net::SocketAddr; [] std::net::SocketAddrV4; [] std::net::SocketAddrV6;
    [] std::net::TcpStream; [] std::net::TcpListener; [] std::net::UdpSocket;
    [] std::fs::File; [] std::io::Error;
    [] std::any::TypeId; [] std::thread::ThreadId; [] std::alloc::Layout;
    [] std::hash::RandomState; [H] std::hash::BuildHasherDefault<H>;
    [] std::ops::RangeFull; [] std::convert::Infallible;
    [] std::sync::Condvar; [] std::sync::Barrier; [] std::sync::Once;
    [T: ?Sized + Send + Sync + 'static] std::sync::Weak<T>;
    [T: Send + 'static] std::sync::Mutex<T>;
    [T: Send + Sync + 'static] std::sync::RwLock<T>;
    [T: Send + Sync + 'static] std::sync::OnceLock<T>;
    [T: Send + 'static] std::sync::mpsc::Sender<T>;
    [T: Send + 'static] std::sync::mpsc::SyncSender<T>;
    [T: Send + 'static] std::thread::JoinHandle<T>;
    [T: ?Sized + Sync + 'static] &'static T;
    [T: 'static] std::sync::atomic::AtomicPtr<T>;
}

leaf! {
    [] str; [] std::ffi::OsStr; [] std::ffi::CStr; [] std::path::Path;
}

macro_rules! function_pointers {
    ($($a:ident)*) => {
        leaf_sized! {
            [R, $($a),*] fn($($a),*) -> R;
            [R, $($a),*] extern "C" fn($($a),*) -> R;
        }
    };
}
function_pointers!();
function_pointers!(A0);
function_pointers!(A0 A1);
function_pointers!(A0 A1 A2);
function_pointers!(A0 A1 A2 A3);
function_pointers!(A0 A1 A2 A3 A4);
function_pointers!(A0 A1 A2 A3 A4 A5);
function_pointers!(A0 A1 A2 A3 A4 A5 A6);

/// Leaves that own a buffer.
macro_rules! buffer {
    ($($t:ty; |$this:ident| $bytes:expr;)*) => { $(
        // SAFETY: 1. to 6. the type holds no `Gc`.
        unsafe impl Trace for $t {
            const NEEDS_TRACE: bool = false;
            #[inline]
            fn trace(&self, _: &mut Tracer<'_>) {}
            #[inline]
            fn external_bytes(&self) -> usize {
                let $this = self;
                $bytes
            }
        }
        // SAFETY: the type has no brand.
        unsafe impl Rebrand<'_> for $t {
            type To = Self;
        }
    )* };
}

buffer! {
    String; |this| this.capacity();
    std::ffi::OsString; |this| this.capacity();
    std::path::PathBuf; |this| this.capacity();
    std::ffi::CString; |this| this.as_bytes_with_nul().len();
}

// SAFETY: 1. to 6. the content is `Send + Sync + 'static`, so no `Gc` is inside.
unsafe impl<T: ?Sized + Send + Sync + 'static> Trace for Arc<T> {
    const NEEDS_TRACE: bool = false;
    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }
    fn count_external(&self, how: &Counting<'_>) -> usize {
        how.shared(self)
    }
}
// SAFETY: the type has no brand.
unsafe impl<T: ?Sized + Send + Sync + 'static> Rebrand<'_> for Arc<T> {
    type To = Self;
}

// SAFETY: 1. to 6. a phantom is not a value; nothing is traced.
unsafe impl<T: ?Sized> Trace for PhantomData<T> {
    const NEEDS_TRACE: bool = false;
    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
}
// SAFETY: a phantom holds nothing that a brand could protect.
unsafe impl<'b, T: ?Sized + 'b> Rebrand<'b> for PhantomData<T> {
    type To = Self;
}

/// Containers whose items are traced one by one. The arguments are: the parameters, the type, its
/// rebranded type, how the items are visited, and how a measure finds what is owned outside the
/// heap.
macro_rules! container {
    ($([$($p:ident),*] [$($extra:tt)*] $t:ty => $to:ty; |$this:ident, $tracer:ident| $body:expr; |$how:ident| $external:expr;)*) => { $(
        // SAFETY: 1. every item is visited. 2. 3. the container is owned and changes only through
        // `&mut`, and its items keep the contract. 4. the constant follows from the items. 5. 6. it
        // does nothing of its own.
        // 7. the items measure themselves.
        unsafe impl<$($p: Trace,)* $($extra)*> Trace for $t {
            const NEEDS_TRACE: bool = false $(|| $p::NEEDS_TRACE)*;
            #[inline]
            fn trace(&self, $tracer: &mut Tracer<'_>) {
                if Self::NEEDS_TRACE {
                    let $this = self;
                    $body
                }
            }
            #[inline]
            fn external_bytes(&self) -> usize {
                external_bytes(self)
            }
            #[inline]
            fn count_external(&self, $how: &Counting<'_>) -> usize {
                let $this = self;
                let _ = ($this, $how);
                $external
            }
        }
        // SAFETY: 1. 2. only the brands of the items change.
        unsafe impl<'b, $($p: Rebrand<'b>,)* $($extra)*> Rebrand<'b> for $t {
            type To = $to;
        }
    )* };
}

/// The approximate size of the links in a list's node, and in a tree's node for each item.
const LINKS: usize = 2 * size_of::<usize>();

container! {
    [T] [] Vec<T> => Vec<T::To>; |this, tracer| this.as_slice().trace(tracer);
        |how| how.with_items(this.capacity() * size_of::<T>(), this);
    [T] [] VecDeque<T> => VecDeque<T::To>; |this, tracer| this.iter().for_each(|x| x.trace(tracer));
        |how| how.with_items(this.capacity() * size_of::<T>(), this);
    [T] [] LinkedList<T> => LinkedList<T::To>; |this, tracer| this.iter().for_each(|x| x.trace(tracer));
        |how| how.with_items(this.len() * (size_of::<T>() + LINKS), this);
    [T] [] BinaryHeap<T> => BinaryHeap<T::To>; |this, tracer| this.iter().for_each(|x| x.trace(tracer));
        |how| how.with_items(this.capacity() * size_of::<T>(), this);
    [T] [] BTreeSet<T> => BTreeSet<T::To>; |this, tracer| this.iter().for_each(|x| x.trace(tracer));
        |how| how.with_items(this.len() * size_of::<T>(), this);
    [K, V] [] BTreeMap<K, V> => BTreeMap<K::To, V::To>;
        |this, tracer| this.iter().for_each(|(k, v)| { k.trace(tracer); v.trace(tracer) });
        |how| how.with_items(how.with_items(this.len() * (size_of::<K>() + size_of::<V>()), this.keys()), this.values());
    [K, V] [S: Send + Sync + 'static] HashMap<K, V, S> => HashMap<K::To, V::To, S>;
        |this, tracer| this.iter().for_each(|(k, v)| { k.trace(tracer); v.trace(tracer) });
        |how| how.with_items(how.with_items(this.capacity() * (size_of::<(K, V)>() + 1), this.keys()), this.values());
    [K] [S: Send + Sync + 'static] HashSet<K, S> => HashSet<K::To, S>;
        |this, tracer| this.iter().for_each(|k| k.trace(tracer));
        |how| how.with_items(this.capacity() * (size_of::<K>() + 1), this);
    [T] [] Option<T> => Option<T::To>; |this, tracer| if let Some(x) = this { x.trace(tracer) }; |how| how.of_each(this);
    [T, E] [] Result<T, E> => Result<T::To, E::To>;
        |this, tracer| match this { Ok(x) => x.trace(tracer), Err(e) => e.trace(tracer) };
        |how| match this { Ok(x) => x.count_external(how), Err(e) => e.count_external(how) };
    [T] [] std::task::Poll<T> => std::task::Poll<T::To>;
        |this, tracer| if let std::task::Poll::Ready(x) = this { x.trace(tracer) };
        |how| if let std::task::Poll::Ready(x) = this { x.count_external(how) } else { 0 };
    [T] [] std::cmp::Reverse<T> => std::cmp::Reverse<T::To>; |this, tracer| this.0.trace(tracer); |how| this.0.count_external(how);
    [T] [] std::num::Wrapping<T> => std::num::Wrapping<T::To>; |this, tracer| this.0.trace(tracer); |how| this.0.count_external(how);
    [T] [] std::num::Saturating<T> => std::num::Saturating<T::To>; |this, tracer| this.0.trace(tracer);
        |how| this.0.count_external(how);
    [T] [] ManuallyDrop<T> => ManuallyDrop<T::To>; |this, tracer| (**this).trace(tracer); |how| (**this).count_external(how);
    [T] [] std::ops::Range<T> => std::ops::Range<T::To>;
        |this, tracer| { this.start.trace(tracer); this.end.trace(tracer) }; |how| how.of_each([&this.start, &this.end]);
    [T] [] std::ops::RangeInclusive<T> => std::ops::RangeInclusive<T::To>;
        |this, tracer| { this.start().trace(tracer); this.end().trace(tracer) }; |how| how.of_each([this.start(), this.end()]);
    [T] [] std::ops::RangeFrom<T> => std::ops::RangeFrom<T::To>; |this, tracer| this.start.trace(tracer);
        |how| this.start.count_external(how);
    [T] [] std::ops::RangeTo<T> => std::ops::RangeTo<T::To>; |this, tracer| this.end.trace(tracer); |how| this.end.count_external(how);
    [T] [] std::ops::Bound<T> => std::ops::Bound<T::To>;
        |this, tracer| match this { std::ops::Bound::Included(x) | std::ops::Bound::Excluded(x) => x.trace(tracer), std::ops::Bound::Unbounded => {} };
        |how| match this { std::ops::Bound::Included(x) | std::ops::Bound::Excluded(x) => x.count_external(how), std::ops::Bound::Unbounded => 0 };
    [B, C] [] std::ops::ControlFlow<B, C> => std::ops::ControlFlow<B::To, C::To>;
        |this, tracer| match this { std::ops::ControlFlow::Break(x) => x.trace(tracer), std::ops::ControlFlow::Continue(x) => x.trace(tracer) };
        |how| match this { std::ops::ControlFlow::Break(x) => x.count_external(how), std::ops::ControlFlow::Continue(x) => x.count_external(how) };
    [T] [const N: usize] [T; N] => [T::To; N]; |this, tracer| this.as_slice().trace(tracer); |how| how.of_each(this);
}

// SAFETY: 1. every item is visited. 2. to 6. as for the items.
unsafe impl<T: Trace> Trace for [T] {
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;
    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if T::NEEDS_TRACE {
            for item in self {
                item.trace(tracer);
            }
        }
    }
    #[inline]
    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }
    #[inline]
    fn count_external(&self, how: &Counting<'_>) -> usize {
        how.of_each(self)
    }
}

// SAFETY: 1. the content is visited. 2. to 6. as for the content, which the box owns.
unsafe impl<T: ?Sized + Trace> Trace for Box<T> {
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;
    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if T::NEEDS_TRACE {
            (**self).trace(tracer);
        }
    }
    #[inline]
    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }
    #[inline]
    fn count_external(&self, how: &Counting<'_>) -> usize {
        how.deeper(size_of_val::<T>(self), || (**self).count_external(how))
    }
}
// SAFETY: only the content's brand changes.
unsafe impl<'b, T: Rebrand<'b>> Rebrand<'b> for Box<T> {
    type To = Box<T::To>;
}
// SAFETY: only the brand of the items changes.
unsafe impl<'b, T: Rebrand<'b>> Rebrand<'b> for Box<[T]> {
    type To = Box<[T::To]>;
}
// SAFETY: the type has no brand.
unsafe impl Rebrand<'_> for Box<str> {
    type To = Self;
}
// SAFETY: the type has no brand.
unsafe impl Rebrand<'_> for Box<std::path::Path> {
    type To = Self;
}

// SAFETY: 1. to 6. the pinned box is owned; its content is visited through a shared reference.
unsafe impl<T: ?Sized + Trace> Trace for std::pin::Pin<Box<T>> {
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;
    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if T::NEEDS_TRACE {
            (**self).trace(tracer);
        }
    }
    #[inline]
    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }
    #[inline]
    fn count_external(&self, how: &Counting<'_>) -> usize {
        how.deeper(size_of_val::<T>(self), || (**self).count_external(how))
    }
}
// SAFETY: only the content's brand changes.
unsafe impl<'b, T: Rebrand<'b>> Rebrand<'b> for std::pin::Pin<Box<T>> {
    type To = std::pin::Pin<Box<T::To>>;
}

/// Returns the bytes of the buffer that `owned` has, if it is a type of `std` with a buffer.
fn buffer_of(owned: &dyn Any) -> Option<usize> {
    macro_rules! of {
        ($($t:ty: |$it:ident| $bytes:expr;)*) => { $(
            if let Some($it) = owned.downcast_ref::<$t>() {
                return Some($bytes);
            }
        )* };
    }
    macro_rules! lists {
        ($($t:ty)*) => { of! { $(Vec<$t>: |list| list.capacity() * size_of::<$t>();)* } };
    }
    of! {
        String: |text| text.capacity();
        std::path::PathBuf: |path| path.capacity();
        std::ffi::OsString: |text| text.capacity();
        std::ffi::CString: |text| text.as_bytes_with_nul().len();
    }
    lists! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 char bool }
    None
}

// SAFETY: 1. to 6. a borrowed part is `'static` and `Sync`, and an owned part is Send + Sync +
// 'static, so neither holds a `Gc`.
unsafe impl<T> Trace for Cow<'static, T>
where
    T: ?Sized + ToOwned + Sync + 'static,
    T::Owned: Send + Sync + 'static,
{
    const NEEDS_TRACE: bool = false;
    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
    /// Returns the buffer of an owned text or of an owned list of numbers. Anything else can only
    /// be seen through its [`Borrow`](std::borrow::Borrow), which may be the user's and may answer
    /// differently each time. `[O7]`
    fn external_bytes(&self) -> usize {
        match self {
            Cow::Owned(owned) => buffer_of(owned).unwrap_or(0),
            Cow::Borrowed(_) => 0,
        }
    }
}
// SAFETY: the type has no brand.
unsafe impl<T> Rebrand<'_> for Cow<'static, T>
where
    T: ?Sized + ToOwned + Sync + 'static,
    T::Owned: Send + Sync + 'static,
{
    type To = Self;
}

macro_rules! tuples {
    ($($p:ident $i:tt),*) => {
        container! {
            [$($p),*] [] ($($p,)*) => ($($p::To,)*); |this, tracer| { $(this.$i.trace(tracer);)* };
                |how| 0_usize $(.saturating_add(this.$i.count_external(how)))*;
        }
    };
}
tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14, P 15);

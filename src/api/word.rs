//! Values of dynamic languages in one word: `Word`, and `GcWord`, the cell that holds one.
//!
//! ```text
//! 0000..=FFF8_0000_0000_0000   a number: the bits of an f64, NaNs folded into one
//! FFF8_0000_0000_0001 + n      an immediate: any u32 n
//! FFF9 + k, 48 bits            a pointer to an object of kind k (0 to 6), and its address
//! ```
//! A NaN has a quiet bit and 51 bits without a meaning. The processor only makes the NaN in which
//! none of them is set, so all patterns above it are free, and a number is stored as it is.
//!
//! **Invariants**
//! - `[N1]` A word with tag `FFF9 + k` holds the address of an object of kind `k` of its set. The
//!   object is in the thread's heap, and lives as long as a `Gc` with the word's brand. Every
//!   address of a heap is below 2^48 ([`from_gc`](Word::from_gc)).

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::gc::Gc;
use crate::api::mutator::Mutator;
use crate::gc::barrier::{Change, before_store};
use crate::object::trace::{At, Collect, Rebrand, Trace, Tracer};

/// The largest number: the NaN that the processor makes.
const MAX_NUMBER: u64 = 0xFFF8_0000_0000_0000;
/// The NaN that replaces every other NaN.
const NAN: u64 = 0x7FF8_0000_0000_0000;
/// The tag of kind 0.
const FIRST_TAG: u64 = 0xFFF9;
/// The bits of an address.
const ADDRESS_BITS: u32 = 48;
const ADDRESS: u64 = (1 << ADDRESS_BITS) - 1;

/// Lists what the pointers of a set of words may point to: up to seven types of objects, in a fixed
/// order.
///
/// # Examples
/// ```
/// use greywave::{GcArray, GcWord, Trace, Word, WordKinds};
///
/// /// The kinds of objects of a language, written with the brand `'static`.
/// struct Kinds;
/// impl WordKinds for Kinds {
///     type List = (Text, Pair<'static>);
/// }
/// const TEXT: usize = 0;
/// const PAIR: usize = 1;
///
/// type Text = GcArray<(), u8>;
/// type Value<'gc> = Word<'gc, Kinds>;
/// #[derive(Trace)]
/// struct Pair<'gc> {
///     left: GcWord<'gc, Kinds>,
///     right: GcWord<'gc, Kinds>,
/// }
///
/// let heap = greywave::Heap::new();
/// let m = heap.attach()?;
/// let text = Value::from_gc::<TEXT>(m.alloc_array((), 2, |i| b"ab"[i]));
/// let pair = m.alloc(Pair { left: GcWord::new(text), right: GcWord::new(Value::number(1.5)) });
/// let value = Value::from_gc::<PAIR>(pair);
///
/// let pair = value.as_gc::<PAIR>().expect("a pair");
/// assert_eq!(pair.right.get().as_number(), Some(1.5));
/// assert_eq!(pair.left.get().as_gc::<TEXT>().map(|t| t.items()), Some(&b"ab"[..]));
/// pair.left.set(&m, value); // a cycle
/// assert!(pair.left.get().as_gc::<TEXT>().is_none());
/// # Ok::<(), greywave::AttachError>(())
/// ```
pub trait WordKinds: 'static {
    /// A tuple of one to seven sized heap types, written with the brand `'static`.
    type List: KindList;
}

/// A tuple of one to seven heap types.
pub trait KindList: private::Sealed + 'static {}

/// The type at number `N` of a [`KindList`].
pub trait KindAt<const N: usize>: KindList {
    /// The type, with the brand `'static`.
    type Kind: Collect + 'static;
}

/// The type of the objects of kind `N` in the set `K`, with the brand `'gc`.
pub type KindOf<'gc, K, const N: usize> = At<'gc, <<K as WordKinds>::List as KindAt<N>>::Kind>;

mod private {
    #[allow(
        unnameable_types,
        reason = "so that nobody else can say what is a list of kinds"
    )]
    pub trait Sealed {}
}

macro_rules! kind_lists {
    ($(($($kind:ident $n:literal),*))*) => { $( kind_lists!(one ($($kind),*) $($kind $n)*); )* };
    (one $all:tt $($kind:ident $n:literal)*) => {
        kind_lists!(list $all);
        $( kind_lists!(at $all $kind $n); )*
    };
    (list ($($all:ident),*)) => {
        impl<$($all: Collect + 'static),*> private::Sealed for ($($all,)*) {}
        impl<$($all: Collect + 'static),*> KindList for ($($all,)*) {}
    };
    (at ($($all:ident),*) $kind:ident $n:literal) => {
        impl<$($all: Collect + 'static),*> KindAt<$n> for ($($all,)*) {
            type Kind = $kind;
        }
    };
}
kind_lists! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
}

/// Makes a word invariant in the brand and in the kinds, and neither `Send` nor `Sync`.
///
/// `K` decides what the bits mean, so no other type may replace it. If one type is a subtype of
/// another, such as `M<for<'a> fn(&'a ())>` and `M<fn(&'static ())>`, each of them may list kinds
/// of its own.
type Brand<'gc, K> = PhantomData<(Cell<&'gc ()>, *mut (), fn(K) -> K)>;

/// A value of a dynamic language: a number, an immediate, or a pointer to an object of one of the
/// kinds in `K`. It is `Copy` and eight bytes long.
///
/// It lives as long as a [`Gc`] with the same brand. An operand stack of words is a
/// `Frame<Vec<Word<'static, K>>>`. In an object, a plain field holds a word that does not change,
/// and a [`GcWord`] holds one that does.
///
/// # Examples
/// See [`WordKinds`]. Like a `Gc`, a word cannot be used after a safepoint:
///
/// ```compile_fail,E0502
/// # use greywave::{Word, WordKinds};
/// # struct Kinds;
/// # impl WordKinds for Kinds { type List = (u64,); }
/// # let heap = greywave::Heap::new();
/// # let mut m = heap.attach().unwrap();
/// let value = Word::<Kinds>::from_gc::<0>(m.alloc(7_u64));
/// m.safepoint();
/// println!("{value:?}");
/// ```
pub struct Word<'gc, K> {
    bits: u64,
    brand: Brand<'gc, K>,
}

impl<K> Clone for Word<'_, K> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Word<'_, K> {}

impl<'gc, K: WordKinds> Word<'gc, K> {
    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
        Self {
            bits,
            brand: PhantomData,
        }
    }

    /// Makes a word of a number. All NaNs become one.
    #[inline(always)]
    #[must_use]
    pub fn number(number: f64) -> Self {
        let bits = number.to_bits();
        // The results of arithmetic on numbers are never above; only a NaN made by hand is.
        Self::from_bits(if bits <= MAX_NUMBER { bits } else { NAN })
    }

    /// Makes a word of something else that is not a pointer: `nil`, `true`, a character. The user
    /// decides what the values mean.
    #[inline(always)]
    #[must_use]
    pub const fn immediate(n: u32) -> Self {
        Self::from_bits(MAX_NUMBER + 1 + n as u64)
    }

    /// Makes a word of a pointer to an object of kind `N`. O(1): an addition.
    #[inline(always)]
    #[must_use]
    pub fn from_gc<const N: usize>(gc: Gc<'gc, KindOf<'gc, K, N>>) -> Self
    where
        K::List: KindAt<N>,
    {
        let address = gc.address() as u64;
        // A heap's reservation is below 2^47 on every supported system. An object without a size
        // may have a small address.
        debug_assert!(address <= ADDRESS, "[N1]");
        Self::from_bits(const { tag_of(N) } | address)
    }

    /// Returns the number, if the word is one.
    #[inline(always)]
    #[must_use]
    pub fn as_number(self) -> Option<f64> {
        (self.bits <= MAX_NUMBER).then(|| f64::from_bits(self.bits))
    }

    /// Returns the immediate, if the word is one.
    #[inline(always)]
    #[must_use]
    pub fn as_immediate(self) -> Option<u32> {
        u32::try_from(self.bits.wrapping_sub(MAX_NUMBER + 1)).ok()
    }

    /// Returns the object, if the word points to one of kind `N`.
    #[inline(always)]
    #[must_use]
    pub fn as_gc<const N: usize>(self) -> Option<Gc<'gc, KindOf<'gc, K, N>>>
    where
        K::List: KindAt<N>,
    {
        let address = self.bits ^ const { tag_of(N) };
        if address > ADDRESS {
            return None;
        }
        let at = ptr::with_exposed_provenance_mut(address as usize);
        // SAFETY: [N1] the tag says that the word was made from a `Gc` of this type, except for its
        // brand, which `Rebrand` made the word's. The address of a `Gc` is not null.
        let at = unsafe { NonNull::new_unchecked(at) };
        // SAFETY: [N1] 1. it is an object of this type. 2. it lives as long as the word's brand.
        Some(unsafe { Gc::from_raw(at) })
    }

    /// Returns whether both are the same number, immediate or object. O(1): a comparison of two
    /// words.
    ///
    /// Numbers are compared by their bits: `0.0` is not `-0.0`, and a NaN is itself.
    #[inline(always)]
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        self.bits == other.bits
    }

    /// Returns the address of the object that the word points to.
    #[inline(always)]
    fn pointee(self) -> Option<usize> {
        (self.bits >= const { tag_of(0) }).then_some((self.bits & ADDRESS) as usize)
    }
}

const fn tag_of(kind: usize) -> u64 {
    (FIRST_TAG + kind as u64) << ADDRESS_BITS
}

// SAFETY: 1. the pointer is reported, if there is one. 2. 3. a word is shared by copying; the
// object keeps its own contract. 4. the constant is true. 5. 6. it does nothing else.
unsafe impl<K: WordKinds> Trace for Word<'_, K> {
    #[inline(always)]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Some(address) = self.pointee() {
            tracer.edge(address);
        }
    }
}

// SAFETY: only the brand of the word, and of what it points to, changes.
unsafe impl<'b, K: WordKinds> Rebrand<'b> for Word<'_, K> {
    type To = Word<'b, K>;
}

impl<K: WordKinds> fmt::Debug for Word<'_, K> {
    /// Shows a number or an immediate; of a pointer it shows only the kind, because graphs have
    /// cycles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.as_number() {
            return write!(f, "Word({number:?})");
        }
        match self.as_immediate() {
            Some(n) => write!(f, "Word(immediate {n})"),
            None => write!(f, "Word(kind {})", (self.bits >> ADDRESS_BITS) - FIRST_TAG),
        }
    }
}

/// A cell in a heap object that holds a [`Word`].
///
/// Reads and writes are atomic (Acquire and Release), so a race is memory-safe: a reader gets one
/// of the words that were written. While marking runs, a write reports the old word to the
/// collector; at other times it costs a predicted branch more than a plain store.
///
/// # Examples
/// See [`WordKinds`].
pub struct GcWord<'gc, K> {
    bits: AtomicU64,
    brand: PhantomData<Word<'gc, K>>,
}

impl<'gc, K: WordKinds> GcWord<'gc, K> {
    /// Makes a cell that holds `word`.
    #[inline(always)]
    #[must_use]
    pub const fn new(word: Word<'gc, K>) -> Self {
        Self {
            bits: AtomicU64::new(word.bits),
            brand: PhantomData,
        }
    }

    /// Returns the word. O(1): one load.
    #[inline(always)]
    pub fn get(&self) -> Word<'gc, K> {
        // Acquire: pairs with the Release of the store; what the word points to is initialised.
        Word::from_bits(self.bits.load(Ordering::Acquire))
    }

    /// Stores `word`. O(1): one store, and the write barrier while marking runs.
    ///
    /// # Panics
    /// If this cell or `word` belongs to another heap than `mu`; the cell is then unchanged.
    #[inline(always)]
    #[track_caller]
    pub fn set(&self, mu: &Mutator, word: Word<'gc, K>) {
        // [G1] the barrier comes before the store.
        self.before_store(mu, || self.get(), word);
        // Release: publishes what `word` points to; pairs with the Acquire in `get`.
        self.bits.store(word.bits, Ordering::Release);
    }

    /// Stores `word` and returns the word that was there. O(1), atomic.
    ///
    /// # Panics
    /// If this cell or `word` belongs to another heap than `mu`; the cell is then unchanged.
    #[track_caller]
    pub fn swap(&self, mu: &Mutator, word: Word<'gc, K>) -> Word<'gc, K> {
        let mut old = self.get();
        loop {
            match self.compare_exchange(mu, old, word) {
                Ok(old) => return old,
                Err(now) => old = now,
            }
        }
    }

    /// Stores `new` if the cell holds `current` ([`is`](Word::is)). O(1), atomic.
    ///
    /// # Errors
    /// The word in the cell, if that is not `current`.
    ///
    /// # Panics
    /// If this cell, `current` or `new` belongs to another heap than `mu`; the cell is then
    /// unchanged.
    #[track_caller]
    pub fn compare_exchange(
        &self,
        mu: &Mutator,
        current: Word<'gc, K>,
        new: Word<'gc, K>,
    ) -> Result<Word<'gc, K>, Word<'gc, K>> {
        // The barrier comes first: the collector may have emptied this buffer for the last time
        // before the exchange, and a pointer shaded after that would stay in it. If the exchange
        // fails, the barrier has shaded an object too many. That is harmless.
        self.before_store(mu, || current, new);
        // AcqRel: as in `set` and `get`. Acquire on failure: the caller gets the value.
        self.bits
            .compare_exchange(current.bits, new.bits, Ordering::AcqRel, Ordering::Acquire)
            .map(Word::from_bits)
            .map_err(Word::from_bits)
    }

    /// Runs the write barrier: the word is about to change from `old()` to `new`.
    #[inline(always)]
    #[track_caller]
    fn before_store(&self, mu: &Mutator, old: impl FnOnce() -> Word<'gc, K>, new: Word<'gc, K>) {
        before_store(
            mu.local(),
            || mu.collector(),
            || Change {
                at: (&raw const self.bits).addr(),
                old: old().pointee().unwrap_or(0),
                new: new.pointee().unwrap_or(0),
            },
        );
    }
}

// SAFETY: 1. the edge is reported, if there is one. 2. 3. it is an atomic. 4. the constant is true.
// 5. 6. it does nothing else.
unsafe impl<K: WordKinds> Trace for GcWord<'_, K> {
    #[inline(always)]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.get().trace(tracer);
    }
}

// SAFETY: only the brand of the word, and of what it points to, changes.
unsafe impl<'b, K: WordKinds> Rebrand<'b> for GcWord<'_, K> {
    type To = GcWord<'b, K>;
}

impl<K: WordKinds> fmt::Debug for GcWord<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GcWord").field(&self.get()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Kinds;
    impl WordKinds for Kinds {
        type List = (u64, String);
    }
    type Value<'gc> = Word<'gc, Kinds>;

    #[test]
    fn every_number_comes_back_and_nothing_else_is_one() {
        for number in [
            0.0,
            -0.0,
            1.5,
            f64::MIN,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
        ] {
            let word = Value::number(number);
            assert_eq!(word.as_number().map(f64::to_bits), Some(number.to_bits()));
            assert_eq!(word.as_immediate(), None);
            assert!(word.as_gc::<0>().is_none());
        }
        for n in [0, 1, u32::MAX] {
            let word = Value::immediate(n);
            assert_eq!((word.as_immediate(), word.as_number()), (Some(n), None));
            assert!(word.as_gc::<0>().is_none());
        }
    }

    #[test]
    fn a_nan_with_the_bits_of_a_pointer_is_a_number() {
        for bits in [
            u64::MAX,
            0xFFF9_0000_0000_1000,
            0xFFF8_0000_0000_0001,
            NAN,
            0x7FFF << 48,
        ] {
            let word = Value::number(f64::from_bits(bits));
            assert!(word.as_number().is_some_and(f64::is_nan), "{bits:x}");
            assert!(word.pointee().is_none() && word.as_immediate().is_none());
        }
        let zero = std::hint::black_box(0.0);
        assert!(
            Value::number(zero / zero)
                .as_number()
                .is_some_and(f64::is_nan)
        );
    }

    #[test]
    fn a_pointer_is_of_its_kind_only() {
        let heap = crate::Heap::new();
        let m = heap.attach().expect("no mutator yet");
        let number = m.alloc(7_u64);
        let text = m.alloc(String::from("seven"));
        let (a, b) = (Value::from_gc::<0>(number), Value::from_gc::<1>(text));
        assert!(a.as_gc::<0>().is_some_and(|gc| gc.ptr_eq(number)));
        assert!(b.as_gc::<1>().is_some_and(|gc| gc.ptr_eq(text)));
        assert!(a.as_gc::<1>().is_none() && b.as_gc::<0>().is_none());
        assert!(a.as_number().is_none() && a.as_immediate().is_none());
        assert!(a.is(a) && !a.is(b));
    }
}

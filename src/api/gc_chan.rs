//! `GcChan`: a channel inside the heap, whose items need no roots.
//!
//! **Claim.** No item is lost or received twice, and a task that waits holds nothing in the heap.
//!
//! **How.** The items are in a `GcLock`. Two channels of tokens do the waiting: one has a token for
//! each free place, the other one for each item. A sender takes a token of a place, puts the item
//! into the list, and sends a token of an item; a receiver does the reverse. A task waits only for
//! a token, which is not in the heap. A token that was taken for nothing goes back, because `make`
//! has panicked or the lock is refused (`Token`).
//!
//! **Why the capacity is at least 1.** Without a buffer the item would wait in the sender, and need
//! a root.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::api::gc::Gc;
use crate::api::lock::GcLock;
use crate::api::mutator::Mutator;
use crate::api::root::Root;
use crate::api::runtime::with;
use crate::base::crowd::shrink_after_crowd;
use crate::object::counting::{Counting, external_bytes};
use crate::object::trace::{At, Collect, Rebrand, Trace, Tracer};
use crate::sched::chan::{
    BYTES_OF_TOKENS, Receiver, SendError, Sender, TryRecvError, TrySendError, chan, chan_of_tokens,
};

/// The tokens that senders and receivers wait for: one for each free place, and one for each item.
struct Tokens {
    free: (Sender<()>, Receiver<()>),
    filled: (Sender<()>, Receiver<()>),
}

/// A bounded channel of objects, which is itself an object in the heap. The collector keeps the
/// items alive, without roots. If nobody can reach the channel any more, it is collected with
/// everything in it.
///
/// A `Gc` cannot live across an `.await`, so the operations that wait take closures.
/// [`send`](Root::send) makes the object once there is room for it. [`recv`](Root::recv) shows the
/// item to its closure, in the section in which it arrives. Inside a section, use
/// [`try_send`](Self::try_send) and [`try_recv`](Self::try_recv).
///
/// Items come out in the order in which they went in. A send costs two operations of a [`chan`] and
/// a write of a [`GcLock`]; the first write in a cycle costs O(items in the channel).
///
/// # Examples
/// ```
/// use greywave::{Gc, GcCell, GcChan, Heap, Root, Runtime, Trace, go, with};
///
/// #[derive(Trace)]
/// struct Job<'gc> {
///     number: u32,
///     after: GcCell<'gc, Job<'gc>>,
/// }
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// let sum = rt.block_on(async {
///     let jobs: Root<GcChan<'static, Job<'static>>> =
///         with(|m| m.root(m.alloc(GcChan::<Job<'_>>::new(4))));
///     let to = jobs.clone();
///     go(async move {
///         for number in 0..10 {
///             let sent = to.send(|m| m.alloc(Job { number, after: GcCell::null() })).await;
///             sent.expect("nobody closes it before");
///         }
///         to.close();
///     });
///     let mut sum = 0;
///     while let Some(number) = jobs.recv(|_, job| job.number).await {
///         sum += number;
///     }
///     sum
/// })?;
/// assert_eq!(sum, 45);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GcChan<'gc, T> {
    items: GcLock<VecDeque<Gc<'gc, T>>>,
    tokens: Arc<Tokens>,
}

impl<'gc, T> GcChan<'gc, T> {
    /// Makes a channel with room for `capacity` items. [`Mutator::alloc`] moves it into the heap.
    /// O(1).
    ///
    /// # Panics
    /// If `capacity` is 0, because an item that waits in a sender would need a root. If both sides
    /// must meet, use [`chan`] and a [`Root`].
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(
            capacity > 0,
            "GcChan::new(0): the capacity of a GcChan is at least 1"
        );
        let tokens = Tokens {
            free: chan_of_tokens(capacity),
            filled: chan(capacity),
        };
        Self {
            items: GcLock::new(VecDeque::new()),
            tokens: Arc::new(tokens),
        }
    }

    /// Puts `item` into the channel, if there is room.
    ///
    /// # Errors
    /// The item, if there is no room or the channel is closed.
    ///
    /// # Panics
    /// If the channel or the item belongs to another heap than `mu`; the channel is then unchanged.
    #[track_caller]
    pub fn try_send(&self, mu: &Mutator, item: Gc<'gc, T>) -> Result<(), TrySendError<Gc<'gc, T>>> {
        self.items.assert_own(mu);
        mu.assert_own(item.address());
        match self.tokens.free.1.try_recv() {
            Ok(()) => {
                let place = Token(&self.tokens.free.0);
                (self.put(mu, item, place)).map_err(|e| TrySendError::Closed(e.0))
            }
            Err(TryRecvError::Empty) => Err(TrySendError::Full(item)),
            Err(TryRecvError::Closed) => Err(TrySendError::Closed(item)),
        }
    }

    /// Takes the oldest item out of the channel.
    ///
    /// # Errors
    /// If the channel is empty, or empty and closed.
    ///
    /// # Panics
    /// If the channel belongs to another heap than `mu`; it is then unchanged.
    #[track_caller]
    pub fn try_recv(&self, mu: &Mutator) -> Result<Gc<'gc, T>, TryRecvError> {
        self.items.assert_own(mu);
        self.tokens.filled.1.try_recv()?;
        let filled = Token(&self.tokens.filled.0);
        self.take(mu, filled).ok_or(TryRecvError::Empty)
    }

    /// Closes the channel: it accepts no more items, and what is in it can be received. A second
    /// call does nothing.
    pub fn close(&self) {
        self.tokens.close();
    }

    /// Returns whether the channel was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.tokens.filled.0.is_closed()
    }

    /// Returns the number of items in the channel at some moment during the call.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.filled.0.len()
    }

    /// Returns whether the channel was empty at some moment during the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of items that the channel was made for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.tokens.filled.0.capacity()
    }

    /// Puts `item` into the list. `place` is the token of a free place, which goes back if the lock
    /// is refused.
    #[track_caller]
    fn put(
        &self,
        mu: &Mutator,
        item: Gc<'gc, T>,
        place: Token<'_>,
    ) -> Result<(), SendError<Gc<'gc, T>>> {
        let mut items = self.items.write(mu);
        items.push_back(item);
        place.use_up();
        // The channel has room for as many tokens as it has places. The token is sent under the
        // lock, so that the receiver finds the item; but the receiver's waker may need the lock, so
        // it runs later.
        let Ok(waker) = self.tokens.filled.0.try_send_quietly(()) else {
            items.pop_back();
            return Err(SendError(item));
        };
        drop(items);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes the oldest item from the list. `filled` is the token of an item, which goes back if
    /// the lock is refused.
    #[track_caller]
    fn take(&self, mu: &Mutator, filled: Token<'_>) -> Option<Gc<'gc, T>> {
        let mut items = self.items.write(mu);
        let item = items.pop_front();
        filled.use_up();
        shrink_after_crowd(&mut *items, KEPT);
        drop(items);
        // There is room, unless the channel is closed; then nobody waits for a place.
        let _ = self.tokens.free.0.try_send(());
        item
    }
}

/// The number of items for which a channel always keeps room.
const KEPT: usize = 1024;

/// The bytes that a channel owns outside the heap, besides the places of its items. The channels of
/// tokens have no buffers.
const OWN_BYTES: usize = size_of::<Tokens>() + 2 * BYTES_OF_TOKENS + 6 * size_of::<usize>();

/// A token that goes back unless it is used up: `make` may panic, no section may be available, or
/// the lock of the items may be refused.
struct Token<'a>(&'a Sender<()>);

impl Token<'_> {
    #[allow(clippy::mem_forget, reason = "it has nothing but a reference")]
    fn use_up(self) {
        std::mem::forget(self);
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        // There is room, because this token was taken out.
        let _ = self.0.try_send(());
    }
}

impl Tokens {
    fn close(&self) {
        // An error means that the channel is closed already.
        let _ = self.free.0.close();
        let _ = self.filled.0.close();
    }
}

impl<T: Collect> Root<GcChan<'static, T>> {
    /// Waits for room, calls `make` in a section (see [`with`]), and puts the object that it
    /// returns into the channel.
    ///
    /// If the future is dropped before it is ready, nothing has been sent, and `make` has not been
    /// called.
    ///
    /// # Errors
    /// If the channel is closed. `make` may have been called or not.
    pub async fn send<F>(&self, make: F) -> Result<(), SendError<()>>
    where
        F: for<'m> FnOnce(&'m Mutator) -> Gc<'m, At<'m, T>>,
    {
        let tokens = self.tokens();
        if tokens.free.1.recv().await.is_none() {
            return Err(SendError(()));
        }
        let place = Token(&tokens.free.0);
        with(|m| {
            let item = make(m);
            m.assert_own(item.address());
            self.get(m).put(m, item, place).map_err(|_| SendError(()))
        })
    }

    /// Waits for an item and passes it to `look`, in a section (see [`with`]). Returns `None` if
    /// the channel is closed and empty.
    ///
    /// If the future is dropped before it is ready, it has taken nothing.
    pub async fn recv<R, F>(&self, look: F) -> Option<R>
    where
        F: for<'m> FnOnce(&'m Mutator, Gc<'m, At<'m, T>>) -> R,
    {
        let tokens = self.tokens();
        tokens.filled.1.recv().await?;
        let filled = Token(&tokens.filled.0);
        with(|m| {
            let this = self.get(m);
            let item = this.take(m, filled)?;
            Some(look(m, item))
        })
    }

    /// Does what [`GcChan::close`] does, in a section of its own.
    pub fn close(&self) {
        self.tokens().close();
    }

    fn tokens(&self) -> Arc<Tokens> {
        with(|m| self.get(m).tokens.clone())
    }
}

// SAFETY: 1. every edge is in `items`. 2. to 4. as for the lock; the tokens hold no `Gc` and
// protect themselves. 5. and 6. as for the lock. 7. the lock measures itself.
unsafe impl<T> Trace for GcChan<'_, T> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.items.trace(tracer);
    }

    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }

    /// The lock's account covers the places of the items, whose number changes. The tokens are the
    /// same at birth and at death.
    fn count_external(&self, how: &Counting<'_>) -> usize {
        self.items.count_external(how).saturating_add(OWN_BYTES)
    }
}

// SAFETY: 1. and 2. only the lock's brand changes, as `GcLock`, `VecDeque` and `Gc` change theirs.
unsafe impl<'b, T: Rebrand<'b>> Rebrand<'b> for GcChan<'_, T> {
    type To = GcChan<'b, T::To>;
}

impl<T> fmt::Debug for GcChan<'_, T> {
    /// Shows how many items the channel holds, but not the items, because graphs have cycles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcChan")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::Heap;

    /// A channel that is never quite empty gives back the room of its peak, in memory and in the
    /// heap's books.
    #[test]
    fn one_item_that_stays_does_not_keep_the_room_of_a_crowd() {
        const CROWD: usize = 100 * KEPT;
        let m = Heap::new().attach().expect("a thread without a mutator");
        let channel: Gc<'_, GcChan<'_, u64>> = m.alloc(GcChan::new(usize::MAX));
        let item = m.alloc(7);
        let empty = external_bytes(&*channel);
        assert!((0..=CROWD).all(|_| channel.try_send(&m, item).is_ok()));
        assert!(external_bytes(&*channel) >= empty + CROWD * size_of::<usize>());
        assert!((0..CROWD).all(|_| channel.try_recv(&m).is_ok()));
        let room = channel.items.read().capacity();
        assert!(channel.len() == 1 && room <= KEPT, "{room} places for one");
        assert!(external_bytes(&*channel) <= empty + KEPT * size_of::<usize>());
    }

    /// Making a channel costs the same whatever its capacity, and its memory follows its content.
    #[test]
    fn a_channel_of_any_capacity_follows_its_content() {
        const CROWD: usize = 10 * KEPT;
        let m = Heap::new().attach().expect("a thread without a mutator");
        for capacity in [CROWD, usize::MAX] {
            let channel: Gc<'_, GcChan<'_, u64>> = m.alloc(GcChan::new(capacity));
            assert_eq!(channel.capacity(), capacity);
            let item = m.alloc(7);
            for _ in 0..2 {
                assert!((0..CROWD).all(|_| channel.try_send(&m, item).is_ok()));
                assert_eq!(channel.try_send(&m, item).is_ok(), capacity > CROWD);
                while channel.try_recv(&m).is_ok() {}
                assert!(channel.is_empty() && channel.items.read().capacity() <= KEPT);
            }
        }
    }
}

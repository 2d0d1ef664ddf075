//! `GcChan`: a channel inside the heap, whose items need no roots.

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

/// What senders and receivers wait for: one token for each place that is free, one for each item.
struct Tokens {
    free: (Sender<()>, Receiver<()>),
    filled: (Sender<()>, Receiver<()>),
}

/// A bounded channel of objects, which is itself an object: what is in it is kept by the collector, without roots, and a
/// channel that nobody can reach is collected with everything in it.
///
/// A `Gc` does not live across an `.await`, so the waiting ends of it take closures: [`send`](Root::send) makes the object
/// when there is room for it, [`recv`](Root::recv) looks at it in the section in which it arrives. Inside a section there
/// are [`try_send`](Self::try_send) and [`try_recv`](Self::try_recv).
///
/// Items come out in the order in which they went in. A send costs two operations of a [`chan`] and a write
/// of a [`GcLock`]; the first write in a cycle costs O(items in the channel).
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
///     let jobs: Root<GcChan<'static, Job<'static>>> = with(|m| m.root(m.alloc(GcChan::<Job<'_>>::new(4))));
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
    /// A channel with room for `capacity` items, to be moved into the heap with [`Mutator::alloc`]. O(`capacity`).
    ///
    /// # Panics
    /// If `capacity` is 0: an item that waits in a sender would need a root. Use [`chan`] and a [`Root`] for a meeting of
    /// both sides.
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

    /// Puts `item` in, if there is room.
    ///
    /// # Errors
    /// The item, if there is no room or the channel is closed.
    ///
    /// # Panics
    /// If an object of another heap than `mu` is involved; then nothing has been done.
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

    /// Takes the oldest item out.
    ///
    /// # Errors
    /// If there is none now, or will be none any more.
    ///
    /// # Panics
    /// If an object of another heap than `mu` is involved; then nothing has been done.
    #[track_caller]
    pub fn try_recv(&self, mu: &Mutator) -> Result<Gc<'gc, T>, TryRecvError> {
        self.items.assert_own(mu);
        self.tokens.filled.1.try_recv()?;
        let filled = Token(&self.tokens.filled.0);
        self.take(mu, filled).ok_or(TryRecvError::Empty)
    }

    /// Ends the channel: nothing more goes in, what is in it can be received. Closing twice does nothing more.
    pub fn close(&self) {
        self.tokens.close();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.tokens.filled.0.is_closed()
    }

    /// The number of items in it, at some moment during the call.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.filled.0.len()
    }

    /// Whether nothing is in it, at some moment during the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The room that it was made with, in items.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.tokens.filled.0.capacity()
    }

    /// The caller has a token of a free place, which goes back if the lock is refused.
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
        // There is room for as many tokens as there are places. Under the lock, so that a receiver finds the item; but what
        // its waker does may need the lock.
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

    /// The caller has a token of an item, which goes back if the lock is refused.
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

/// For how many items a channel keeps room, however few are in it.
const KEPT: usize = 1024;

/// What a channel owns outside the heap besides its items' places, in bytes. Channels of tokens have no buffers.
const OWN_BYTES: usize = size_of::<Tokens>() + 2 * BYTES_OF_TOKENS + 6 * size_of::<usize>();

/// A token that goes back if what it was taken for does not happen: `make` panics, there is no section to be had, or the lock
/// of the items is refused.
struct Token<'a>(&'a Sender<()>);

impl Token<'_> {
    #[allow(clippy::mem_forget, reason = "it has nothing but a reference")]
    fn use_up(self) {
        std::mem::forget(self);
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        // There is room: it was taken out.
        let _ = self.0.try_send(());
    }
}

impl Tokens {
    fn close(&self) {
        // An error says that it is closed already.
        let _ = self.free.0.close();
        let _ = self.filled.0.close();
    }
}

impl<T: Collect> Root<GcChan<'static, T>> {
    /// Waits for room, then has `make` make the object, in a section as of [`with`], and puts it in.
    ///
    /// Dropping the future before it is ready sends nothing; `make` has not been called then.
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

    /// Waits for an item and gives it to `look`, in a section as of [`with`]; `None` when the channel is closed and empty.
    ///
    /// Dropping the future before it is ready takes nothing.
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

    /// As [`GcChan::close`], in a section of its own.
    pub fn close(&self) {
        self.tokens().close();
    }

    fn tokens(&self) -> Arc<Tokens> {
        with(|m| self.get(m).tokens.clone())
    }
}

// SAFETY: 1. every edge is in `items`. 2. to 4. as for the lock; the tokens hold no `Gc` and are shared by themselves.
// 5. and 6. as for the lock. 7. to the lock.
unsafe impl<T> Trace for GcChan<'_, T> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.items.trace(tracer);
    }

    fn external_bytes(&self) -> usize {
        external_bytes(self)
    }

    /// The lock keeps an account of the items' places, which come and go; the tokens are the same at birth and at death.
    fn count_external(&self, how: &Counting<'_>) -> usize {
        self.items.count_external(how).saturating_add(OWN_BYTES)
    }
}

// SAFETY: 1. and 2. the lock's brand changes, as `GcLock`, `VecDeque` and `Gc` change theirs.
unsafe impl<'b, T: Rebrand<'b>> Rebrand<'b> for GcChan<'_, T> {
    type To = GcChan<'b, T::To>;
}

impl<T> fmt::Debug for GcChan<'_, T> {
    /// Shows how much is in it, not what: graphs have cycles.
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

    /// A channel that is never quite empty does not keep the room of its peak, in memory or in the heap's books.
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

    /// Making one costs the same whatever its capacity, and its memory follows what is in it.
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

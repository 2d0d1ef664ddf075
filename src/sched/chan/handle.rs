//! The two handles of a channel.

use std::fmt;
use std::sync::Arc;

use crate::sched::chan::blocking::block_on;
use crate::sched::chan::channel::{Channel, Outcome, Side};
use crate::sched::chan::error::{AlreadyClosed, SendError, TryRecvError, TrySendError};
use crate::sched::chan::op::{Recv, Send};
use crate::sched::wakers::KeptWaker;
use crate::sys::sync::{AtomicUsize, Ordering, fence};

/// Makes a channel that holds up to `capacity` values which nobody has received yet.
///
/// With capacity 0 a send is over when a receiver has the value: the two meet. A buffer of up to 64 KiB is allocated here,
/// and later operations allocate nothing. A larger one takes memory as it is filled, by doubling, and gives half
/// of it back whenever no more than an eighth is in use.
///
/// # Panics
/// When `capacity` values would be more than `isize::MAX` bytes.
#[track_caller]
pub fn chan<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    handles(Channel::new(capacity))
}

/// What the allocation of a channel of tokens takes, less the counts of its handles.
pub(crate) const BYTES_OF_TOKENS: usize = size_of::<Channel<()>>();

/// A channel of tokens that is full from the beginning. O(1), whatever the capacity.
pub(crate) fn chan_of_tokens(capacity: usize) -> (Sender<()>, Receiver<()>) {
    handles(Channel::full(capacity))
}

fn handles<T>(channel: Channel<T>) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(channel);
    let sender = Sender {
        channel: channel.clone(),
    };
    (sender, Receiver { channel })
}

/// The side of a channel that sends. Clones send to the same channel; when the last is dropped, the channel is closed.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// The side of a channel that receives. Clones share the values: each goes to one of them. When the last is dropped,
/// sends fail and what is in the buffer is dropped.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
}

impl<T> Sender<T> {
    /// Sends `value`: to the receiver that has waited longest, or into the buffer, or when there is room.
    ///
    /// Dropped before it is ready, the future has sent nothing, unless a receiver has already taken the value.
    ///
    /// # Errors
    /// When the channel is closed or has no receiver, also while this waits. The error has the value.
    #[inline]
    pub fn send(&self, value: T) -> Send<'_, T> {
        Send::new(&self.channel, value)
    }

    /// Sends `value` if that needs no waiting. One short lock; none if the channel is full.
    ///
    /// # Errors
    /// When it would have to wait, or the channel is closed or has no receiver. The error has the value.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut value = Some(value);
        let outcome = self.channel.attempt(Side::Send, &mut value);
        match (value, outcome) {
            (None, _) => Ok(()),
            (Some(value), Outcome::Done) => Err(TrySendError::Closed(value)),
            (Some(value), _) => Err(TrySendError::Full(value)),
        }
    }

    /// As [`try_send`](Self::try_send), but whoever waits for the value is returned, for the caller to wake
    /// when it holds nothing any more that a waker's code may want.
    pub(crate) fn try_send_quietly(&self, value: T) -> Result<Option<KeptWaker>, TrySendError<T>> {
        let mut value = Some(value);
        let (outcome, waker) = self.channel.attempt_quietly(Side::Send, &mut value);
        match (value, outcome) {
            (None, _) => Ok(waker),
            (Some(value), Outcome::Done) => Err(TrySendError::Closed(value)),
            (Some(value), _) => Err(TrySendError::Full(value)),
        }
    }

    /// Sends `value` from a thread that is no worker of a runtime, and parks it as long as [`send`](Self::send) would wait.
    ///
    /// Not to be called in a G: it would hold up the others of its worker.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn blocking_send(&self, value: T) -> Result<(), SendError<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(value)) => Err(SendError(value)),
            Err(TrySendError::Full(value)) => block_on(self.send(value)),
        }
    }

    /// Closes the channel: sends fail from now on, and those that wait get their value back; receivers take what is in
    /// the buffer, and then `None`.
    ///
    /// # Errors
    /// When somebody has closed it by this call before. (Go's `close` panics then.)
    pub fn close(&self) -> Result<(), AlreadyClosed> {
        if self.channel.close() {
            Ok(())
        } else {
            Err(AlreadyClosed)
        }
    }
}

impl<T> Receiver<T> {
    /// Receives the oldest value, when there is one; `None` when the channel is closed and empty.
    ///
    /// Dropped before it is ready, the future loses nothing: a value that was handed to it goes to the next receiver, or
    /// back to the head of the buffer, which may then be longer than the capacity by one. If several such futures are
    /// dropped, the value of the one that is dropped last is the first to be received. A receiver that was told of the end of a closed channel meanwhile is
    /// not told of the value any more.
    #[inline]
    pub fn recv(&self) -> Recv<'_, T> {
        Recv::new(&self.channel)
    }

    /// Receives the oldest value if that needs no waiting. One short lock; none if the channel is empty.
    ///
    /// # Errors
    /// When it would have to wait, or the channel is closed and empty.
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut value = None;
        let outcome = self.channel.attempt(Side::Recv, &mut value);
        match (value, outcome) {
            (Some(value), _) => Ok(value),
            (None, Outcome::Done) => Err(TryRecvError::Closed),
            (None, _) => Err(TryRecvError::Empty),
        }
    }

    /// Receives on a thread that is no worker of a runtime, and parks it as long as [`recv`](Self::recv) would wait.
    ///
    /// Not to be called in a G: it would hold up the others of its worker.
    pub fn blocking_recv(&self) -> Option<T> {
        match self.try_recv() {
            Ok(value) => Some(value),
            Err(TryRecvError::Closed) => None,
            Err(TryRecvError::Empty) => block_on(self.recv()),
        }
    }
}

/// What both handles can do.
macro_rules! both_handles {
    ($handle:ident, $count:ident, $when_last:ident) => {
        impl<T> $handle<T> {
            pub(super) fn channel(&self) -> &Channel<T> {
                &self.channel
            }

            /// How many values are in the buffer.
            pub fn len(&self) -> usize {
                self.channel.len()
            }

            /// Whether no value is in the buffer.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many values the buffer holds.
            pub fn capacity(&self) -> usize {
                self.channel.capacity()
            }

            /// Whether sends fail: the channel is closed, or one of its sides is gone. No lock.
            pub fn is_closed(&self) -> bool {
                self.channel.ready().is_closed()
            }
        }

        impl<T> Clone for $handle<T> {
            fn clone(&self) -> Self {
                // Relaxed: a handle that exists keeps the count above 0.
                self.channel.$count.fetch_add(1, Ordering::Relaxed);
                Self {
                    channel: self.channel.clone(),
                }
            }
        }

        impl<T> Drop for $handle<T> {
            fn drop(&mut self) {
                if is_last(&self.channel.$count) {
                    self.channel.$when_last();
                }
            }
        }

        impl<T> fmt::Debug for $handle<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($handle))
                    .field(&self.channel)
                    .finish()
            }
        }
    };
}

both_handles!(Sender, senders, shut);
both_handles!(Receiver, receivers, abandon);

/// One handle less; true if it was the last.
fn is_last(count: &AtomicUsize) -> bool {
    // Release: what was done through this handle comes before the end; pairs with the fence.
    if count.fetch_sub(1, Ordering::Release) != 1 {
        return false;
    }
    // Acquire: what was done through the other handles has happened; pairs with the Release.
    fence(Ordering::Acquire);
    true
}

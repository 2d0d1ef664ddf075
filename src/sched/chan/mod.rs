//! Channels between Gs, with Go's rules: first in, first out, any number of senders and receivers, closed once.
//!
//! [`chan`] makes one. A value goes straight to the receiver that has waited longest, if there is one; else into the
//! buffer, if it has room; else its sender waits. A receive takes from the buffer first, which lets the oldest waiting
//! sender in behind, else from the oldest waiting sender. `select!` waits for several at once.
//!
//! | file | what is there |
//! |---|---|
//! | `party.rs` | who waits: its waker, and the word that says who decides how its wait ends |
//! | `channel.rs` | a channel: buffer, waiters, the lock, what each operation does |
//! | `op.rs` | one waiting send or receive: `Send`, `Recv` |
//! | `handle.rs`, `error.rs` | `Sender`, `Receiver`; what goes wrong |
//! | `blocking.rs` | a thread that waits |
//! | `select.rs`, `cases.rs`, `select_macro.rs` | waiting for the first of several |
//! | `models.rs`, `random_models.rs` | models, for loom and for shuttle |

mod blocking;
mod cases;
mod channel;
mod error;
mod handle;
#[cfg(all(test, loom))]
mod models;
mod op;
mod party;
#[cfg(all(test, shuttle))]
mod random_models;
mod select;
mod select_macro;

pub use self::error::{AlreadyClosed, SendError, TryRecvError, TrySendError};
pub(crate) use self::handle::{BYTES_OF_TOKENS, chan_of_tokens};
pub use self::handle::{Receiver, Sender, chan};
pub use self::op::{Recv, Send};

/// What the expansion of `select!` names.
#[doc(hidden)]
pub mod plumbing {
    pub use crate::sched::chan::cases::{
        Case, Cases, Choice, Chooser, Enqueued, FutureCase, IntoReceiver, IntoSender, Never,
        RecvCase, SendCase, future, recv, send,
    };
    pub use crate::sched::chan::select::{Select, SelectNow, select, select_now};
}

//! What a G waits for, as far as it is known.

use std::fmt;

/// Why a G does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WaitReason {
    /// A future of somebody else's.
    Unknown = 0,
    Yield,
    Sleep,
    ChanSend,
    ChanRecv,
    /// A receive or send on a channel that is `None`.
    NilChan,
    Select,
    Mutex,
    RwLockRead,
    RwLockWrite,
    WaitGroup,
    Once,
    Cond,
    Context,
    Join,
    Io,
    /// Its turn, after a blocking call.
    Blocking,
    /// A thread to block on.
    Thread,
    /// It does not wait: it runs a blocking call.
    Call,
}

impl WaitReason {
    /// How many there are.
    pub(crate) const COUNT: usize = 19;
    const ALL: [Self; Self::COUNT] = [
        Self::Unknown,
        Self::Yield,
        Self::Sleep,
        Self::ChanSend,
        Self::ChanRecv,
        Self::NilChan,
        Self::Select,
        Self::Mutex,
        Self::RwLockRead,
        Self::RwLockWrite,
        Self::WaitGroup,
        Self::Once,
        Self::Cond,
        Self::Context,
        Self::Join,
        Self::Io,
        Self::Blocking,
        Self::Thread,
        Self::Call,
    ];

    /// The reason of that number.
    pub(crate) fn of(number: u8) -> Self {
        Self::ALL
            .get(usize::from(number))
            .copied()
            .unwrap_or(Self::Unknown)
    }

    /// Whether it is a wait for somebody who holds a waker, so that nothing ends it once nobody does who could use it.
    /// Of a future of somebody else's it is not known.
    pub(crate) fn needs_a_waker(self) -> bool {
        !matches!(
            self,
            Self::Unknown | Self::Yield | Self::Blocking | Self::Call
        )
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a future",
            Self::Yield => "its turn",
            Self::Sleep => "time",
            Self::ChanSend => "a channel to send to",
            Self::ChanRecv => "a channel to receive from",
            Self::NilChan => "a channel that is none",
            Self::Select => "a select",
            Self::Mutex => "a mutex",
            Self::RwLockRead => "a lock to read",
            Self::RwLockWrite => "a lock to write",
            Self::WaitGroup => "a wait group",
            Self::Once => "a once",
            Self::Cond => "a condition",
            Self::Context => "a context to end",
            Self::Join => "another G to end",
            Self::Io => "I/O",
            Self::Blocking => "its turn after a blocking call",
            Self::Thread => "a thread for a blocking call",
            Self::Call => "a blocking call",
        })
    }
}

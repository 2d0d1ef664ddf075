//! The native functions.

use std::time::{SystemTime, UNIX_EPOCH};

use greywave::{Gc, Mutator};

use crate::error::RuntimeError;
use crate::object::Foreign;
use crate::thread::{self, Wait};
use crate::value::Value;

/// A native function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Native {
    /// Seconds since 1970.
    Clock,
    /// Waits for a thread; what its function returned.
    Join,
    /// A channel for some values.
    Channel,
    /// Puts a value into a channel, waiting for room.
    Send,
    /// Takes a value out of a channel, waiting for one.
    Receive,
}

/// What a native function comes to.
#[derive(Debug)]
pub(crate) enum Outcome<'gc> {
    /// Its result.
    Value(Value<'gc>),
    /// It is to be called again when this wait is over.
    Wait(Wait),
}

impl Native {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Clock,
        Self::Join,
        Self::Channel,
        Self::Send,
        Self::Receive,
    ];

    /// The name of the global variable that holds it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Join => "join",
            Self::Channel => "channel",
            Self::Send => "send",
            Self::Receive => "recv",
        }
    }

    fn arity(self) -> usize {
        match self {
            Self::Clock => 0,
            Self::Join | Self::Channel | Self::Receive => 1,
            Self::Send => 2,
        }
    }

    /// Calls it.
    pub(crate) fn call<'gc>(
        self,
        m: &'gc Mutator,
        shared: &thread::Shared,
        arguments: &[Value<'gc>],
    ) -> Result<Outcome<'gc>, Box<RuntimeError>> {
        if arguments.len() != self.arity() {
            return Err(Box::new(RuntimeError::Arity {
                name: self.name().to_owned(),
                expected: self.arity(),
                got: arguments.len(),
            }));
        }
        match (self, arguments) {
            (Self::Clock, _) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let seconds = now.map_or(0.0, |time| time.as_secs_f64());
                Ok(Outcome::Value(Value::number(seconds)))
            }
            (Self::Channel, &[capacity]) => thread::new_channel(m, shared, capacity),
            (Self::Join, &[handle]) => thread::join(foreign(handle)),
            (Self::Send, &[channel, value]) => thread::send(m, foreign(channel), value),
            (Self::Receive, &[channel]) => thread::receive(m, foreign(channel)),
            _ => Ok(Outcome::Value(Value::NIL)),
        }
    }
}

fn foreign<'gc>(value: Value<'gc>) -> Option<Gc<'gc, Foreign<'gc>>> {
    value.as_foreign()
}

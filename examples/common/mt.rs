//! Allocation traces (`.mt`): a stream of LEB128 numbers `v`. If `v` is even, `v / 2` bytes are
//! allocated; objects are numbered from 0 in this order. If `v` is odd, the object that was
//! allocated `v / 2` allocations ago is freed (1 is the newest).

use std::io::Read;

use super::decode::{DecodeError, Input, Problem};

/// One event of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The next object, of so many bytes.
    Alloc { size: usize },
    /// The object of this number goes.
    Free { object: u64 },
}

/// Reads a trace event by event, in constant memory. After an error there is nothing more.
#[derive(Debug)]
pub(crate) struct Events<R> {
    input: Input<R>,
    allocated: u64,
    /// Where the last event began.
    event_offset: u64,
    failed: bool,
}

impl<R: Read> Events<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            input: Input::new(from),
            allocated: 0,
            event_offset: 0,
            failed: false,
        }
    }

    /// How many objects have been allocated so far.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// The offset of the event that `next` gave last.
    pub(crate) fn event_offset(&self) -> u64 {
        self.event_offset
    }

    fn event(&mut self) -> Result<Option<Event>, DecodeError> {
        self.event_offset = self.input.offset();
        let Some(number) = varint(&mut self.input)? else {
            return Ok(None);
        };
        if number & 1 == 0 {
            // Below 2^63, which the allocation may refuse but a usize holds.
            let size = (number >> 1) as usize;
            self.allocated += 1;
            return Ok(Some(Event::Alloc { size }));
        }
        let (back, allocated) = (number >> 1, self.allocated);
        match allocated.checked_sub(back) {
            Some(object) if back > 0 => Ok(Some(Event::Free { object })),
            _ => {
                let problem = Problem::FreeOfUnknown { back, allocated };
                Err(DecodeError {
                    offset: self.event_offset,
                    problem,
                })
            }
        }
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = Result<Event, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let event = self.event();
        self.failed = event.is_err();
        event.transpose()
    }
}

/// A LEB128 number; `None` if the input ends before its first byte.
fn varint<R: Read>(input: &mut Input<R>) -> Result<Option<u64>, DecodeError> {
    let offset = input.offset();
    let Some(mut byte) = input.byte()? else {
        return Ok(None);
    };
    let mut number = u64::from(byte & 0x7F);
    let mut shift = 7;
    while byte & 0x80 != 0 {
        [byte] = input.take("a number")?;
        // The tenth byte has room for one bit.
        let room = if shift < 63 {
            0x7F
        } else {
            u8::from(shift == 63)
        };
        if byte & 0x7F > room || (shift == 63 && byte & 0x80 != 0) {
            return Err(DecodeError {
                offset,
                problem: Problem::VarintTooLong,
            });
        }
        number |= u64::from(byte & 0x7F) << shift;
        shift += 7;
    }
    Ok(Some(number))
}

/// Writes a trace. A free of an object that is not allocated yet writes what the reader
/// refuses.
pub(crate) fn encode(events: impl IntoIterator<Item = Event>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut allocated = 0_u64;
    for event in events {
        let mut number = match event {
            Event::Alloc { size } => {
                allocated += 1;
                (size as u64) << 1
            }
            Event::Free { object } => allocated.saturating_sub(object) << 1 | 1,
        };
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }
    bytes
}

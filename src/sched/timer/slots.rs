//! The slots of timers: numbered places that do not move, in chunks that come and go.
//!
//! A chunk with a free slot is in the list of open chunks, whether or not it has memory. A slot is taken from the first of
//! them; it becomes full as the first, so it leaves the list from there. A chunk in which the last timer goes gives its
//! memory back, unless it is the only one so far that is empty: that one is kept, so that a timer that comes and goes costs
//! no allocation. What stays of a chunk is its head, less than a byte for each slot that it had.
//!
//! (One list of all slots, with a list of the free ones through it, kept its peak for as long as one timer was left.)

use crate::sched::wakers::KeptWaker;
use crate::sys::MODELLED;

/// How many slots a chunk has.
const CHUNK: usize = if MODELLED || cfg!(miri) { 2 } else { 64 };

/// The end of a list of slots or of chunks.
const END: u32 = u32::MAX;

/// Names a timer. A key outlives its timer: tickets are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) slot: u32,
    pub(super) ticket: u64,
}

/// See the head of `timer.rs` for its states.
#[derive(Debug)]
struct Slot {
    waker: Option<KeptWaker>,
    /// The deadline; in a free slot, the place in its chunk of the next free one.
    when: u64,
    /// Which timer of all that this heap had.
    ticket: u64,
}

#[derive(Debug)]
struct Chunk {
    /// All of them, or none while no slot is in use.
    slots: Box<[Slot]>,
    used: u32,
    /// The first free slot.
    free: u32,
    /// The next open chunk.
    next_open: u32,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Slots {
    chunks: Vec<Chunk>,
    /// The first open chunk.
    open: u32,
    /// The chunk that is empty and has memory, if there is one.
    spare: u32,
    tickets: u64,
}

impl Chunk {
    /// Gives it memory, with every slot free.
    fn furnish(&mut self) {
        let slot = |place: usize| Slot {
            waker: None,
            when: if place + 1 < CHUNK {
                place as u64 + 1
            } else {
                END.into()
            },
            ticket: 0,
        };
        self.slots = (0..CHUNK).map(slot).collect();
        self.free = 0;
    }
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            open: END,
            spare: END,
            tickets: 0,
        }
    }

    fn slot(&self, number: u32) -> &Slot {
        let number = number as usize;
        &self.chunks[number / CHUNK].slots[number % CHUNK]
    }

    fn slot_mut(&mut self, number: u32) -> &mut Slot {
        let number = number as usize;
        &mut self.chunks[number / CHUNK].slots[number % CHUNK]
    }

    /// A slot for a timer that waits.
    pub(super) fn fill(&mut self, when: u64, waker: KeptWaker) -> Key {
        self.tickets += 1;
        let ticket = self.tickets;
        if self.open == END {
            // Memory ends before the numbers do: 2^32 slots are 128 GiB.
            self.open = self.chunks.len() as u32;
            self.chunks.push(Chunk {
                slots: Box::default(),
                used: 0,
                free: END,
                next_open: END,
            });
        }
        let at = self.open;
        if self.spare == at {
            self.spare = END;
        }
        let chunk = &mut self.chunks[at as usize];
        if chunk.slots.is_empty() {
            chunk.furnish();
        }
        let place = chunk.free;
        let slot = &mut chunk.slots[place as usize];
        chunk.free = slot.when as u32;
        chunk.used += 1;
        *slot = Slot {
            waker: Some(waker),
            when,
            ticket,
        };
        if chunk.free == END {
            self.open = chunk.next_open;
        }
        let slot = at * CHUNK as u32 + place;
        Key { slot, ticket }
    }

    /// The waker of a timer that waits; it stays there or is taken out, never changed into nothing and back.
    pub(super) fn waker_of(&mut self, key: Key) -> Option<&mut Option<KeptWaker>> {
        let number = key.slot as usize;
        let chunk = self.chunks.get_mut(number / CHUNK)?;
        let slot = chunk.slots.get_mut(number % CHUNK)?;
        (slot.ticket == key.ticket && slot.waker.is_some()).then_some(&mut slot.waker)
    }

    /// The deadline of the timer in a slot, None if it was cancelled.
    pub(super) fn deadline(&self, number: u32) -> Option<u64> {
        let slot = self.slot(number);
        slot.waker.as_ref().map(|_| slot.when)
    }

    /// The deadline of the timer in a slot.
    pub(super) fn when_mut(&mut self, number: u32) -> &mut u64 {
        &mut self.slot_mut(number).when
    }

    /// The slot is free; returns the waker, if it was not cancelled.
    pub(super) fn release(&mut self, number: u32) -> Option<KeptWaker> {
        let (at, place) = (number / CHUNK as u32, number % CHUNK as u32);
        let chunk = &mut self.chunks[at as usize];
        if chunk.free == END {
            chunk.next_open = self.open;
            self.open = at;
        }
        let slot = &mut chunk.slots[place as usize];
        slot.when = chunk.free.into();
        let waker = slot.waker.take();
        chunk.free = place;
        chunk.used -= 1;
        if chunk.used == 0 {
            if self.spare == END {
                self.spare = at;
            } else {
                chunk.slots = Box::default();
                // Not END: it is open.
                chunk.free = 0;
            }
        }
        waker
    }

    /// How many slots there is memory for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.slots.len()).sum()
    }
}

//! A ring of messages at full speed: the time of each insert, which is an allocation of 1 KiB, a
//! store of each word and a store into the ring. Microseconds.

use std::time::{Duration, Instant};

use crate::measure::{Error, Report, Times};
use crate::peers;

/// Words of a message besides its number.
pub const WORDS: usize = 127;

/// A memory manager that can run this program.
pub trait Ring {
    /// Puts `clock.inserts()` messages into a ring of `messages` places, each at the next place,
    /// and calls [`Clock::lap`] after each. Then gives the clock each message that is left.
    fn run(messages: usize, clock: &mut Clock);
}

/// The content of the message of a number.
pub fn content(number: u64) -> [u64; WORDS] {
    [u64::from_ne_bytes([number as u8; 8]); WORDS]
}

/// Takes the time of each insert, and looks at the result.
#[derive(Debug)]
pub struct Clock {
    messages: u64,
    inserts: u64,
    before: Instant,
    total: Duration,
    times: Times,
    whole: u64,
}

impl Clock {
    /// How many are wanted.
    pub fn inserts(&self) -> u64 {
        self.inserts
    }

    /// The first insert begins.
    pub fn start(&mut self) {
        self.before = Instant::now();
    }

    /// An insert is over, and the next one begins.
    #[inline]
    pub fn lap(&mut self) {
        let now = Instant::now();
        let took = now - self.before;
        self.times.record(took);
        self.total += took;
        self.before = now;
    }

    /// What is at a place of the ring at the end.
    pub fn look(&mut self, place: usize, number: u64, words: &[u64; WORDS]) {
        let oldest = self.inserts.saturating_sub(self.messages);
        let is_there = (oldest..self.inserts).contains(&number);
        let is_place = number % self.messages == place as u64;
        self.whole += u64::from(is_there && is_place && *words == content(number));
    }
}

/// The program.
pub fn run(peer: &str, messages: &str, inserts: &str) -> Result<Report, Error> {
    match peer {
        "greywave" => on::<peers::grey::Plain>(messages, inserts),
        _ => Err(format!("{peer} has no ring program").into()),
    }
}

fn on<P: Ring>(messages: &str, inserts: &str) -> Result<Report, Error> {
    let (messages, inserts): (usize, u64) = (messages.parse()?, inserts.parse()?);
    let mut clock = Clock {
        messages: messages as u64,
        inserts,
        before: Instant::now(),
        total: Duration::ZERO,
        times: Times::new(),
        whole: 0,
    };
    P::run(messages, &mut clock);
    if clock.whole != inserts.min(messages as u64) {
        return Err(format!("{} messages are whole at the end", clock.whole).into());
    }
    Ok(Report::times(&clock.times, clock.total))
}

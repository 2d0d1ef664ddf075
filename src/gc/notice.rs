//! What is said when something goes wrong without an error: a mutator that does not reach a
//! safepoint, a thread that waits for a lock and never gets it, a heap that cannot be collected.
//!
//! The rule is "never silent, and never a flood". A trouble is told when it is [`FIRST`] old, and
//! then each time that its age has doubled. It goes to the sink of
//! [`on_event`](crate::HeapBuilder::on_event) if there is one; else, as one line, to standard error,
//! unless the heap is [quiet](crate::HeapBuilder::quiet). The feature `tracing` gets a warning as well.
//!
//! **How a part of the crate tells its own trouble.** It adds a variant to [`Event`], with its line
//! in the `Display` of `Event`: who, since when, where, and what usually helps. Where it waits, it
//! keeps a [`BackOff`] beside the moment when the wait began, wakes at least each 100 ms, and asks
//! [`BackOff::is_due`]. When that says yes, it calls [`Collector::tell`], on any thread
//! (`api::current::current` names the collector of this thread's mutator); where no heap is at hand,
//! [`tell_without_heap`].
//!
//! Nothing else in the crate writes warnings.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::gc::collecting::collecting_for;
use crate::gc::collector::Collector;
use crate::gc::events::Event;
use crate::gc::spans;
use crate::sys::quiet::contain;
use crate::sys::thread;

/// How old a trouble is when it is told for the first time.
pub(crate) const FIRST: Duration = Duration::from_secs(1);

/// When a trouble is due to be told: at a first age, and each time its age has doubled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    next: Duration,
}

impl BackOff {
    /// Due for the first time at the age `first`; as a rule [`FIRST`].
    pub(crate) const fn new(first: Duration) -> Self {
        Self { next: first }
    }

    /// Whether a trouble of that age is to be told now. After a yes it is no until the age has doubled.
    pub(crate) fn is_due(&mut self, age: Duration) -> bool {
        if age < self.next || self.next.is_zero() {
            return false;
        }
        while self.next <= age {
            self.next = self.next.saturating_mul(2);
        }
        true
    }
}

/// Writes one line to standard error.
fn write_line(what: fmt::Arguments<'_>) {
    use std::io::Write;
    // In one piece: standard error has no buffer, and the process may end, or others may write,
    // between two pieces.
    let line = format!("greywave: warning: {what}\n");
    // Whoever closed standard error does not want to read it.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Tells of a trouble in which no heap is at hand; `GREYWAVE=quiet=1` silences it.
pub(crate) fn tell_without_heap(event: &Event) {
    static IS_QUIET: OnceLock<bool> = OnceLock::new();
    spans::warn(event);
    let is_quiet = || {
        let list = std::env::var("GREYWAVE").unwrap_or_default();
        list.split(',').any(|item| item.trim() == "quiet=1")
    };
    if !*IS_QUIET.get_or_init(is_quiet) {
        write_line(format_args!("{event}"));
    }
}

impl Collector {
    /// Tells the user. The sink runs here if this is the collector's thread, else on a thread of its
    /// own: this one may hold a lock that the sink takes.
    pub(crate) fn tell(&self, event: &Event) {
        if event.is_trouble() {
            spans::warn(event);
        }
        let Some(sink) = &self.settings.sink else {
            if event.has_a_line() && !self.settings.quiet {
                write_line(format_args!("{event}"));
            }
            return;
        };
        // [D2] The sink is user code.
        if collecting_for() == self.id {
            contain(|| sink(event));
        } else {
            let (sink, event) = (sink.clone(), event.clone());
            // A system without room for a thread has greater trouble than this one.
            let _ = thread::spawn("greywave-notice".to_owned(), move || {
                contain(move || sink(&event));
            });
        }
    }

    /// The age at which a late mutator is told of: a sink hears of it early, standard error late.
    pub(crate) fn first_telling(&self, early: Duration) -> Duration {
        if self.settings.sink.is_some() {
            early
        } else {
            FIRST
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_at_its_first_age_and_whenever_it_has_doubled() {
        let mut told = BackOff::new(FIRST);
        let due: Vec<u64> = (0..=10_000)
            .step_by(10)
            .filter(|&ms| told.is_due(Duration::from_millis(ms)))
            .collect();
        assert_eq!(due, [1000, 2000, 4000, 8000]);
    }

    #[test]
    fn looks_that_were_missed_are_not_made_up_for() {
        let mut told = BackOff::new(FIRST);
        assert!(told.is_due(Duration::from_secs(9)));
        assert!(!told.is_due(Duration::from_secs(15)));
        assert!(told.is_due(Duration::from_secs(16)));
        assert!(
            !BackOff::new(Duration::ZERO).is_due(Duration::MAX),
            "no loop without an end"
        );
    }
}

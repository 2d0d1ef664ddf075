//! Models of the word of a `GcLock`.

use std::sync::Arc;

use super::*;
use crate::sys::lock::Unranked;
use crate::sys::model::{Plain, explore};

const CYCLE: u32 = 2;
const OLD: u64 = 1;
const NEW: u64 = 2;

/// A `GcLock` whose content is one edge.
struct Content {
    word: LockWord,
    value: Plain<u64>,
}

fn content() -> Arc<Content> {
    Arc::new(Content {
        word: LockWord::new(),
        value: Plain::new(OLD),
    })
}

/// When the first writer of a cycle reports the old content.
#[derive(Clone, Copy, PartialEq)]
enum Log {
    BeforeItWrites,
    Never,
}

impl Content {
    /// `GcLock::write`, and a write; returns what was logged.
    fn write(&self, log: Log) -> u64 {
        let logged = self.write_lock();
        let mut report = 0;
        if logged != CYCLE && log == Log::BeforeItWrites {
            // [L2]
            report = self.value.get();
        }
        self.value.set(NEW);
        self.word.unlock_write();
        report
    }

    /// The slow path of `GcLock::write`.
    fn write_lock(&self) -> u32 {
        let taken = self.word.try_write(CYCLE);
        taken.unwrap_or_else(|| {
            let take = || self.word.try_write(CYCLE);
            self.word.wait_to_write(take, &mut |_| ())
        })
    }

    fn read_lock(&self, holds_a_share: bool) {
        if self.word.try_read(|| holds_a_share) != Read::Taken {
            let read = self.word.wait_to_read(|| holds_a_share, &mut |_| ());
            assert_eq!(read, Read::Taken);
        }
    }

    fn read(&self) -> u64 {
        self.read_lock(false);
        let value = self.value.get();
        self.word.unlock_read();
        value
    }

    /// A thread that holds a share takes another one.
    fn read_twice(&self) -> [u64; 2] {
        self.read_lock(false);
        let first = self.value.get();
        self.read_lock(true);
        let second = self.value.get();
        self.word.unlock_read();
        self.word.unlock_read();
        [first, second]
    }

    /// `GcLock::trace`; returns what was reported.
    fn mark(&self) -> u64 {
        self.mark_beside(|_| false)
    }

    /// The same, while there are other heaps.
    fn mark_beside(&self, is_anothers: impl Fn(u32) -> bool) -> u64 {
        match self.word.begin_mark(CYCLE, is_anothers) {
            MarkView::Shared => {
                let seen = self.value.get();
                self.word.finish_mark(CYCLE);
                seen
            }
            MarkView::Logged | MarkView::Foreign => 0,
            MarkView::Forgotten => self.value.get(),
        }
    }

    /// A walk of the verifier.
    fn look_beside(&self, is_anothers: impl Fn(u32) -> bool) -> u64 {
        match self.word.begin_look(CYCLE, false, is_anothers) {
            LookView::Shared => {
                let seen = self.value.get();
                self.word.finish_look();
                seen
            }
            LookView::Forgotten => self.value.get(),
            LookView::Written => 0,
        }
    }

    /// `GcLock::write` with a mutator of another heap, and a write, unless what is in the lock is
    /// of the first heap.
    fn write_from(&self, number: u32) {
        match self.word.try_write_to_look(number) {
            Some(Taken::Whole) => {}
            Some(Taken::ToLook) => {
                if self.value.get() == OLD {
                    return self.word.unlock_look();
                }
                self.word.has_looked(number);
            }
            None => return,
        }
        self.value.set(NEW);
        self.word.unlock_write();
    }
}

/// Numbers of another heap, before and after its stop.
const FOREIGN: u32 = 7;
const NEXT: u32 = 8;
/// What is of no heap.
const NEUTRAL: u64 = 5;

fn neutral() -> Arc<Content> {
    Arc::new(Content {
        word: LockWord::new(),
        value: Plain::new(NEUTRAL),
    })
}

/// Another heap's mutator looks whether it may write, and may not. A marker that comes meanwhile
/// still reports the content.
#[test]
fn loom_lock_a_look_hides_nothing() {
    explore(3, |order| {
        let lock = content();
        let (here, there) = (lock.clone(), lock.clone());
        let ((), seen) = order.race(
            move || here.write_from(FOREIGN),
            move || there.mark_beside(|n| n == FOREIGN),
        );
        assert_eq!(seen, OLD, "the content is reported");
        assert_eq!(lock.read(), OLD);
    });
}

/// The negative control: it looks with the lock held for writing.
#[test]
#[should_panic(expected = "the content is reported")]
fn loom_lock_a_look_under_the_writers_bit_fails() {
    explore(3, |order| {
        let lock = content();
        let (here, there) = (lock.clone(), lock);
        let (_, seen) = order.race(
            move || {
                if here.word.try_write(FOREIGN).is_some() {
                    assert_eq!(here.value.get(), OLD);
                    here.word.unlock_write();
                }
            },
            move || there.mark_beside(|n| n == FOREIGN),
        );
        assert_eq!(seen, OLD, "the content is reported");
    });
}

/// Another heap's mutator writes to what is nobody's, beside a marker and a verifier that do not
/// stop it.
#[test]
fn loom_lock_another_heaps_writer_is_left_out() {
    explore(2, |order| {
        let lock = neutral();
        let (one, two, three) = (lock.clone(), lock.clone(), lock);
        order.race3(
            move || one.mark_beside(|n| n == FOREIGN),
            move || two.write_from(FOREIGN),
            move || three.look_beside(|n| n == FOREIGN),
        );
    });
}

/// The negative control: a marker that takes each number that is not its own for a forgotten one.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_lock_another_heaps_writer_taken_for_forgotten_fails() {
    explore(3, |order| {
        let lock = neutral();
        let (here, there) = (lock.clone(), lock);
        order.race(
            move || here.write_from(FOREIGN),
            move || there.mark_beside(|_| false),
        );
    });
}

/// The other heap has a stop between two of its writes: the second one has another number, which
/// nobody who has asked for the first one must take for gone. `beside` looks at the lock meanwhile,
/// and is given who says whether a number is a heap's.
fn another_heap_goes_on(
    beside: impl Fn(&Content, &dyn Fn(u32) -> bool) -> u64 + Send + Sync + Copy + 'static,
) {
    explore(3, move |order| {
        let lock = neutral();
        let number = Arc::new(Unranked::new(FOREIGN));
        let (here, there) = (lock.clone(), lock);
        let is_now = number.clone();
        order.race(
            move || {
                here.write_from(FOREIGN);
                *number.lock() = NEXT;
                here.write_from(NEXT);
            },
            move || beside(&there, &|n| *is_now.lock() == n),
        );
    });
}

#[test]
fn loom_lock_another_heap_goes_on_during_a_mark() {
    another_heap_goes_on(|lock, is_now| lock.mark_beside(is_now));
}

/// The same for a verifier.
#[test]
fn loom_lock_another_heap_goes_on_during_a_look() {
    another_heap_goes_on(|lock, is_now| lock.look_beside(is_now));
}

/// First write of a cycle against a marker: the old content is always reported, by one of them, and
/// nobody reads what the writer writes.
fn first_write_against_marker(log: Log) {
    explore(3, move |order| {
        let lock = content();
        let (here, there) = (lock.clone(), lock);
        let (a, b) = order.race(move || here.write(log), move || there.mark());
        assert_eq!((a | b) & OLD, OLD, "the old content is reported");
    });
}

#[test]
fn loom_lock_first_write_against_marker() {
    first_write_against_marker(Log::BeforeItWrites);
}

#[test]
#[should_panic(expected = "the old content is reported")]
fn loom_lock_without_log_fails() {
    first_write_against_marker(Log::Never);
}

/// Two writers and a marker: whoever is first reports, and only then does the content change.
#[test]
fn loom_lock_two_writers_against_marker() {
    explore(2, |order| {
        let lock = content();
        let (one, two, three) = (lock.clone(), lock.clone(), lock);
        let (a, b, c) = order.race3(
            move || one.write(Log::BeforeItWrites),
            move || two.mark(),
            move || three.write(Log::BeforeItWrites),
        );
        assert_eq!((a | b | c) & OLD, OLD);
    });
}

/// Two markers (one of them a mutator that logs an outer lock) and a writer.
#[test]
fn loom_lock_write_against_two_markers() {
    explore(2, |order| {
        let lock = content();
        let (one, two, three) = (lock.clone(), lock.clone(), lock);
        let (a, b, c) = order.race3(
            move || one.mark(),
            move || two.write(Log::BeforeItWrites),
            move || three.mark(),
        );
        assert_eq!((a | b | c) & OLD, OLD);
    });
}

/// Whoever parks is woken: by a reader, a writer or a marker that leaves. A lost wake-up would be a
/// deadlock.
#[test]
fn loom_lock_wakes_who_waits() {
    explore(2, |order| {
        let lock = content();
        let (one, two, three) = (lock.clone(), lock.clone(), lock.clone());
        let (seen, _, _) = order.race3(
            move || one.read(),
            move || two.write(Log::Never),
            move || three.write(Log::Never),
        );
        assert!(seen == OLD || seen == NEW);
        assert_eq!(lock.read(), NEW);
    });
}

/// A reader comes twice while a writer waits, and another reader comes from outside: nobody waits
/// for ever.
#[test]
fn loom_lock_reader_inside_against_a_waiting_writer() {
    explore(2, |order| {
        let lock = content();
        let (one, two, three) = (lock.clone(), lock.clone(), lock);
        let ([first, second], _, seen) = order.race3(
            move || one.read_twice(),
            move || two.write(Log::Never),
            move || three.read(),
        );
        assert_eq!(first, second, "nobody writes under a share");
        assert!(seen == OLD || seen == NEW);
    });
}

/// Readers have forgotten all the guards there may be. Two markers still have their shares, and a
/// writer stays out.
#[test]
fn loom_lock_markers_at_a_full_count() {
    explore(2, |order| {
        let lock = content();
        lock.word.forget_readers(READERS_MAX as u32);
        let (one, two, three) = (lock.clone(), lock.clone(), lock.clone());
        let (a, b, wrote) = order.race3(
            move || one.mark(),
            move || two.mark(),
            move || three.word.try_write(CYCLE).is_some(),
        );
        assert!(!wrote, "beside read guards");
        assert_eq!((a | b) & OLD, OLD);
        assert_eq!(lock.word.try_read(|| true), Read::Full);
    });
}

/// Two markers of the next cycle find a guard that was forgotten in the last one.
#[test]
fn loom_lock_two_markers_of_a_forgotten_guard() {
    explore(3, |order| {
        let lock = content();
        assert_eq!(lock.word.try_write(CYCLE - 1), Some(0));
        let (one, two) = (lock.clone(), lock.clone());
        let (a, b) = order.race(
            move || one.word.begin_mark(CYCLE, |_| false),
            move || two.word.begin_mark(CYCLE, |_| false),
        );
        assert_eq!((a, b), (MarkView::Forgotten, MarkView::Forgotten));
        let view = lock.word.begin_look(CYCLE - 1, true, |_| false);
        assert_eq!(view, LookView::Forgotten);
    });
}

#[test]
fn loom_lock_marker_wakes_a_writer() {
    explore(2, |order| {
        let lock = content();
        let (one, two, three) = (lock.clone(), lock.clone(), lock);
        order.race3(
            move || one.mark(),
            move || two.write(Log::Never),
            move || three.read(),
        );
    });
}

/// The negative control: a writer that leaves without a look at `PARKED`.
#[test]
#[should_panic(expected = "deadlock")]
fn loom_lock_without_wake_up_fails() {
    explore(2, |order| {
        let lock = content();
        let (here, there) = (lock.clone(), lock);
        order.race(
            move || {
                here.write_lock();
                // Release: as in `unlock_write`.
                here.word.0.fetch_and(!WRITER, Ordering::Release);
            },
            move || there.read(),
        );
    });
}

//! Who gets in, who stays out, and what is forgotten.

use std::sync::atomic::AtomicBool;

use super::*;

fn reads(word: &LockWord) -> bool {
    word.try_read(|| false) == Read::Taken
}

fn read(word: &LockWord) {
    if !reads(word) {
        assert_eq!(word.wait_to_read(|| false, &mut |_| ()), Read::Taken);
    }
}

fn write(word: &LockWord, cycle: u32) -> u32 {
    let taken = word.try_write(cycle);
    taken.unwrap_or_else(|| word.wait_to_write(|| word.try_write(cycle), &mut |_| ()))
}

/// There is one heap.
const NOBODYS: fn(u32) -> bool = |_| false;

fn flags(word: &LockWord) -> u64 {
    word.0.load(Ordering::Relaxed) & (WRITER | PARKED | WAITING | FORGOTTEN)
}

/// Waits until a thread has said that it waits to write.
fn await_a_waiting_writer(word: &LockWord) {
    while flags(word) & (WAITING | PARKED) != WAITING | PARKED {
        std::thread::yield_now();
    }
}

#[test]
fn a_reader_stays_out_while_a_writer_waits_unless_it_is_in_already() {
    let w = LockWord::new();
    read(&w);
    std::thread::scope(|s| {
        s.spawn(|| {
            write(&w, 1);
            w.unlock_write();
        });
        await_a_waiting_writer(&w);
        assert_eq!(w.try_read(|| false), Read::Refused);
        assert_eq!(w.try_read(|| true), Read::Taken);
        w.unlock_read();
        assert_eq!(
            w.begin_mark(5, NOBODYS),
            MarkView::Shared,
            "a marker never stays out"
        );
        w.finish_mark(5);
        let late = s.spawn(|| {
            read(&w);
            w.unlock_read();
        });
        w.unlock_read();
        late.join().expect("the writer lets it in");
    });
    assert_eq!(flags(&w) & !PARKED, 0, "nobody waits any more");
    assert!(reads(&w));
}

#[test]
fn readers_that_overlap_do_not_keep_a_writer_out() {
    let w = LockWord::new();
    let (written, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                while !written.load(Ordering::Relaxed) {
                    read(&w);
                    reads.fetch_add(1, Ordering::Relaxed);
                    // Longer than a wake-up takes, so that there is always one of the four inside.
                    std::thread::sleep(Duration::from_millis(2));
                    w.unlock_read();
                }
            });
        }
        while reads.load(Ordering::Relaxed) < 8 {
            std::thread::yield_now();
        }
        write(&w, 1);
        w.unlock_write();
        written.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_full_count_of_readers_leaves_markers_their_room() {
    let w = LockWord::new();
    w.forget_readers(READERS_MAX as u32 - 1);
    assert!(reads(&w));
    assert_eq!(w.try_read(|| true), Read::Full);
    assert_eq!(w.wait_to_read(|| true, &mut |_| ()), Read::Full);
    for _ in 0..MARKERS / MARKER {
        assert_eq!(w.begin_mark(7, NOBODYS), MarkView::Shared);
        assert_eq!(w.try_write(7), None);
    }
    for _ in 0..MARKERS / MARKER {
        w.finish_mark(7);
        assert_eq!(w.try_write(7), None);
    }
    assert_eq!(w.begin_mark(7, NOBODYS), MarkView::Logged);
    w.unlock_read();
    assert!(reads(&w));
    assert_eq!(flags(&w), 0, "no count has run into its neighbour");
}

#[test]
fn what_is_forgotten_stays_so_when_its_cycle_comes_round_again() {
    let w = LockWord::new();
    assert_eq!(w.try_write(7), Some(0));
    assert_eq!(w.begin_look(7, true, NOBODYS), LookView::Written);
    assert_eq!(w.begin_look(7, false, NOBODYS), LookView::Forgotten);
    assert_eq!(w.begin_look(8, true, NOBODYS), LookView::Forgotten);
    assert_eq!(w.begin_mark(7, NOBODYS), MarkView::Logged);
    assert_eq!(w.begin_mark(8, NOBODYS), MarkView::Forgotten);
    assert_eq!(w.begin_mark(7, NOBODYS), MarkView::Forgotten);
    assert_eq!(w.begin_look(7, true, NOBODYS), LookView::Forgotten);
    assert!(w.try_write(9).is_none() && !reads(&w));
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_in() {
    let w = LockWord::new();
    read(&w);
    let gave_up = std::panic::catch_unwind(|| {
        w.wait_to_write(|| w.try_write(1), &mut |waited| {
            assert!(waited.is_zero(), "late")
        });
    });
    assert!(gave_up.is_err(), "after a second");
    assert!(reads(&w));
    w.unlock_read();
    w.unlock_read();
    assert_eq!(w.try_write(1), Some(0));
}

#[test]
fn writers_exclude_readers_and_each_other() {
    let w = LockWord::new();
    assert_eq!(w.try_write(3), Some(0));
    assert!(!reads(&w) && w.try_write(3).is_none());
    w.unlock_write();
    assert!(reads(&w) && reads(&w));
    assert!(w.try_write(3).is_none());
    w.unlock_read();
    w.unlock_read();
    assert_eq!(w.try_write(4), Some(3), "the last logged cycle");
}

#[test]
fn a_marker_sees_the_four_cases() {
    let w = LockWord::new();
    assert_eq!(w.begin_mark(5, NOBODYS), MarkView::Shared);
    assert!(reads(&w) && w.try_write(5).is_none());
    w.finish_mark(5);
    assert_eq!(w.begin_mark(5, NOBODYS), MarkView::Logged);
    assert_eq!(w.begin_mark(6, NOBODYS), MarkView::Shared);
    w.finish_mark(6);
    w.unlock_read();
    assert_eq!(w.try_write(7), Some(6));
    assert_eq!(
        w.begin_mark(7, NOBODYS),
        MarkView::Logged,
        "the writer has logged"
    );
    assert_eq!(
        w.begin_mark(8, NOBODYS),
        MarkView::Forgotten,
        "no guard lives that long"
    );
}

#[test]
fn another_heaps_writer_is_left_out_as_long_as_it_has_its_number() {
    let w = LockWord::new();
    assert_eq!(w.try_write(7), Some(0));
    let is_7 = |number| number == 7;
    assert_eq!(w.begin_mark(8, is_7), MarkView::Foreign);
    for busy in [false, true] {
        assert_eq!(w.begin_look(8, busy, is_7), LookView::Written);
    }
    // The other heap has gone on to 9.
    assert_eq!(w.begin_look(8, true, |n| n == 9), LookView::Forgotten);
    assert_eq!(w.begin_mark(8, |n| n == 9), MarkView::Forgotten);
    assert_eq!(w.begin_look(8, true, is_7), LookView::Forgotten, "for ever");
}

#[test]
fn who_looks_keeps_mutators_out_and_lets_markers_in() {
    let w = LockWord::new();
    assert_eq!(w.try_write(3), Some(0));
    w.unlock_write();
    assert_eq!(w.try_write_to_look(3), Some(Taken::Whole));
    w.unlock_write();
    for refuses in [true, false] {
        assert_eq!(w.try_write_to_look(7), Some(Taken::ToLook));
        assert!(!reads(&w) && w.try_write(3).is_none());
        assert!(w.try_write_to_look(7).is_none());
        assert!(!w.may_be_held(Kind::Read) && !w.may_be_held(Kind::Write));
        assert_eq!(w.begin_look(4, true, |_| true), LookView::Shared);
        w.finish_look();
        if refuses {
            w.unlock_look();
            assert!(reads(&w));
            w.unlock_read();
            assert_eq!(w.begin_mark(3, NOBODYS), MarkView::Logged, "as it was");
        } else {
            assert_eq!(w.begin_mark(4, |_| true), MarkView::Shared);
            w.finish_mark(4);
            assert_eq!(w.has_looked(7), 4);
            assert!(w.may_be_held(Kind::Write));
            assert_eq!(w.begin_mark(4, |n| n == 7), MarkView::Foreign);
            w.unlock_write();
        }
    }
    assert_eq!(w.begin_mark(4, |_| true), MarkView::Shared, "given back");
    w.finish_mark(4);
    assert_eq!(flags(&w), 0);
}

#[test]
fn waiting_writers_and_readers_get_their_turn() {
    let w = LockWord::new();
    let inside = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for i in 0..2000 {
                    if i % 3 == 0 {
                        read(&w);
                        assert!(!inside.load(Ordering::Relaxed));
                        w.unlock_read();
                    } else {
                        write(&w, 1);
                        assert!(!inside.swap(true, Ordering::Relaxed));
                        std::thread::yield_now();
                        inside.store(false, Ordering::Relaxed);
                        w.unlock_write();
                    }
                }
            });
        }
    });
}

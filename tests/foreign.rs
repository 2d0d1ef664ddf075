//! Foreign code that this crate runs: wakers of another executor. When such a waker is cloned,
//! woken or dropped, it may use what it waits for, or panic. Whatever it does, nobody waits for
//! itself, and the other waiters of the queue get what they wait for.
//!
//! Debug builds end the process if the crate would run such code under a lock of its own. So a
//! break of that rule does not show as a test that hangs.

#![cfg(feature = "sched")]
#![allow(
    clippy::mem_forget,
    reason = "a connection that stays is made by forgetting one end"
)]

#[path = "foreign/places.rs"]
mod places;
#[path = "support/foreign.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Poll, Waker};
use std::time::Duration;

use greywave::{Heap, Runtime, sleep};

use places::{PLACES, Place};
use support::{Act, Foreign, Part, poll_with};

/// The moment at which the foreign waker acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// It is cloned by the first poll, which makes the task wait.
    FirstPoll,
    /// It is cloned by a later poll, in place of another one.
    LaterPoll,
    /// It is dropped by a later poll, for another one.
    Replaced,
    /// It is woken.
    Woken,
    /// It is dropped because its future is.
    GivenUp,
}

const MOMENTS: [Moment; 5] = [
    Moment::FirstPoll,
    Moment::LaterPoll,
    Moment::Replaced,
    Moment::Woken,
    Moment::GivenUp,
];

/// One who has a foreign waker, one whom that waker throws out if it comes back, and one who must
/// get in.
async fn one_case(place: &'static Place, moment: Moment, comes_back: bool) {
    let case = format!("{}, {moment:?}, comes back: {comes_back}", place.name);
    let (foreign, waker) = Foreign::new();
    // Where the foreign waker is woken it is the first in the line, else it is the last.
    let is_first = moment == Moment::Woken;
    let (scene, mut abused) = loop {
        let scene = (place.make)(is_first).await;
        let mut abused = scene.wait(0);
        if !is_first || poll_with(&mut abused, &waker) == Some(Poll::Pending) {
            break (scene, abused);
        }
        // This machine is so busy that what it was to wait for has come already.
        scene.free();
    };
    let mut other = scene.wait(1);
    let mut third = scene.wait(2);
    for wait in [&mut other, &mut third] {
        let polled = poll_with(wait, Waker::noop());
        assert_eq!(polled, Some(Poll::Pending), "{case}");
    }
    let mut other = Some(other);
    let act: Act = if comes_back {
        let mut late = scene.wait(3);
        let other = other.take();
        Box::new(move || {
            drop(other);
            let _ = poll_with(&mut late, Waker::noop());
            drop(late);
        })
    } else {
        Box::new(|| panic!("a foreign waker panics on purpose"))
    };
    match moment {
        Moment::FirstPoll => {
            foreign.on(Part::Clone, act);
            let polled = poll_with(&mut abused, &waker);
            // The panic of a clone is the poll's.
            assert_eq!(polled, comes_back.then_some(Poll::Pending), "{case}");
        }
        Moment::LaterPoll => {
            let polled = poll_with(&mut abused, Waker::noop());
            assert_eq!(polled, Some(Poll::Pending), "{case}");
            foreign.on(Part::Clone, act);
            let polled = poll_with(&mut abused, &waker);
            assert_eq!(polled, comes_back.then_some(Poll::Pending), "{case}");
        }
        Moment::Replaced => {
            let polled = poll_with(&mut abused, &waker);
            assert_eq!(polled, Some(Poll::Pending), "{case}");
            foreign.on(Part::Drop, act);
            let polled = poll_with(&mut abused, Waker::noop());
            assert_eq!(polled, Some(Poll::Pending), "{case}");
        }
        Moment::Woken => foreign.on(Part::Wake, act),
        Moment::GivenUp => {
            let polled = poll_with(&mut abused, &waker);
            assert_eq!(polled, Some(Poll::Pending), "{case}");
            foreign.on(Part::Drop, act);
        }
    }
    if moment != Moment::Woken {
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(abused)));
        assert!(dropped.is_ok(), "{case}");
        drop(other);
        assert_eq!(foreign.done(), 1, "{case}");
        scene.free();
    } else {
        scene.free();
        while foreign.done() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        drop(abused);
        drop(other);
    }
    third.await;
    // Nobody is left behind: a new one is the only one.
    scene.is_empty(&case);
}

#[test]
fn a_foreign_waker_comes_back_or_panics_at_every_moment() {
    for place in PLACES {
        for moment in MOMENTS {
            for comes_back in [true, false] {
                let rt = Runtime::builder(&Heap::new())
                    .procs(1)
                    .max_threads(2)
                    .build()
                    .unwrap();
                let end = rt.block_on(one_case(place, moment, comes_back));
                assert!(end.is_ok(), "{}, {moment:?}, {comes_back}", place.name);
            }
        }
    }
}

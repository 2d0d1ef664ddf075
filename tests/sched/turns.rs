//! Gs take turns, and timers fire in time, whatever the others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use greywave::{blocking, chan, go, sleep, yield_now};

use crate::common::{Stop, compute, run};
use crate::support::Stopwatch;

/// Timers of 20 ms on one P, among Gs that always have something to do.
fn timers_fire_among<F>(busy: impl Fn(Stop) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    run(1, async move {
        for gs in [1, 2, 2, 2, 1] {
            a_timer_fires_among(gs, busy).await;
        }
    });
}

async fn a_timer_fires_among<F>(gs: usize, busy: impl Fn(Stop) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = Stop::default();
    let handles: Vec<_> = (0..gs).map(|_| go(busy(stop.clone()))).collect();
    // A timer that does not fire keeps this G for ever, and the watchdog of `run` ends the test.
    let slept = Stopwatch::start();
    sleep(Duration::from_millis(20)).await;
    stop.set();
    for handle in handles {
        handle.await.expect("no panic");
    }
    assert!(slept.has_run(Duration::from_millis(20)));
}

#[test]
fn a_timer_fires_despite_channels_that_are_always_ready() {
    timers_fire_among(|stop| async move {
        let (to, from) = chan(1);
        while !stop.is_set() {
            to.send(()).await.expect("the receiver is here");
            from.recv().await.expect("it was sent");
        }
    });
}

#[test]
fn a_timer_fires_despite_system_calls() {
    timers_fire_among(|stop| async move {
        while !stop.is_set() {
            blocking(std::thread::yield_now).await;
        }
    });
}

/// Go's TestPreemptionAfterSyscall: short calls do not add up to a P of one's own.
#[test]
fn who_goes_from_call_to_call_makes_room() {
    for micros in [10, 100, 1000] {
        let turns = run(1, async move {
            let (stop, turns) = (Stop::default(), Arc::new(AtomicU64::new(0)));
            let theirs = stop.clone();
            let caller = go(async move {
                // So many calls are enough for a turn of the other between two of them here and
                // there.
                for call in 0..100_000 {
                    if theirs.is_set() {
                        return call;
                    }
                    blocking(|| std::thread::sleep(Duration::from_micros(micros))).await;
                }
                100_000
            });
            let other = {
                let (stop, turns) = (stop.clone(), turns.clone());
                go(async move {
                    while turns.fetch_add(1, Ordering::Relaxed) < 50 {
                        compute(Duration::from_micros(20));
                        yield_now().await;
                    }
                    stop.set();
                })
            };
            let calls = caller.await.expect("no panic");
            let turns = turns.load(Ordering::Relaxed);
            other.await.expect("no panic");
            (turns, calls)
        });
        let (turns, calls) = turns;
        println!("{turns} turns beside {calls} calls of {micros} us");
        assert!(
            turns > 50,
            "{turns} turns beside {calls} calls of {micros} us"
        );
    }
}

#[test]
fn a_timer_fires_despite_gs_that_yield() {
    timers_fire_among(|stop| async move {
        while !stop.is_set() {
            yield_now().await;
        }
    });
}

#[test]
fn two_gs_take_turns_on_one_proc() {
    run(1, async {
        let turn = Arc::new(AtomicU32::new(0));
        let handles: Vec<_> = (0..2)
            .map(|number| {
                let turn = turn.clone();
                go(async move {
                    for round in 0..1_000 {
                        while turn.load(Ordering::Relaxed) != 2 * round + number {
                            yield_now().await;
                        }
                        turn.store(2 * round + number + 1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await.expect("no panic");
        }
    });
}

/// Two Gs that hand a ball to each other and compute `work` steps each time; gives the steps of
/// both.
fn pair(work: u64, stop: &Stop) -> (Arc<AtomicU64>, [greywave::JoinHandle<()>; 2]) {
    let steps = Arc::new(AtomicU64::new(0));
    let ((there, here), (back, again)) = (chan::<()>(0), chan::<()>(0));
    let player = |to: greywave::Sender<()>, from: greywave::Receiver<()>, serves: bool| {
        let (stop, steps) = (stop.clone(), steps.clone());
        go(async move {
            let mut has_ball = serves;
            while has_ball || from.recv().await.is_some() {
                has_ball = false;
                for _ in 0..work {
                    steps.fetch_add(1, Ordering::Relaxed);
                }
                // When the other one has stopped there is nobody to receive.
                if stop.is_set() || to.send(()).await.is_err() {
                    return;
                }
            }
        })
    };
    let players = [player(there, again, true), player(back, here, false)];
    (steps, players)
}

#[test]
fn a_pair_that_computes_more_between_two_messages_gets_no_more_time() {
    // A loaded machine may keep a worker from running for any time, so that one round of several is
    // enough.
    let mut rounds = Vec::new();
    let is_even = (0..5).any(|_| {
        let (hog, light) = steps_of_two_pairs();
        rounds.push((hog, light));
        hog < 20 * light && light < 20 * hog
    });
    println!("steps: {rounds:?}");
    assert!(is_even, "{rounds:?}");
}

/// The steps of a pair that computes some milliseconds between two messages, and of one that
/// computes microseconds.
fn steps_of_two_pairs() -> (u64, u64) {
    run(1, async {
        let stop = Stop::default();
        let (hog_steps, hogs) = pair(300_000, &stop);
        let (light_steps, lights) = pair(300, &stop);
        sleep(Duration::from_millis(400)).await;
        stop.set();
        for handle in hogs.into_iter().chain(lights) {
            handle.await.expect("no panic");
        }
        // Relaxed: both have ended.
        let steps = |of: Arc<AtomicU64>| of.load(Ordering::Relaxed);
        (steps(hog_steps), steps(light_steps))
    })
}

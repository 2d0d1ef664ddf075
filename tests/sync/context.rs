//! `Context`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use greywave::{CancelHandle, Context, ContextError, Heap, Runtime, go};

use crate::support::{ByHand, Executor, yield_now};

const CANCELLED: Option<ContextError> = Some(ContextError::Cancelled);
const LATE: Option<ContextError> = Some(ContextError::DeadlineExceeded);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs what waits for a deadline: only a runtime has timers.
fn in_runtime(future: impl Future<Output = ()> + Send) {
    let runtime = Runtime::builder(&Heap::new()).procs(2).build();
    let outcome = runtime.expect("a runtime").block_on(future);
    outcome.expect("no deadlock");
}

#[test]
fn the_background_never_ends() {
    let background = Context::background();
    assert_eq!((background.err(), background.deadline()), (None, None));
    drop(ByHand::waiting(background.done()));
    assert_eq!(format!("{:?}", Context::default()), "Context(background)");
}

#[test]
fn the_errors_say_what_happened() {
    assert_eq!(ContextError::Cancelled.to_string(), "context cancelled");
    let late = ContextError::DeadlineExceeded.to_string();
    assert_eq!(late, "context deadline exceeded");
}

#[test]
fn a_cancelled_context_wakes_all_who_wait() {
    let (context, cancel) = Context::background().with_cancel();
    let mut waits: Vec<_> = (0..20).map(|_| ByHand::waiting(context.done())).collect();
    drop(waits.pop());
    assert_eq!(context.err(), None);
    cancel.cancel();
    cancel.cancel();
    for wait in &mut waits {
        assert_eq!(wait.wakes(), 1);
        assert_eq!(wait.poll(), CANCELLED);
    }
    assert_eq!(ByHand::new(context.done()).poll(), CANCELLED);
    assert_eq!(context.clone().err(), CANCELLED);
}

#[test]
fn a_handle_cancels_when_it_is_dropped_unless_it_is_disarmed() {
    let (context, cancel) = Context::background().with_cancel();
    cancel.disarm();
    assert_eq!(context.err(), None);
    let (below, cancel) = context.with_cancel();
    drop(cancel);
    assert_eq!((below.err(), context.err()), (CANCELLED, None));
}

/// Go's `TestParentFinishesChild` and `TestChildFinishesFirst`.
#[test]
fn an_end_goes_down_and_not_up() {
    let (top, cancel_top) = Context::background().with_cancel();
    let (left, cancel_left) = top.with_cancel();
    let (right, _right) = top.with_cancel();
    let (leaf, _leaf) = left.with_cancel();
    let mut wait = ByHand::waiting(right.done());
    cancel_left.cancel();
    assert_eq!(
        [&top, &left, &right, &leaf].map(Context::err),
        [None, CANCELLED, None, CANCELLED]
    );
    assert!(wait.poll().is_none());
    cancel_top.cancel();
    assert_eq!(wait.poll(), CANCELLED);
    assert_eq!([&top, &right].map(Context::err), [CANCELLED; 2]);
    let (born_late, _handle) = leaf.with_timeout(HOUR);
    assert_eq!(born_late.err(), CANCELLED);
}

#[test]
fn a_deadline_ends_a_context_and_what_is_below_it() {
    in_runtime(async {
        let begin = Instant::now();
        let deadline = begin + Duration::from_millis(200);
        let (context, cancel) = Context::background().with_deadline(deadline);
        let (below, _below) = context.with_timeout(HOUR);
        assert_eq!((context.err(), below.deadline()), (None, Some(deadline)));
        assert_eq!(below.done().await, ContextError::DeadlineExceeded);
        assert!(begin.elapsed() >= Duration::from_millis(200));
        cancel.cancel();
        let errors = (context.err(), below.err());
        assert_eq!(errors, (LATE, LATE), "the first reason stays");
        let (born_late, _handle) = context.with_cancel();
        assert_eq!(born_late.err(), LATE);
    });
}

#[test]
fn the_earlier_deadline_counts() {
    let now = Instant::now();
    let (context, _cancel) = Context::background().with_deadline(now + HOUR);
    let (earlier, _earlier) = context.with_deadline(now + HOUR / 2);
    let (later, _later) = context.with_deadline(now + HOUR * 2);
    assert_eq!(earlier.deadline(), Some(now + HOUR / 2));
    assert_eq!(later.deadline(), Some(now + HOUR));
    let (past, _past) = context.with_deadline(now);
    assert_eq!((past.err(), context.err()), (LATE, None));
    let (endless, _endless) = Context::background().with_timeout(Duration::MAX);
    assert_eq!((endless.err(), endless.deadline()), (None, None));
}

#[test]
fn a_cancelled_wait_does_not_wait_for_its_deadline() {
    in_runtime(async {
        let (context, cancel) = Context::background().with_timeout(HOUR);
        let waiter = go(async move { context.done().await });
        for _ in 0..100 {
            greywave::yield_now().await;
        }
        cancel.cancel();
        let ended = waiter.await.expect("it does not panic");
        assert_eq!(ended, ContextError::Cancelled);
    });
}

/// Who looks for a passed deadline ends the context for those who wait.
#[test]
fn a_deadline_that_somebody_sees_wakes_the_others() {
    in_runtime(async {
        let (context, _cancel) = Context::background().with_timeout(Duration::from_millis(2));
        let (below, _below) = context.with_cancel();
        let mut wait = ByHand::new(below.done());
        let early = wait.poll();
        std::thread::sleep(Duration::from_millis(4));
        assert_eq!(context.err(), LATE);
        assert!(early.is_some() || wait.wakes() >= 1);
        assert_eq!(below.err(), LATE);
    });
}

/// A tree of three levels, cancelled anywhere: what is below has ended, and nothing else.
#[test]
fn any_node_of_a_tree_ends_its_part() {
    for ended in 0..13 {
        // Node `i` has the children `3 i + 1`, `3 i + 2` and `3 i + 3`.
        let mut nodes: Vec<(Context, CancelHandle)> = vec![Context::background().with_cancel()];
        for i in 1..40 {
            let node = nodes[(i - 1) / 3].0.with_cancel();
            nodes.push(node);
        }
        nodes[ended].1.cancel();
        for (i, (node, _)) in nodes.iter().enumerate() {
            let mut above = i;
            while above > ended {
                above = (above - 1) / 3;
            }
            assert_eq!(node.err().is_some(), above == ended, "{i} below {ended}");
        }
    }
}

#[test]
fn a_long_chain_ends_and_goes_without_recursion() {
    let (top, cancel) = Context::background().with_cancel();
    let mut last = top;
    for _ in 0..200_000 {
        let (below, handle) = last.with_cancel();
        handle.disarm();
        last = below;
    }
    assert_eq!(last.err(), None);
    cancel.cancel();
    assert_eq!(last.err(), CANCELLED);
    drop(last);

    let mut last = Context::background();
    for _ in 0..200_000 {
        let (below, handle) = last.with_cancel();
        handle.disarm();
        last = below;
    }
    drop(last);
}

/// Go's `TestSimultaneousCancels` and more: contexts come and go below one that is cancelled
/// meanwhile.
#[test]
fn children_come_and_go_while_the_parent_is_cancelled() {
    for _ in 0..20 {
        let (top, cancel) = Context::background().with_cancel();
        let ended = Arc::new(AtomicU32::new(0));
        let executor = Executor::new(4);
        for task in 0..16 {
            let (top, ended) = (top.clone(), ended.clone());
            executor.spawn(async move {
                while top.err().is_none() {
                    let (below, handle) = top.with_cancel();
                    let (lower, _lower) = below.with_cancel();
                    if task % 2 == 0 {
                        handle.cancel();
                        assert_eq!(lower.done().await, ContextError::Cancelled);
                    }
                    yield_now().await;
                }
                let (below, _handle) = top.with_cancel();
                assert_eq!(below.done().await, ContextError::Cancelled);
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        std::thread::sleep(Duration::from_millis(2));
        cancel.cancel();
        executor.finish();
        assert_eq!(ended.load(Ordering::Relaxed), 16);
    }
}

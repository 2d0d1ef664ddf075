//! Waiting for time: `sleep`, `timeout`, `interval`, `after`.
//!
//! A future here is a deadline, and once it has been polled too early, the key of a timer in the heap of the P that polled
//! it. The waker is in that heap, so a future that sleeps is 32 bytes and may be moved.
//!
//! A runtime that ends wakes whoever has a timer there. The future is then polled by whoever holds it, and
//! begins a new timer in the runtime that polls: its deadline is a moment, and the same everywhere.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use crate::sched::context;
use crate::sched::driver::{self, Driver};
use crate::sched::timer::{Key, NEVER};
use crate::sched::wait::WaitReason;
use crate::sched::wakers::KeptWaker;

/// A timer that waits or has fired; dropping it takes it out.
struct Timer {
    driver: Arc<Driver>,
    key: Key,
    proc_index: u32,
}

impl Timer {
    fn start(when: u64, waker: &Waker) -> Self {
        let Some((driver, proc_index)) = context::driver() else {
            panic!("time is waited for outside a runtime: nobody would run the timer");
        };
        let Some(key) = driver.start_timer(proc_index, when, KeptWaker::of_driver(waker)) else {
            panic!("time is waited for in a runtime that has ended: nobody would run the timer");
        };
        Self {
            driver,
            key,
            proc_index: proc_index as u32,
        }
    }

    /// False if it has fired, or its runtime has ended.
    fn refresh(&self, waker: &Waker) -> bool {
        self.driver
            .refresh_timer(self.proc_index as usize, self.key, waker)
    }

    /// False if it has fired, or its runtime has ended.
    fn reset(&mut self, when: u64) -> bool {
        let moved = self
            .driver
            .reset_timer(self.proc_index as usize, self.key, when);
        self.key = moved.unwrap_or(self.key);
        moved.is_some()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.driver.cancel_timer(self.proc_index as usize, self.key);
    }
}

/// Waits until `time` has passed since this call; never less. [`Duration::ZERO`] does not wait.
///
/// A time too long for the clock (584 years) is as good as for ever.
///
/// It may be begun in one runtime and awaited in another, also when the first one has ended.
///
/// # Panics
/// The future panics if it is polled outside a runtime, or in one that has ended, before its time has come.
pub fn sleep(time: Duration) -> Sleep {
    Sleep {
        due: driver::nanos_after(time),
        timer: None,
    }
}

/// Waits until `deadline`; a deadline that has passed does not wait.
///
/// # Panics
/// The future panics if it is polled outside a runtime before its time has come.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        due: driver::nanos_at(deadline),
        timer: None,
    }
}

/// The future of [`sleep`] and [`sleep_until`]. Dropping it cancels the wait.
///
/// After it has completed it stays completed, until [`Sleep::reset`].
#[must_use = "a future does nothing until it is awaited"]
pub struct Sleep {
    /// The deadline, in the numbers of the driver.
    due: u64,
    /// There once it was polled too early.
    timer: Option<Timer>,
}

const _: () = assert!(size_of::<Sleep>() <= 48);

impl Sleep {
    /// When the wait ends.
    pub fn deadline(&self) -> Instant {
        driver::moment_at(self.due)
    }

    /// Whether that time has come. Reads the clock.
    pub fn is_elapsed(&self) -> bool {
        driver::now() >= self.due
    }

    /// Begins a new wait, of `time` from now, in place of this one, whether or not that was over. A later deadline costs
    /// next to nothing, so that one `Sleep` can watch over many operations.
    ///
    /// Whoever was waiting still is; if the old wait was over, the new one begins when the future is next polled.
    pub fn reset(&mut self, time: Duration) {
        self.set_due(driver::nanos_after(time));
    }

    /// As [`Sleep::reset`], with a moment.
    pub fn reset_until(&mut self, deadline: Instant) {
        self.set_due(driver::nanos_at(deadline));
    }

    fn set_due(&mut self, due: u64) {
        self.due = due;
        if self.timer.as_mut().is_some_and(|timer| !timer.reset(due)) {
            self.timer = None;
        }
    }

    /// As `poll`, whether or not the G has had its share.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_elapsed() {
            self.timer = None;
            return Poll::Ready(());
        }
        let waits = self.timer.as_ref().is_some_and(|t| t.refresh(cx.waker()));
        if !waits {
            self.timer = None;
            self.timer = Some(Timer::start(self.due, cx.waker()));
        }
        context::note_wait(WaitReason::Sleep, (&raw const *self).addr());
        Poll::Pending
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if context::should_yield(cx) {
            return Poll::Pending;
        }
        self.poll_due(cx)
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline())
            .field("waits", &self.timer.is_some())
            .finish()
    }
}

/// Completes once `time` has passed since this call, with the moment at which it saw that.
///
/// # Panics
/// The future panics if it is polled outside a runtime before its time has come.
pub fn after(time: Duration) -> After {
    After(sleep(time))
}

/// The future of [`after`]. Dropping it cancels the wait.
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct After(Sleep);

impl Future for After {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
        Pin::new(&mut self.0).poll(cx).map(|()| Instant::now())
    }
}

/// The time given to [`timeout`] has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time allowed has passed")
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// Runs `future`, but not longer than `time` from this call.
///
/// A future that is ready when it is polled wins over a time that has passed. One that is given up is dropped with the
/// [`Timeout`].
///
/// # Errors
/// [`Elapsed`], if the time has passed first.
///
/// # Panics
/// The returned future panics if it is polled outside a runtime and has to wait.
pub fn timeout<F: Future>(time: Duration, future: F) -> Timeout<F> {
    Timeout {
        sleep: sleep(time),
        future,
    }
}

/// The future of [`timeout`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Timeout<F> {
    sleep: Sleep,
    future: F,
}

impl<F> Timeout<F> {
    /// The future that is given so much time.
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// Gives the future back, and takes the limit away.
    pub fn into_inner(self) -> F {
        self.future
    }

    fn project(self: Pin<&mut Self>) -> (&mut Sleep, Pin<&mut F>) {
        // SAFETY: `future` is pinned whenever the whole is: this is the only place that makes an exclusive reference to
        // it, `Timeout` has no `Drop`, and it is `Unpin` only if `future` is.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        (&mut this.sleep, future)
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (sleep, future) = self.project();
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        // A future that always finds the G's share used up must still run into its limit, so this does not ask for it.
        ready!(sleep.poll_due(cx));
        Poll::Ready(Err(Elapsed(())))
    }
}

/// A tick every `period`, the first one `period` from this call.
///
/// Ticks are due at fixed moments, so they do not drift. Who comes late gets one tick at once for all that were missed,
/// and the next at its own moment. (As Go's `Ticker`.)
///
/// # Panics
/// If `period` is zero.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period above zero");
    Interval {
        sleep: sleep(period),
        period,
    }
}

/// What [`interval`] returns.
#[derive(Debug)]
pub struct Interval {
    /// Until the next tick.
    sleep: Sleep,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick, and returns the moment at which it was due. Nothing is lost if this is given up.
    ///
    /// # Panics
    /// If it has to wait outside a runtime.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// As [`Interval::tick`], for futures written by hand.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let due = self.sleep.due;
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(NEVER);
        let missed = driver::now().saturating_sub(due) / period;
        let next = period.saturating_mul(missed + 1).saturating_add(due);
        self.sleep.set_due(next.min(NEVER - 1));
        Poll::Ready(driver::moment_at(due))
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Forgets what was missed; the next tick is `period` from now.
    pub fn reset(&mut self) {
        self.sleep.reset(self.period);
    }
}

//! Time and I/O of one runtime: the timers of its Ps, and the thread that waits for the OS on behalf of all.
//!
//! One thread at a time is the poller. It sleeps in the OS until a socket is ready, until the first timer is due, or until
//! somebody breaks its sleep. Expired timers are run by whoever asks, whichever P they belong to.
//!
//! A timer that is added while the poller goes to sleep must not be slept over:
//!
//! | who adds a timer | the poller |
//! |---|---|
//! | 1. `next` of its heap = the deadline | 1. `until` = as long as it may |
//! | 2. fence | 2. fence |
//! | 3. reads `until`; breaks the poll if the deadline is earlier | 3. reads all `next`; sleeps until the first of them |
//!
//! Of the two fences one is first: either the poller sees the timer, or who adds it sees how long the poller means to
//! sleep. Without a fence both could read what was there before. A break is kept by the OS for a poller that has
//! not fallen asleep yet. Only a deadline that became the first of its heap needs to ask: behind an earlier one it is
//! covered, because the poller wakes for that one and looks again.
//!
//! When the runtime ends, the driver is closed: whoever waits for time or a socket is woken, finds that, and waits no more.
//! Each heap of timers and each socket has a flag of its own for this under its own lock. So somebody who comes meanwhile is
//! either there to be woken, or sees the flag. (A [`Sleep`](crate::time::Sleep) goes over to the runtime that polls it.)
//!
//! A timer or a socket's wait that is there is a reason not to look for a deadlock. So when the last one goes, the monitor has
//! to look again ([`Watch`]), unless a P of this runtime runs, after which it looks anyway. That is asked only by who takes
//! the last one, and costs a thread with a P one load; nothing else on the way of timers pays for it. (A look that is repeated
//! while timers are there was the alternative: an idle process that only listens would wake up for it for ever.)
//!
//! A wait for a socket may begin where nobody would poll: see `driver/waits.rs`.
//!
//! **Concurrency**: the turn says whether a thread is the poller, and guards nothing but that role. The locks of `scratch`
//! and `sources` are held for a moment, and never while a waker runs.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use polling::{Event, Events, Poller};

use crate::sched::context;
use crate::sched::driver::waits::{LOOKS, SLEEPS, Waits};
use crate::sched::timer::{Key, Moved, NEVER, Timers};
use crate::sched::wakers::{KeptWaker, Wakers};
use crate::sched::watch::Watch;
use crate::sys::clock;
use crate::sys::fatal::fatal_args;
use crate::sys::lock::Brief;
use crate::sys::sabotage::{self, Fault};
use crate::sys::sync::{AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) mod tests;
mod waits;

/// How many events the OS hands over at a time.
const EVENTS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The moment from which this process counts nanoseconds.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// The number of `moment`: 0 if it is before the epoch, at most the last but one.
pub(crate) fn nanos_at(moment: Instant) -> u64 {
    let nanos = moment.saturating_duration_since(epoch()).as_nanos();
    u64::try_from(nanos).unwrap_or(NEVER).min(NEVER - 1)
}

/// The moment that `nanos` stands for.
pub(crate) fn moment_at(nanos: u64) -> Instant {
    epoch() + Duration::from_nanos(nanos)
}

/// Nanoseconds since the epoch: the same for all drivers of the process.
pub(crate) fn now() -> u64 {
    nanos_at(clock::now())
}

/// The number of the moment `time` from now, at most the last but one.
pub(crate) fn nanos_after(time: Duration) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(NEVER);
    now().saturating_add(nanos).min(NEVER - 1)
}

/// The timers of all Ps, and until when the poller sleeps.
#[derive(Debug)]
struct Deadlines {
    timers: Box<[Timers]>,
    /// Until when the poller sleeps; 0 if nobody does. Written by the poller, read by who adds timers.
    until: AtomicU64,
}

impl Deadlines {
    fn new(procs: usize) -> Self {
        Self {
            timers: (0..procs.max(1)).map(|_| Timers::new()).collect(),
            until: AtomicU64::new(0),
        }
    }

    /// The timers of a P.
    fn of(&self, proc_index: usize) -> &Timers {
        &self.timers[proc_index % self.timers.len()]
    }

    /// The first deadline of all Ps.
    fn next(&self) -> u64 {
        self.timers.iter().map(Timers::next).min().unwrap_or(NEVER)
    }

    /// The poller may sleep until `limit`: says so, and returns until when it may with the timers that there are.
    fn fall_asleep(&self, limit: u64) -> u64 {
        // Relaxed: the fence orders it before the loads of `next`.
        self.until.store(limit, Ordering::Relaxed);
        // The poller's fence of the module's head.
        fence(Ordering::SeqCst);
        let until = limit.min(self.next());
        // Relaxed: who reads the older value breaks a sleep that would have ended anyway.
        self.until.store(until, Ordering::Relaxed);
        until
    }

    fn wake_up(&self) {
        // Relaxed: who reads the older value breaks a sleep that is over; the next one ends at once.
        self.until.store(0, Ordering::Relaxed);
    }

    /// Adds a timer to that P's; also returns whether the poller would sleep over it. None if they have been closed.
    fn insert(&self, proc_index: usize, when: u64, waker: KeptWaker) -> Option<(Key, bool)> {
        let (key, next) = self.of(proc_index).insert(when, waker)?;
        Some((key, self.is_slept_over(when, next)))
    }

    /// Moves a timer of that P's, if it has not fired; also returns whether the poller would sleep over it.
    fn reset(&self, proc_index: usize, key: Key, when: u64) -> Option<(Key, bool)> {
        match self.of(proc_index).reset(key, when) {
            Moved::Gone => None,
            Moved::Waiting { key, next } => Some((key, self.is_slept_over(when, next))),
        }
    }

    /// A timer is due at `when`, and its heap's first deadline is `next`: whether the poller has to learn of it.
    fn is_slept_over(&self, when: u64, next: u64) -> bool {
        if when > next {
            return false;
        }
        // The other fence of the module's head; `next` was stored before.
        fence(Ordering::SeqCst);
        // Relaxed: the fence.
        when < self.until.load(Ordering::Relaxed)
    }
}

/// What the poller hands events to.
pub(crate) trait Pollable: Send + Sync {
    /// Something happened. Appends who is to be woken. Called under a lock: runs no waker.
    fn on_event(&self, poller: &Poller, event: Event, woken: &mut Wakers);

    /// Nothing will happen any more. Appends who waits; who comes later is told. Called under a lock.
    fn close(&self, woken: &mut Wakers);
}

/// Sockets by their number, which is not used again while the numbers last. The memory of a crowd goes with it.
#[derive(Default)]
struct Sources {
    by_key: BTreeMap<usize, Arc<dyn Pollable>>,
    last: usize,
    closed: bool,
}

impl Sources {
    fn new_key(&mut self) -> usize {
        loop {
            self.last = self.last.wrapping_add(1);
            // The poller keeps the highest number for itself.
            if self.last != usize::MAX && !self.by_key.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

/// What a poll works with; kept from one to the next, and taken out meanwhile.
struct Scratch {
    events: Events,
    woken: Wakers,
}

impl Scratch {
    fn new() -> Box<Self> {
        Box::new(Self {
            events: Events::with_capacity(EVENTS),
            woken: Wakers::new(),
        })
    }
}

/// A sleep is to end.
const ONCE: usize = 1;
/// No sleep is to begin.
const FOR_GOOD: usize = 2;

/// See the module's head.
pub(crate) struct Driver {
    deadlines: Deadlines,
    poller: Poller,
    waits: Waits,
    /// [`ONCE`] if a sleep is to end that has not ended or not begun yet, [`FOR_GOOD`] if none is to begin any more. (The OS
    /// keeps a break only until the next poll, even if that one did not sleep.)
    broken: AtomicUsize,
    scratch: Brief<Option<Box<Scratch>>>,
    sources: Brief<Sources>,
    /// The monitor's, which is to hear when the last wait here goes.
    pub(crate) watch: Arc<Watch>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("next_timer", &self.next_timer())
            .field("io_waiters", &self.io_waiters())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// A driver for that many Ps.
    ///
    /// # Errors
    /// What the OS says when it has no more descriptors.
    pub(crate) fn new(procs: usize) -> io::Result<Self> {
        Ok(Self {
            deadlines: Deadlines::new(procs),
            poller: Poller::new()?,
            waits: Waits::new(),
            broken: AtomicUsize::new(0),
            scratch: Brief::new(Some(Scratch::new())),
            sources: Brief::new(Sources::default()),
            watch: Arc::new(Watch::new()),
        })
    }

    /// The time, in nanoseconds from a moment that is the same for all drivers.
    pub(crate) fn now(&self) -> u64 {
        now()
    }

    /// Wakes whose timers of that P are due at `now`; returns how many. One load if there are none.
    #[inline]
    pub(crate) fn run_timers(&self, proc_index: usize, now: u64) -> usize {
        self.deadlines.of(proc_index).expire(now)
    }

    /// The first deadline of that P, `u64::MAX` if it has none. One load.
    #[inline]
    pub(crate) fn next_timer_of(&self, proc_index: usize) -> u64 {
        self.deadlines.of(proc_index).next()
    }

    /// The first deadline of all Ps, `u64::MAX` if there is none.
    pub(crate) fn next_timer(&self) -> u64 {
        self.deadlines.next()
    }

    /// Whether anything waits for time.
    pub(crate) fn has_timers(&self) -> bool {
        self.next_timer() != NEVER
    }

    /// How many wakers wait for I/O.
    pub(crate) fn io_waiters(&self) -> usize {
        self.waits.count()
    }

    /// Whether a thread sleeps in `poll`, or is about to.
    pub(crate) fn is_blocked(&self) -> bool {
        self.waits.has_poller()
    }

    /// Whether something is waited for and nobody sleeps in `poll`. By the monitor, when all Ps are idle.
    pub(crate) fn lacks_a_poller(&self) -> bool {
        self.waits.lacks_a_poller() || self.has_timers() && !self.is_blocked()
    }

    /// Ends the sleep of the thread in `poll`; if none sleeps there, the next one does not begin. Whoever comes back from
    /// `poll` next looks what it was about; another who is on the way in does not hear of it.
    pub(crate) fn break_poll(&self) {
        self.break_sleep(ONCE);
    }

    /// From now on no poll sleeps, and nobody can wait here: the runtime ends. Wakes whoever does. May be called again.
    pub(crate) fn close(&self) {
        self.break_sleep(FOR_GOOD);
        self.deadlines.timers.iter().for_each(Timers::close);
        let mut woken = Wakers::new();
        let mut sources = self.sources.lock();
        if !std::mem::replace(&mut sources.closed, true) {
            for source in sources.by_key.values() {
                source.close(&mut woken);
            }
        }
        drop(sources);
        self.remove_waiters(woken.len());
    }

    fn break_sleep(&self, how: usize) {
        // Release: the poller sees why; pairs with `is_broken`.
        self.broken.fetch_or(how, Ordering::Release);
        if let Err(error) = self.poller.notify() {
            fatal_args(format_args!("the poller cannot be woken: {error}"));
        }
    }

    /// Whether a sleep is to end; forgets what was asked once.
    fn is_broken(&self) -> bool {
        // Acquire: pairs with `break_sleep`.
        self.broken.fetch_and(!ONCE, Ordering::Acquire) != 0
    }

    /// Waits for I/O until `timeout` is over (`None`: for ever; zero: not at all), the first timer is due or
    /// [`Driver::break_poll`] is called, and wakes who waits for what happened; returns how many.
    /// `None` at once if another thread sleeps in here, or if this one would not sleep and another is in here at all.
    /// Timers are not run.
    pub(crate) fn poll(&self, timeout: Option<Duration>) -> Option<usize> {
        let sleeps = timeout != Some(Duration::ZERO);
        if !sleeps && self.io_waiters() == 0 {
            return Some(0);
        }
        let turn = self.waits.take_turn(if sleeps { SLEEPS } else { LOOKS })?;
        let kept = self.scratch.lock().take();
        let mut scratch = kept.unwrap_or_else(Scratch::new);
        self.wait(timeout, &mut scratch);
        drop(turn);
        let count = scratch.woken.len();
        scratch.woken.wake();
        if count > 0 && self.io_waiters() == 0 {
            // Those who have been woken may all be another executor's.
            self.note_last_gone();
        }
        // Another poll may have made one of its own meanwhile; either will do.
        let spare = self.scratch.lock().replace(scratch);
        drop(spare);
        Some(count)
    }

    /// Waits in the OS, and collects who is to be woken.
    fn wait(&self, timeout: Option<Duration>, scratch: &mut Scratch) {
        scratch.events.clear();
        let result = if timeout == Some(Duration::ZERO) {
            self.poller.wait(&mut scratch.events, timeout)
        } else {
            let timeout = self.fall_asleep(timeout);
            let result = self.poller.wait(&mut scratch.events, timeout);
            self.deadlines.wake_up();
            self.is_broken();
            result
        };
        if let Err(error) = result {
            fatal_args(format_args!("the OS refuses to wait for I/O: {error}"));
        }
        if scratch.events.is_empty() {
            return;
        }
        let sources = self.sources.lock();
        for event in scratch.events.iter() {
            // A socket may have gone since.
            if let Some(source) = sources.by_key.get(&event.key) {
                source.on_event(&self.poller, event, &mut scratch.woken);
            }
        }
        drop(sources);
        // Who has called this looks whether it was the last, after it has woken them.
        self.waits.remove(scratch.woken.len());
    }

    /// How long the poller may sleep; tells who adds timers.
    fn fall_asleep(&self, timeout: Option<Duration>) -> Option<Duration> {
        let limit = timeout.map_or(NEVER, nanos_after);
        let until = self.deadlines.fall_asleep(limit);
        if self.is_broken() {
            return Some(Duration::ZERO);
        }
        (until != NEVER).then(|| Duration::from_nanos(until.saturating_sub(now())))
    }

    /// Adds a timer to that P's. None if the driver has been closed.
    pub(crate) fn start_timer(
        &self,
        proc_index: usize,
        when: u64,
        waker: KeptWaker,
    ) -> Option<Key> {
        let (key, is_slept_over) = self.deadlines.insert(proc_index, when, waker)?;
        if is_slept_over {
            self.break_poll();
        }
        Some(key)
    }

    /// Moves a timer of that P's, if it has not fired; its key may change.
    pub(crate) fn reset_timer(&self, proc_index: usize, key: Key, when: u64) -> Option<Key> {
        let (key, is_slept_over) = self.deadlines.reset(proc_index, key, when)?;
        if is_slept_over {
            self.break_poll();
        }
        Some(key)
    }

    /// Sees to it that the timer wakes `waker`; false if it has fired, or the driver has been closed.
    pub(crate) fn refresh_timer(&self, proc_index: usize, key: Key, waker: &Waker) -> bool {
        self.deadlines.of(proc_index).refresh(key, waker)
    }

    /// Takes a timer out, if it has not fired.
    pub(crate) fn cancel_timer(&self, proc_index: usize, key: Key) {
        let timers = self.deadlines.of(proc_index);
        if timers.cancel(key) && timers.next() == NEVER {
            self.note_last_gone();
        }
    }

    /// The last timer of a heap, or the last wait for a socket, has gone and woken nobody.
    fn note_last_gone(&self) {
        if !context::holds_a_proc_beside(self) && !sabotage::is_on(Fault::LastWaitGoesUnheard) {
            self.watch.rouse();
        }
    }

    /// The OS' side, for sockets.
    pub(crate) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Gives the socket that `make` makes its number, and tells it whether the driver has been closed.
    pub(crate) fn add_source<S: Pollable + 'static>(
        &self,
        make: impl FnOnce(usize, bool) -> Arc<S>,
    ) -> Arc<S> {
        let mut sources = self.sources.lock();
        let key = sources.new_key();
        let source = make(key, sources.closed);
        sources.by_key.insert(key, source.clone());
        source
    }

    /// Takes a socket's number back.
    pub(crate) fn remove_source(&self, key: usize) {
        let gone = self.sources.lock().by_key.remove(&key);
        drop(gone);
    }

    /// A socket has so many wakers more. If it returns true, [`call_poller`](Self::call_poller) is to be called, without a lock.
    #[must_use]
    pub(crate) fn add_waiters(&self, count: usize) -> bool {
        self.waits.add(count)
    }

    /// After the first wait for a socket: sees to it that somebody polls.
    pub(crate) fn call_poller(&self) {
        if !context::holds_a_proc_beside(self)
            && self.waits.needs_a_call()
            && !sabotage::is_on(Fault::OutsideWaitUnheard)
        {
            self.watch.rouse();
        }
    }

    /// A socket has so many wakers fewer, which are not woken.
    pub(crate) fn remove_waiters(&self, count: usize) {
        if self.waits.remove(count) {
            self.note_last_gone();
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
impl Driver {
    /// How many sockets there are.
    pub(crate) fn source_count(&self) -> usize {
        self.sources.lock().by_key.len()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sys::lock::{Condvar, Mutex};
    use crate::sys::model::explore;

    /// Limit of every sleep here; only a timer can end it sooner.
    const LIMIT: u64 = 100;

    struct Scene {
        deadlines: Deadlines,
        /// A break that the OS keeps for the poller.
        broken: Mutex<bool>,
        wake: Condvar,
    }

    fn scene() -> Arc<Scene> {
        Arc::new(Scene {
            deadlines: Deadlines::new(2),
            broken: Mutex::new(false),
            wake: Condvar::new(),
        })
    }

    impl Scene {
        fn break_poll(&self) {
            *self.broken.lock() = true;
            self.wake.notify_all();
        }

        /// As `Driver::start_timer`.
        fn start_timer(&self, proc_index: usize, when: u64) -> Key {
            let waker = KeptWaker::of(Waker::noop());
            let inserted = self.deadlines.insert(proc_index, when, waker);
            let (key, is_slept_over) = inserted.expect("nobody closes it");
            if is_slept_over {
                self.break_poll();
            }
            key
        }

        /// As `Driver::reset_timer`.
        fn reset_timer(&self, proc_index: usize, key: Key, when: u64) {
            if let Some((_, true)) = self.deadlines.reset(proc_index, key, when) {
                self.break_poll();
            }
        }

        /// Polls until it sleeps no longer than to `when`. Time stands still: a sleep ends by a break only, so one that
        /// nobody breaks is a deadlock, which loom reports.
        fn poll_until_due(&self, when: u64) {
            while self.deadlines.fall_asleep(LIMIT) > when {
                let mut broken = self.broken.lock();
                while !*broken {
                    self.wake.wait_for(&mut broken, Duration::ZERO);
                }
                *broken = false;
                drop(broken);
                self.deadlines.wake_up();
            }
        }
    }

    #[test]
    fn loom_a_new_timer_is_not_slept_over() {
        explore(3, |order| {
            let scene = scene();
            let (here, there) = (scene.clone(), scene);
            order.race(
                move || here.start_timer(1, 50),
                move || there.poll_until_due(50),
            );
        });
    }

    /// Of two timers in one heap, the one that does not become the first does not ask; the other one does.
    #[test]
    fn loom_the_first_of_two_timers_is_not_slept_over() {
        explore(2, |order| {
            let scene = scene();
            let (a, b, poller) = (scene.clone(), scene.clone(), scene);
            order.race3(
                move || a.start_timer(0, 60),
                move || b.start_timer(0, 50),
                move || poller.poll_until_due(50),
            );
        });
    }

    /// A timer that covers for a later one goes away, or comes sooner, while the poller falls asleep.
    #[test]
    fn loom_a_timer_that_moves_is_not_slept_over() {
        explore(3, |order| {
            let scene = scene();
            let first = scene.start_timer(0, 60);
            let second = scene.start_timer(1, 70);
            let (here, there) = (scene.clone(), scene);
            order.race(
                move || {
                    here.deadlines.of(0).cancel(first);
                    here.reset_timer(1, second, 50);
                },
                move || there.poll_until_due(50),
            );
        });
    }
}

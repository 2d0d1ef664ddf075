//! A small executor over a driver, and the tests of time.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake};
use std::thread;

use super::*;
use crate::sched::context;
use crate::sched::time::{after, interval, sleep, sleep_until, timeout};
use crate::sys::lock::{Condvar, Unranked};

/// When a test that hangs is given up.
/// What a watchdog waits for; no judgement: what comes late is right.
const PATIENCE: Duration = Duration::from_secs(300);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A few workers that take futures from one queue; one of them at a time sleeps in the driver.
pub(crate) struct Pool {
    pub(crate) driver: Arc<Driver>,
    procs: usize,
    queue: Unranked<VecDeque<Arc<Task>>>,
    /// Who is not the poller waits here.
    idle: Condvar,
    /// How many workers have found nothing and look a last time.
    drowsy: AtomicUsize,
    stops: AtomicBool,
}

struct Task {
    pool: Arc<Pool>,
    work: Unranked<Option<Work>>,
    queued: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // SeqCst: a test need not be clever.
        if !self.queued.swap(true, Ordering::SeqCst) {
            let pool = self.pool.clone();
            pool.queue.lock().push_back(self);
            pool.rouse();
        }
    }
}

/// What a spawned future came to.
pub(crate) struct Join<T>(Arc<Unranked<(Option<T>, Option<Waker>)>>);

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock();
        match state.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Pool {
    /// Runs what `main` makes on that many workers, and returns what it came to.
    pub(crate) fn run<F>(procs: usize, main: impl FnOnce(Arc<Self>) -> F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let pool = Arc::new(Self {
            driver: Arc::new(Driver::new(procs).unwrap()),
            procs,
            queue: Unranked::default(),
            idle: Condvar::new(),
            drowsy: AtomicUsize::new(0),
            stops: AtomicBool::new(false),
        });
        let (done, output) = mpsc::channel();
        let main = main(pool.clone());
        drop(pool.spawn(async move {
            let _ = done.send(main.await);
        }));
        thread::scope(|scope| {
            for index in 0..procs {
                let pool = &pool;
                scope.spawn(move || pool.work(index));
            }
            let output = output.recv_timeout(PATIENCE);
            pool.stops.store(true, Ordering::SeqCst);
            pool.driver.close();
            pool.idle.notify_all();
            output.expect("the main future panicked, or somebody was never woken")
        })
    }

    pub(crate) fn spawn<F>(self: &Arc<Self>, future: F) -> Join<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let state = Arc::new(Unranked::new((None, None::<Waker>)));
        let join = Join(state.clone());
        let work: Work = Box::pin(async move {
            let value = future.await;
            let waker = {
                let mut state = state.lock();
                state.0 = Some(value);
                state.1.take()
            };
            waker.inspect(Waker::wake_by_ref);
        });
        let task = Arc::new(Task {
            pool: self.clone(),
            work: Unranked::new(Some(work)),
            queued: AtomicBool::new(false),
        });
        task.wake();
        join
    }

    fn rouse(&self) {
        if self.drowsy.load(Ordering::SeqCst) > 0 {
            self.driver.break_poll();
        }
        self.idle.notify_one();
    }

    fn work(&self, index: usize) {
        context::set_driver(Some((self.driver.clone(), index)));
        while !self.stops.load(Ordering::SeqCst) {
            self.driver.run_timers(index, self.driver.now());
            let task = self.queue.lock().pop_front();
            match task {
                Some(task) => task.run(),
                None => self.look_around(),
            }
        }
        context::set_driver(None);
    }

    fn look_around(&self) {
        let now = self.driver.now();
        let expired: usize = (0..self.procs)
            .map(|p| self.driver.run_timers(p, now))
            .sum();
        if expired > 0
            || self
                .driver
                .poll(Some(Duration::ZERO))
                .is_some_and(|n| n > 0)
        {
            return;
        }
        self.drowsy.fetch_add(1, Ordering::SeqCst);
        let nothing = self.queue.lock().is_empty() && !self.stops.load(Ordering::SeqCst);
        if nothing && self.driver.poll(None).is_none() {
            let mut queue = self.queue.lock();
            if queue.is_empty() {
                self.idle.wait_for(&mut queue, Duration::from_millis(5));
            }
        }
        self.drowsy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Task {
    fn run(self: Arc<Self>) {
        self.queued.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.clone());
        let mut work = self.work.lock();
        let done = work.as_mut().is_some_and(|work| {
            work.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        });
        if done {
            *work = None;
        }
    }
}

const MS: Duration = Duration::from_millis(1);

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// A thread that is a worker of `driver`, for the length of `body`.
fn as_worker<T>(driver: &Arc<Driver>, proc_index: usize, body: impl FnOnce() -> T) -> T {
    context::set_driver(Some((driver.clone(), proc_index)));
    let result = body();
    context::set_driver(None);
    result
}

/// Writes its number down when it is woken.
struct Note(mpsc::Sender<u64>, u64);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.0.send(self.1).unwrap();
    }
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines_and_not_before() {
    let driver = Arc::new(Driver::new(1).unwrap());
    let (woken, wakes) = mpsc::channel();
    let start = Instant::now() + Duration::from_secs(3600);
    as_worker(&driver, 0, || {
        let sleeps: Vec<_> = (0..1000)
            .map(|i| {
                let number = i * 617 % 1000;
                let mut sleep = sleep_until(start + Duration::from_nanos(number));
                let waker = Waker::from(Arc::new(Note(woken.clone(), number)));
                assert!(poll_with(&mut sleep, &waker).is_pending());
                sleep
            })
            .collect();
        let first = nanos_at(start);
        assert_eq!(driver.run_timers(0, first - 1), 0);
        for now in [first, first + 499, first + 2000] {
            driver.run_timers(0, now);
            let latest = wakes.try_iter().try_fold(0, |last, number| {
                (last <= number && first + number <= now).then_some(number)
            });
            assert_eq!(latest, Some((now - first).min(999)));
        }
        drop(sleeps);
    });
}

#[test]
fn ten_thousand_random_sleeps_end_and_none_early() {
    Pool::run(3, |pool| async move {
        let joins: Vec<_> = (0..10_000)
            .map(|_| {
                let pause = Duration::from_nanos(context::random() % 200_000_000);
                pool.spawn(async move {
                    let start = Instant::now();
                    sleep(pause).await;
                    assert!(start.elapsed() >= pause);
                })
            })
            .collect();
        for join in joins {
            join.await;
        }
        assert!(!pool.driver.has_timers());
    });
}

#[test]
fn a_dropped_sleep_leaves_nothing_behind() {
    let driver = Arc::new(Driver::new(2).unwrap());
    as_worker(&driver, 1, || {
        let mut long = sleep(Duration::from_secs(3600));
        let mut longest = sleep(Duration::MAX);
        assert!(poll_once(&mut long).is_pending());
        assert!(poll_once(&mut longest).is_pending());
        assert_eq!(driver.next_timer_of(0), NEVER);
        assert_eq!(driver.next_timer_of(1), nanos_at(long.deadline()));
        drop(long);
        assert_eq!(driver.next_timer(), nanos_at(longest.deadline()));
        drop(longest);
        assert!(!driver.has_timers());
    });
}

#[test]
fn time_that_has_passed_needs_no_runtime_and_other_time_does() {
    assert!(poll_once(&mut sleep(Duration::ZERO)).is_ready());
    assert!(poll_once(&mut sleep_until(Instant::now())).is_ready());
    assert!(sleep(Duration::MAX).deadline() > Instant::now());
    let sleeping = catch_unwind(|| poll_once(&mut sleep(Duration::from_secs(1))));
    let message = *sleeping.unwrap_err().downcast::<&str>().unwrap();
    assert!(message.contains("outside a runtime"), "{message}");
}

#[test]
fn a_reset_moves_the_wait() {
    Pool::run(1, |pool| async move {
        let start = Instant::now();
        let mut pause = sleep(Duration::from_secs(3600));
        let waits = poll_fn(|cx| Poll::Ready(Pin::new(&mut pause).poll(cx).is_pending()));
        assert!(waits.await);
        // Sooner: wakes whoever was waiting.
        pause.reset(MS * 20);
        (&mut pause).await;
        assert!(start.elapsed() >= MS * 20);
        // Over already: a new wait.
        pause.reset(MS * 20);
        assert!(!pause.is_elapsed());
        (&mut pause).await;
        assert!(start.elapsed() >= MS * 40);
        // Later, again and again: it wakes once, at the end.
        pause.reset(MS * 10);
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            let done = Pin::new(&mut pause).poll(cx);
            if polls == 1 {
                (1..=20).for_each(|i| pause.reset(MS * 10 + MS * i));
            }
            done
        })
        .await;
        assert!(polls <= 2, "woken {polls} times");
        assert!(start.elapsed() >= MS * 70);
        assert!(!pool.driver.has_timers());
    });
}

#[test]
fn an_interval_keeps_its_grid_and_forgets_what_was_missed() {
    Pool::run(1, |_| async move {
        let mut ticks = interval(MS * 20);
        let first = ticks.tick().await;
        assert!(Instant::now() >= first);
        // Late by two and a half: one tick at once, for the first that was missed, the next on the grid.
        thread::sleep(MS * 70);
        assert_eq!(ticks.tick().await - first, MS * 20);
        let next = ticks.tick().await - first;
        assert!(next >= MS * 80, "{next:?}");
        assert_eq!(next.as_nanos() % (MS * 20).as_nanos(), 0);
        thread::sleep(MS * 50);
        ticks.reset();
        let reset = Instant::now();
        assert!(ticks.tick().await >= reset);
        assert_eq!(ticks.period(), MS * 20);
    });
    assert!(catch_unwind(|| interval(Duration::ZERO)).is_err());
}

#[test]
fn a_timeout_ends_what_takes_too_long_and_nothing_else() {
    let driver = Pool::run(2, |pool| async move {
        assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        let quick = timeout(Duration::from_secs(3600), async {
            sleep(MS * 5).await;
            2
        });
        assert_eq!(quick.await, Ok(2));
        let start = Instant::now();
        let slow = timeout(MS * 20, sleep(Duration::from_secs(3600)));
        let elapsed = slow.await.unwrap_err();
        assert!(start.elapsed() >= MS * 20);
        assert_eq!(io::Error::from(elapsed).kind(), io::ErrorKind::TimedOut);
        let later = after(MS * 5).await;
        assert!(later >= start + MS * 25);
        pool.driver.clone()
    });
    assert!(!driver.has_timers());
}

/// A sleep that moves to another G wakes the new one.
#[test]
fn the_last_to_poll_is_woken() {
    let driver = Arc::new(Driver::new(1).unwrap());
    let (woken, wakes) = mpsc::channel();
    as_worker(&driver, 0, || {
        let mut pause = sleep(Duration::from_secs(3600));
        for number in [1, 2] {
            let waker = Waker::from(Arc::new(Note(woken.clone(), number)));
            assert!(poll_with(&mut pause, &waker).is_pending());
        }
        let due = nanos_at(pause.deadline());
        assert_eq!(driver.run_timers(0, due - 1), 0);
        assert_eq!(driver.run_timers(0, due), 1);
        assert_eq!(wakes.try_iter().collect::<Vec<_>>(), [2]);
    });
}

/// As Go's TestNetpollBreak: a break ends a long poll soon, also two breaks at once, and again.
#[test]
fn a_break_ends_a_poll() {
    let driver = Driver::new(1).unwrap();
    for _ in 0..2 {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let poll = scope.spawn(|| {
                let start = Instant::now();
                // What is left of the breaks before may end a sleep or two.
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(driver.poll(Some(PATIENCE)), Some(0));
                }
                start.elapsed()
            });
            while !driver.is_blocked() {
                thread::yield_now();
            }
            over.store(true, Ordering::SeqCst);
            driver.break_poll();
            driver.break_poll();
            assert!(poll.join().unwrap() < PATIENCE / 2);
        });
        assert!(!driver.is_blocked());
    }
    // A sleep that nobody breaks lasts.
    let sleeps = |time| {
        let start = Instant::now();
        assert_eq!(driver.poll(Some(time)), Some(0));
        start.elapsed() >= time
    };
    while !sleeps(MS * 20) {}
    // A break before the sleep is kept, also past a look without a sleep.
    driver.break_poll();
    assert!(driver.add_waiters(1));
    assert_eq!(driver.poll(Some(Duration::ZERO)), Some(0));
    driver.remove_waiters(1);
    assert!(!sleeps(PATIENCE));
    driver.close();
    assert!(!sleeps(PATIENCE) && !sleeps(PATIENCE));
}

/// A sleep in the poller keeps others out; a look only for as long as it takes.
#[test]
fn one_thread_at_a_time_is_the_poller() {
    let driver = Driver::new(1).unwrap();
    assert!(driver.add_waiters(1));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                driver.poll(Some(Duration::ZERO));
            }
        });
        for _ in 0..1000 {
            assert_eq!(driver.poll(Some(Duration::from_nanos(1))), Some(0));
        }
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                driver.poll(None);
            }
        });
        while !driver.is_blocked() {
            thread::yield_now();
        }
        let others = [None, Some(Duration::ZERO)].map(|timeout| driver.poll(timeout));
        over.store(true, Ordering::SeqCst);
        driver.break_poll();
        assert_eq!(others, [None; 2]);
    });
}

fn start_timer(driver: &Driver, proc_index: usize, when: u64, waker: &Waker) -> Key {
    let key = driver.start_timer(proc_index, when, KeptWaker::of(waker));
    key.expect("the driver is open")
}

#[test]
fn a_poll_ends_for_a_timer_that_was_there_or_comes() {
    let driver = Arc::new(Driver::new(2).unwrap());
    let key = start_timer(&driver, 1, nanos_after(MS * 20), Waker::noop());
    let due = driver.next_timer();
    while driver.now() < due {
        driver.poll(None);
    }
    assert_eq!(driver.run_timers(1, driver.now()), 1);
    assert_eq!(driver.reset_timer(1, key, due), None);
    thread::scope(|scope| {
        let poll = scope.spawn(|| {
            while !driver.has_timers() || driver.now() < driver.next_timer() {
                driver.poll(None);
            }
        });
        while !driver.is_blocked() {
            thread::yield_now();
        }
        let start = Instant::now();
        start_timer(&driver, 0, nanos_after(MS * 20), Waker::noop());
        poll.join().unwrap();
        assert!(start.elapsed() >= MS * 20);
    });
}

/// Timers that are added while the poller goes to sleep: each must end the sleep, for nothing else will.
#[test]
fn no_timer_is_slept_over() {
    let driver = Arc::new(Driver::new(2).unwrap());
    let rounds = if cfg!(debug_assertions) { 3000 } else { 20_000 };
    let stops = AtomicBool::new(false);
    struct Done(AtomicBool);
    impl Wake for Done {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stops.load(Ordering::SeqCst) {
                driver.poll(None);
                let now = driver.now();
                driver.run_timers(0, now);
                driver.run_timers(1, now);
            }
        });
        let start = Instant::now();
        for round in 0..rounds {
            let done = Arc::new(Done(AtomicBool::new(false)));
            let when = nanos_after(Duration::from_nanos(context::random() % 50_000));
            start_timer(&driver, round % 2, when, &done.clone().into());
            let is_patient = || PATIENCE > start.elapsed();
            while !done.0.load(Ordering::SeqCst) && is_patient() {
                thread::yield_now();
            }
        }
        let is_hopeless = start.elapsed() >= PATIENCE;
        stops.store(true, Ordering::SeqCst);
        driver.break_poll();
        assert!(!is_hopeless, "a timer was slept over");
    });
}

/// As Go's TestTimerFairness: a timer fires although two tasks wake each other without end.
#[test]
fn a_timer_fires_beside_busy_tasks() {
    let polls = Pool::run(2, |pool| async move {
        let stop = Arc::new(AtomicBool::new(false));
        let hogs: Vec<_> = (0..2)
            .map(|_| {
                let stop = stop.clone();
                pool.spawn(poll_fn(move |cx| {
                    cx.waker().wake_by_ref();
                    if stop.load(Ordering::SeqCst) {
                        Poll::Ready(())
                    } else {
                        thread::yield_now();
                        Poll::Pending
                    }
                }))
            })
            .collect();
        sleep(MS * 20).await;
        stop.store(true, Ordering::SeqCst);
        let count = hogs.len();
        for hog in hogs {
            hog.await;
        }
        count
    });
    assert_eq!(polls, 2);
}

#[test]
fn a_driver_that_is_closed_takes_no_timer_in() {
    let driver = Driver::new(2).unwrap();
    let (woken, wakes) = mpsc::channel();
    let waker = Waker::from(Arc::new(Note(woken, 7)));
    let keys = [0, 1].map(|proc_index| start_timer(&driver, proc_index, NEVER - 1, &waker));
    driver.close();
    assert_eq!(wakes.try_iter().count(), 2);
    assert!(!driver.has_timers());
    for (proc_index, key) in keys.into_iter().enumerate() {
        assert!(!driver.refresh_timer(proc_index, key, &waker));
        assert_eq!(driver.reset_timer(proc_index, key, 0), None);
        assert_eq!(
            driver.start_timer(proc_index, 0, KeptWaker::of(&waker)),
            None
        );
    }
    driver.close();
    assert_eq!(wakes.try_iter().count(), 0);
}

//! A socket, who waits for it, and what the OS has been asked to tell about it.
//!
//! The OS is asked when somebody waits, and tells once: with the event it forgets the socket until it is asked again. If
//! it is ready when it is asked, it tells at once; so between a try that would block and the asking nothing is lost.
//! With an event all who wait for that direction are woken, and try again; for the other direction the OS is asked anew.
//!
//! When the runtime ends, whoever waits is woken and tries again; from then on an operation that would have to wait fails.
//!
//! **Invariant**
//! - `[Y1]` A socket is known to the poller only while its `Registered` lives, which ends that before the socket closes.
//!
//! **Concurrency**: `interest` is a lock, under which no waker's code runs (`wakers.rs`); asking the OS happens under it, so that the last to ask asks for all. The lock of
//! the driver's sources may be held when it is taken, never the other way round.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use polling::{AsSource, Event, Poller};

use crate::sched::context;
use crate::sched::driver::{Driver, Pollable};
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{Fresh, KeptWaker, Wakers, with_driver_clone_if_needed};
use crate::sys::lock::Brief;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

/// The ticket of those who poll by hand: one for each direction, and the last to poll has it.
const BY_HAND: u64 = 0;

/// Who waits for one direction, by ticket. One needs no memory of its own.
#[derive(Default)]
struct Waiting {
    first: Option<(u64, Option<KeptWaker>)>,
    others: BTreeMap<u64, Option<KeptWaker>>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// The waker of that ticket.
    fn of(&mut self, ticket: u64) -> Option<&mut Option<KeptWaker>> {
        match &mut self.first {
            Some((of, waker)) if *of == ticket => Some(waker),
            _ => self.others.get_mut(&ticket),
        }
    }

    /// The task of this poll waits with `ticket`. Returns whether that ticket is new here; None: that needs a clone.
    fn set(&mut self, ticket: u64, fresh: &mut Fresh<'_>) -> Option<bool> {
        if let Some(waker) = self.of(ticket) {
            return fresh.put_into(waker).then_some(false);
        }
        let mut waker = None;
        if !fresh.put_into(&mut waker) {
            return None;
        }
        if self.first.is_none() {
            self.first = Some((ticket, waker));
        } else {
            self.others.insert(ticket, waker);
        }
        Some(true)
    }

    /// Nobody waits with `ticket` any more. Returns a waker to drop.
    fn remove(&mut self, ticket: u64) -> Option<KeptWaker> {
        if let Some((_, waker)) = self.first.take_if(|(of, _)| *of == ticket) {
            return waker;
        }
        self.others.remove(&ticket)?
    }

    fn take_all(&mut self, into: &mut Wakers) {
        if let Some((_, waker)) = self.first.take() {
            into.add(waker);
        }
        let others = std::mem::take(&mut self.others);
        others.into_values().for_each(|waker| into.add(waker));
    }
}

/// See the module's head. The arrays are indexed by [`Direction`].
#[derive(Default)]
struct Interest {
    /// Whether the poller knows the socket.
    known: bool,
    /// What the OS has been asked for and has not told yet.
    asked: [bool; 2],
    waiting: [Waiting; 2],
    tickets: u64,
    /// The runtime has ended: nobody would wake who waits.
    closed: bool,
}

impl Interest {
    fn len(&self) -> usize {
        self.waiting.iter().map(Waiting::len).sum()
    }
}

/// A socket as the poller sees it.
struct Source<S> {
    socket: S,
    key: usize,
    interest: Brief<Interest>,
}

impl<S: AsSource> Source<S> {
    /// Asks the OS for what is waited for, if it has not been asked.
    fn ask(&self, poller: &Poller, interest: &mut Interest) -> io::Result<()> {
        let asked = interest.asked;
        let wanted = [0, 1].map(|at| asked[at] || !interest.waiting[at].is_empty());
        if wanted == asked {
            return Ok(());
        }
        let event = Event::new(self.key, wanted[0], wanted[1]);
        if interest.known {
            poller.modify(&self.socket, event)?;
        } else {
            // SAFETY: [Y1] it is taken out before it closes.
            unsafe { poller.add(&self.socket.source(), event) }?;
            interest.known = true;
        }
        interest.asked = wanted;
        Ok(())
    }
}

impl<S: AsSource + Send + Sync> Pollable for Source<S> {
    fn on_event(&self, poller: &Poller, event: Event, woken: &mut Wakers) {
        let mut interest = self.interest.lock();
        interest.asked = [false; 2];
        for (at, ready) in [event.readable, event.writable].into_iter().enumerate() {
            if ready {
                interest.waiting[at].take_all(woken);
            }
        }
        // A socket that is being dropped has nobody who waits, and the OS is not asked about it again.
        if self.ask(poller, &mut interest).is_err() {
            // They try, and see for themselves what is wrong.
            for waiting in &mut interest.waiting {
                waiting.take_all(woken);
            }
        }
    }

    fn close(&self, woken: &mut Wakers) {
        let mut interest = self.interest.lock();
        interest.closed = true;
        for waiting in &mut interest.waiting {
            waiting.take_all(woken);
        }
    }
}

/// A socket of a runtime. Dropping it closes the socket.
pub(crate) struct Registered<S: AsSource> {
    source: Arc<Source<S>>,
    driver: Arc<Driver>,
}

impl<S: AsSource + Send + Sync + 'static> Registered<S> {
    /// A socket that does not block, for the runtime of this thread.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub(crate) fn new(socket: S) -> Self {
        let Some((driver, _)) = context::driver() else {
            panic!("a socket was made outside a runtime: nobody would wake who waits for it");
        };
        let source = driver.add_source(|key, closed| {
            Arc::new(Source {
                socket,
                key,
                interest: Brief::new(Interest {
                    closed,
                    ..Interest::default()
                }),
            })
        });
        Self { source, driver }
    }
}

impl<S: AsSource> Registered<S> {
    pub(crate) fn socket(&self) -> &S {
        &self.source.socket
    }

    /// Does `attempt`, again and again if it would block, and waits in between.
    pub(crate) fn when<T, F>(&self, direction: Direction, attempt: F) -> When<'_, S, F>
    where
        F: FnMut(&S) -> io::Result<T>,
    {
        When {
            registered: self,
            direction,
            ticket: BY_HAND,
            attempt,
        }
    }

    /// As [`Registered::when`], polled by hand: the last to poll for a direction is the one who is woken.
    pub(crate) fn poll_when<T>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.poll_as(direction, None, cx, &mut attempt)
    }

    fn poll_as<T>(
        &self,
        direction: Direction,
        ticket: Option<&mut u64>,
        cx: &mut Context<'_>,
        attempt: &mut impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if context::should_yield(cx) {
            return Poll::Pending;
        }
        loop {
            match attempt(&self.source.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                result => return Poll::Ready(result),
            }
        }
        if let Err(error) = self.wait(direction, ticket, cx.waker()) {
            return Poll::Ready(Err(error));
        }
        context::note_wait(WaitReason::Io, (&raw const *self.source).addr());
        Poll::Pending
    }

    /// Waits with the ticket, which it fills in if it is empty, or by hand.
    ///
    /// # Errors
    /// What the OS says when it is asked; or that the runtime has ended.
    fn wait(
        &self,
        direction: Direction,
        mut ticket: Option<&mut u64>,
        waker: &Waker,
    ) -> io::Result<()> {
        let mut is_first = false;
        let (asked, ticket) = with_driver_clone_if_needed(waker, |fresh| {
            let mut interest = self.source.interest.lock();
            if interest.closed {
                return Some((Err(runtime_has_ended()), BY_HAND));
            }
            let ticket = ticket.as_deref_mut().map_or(BY_HAND, |ticket| {
                if *ticket == BY_HAND {
                    interest.tickets += 1;
                    *ticket = interest.tickets;
                }
                *ticket
            });
            if interest.waiting[direction as usize].set(ticket, fresh)? {
                is_first = self.driver.add_waiters(1);
            }
            let asked = self.source.ask(self.driver.poller(), &mut interest);
            Some((asked, ticket))
        });
        if is_first {
            self.driver.call_poller();
        }
        if asked.is_err() {
            self.stop_waiting(direction, ticket);
        }
        asked
    }

    fn stop_waiting(&self, direction: Direction, ticket: u64) {
        let mut interest = self.source.interest.lock();
        let waker = interest.waiting[direction as usize].remove(ticket);
        drop(interest);
        if waker.is_some() {
            self.driver.remove_waiters(1);
        }
        drop(waker);
    }
}

impl<S: AsSource> Drop for Registered<S> {
    fn drop(&mut self) {
        let interest = std::mem::take(&mut *self.source.interest.lock());
        if interest.known {
            // An error says that the OS does not know the socket, which is what is wanted.
            let _ = self.driver.poller().delete(&self.source.socket);
        }
        self.driver.remove_waiters(interest.len());
        self.driver.remove_source(self.source.key);
    }
}

impl<S: AsSource + fmt::Debug> fmt::Debug for Registered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.socket.fmt(f)
    }
}

fn runtime_has_ended() -> io::Error {
    io::Error::other(
        "the runtime in which this socket was made has ended: nobody would wake who waits for it",
    )
}

/// The future of [`Registered::when`]. Dropping it gives the attempt up.
pub(crate) struct When<'a, S: AsSource, F> {
    registered: &'a Registered<S>,
    direction: Direction,
    /// [`BY_HAND`] until it waits.
    ticket: u64,
    attempt: F,
}

impl<S: AsSource, F> Unpin for When<'_, S, F> {}

impl<T, S: AsSource, F: FnMut(&S) -> io::Result<T>> Future for When<'_, S, F> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ticket = Some(&mut this.ticket);
        this.registered
            .poll_as(this.direction, ticket, cx, &mut this.attempt)
    }
}

impl<S: AsSource, F> Drop for When<'_, S, F> {
    fn drop(&mut self) {
        if self.ticket != BY_HAND {
            self.registered.stop_waiting(self.direction, self.ticket);
        }
    }
}

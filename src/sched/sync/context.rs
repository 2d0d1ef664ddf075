//! When work is to end: cancelled by somebody, or at a deadline, for a tree of contexts.
//!
//! A node is kept by its children, and knows them weakly. To end a node is to end everything below it, one node after the
//! other; who waited is woken when all of them have ended.
//!
//! **Invariant**
//! - `[X11]` A node ends once, under its lock; from then on it has no children and nobody waits in its queue.

use std::cell::Cell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::RefUnwindSafe;
use std::pin::Pin;
use std::ptr;
use std::sync::{Arc, Weak};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use super::queue::{Queue, Waiter};
use crate::sched::context::{note_wait, should_yield};
use crate::sched::time::{Sleep, sleep_until};
use crate::sched::wait::WaitReason;
use crate::sched::wakers::{KeptWaker, Wakers, with_clone_if_needed};
use crate::sys::clock;
use crate::sys::lock::Brief;
use crate::sys::sync::{AtomicU32, Ordering};

/// Why a [`Context`] has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextError {
    /// Its [`CancelHandle`], or that of a context above it, was used or dropped.
    Cancelled,
    /// Its deadline, or that of a context above it, has passed.
    DeadlineExceeded,
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "context cancelled",
            Self::DeadlineExceeded => "context deadline exceeded",
        })
    }
}

impl Error for ContextError {}

/// Tells the tasks that work on one thing when to stop: they look at [`err`](Self::err), or wait for
/// [`done`](Self::done) beside what else they wait for.
///
/// Contexts form a tree: what ends a context ends all below it, and nothing above it. A clone is another handle of the
/// same context. To end a context costs time in proportion to the contexts below it and to who waits for them.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use greywave::{Context, ContextError, Heap, Runtime, go};
///
/// let rt = Runtime::builder(&Heap::new()).procs(2).build()?;
/// rt.block_on(async {
///     let (request, cancel) = Context::background().with_cancel();
///     let (query, _timeout) = request.with_timeout(Duration::from_secs(30));
///     assert_eq!(query.err(), None);
///
///     let worker = go(async move { query.done().await });
///     cancel.cancel();
///     let ended = worker.await.expect("it does not panic");
///     assert_eq!(ended, ContextError::Cancelled);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Context {
    /// `None` is the background, which never ends.
    node: Option<Arc<Node>>,
}

struct Node {
    /// Its place in its parent's map: the address of its `Arc`.
    key: usize,
    parent: Option<Arc<Node>>,
    /// The earliest of its own and those above it.
    deadline: Option<Instant>,
    /// How it ended: see `Node::error`.
    ended: AtomicU32,
    links: Brief<NodeLinks>,
}

// Nothing that panics leaves a node half changed.
impl RefUnwindSafe for Node {}

struct NodeLinks {
    waiters: Queue,
    children: HashMap<usize, Weak<Node>>,
}

impl Context {
    /// The root of all: never cancelled, without a deadline.
    pub const fn background() -> Self {
        Self { node: None }
    }

    /// A context below this one that the handle ends, also by being dropped.
    pub fn with_cancel(&self) -> (Self, CancelHandle) {
        self.below(self.deadline())
    }

    /// A context below this one that ends at `deadline`, or by the handle.
    pub fn with_deadline(&self, deadline: Instant) -> (Self, CancelHandle) {
        let earliest = self
            .deadline()
            .map_or(deadline, |above| above.min(deadline));
        self.below(Some(earliest))
    }

    /// A context below this one that ends after `timeout`, or by the handle.
    pub fn with_timeout(&self, timeout: Duration) -> (Self, CancelHandle) {
        match clock::now().checked_add(timeout) {
            Some(deadline) => self.with_deadline(deadline),
            // Longer than the clock can tell.
            None => self.with_cancel(),
        }
    }

    /// When this context ends at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.node.as_ref()?.deadline
    }

    /// Why this context has ended; `None` while it has not. The answer does not change any more once there is one.
    pub fn err(&self) -> Option<ContextError> {
        let node = self.node.as_ref()?;
        let passed = |deadline| clock::now() >= deadline;
        if node.error().is_none() && node.deadline.is_some_and(passed) {
            node.end(ContextError::DeadlineExceeded);
        }
        node.error()
    }

    /// Waits until this context has ended, for ever if it is the background. Dropping the future gives up.
    ///
    /// # Panics
    /// The future panics if the context has a deadline that has not passed, and is waited for outside a runtime: nobody would
    /// run the timer.
    pub fn done(&self) -> impl Future<Output = ContextError> {
        Done {
            context: self,
            waiter: Waiter::new(),
            timer: Cell::new(None),
        }
    }

    fn below(&self, deadline: Option<Instant>) -> (Self, CancelHandle) {
        // A deadline that has passed is noted now, so that the child has the same reason.
        let _ = self.err();
        let node = Node::new(self.node.clone(), deadline);
        if let Some(parent) = &node.parent {
            let mut links = parent.links.lock();
            if parent.error().is_none() {
                links.children.insert(node.key, Arc::downgrade(&node));
            }
            drop(links);
            if let Some(error) = parent.error() {
                node.end(error);
            }
        }
        let context = Self { node: Some(node) };
        let handle = CancelHandle {
            context: context.clone(),
            is_armed: true,
        };
        (context, handle)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(node) = &self.node else {
            return f.write_str("Context(background)");
        };
        f.debug_struct("Context")
            .field("ended", &node.error())
            .field("deadline", &node.deadline)
            .finish()
    }
}

/// Ends a [`Context`], and all below it: when asked to, or when it is dropped.
#[must_use = "the context ends when this is dropped"]
pub struct CancelHandle {
    context: Context,
    is_armed: bool,
}

impl CancelHandle {
    /// Ends the context with [`ContextError::Cancelled`], unless it has ended already. On return everything below it has
    /// ended as well, but for what another thread is just ending.
    pub fn cancel(&self) {
        if self.context.err().is_none()
            && let Some(node) = &self.context.node
        {
            node.end(ContextError::Cancelled);
        }
    }

    /// Gives the handle up without ending the context.
    pub fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl Drop for CancelHandle {
    fn drop(&mut self) {
        if self.is_armed {
            self.cancel();
        }
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelHandle").field(&self.context).finish()
    }
}

impl Node {
    fn new(parent: Option<Arc<Self>>, deadline: Option<Instant>) -> Arc<Self> {
        Arc::new_cyclic(|node: &Weak<Self>| Self {
            key: node.as_ptr().addr(),
            parent,
            deadline,
            ended: AtomicU32::new(0),
            links: Brief::new(NodeLinks {
                waiters: Queue::new(),
                children: HashMap::new(),
            }),
        })
    }

    fn error(&self) -> Option<ContextError> {
        // Acquire: who sees the end sees what was done before it.
        match self.ended.load(Ordering::Acquire) {
            0 => None,
            1 => Some(ContextError::Cancelled),
            _ => Some(ContextError::DeadlineExceeded),
        }
    }

    /// Ends this node and all below it. Those that have ended already keep their reason.
    fn end(&self, error: ContextError) {
        let mut wakers = Wakers::new();
        let mut ended = Vec::new();
        self.end_alone(error, &mut wakers, &mut ended);
        while let Some(child) = ended.pop() {
            child.end_alone(error, &mut wakers, &mut ended);
        }
        drop(wakers);
    }

    /// Ends this node, and adds its children to `children`. [X11]
    fn end_alone(&self, error: ContextError, wakers: &mut Wakers, children: &mut Vec<Arc<Self>>) {
        let mut links = self.links.lock();
        if self.error().is_some() {
            return;
        }
        // Release: as in `error`.
        self.ended.store(error as u32 + 1, Ordering::Release);
        links.waiters.grant_all(wakers);
        let own = std::mem::take(&mut links.children);
        drop(links);
        children.extend(own.values().filter_map(Weak::upgrade));
    }

    /// Takes this node out of its parent's map.
    fn leave_parent(&mut self) -> Option<Arc<Self>> {
        let parent = self.parent.take()?;
        let mut links = parent.links.lock();
        let entry = links.children.remove(&self.key);
        // To end the parent costs what its children cost, not what the most that it ever had would.
        let len = links.children.len();
        if links.children.capacity() > 64.max(len * 8) {
            links.children.shrink_to(len * 2);
        }
        drop(links);
        drop(entry);
        Some(parent)
    }
}

impl Drop for Node {
    /// A chain of nodes goes one by one, however long it is.
    fn drop(&mut self) {
        let mut parent = self.leave_parent();
        while let Some(mut node) = parent.and_then(Arc::into_inner) {
            parent = node.leave_parent();
        }
    }
}

/// The future of [`Context::done`].
struct Done<'a> {
    context: &'a Context,
    waiter: Waiter,
    /// Made when it is first waited for.
    timer: Cell<Option<Sleep>>,
}

impl Done<'_> {
    /// Joins or waits on, unless `node` has ended: true if it has.
    fn has_ended(&self, node: &Node, cx: &task::Context<'_>) -> bool {
        if !self.waiter.has_joined() {
            let waker = KeptWaker::of(cx.waker());
            let mut links = node.links.lock();
            let has_ended = node.error().is_some();
            if !has_ended {
                // SAFETY: [X2] it has not joined, it is pinned, and `drop` takes it out.
                unsafe { links.waiters.join(&self.waiter, waker) };
            }
            return has_ended;
        }
        with_clone_if_needed(cx.waker(), |fresh| {
            let mut links = node.links.lock();
            if node.error().is_some() {
                return Some(true);
            }
            // SAFETY: [X1] it has joined this queue; [X11] it was granted nothing, as the node has not ended.
            unsafe { links.waiters.wait_on(&self.waiter, fresh) }.then_some(false)
        })
    }

    /// Whether the deadline of `node` is there. If not, the timer will wake.
    fn is_late(&self, deadline: Instant, cx: &mut task::Context<'_>) -> bool {
        let mut timer = self.timer.take().unwrap_or_else(|| sleep_until(deadline));
        let is_late = Pin::new(&mut timer).poll(cx).is_ready();
        if !is_late {
            self.timer.set(Some(timer));
        }
        is_late
    }
}

impl Future for Done<'_> {
    type Output = ContextError;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        let Some(node) = self.context.node.as_deref() else {
            note_wait(WaitReason::Context, 0);
            return Poll::Pending;
        };
        if !self.waiter.has_joined() && should_yield(cx) {
            return Poll::Pending;
        }
        if self.context.err().is_none() && !self.has_ended(node, cx) {
            match node.deadline {
                // The timer has said what it waits for: time, not another task.
                Some(deadline) if self.is_late(deadline, cx) => {
                    node.end(ContextError::DeadlineExceeded);
                }
                Some(_) => return Poll::Pending,
                None => {
                    note_wait(WaitReason::Context, ptr::from_ref(node).addr());
                    return Poll::Pending;
                }
            }
        }
        // It has ended, so there is a reason.
        node.error().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if self.waiter.has_joined()
            && let Some(node) = &self.context.node
        {
            // SAFETY: [X1] it has joined this queue.
            unsafe { node.links.lock().waiters.leave(&self.waiter) };
        }
    }
}

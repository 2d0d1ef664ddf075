//! What is beyond Lox: threads over one heap, and channels between them.
//!
//! A native function never waits itself. It says what is to be waited for ([`Wait`]), the
//! interpreter leaves its stack to the collector, waits as a blocked mutator, and calls the
//! function again.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use greywave::{Gc, GcArray, Heap, Mutator, Root};

use crate::dialect::Dialect;
use crate::error::RuntimeError;
use crate::native::Outcome;
use crate::object::Foreign;
use crate::realm::Realm;
use crate::value::{Slot, Value};
use crate::vm::Vm;

/// The most values that a channel holds.
const MAX_CAPACITY: f64 = 65536.0;

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a program prints.
pub type Output = Arc<Mutex<dyn Write + Send>>;

/// What the threads of one program share.
pub(crate) struct Shared {
    pub(crate) heap: Heap,
    pub(crate) realm: Root<Realm<'static>>,
    pub(crate) dialect: Dialect,
    pub(crate) output: Output,
    /// The program is over.
    stopping: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    channels: Mutex<Vec<Weak<ChannelSync>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        heap: Heap,
        realm: Root<Realm<'static>>,
        dialect: Dialect,
        output: Output,
    ) -> Arc<Self> {
        Arc::new(Self {
            heap,
            realm,
            dialect,
            output,
            stopping: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            channels: Mutex::new(Vec::new()),
        })
    }

    /// Whether the threads are to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        // Relaxed: a request; nothing is read on the strength of it.
        self.stopping.load(Ordering::Relaxed)
    }

    /// Prints a line.
    pub(crate) fn print(&self, text: &[u8]) -> std::io::Result<()> {
        let mut output = lock(&self.output);
        output.write_all(text)?;
        output.write_all(b"\n")
    }

    /// Ends the program's threads and waits for them. Not on an attached thread, which they would
    /// wait for.
    pub(crate) fn stop(&self) {
        // Relaxed: as in `is_stopping`.
        self.stopping.store(true, Ordering::Relaxed);
        for channel in lock(&self.channels).drain(..) {
            if let Some(channel) = channel.upgrade() {
                channel.stop();
            }
        }
        loop {
            let Some(thread) = lock(&self.threads).pop() else {
                return;
            };
            while !thread.is_finished() {
                // Takes every thread to a safepoint, where it looks at the request.
                self.heap.collect();
            }
            // It ended by itself: its result, if it was an error, has been told.
            let _ = thread.join();
        }
    }
}

// ---- threads ------------------------------------------------------------------------------------

/// Whether a thread has ended.
#[derive(Debug, Default)]
pub(crate) struct ThreadSync {
    /// `None` while it runs; then the error that stopped it, if one did.
    end: Mutex<Option<Result<(), String>>>,
    ended: Condvar,
}

impl ThreadSync {
    fn finish(&self, result: Result<(), String>) {
        *lock(&self.end) = Some(result);
        self.ended.notify_all();
    }
}

/// Runs `call[0]` with the other values as arguments on a new thread; its handle.
pub(crate) fn spawn<'gc>(
    m: &'gc Mutator,
    shared: &Arc<Shared>,
    call: &[Value<'gc>],
    line: u32,
) -> Result<Value<'gc>, Box<RuntimeError>> {
    let sync = Arc::new(ThreadSync::default());
    let handle = m.alloc(Foreign::Thread {
        sync: sync.clone(),
        result: Slot::new(Value::NIL),
    });
    let call: Gc<'gc, GcArray<(), Value<'gc>>> = m.alloc_array((), call.len(), |i| call[i]);
    let (call, root) = (m.root(call), m.root(handle));
    let there = shared.clone();
    let thread = std::thread::Builder::new().spawn(move || {
        let result = run_thread(&there, &call, root, line);
        // The roots are gone by now: whoever joins finds a heap that this thread keeps nothing in.
        sync.finish(result);
    });
    match thread {
        Ok(thread) => {
            let mut threads = lock(&shared.threads);
            threads.retain(|thread| !thread.is_finished());
            threads.push(thread);
            Ok(Value::foreign(handle))
        }
        Err(error) => Err(native(format!("A thread can't be started: {error}."))),
    }
}

fn run_thread(
    shared: &Arc<Shared>,
    call: &Root<GcArray<(), Value<'static>>>,
    handle: Root<Foreign<'static>>,
    line: u32,
) -> Result<(), String> {
    let mut m = shared.heap.attach().map_err(|error| error.to_string())?;
    let mut vm = Vm::new(&m, shared.clone());
    vm.prepare_call(&m, call, line);
    match vm.run(&mut m) {
        Ok(()) => {
            let value = vm.result(&m);
            if let Foreign::Thread { result, .. } = handle.get(&m).as_ref() {
                result.set(&m, value);
            }
            Ok(())
        }
        Err((RuntimeError::Stopped, _)) => Err("stopped".to_owned()),
        Err((error, trace)) => {
            let text = error.to_text(shared.dialect);
            if !shared.is_stopping() {
                report(&text, &trace);
            }
            Err(text)
        }
    }
}

#[allow(clippy::print_stderr, reason = "where errors of a program go")]
fn report(text: &str, trace: &[crate::error::TraceLine]) {
    let lines: String = trace.iter().map(|line| format!("\n{line}")).collect();
    eprintln!("{text}{lines}");
}

/// `join(handle)`
pub(crate) fn join<'gc>(
    handle: Option<Gc<'gc, Foreign<'gc>>>,
) -> Result<Outcome<'gc>, Box<RuntimeError>> {
    let Some(Foreign::Thread { sync, result }) = handle.map(Gc::as_ref) else {
        return Err(native("Can only join a thread.".to_owned()));
    };
    match &*lock(&sync.end) {
        None => Ok(Outcome::Wait(Wait::End(sync.clone()))),
        Some(Ok(())) => Ok(Outcome::Value(result.get())),
        Some(Err(error)) => Err(Box::new(RuntimeError::Thread(error.clone()))),
    }
}

// ---- channels -----------------------------------------------------------------------------------

/// The part of a channel that is not in the heap.
#[derive(Debug)]
pub(crate) struct ChannelSync {
    state: Mutex<ChannelState>,
    not_full: Condvar,
    not_empty: Condvar,
}

#[derive(Debug)]
struct ChannelState {
    /// Where the oldest value is.
    head: usize,
    len: usize,
    capacity: usize,
    /// The program is over: nobody waits any more.
    stopped: bool,
}

impl ChannelSync {
    fn stop(&self) {
        lock(&self.state).stopped = true;
        self.not_full.notify_all();
        self.not_empty.notify_all();
    }
}

/// `channel(capacity)`
pub(crate) fn new_channel<'gc>(
    m: &'gc Mutator,
    shared: &Shared,
    capacity: Value<'gc>,
) -> Result<Outcome<'gc>, Box<RuntimeError>> {
    let Some(capacity) = capacity
        .as_number()
        .filter(|n| n.fract() == 0.0 && (1.0..=MAX_CAPACITY).contains(n))
    else {
        let message = "A channel's capacity must be a whole number from 1 to 65536.";
        return Err(native(message.to_owned()));
    };
    let capacity = capacity as usize;
    let sync = Arc::new(ChannelSync {
        state: Mutex::new(ChannelState {
            head: 0,
            len: 0,
            capacity,
            stopped: false,
        }),
        not_full: Condvar::new(),
        not_empty: Condvar::new(),
    });
    let mut channels = lock(&shared.channels);
    // Looked at under the lock that `stop` takes afterwards: it sees either the request or the
    // channel.
    if shared.is_stopping() {
        return Err(Box::new(RuntimeError::Stopped));
    }
    channels.retain(|channel| channel.strong_count() > 0);
    channels.push(Arc::downgrade(&sync));
    let ring = m.alloc_array((), capacity, |_| Slot::new(Value::NIL));
    let channel = m.alloc(Foreign::Channel { sync, ring });
    Ok(Outcome::Value(Value::foreign(channel)))
}

/// `send(channel, value)`
pub(crate) fn send<'gc>(
    m: &'gc Mutator,
    channel: Option<Gc<'gc, Foreign<'gc>>>,
    value: Value<'gc>,
) -> Result<Outcome<'gc>, Box<RuntimeError>> {
    let Some(Foreign::Channel { sync, ring }) = channel.map(Gc::as_ref) else {
        return Err(native("Can only send to a channel.".to_owned()));
    };
    // Nobody waits for anything while holding this lock, so taking it is no wait worth a safepoint.
    let mut state = lock(&sync.state);
    if state.stopped {
        return Err(Box::new(RuntimeError::Stopped));
    }
    if state.len == state.capacity {
        return Ok(Outcome::Wait(Wait::Room(sync.clone())));
    }
    let tail = (state.head + state.len) % state.capacity;
    ring.items()[tail].set(m, value);
    state.len += 1;
    sync.not_empty.notify_one();
    Ok(Outcome::Value(value))
}

/// `recv(channel)`
pub(crate) fn receive<'gc>(
    m: &'gc Mutator,
    channel: Option<Gc<'gc, Foreign<'gc>>>,
) -> Result<Outcome<'gc>, Box<RuntimeError>> {
    let Some(Foreign::Channel { sync, ring }) = channel.map(Gc::as_ref) else {
        return Err(native("Can only receive from a channel.".to_owned()));
    };
    let mut state = lock(&sync.state);
    if state.stopped {
        return Err(Box::new(RuntimeError::Stopped));
    }
    if state.len == 0 {
        return Ok(Outcome::Wait(Wait::Value(sync.clone())));
    }
    let slot = &ring.items()[state.head];
    let value = slot.get();
    // The channel must not keep what it has handed over.
    slot.set(m, Value::NIL);
    state.head = (state.head + 1) % state.capacity;
    state.len -= 1;
    sync.not_full.notify_one();
    Ok(Outcome::Value(value))
}

/// What a thread waits for.
#[derive(Debug)]
pub(crate) enum Wait {
    /// The end of a thread.
    End(Arc<ThreadSync>),
    /// Room in a channel.
    Room(Arc<ChannelSync>),
    /// A value in a channel.
    Value(Arc<ChannelSync>),
}

impl Wait {
    /// Waits. It may come back early; who waits looks again.
    pub(crate) fn wait(&self) {
        let poisoned = PoisonError::into_inner;
        match self {
            Self::End(sync) => drop(
                sync.ended
                    .wait_while(lock(&sync.end), |end| end.is_none())
                    .unwrap_or_else(|error| error.into_inner()),
            ),
            Self::Room(sync) => drop(
                sync.not_full
                    .wait_while(lock(&sync.state), |s| s.len == s.capacity && !s.stopped)
                    .unwrap_or_else(poisoned),
            ),
            Self::Value(sync) => drop(
                sync.not_empty
                    .wait_while(lock(&sync.state), |s| s.len == 0 && !s.stopped)
                    .unwrap_or_else(poisoned),
            ),
        }
    }
}

fn native(message: String) -> Box<RuntimeError> {
    Box::new(RuntimeError::Native(message))
}

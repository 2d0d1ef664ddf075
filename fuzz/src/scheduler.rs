//! Programs of Gs: channels of any capacity, selects, sleeps, blocking calls, locks, aborts, and
//! the heap, on some Ps.
//!
//! Whatever happens, nothing that was sent is lost or received twice, a lock is held by one G at a
//! time, what a G keeps is whole, every G ends once the channels are closed, and the runtime ends
//! after them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use arbitrary::Arbitrary;
use greywave::chan::{TryRecvError, TrySendError};
use greywave::{
    Gc, GcCell, GcChan, Heap, JoinHandle, Mutator, Mutex, Receiver, Root, Runtime, Sender, Trace,
    blocking, chan, go, select, sleep, timeout, with, yield_now,
};

use crate::Case;

/// Channels of a program.
const CHANNELS: usize = 3;
/// Gs of a program, and steps of each, at most.
const MOST: usize = 12;

/// One step of a G; a number names a channel.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Op {
    /// Waits until somebody takes it.
    Send(u8),
    /// Waits for something.
    Recv(u8),
    /// Sends if it need not wait.
    TrySend(u8),
    /// Receives if it need not wait.
    TryRecv(u8),
    /// Receives from one of two, or sends to the third.
    Select(u8, u8, u8),
    /// Receives, for so many tenths of a millisecond at most.
    RecvWithin(u8, u8),
    /// No more is sent.
    Close(u8),
    /// Lets others run.
    Yield,
    /// So many hundredths of a millisecond.
    Sleep(u8),
    /// A call that waits.
    Call,
    /// Holds a lock over an await.
    Lock,
    /// Keeps a list of so many objects.
    Keep(u8),
    /// Looks whether what it keeps is whole.
    Look,
    /// A whole collection.
    Collect,
    /// Puts an object into the channel in the heap.
    Give(u8),
    /// Takes one out.
    Take,
    /// Another G that does the rest of this one's steps, and is waited for.
    Fork,
}

/// See the module.
#[derive(Arbitrary, Clone, Debug)]
pub struct Program {
    /// Of the runtime: 1 to 3.
    pub procs: u8,
    /// Capacities of the channels: 0 to 2.
    pub rooms: [u8; CHANNELS],
    /// The steps of each G.
    pub gs: Vec<Vec<Op>>,
    /// Gs that are aborted while they run.
    pub aborted: Vec<u8>,
}

#[derive(Trace)]
struct Node<'gc> {
    number: u64,
    next: GcCell<'gc, Node<'gc>>,
}

/// Makes a list of `len` nodes, numbered from the end.
fn list(m: &Mutator, len: u64) -> Gc<'_, Node<'_>> {
    let mut head = m.alloc(Node {
        number: 0,
        next: GcCell::null(),
    });
    for number in 1..=len {
        head = m.alloc(Node {
            number,
            next: GcCell::new(Some(head)),
        });
    }
    head
}

fn assert_whole(first: Gc<'_, Node<'_>>) {
    let (mut at, mut want) = (Some(first), first.number);
    while let Some(node) = at {
        assert_eq!(node.number, want, "a list is damaged");
        at = node.next.get();
        want = want.wrapping_sub(1);
    }
    assert_eq!(want, u64::MAX, "a list is short");
}

/// Who has sent and received what.
#[derive(Debug, Default)]
struct Ledger {
    /// Begun, and not known to have ended.
    sending: BTreeSet<u64>,
    sent: BTreeSet<u64>,
    received: BTreeSet<u64>,
    next: u64,
}

struct World {
    channels: Vec<(Sender<u64>, Receiver<u64>)>,
    ledger: StdMutex<Ledger>,
    lock: Mutex<u64>,
    is_locked: AtomicBool,
    objects: Root<GcChan<'static, Node<'static>>>,
}

impl World {
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self, number: u8) -> &(Sender<u64>, Receiver<u64>) {
        &self.channels[usize::from(number) % CHANNELS]
    }

    fn begin(&self) -> u64 {
        let mut ledger = self.ledger();
        ledger.next += 1;
        let value = ledger.next;
        ledger.sending.insert(value);
        value
    }

    fn end(&self, value: u64, sent: bool) {
        let mut ledger = self.ledger();
        ledger.sending.remove(&value);
        if sent {
            ledger.sent.insert(value);
        }
    }

    fn receive(&self, value: Option<u64>) {
        if let Some(value) = value {
            assert!(
                self.ledger().received.insert(value),
                "{value} was received twice"
            );
        }
    }

    fn close(&self) {
        for (to, _) in &self.channels {
            let _ = to.close();
        }
    }

    /// Everything that was sent has been received, and nothing else.
    fn check(&self) {
        for (_, from) in &self.channels {
            loop {
                match from.try_recv() {
                    Ok(value) => self.receive(Some(value)),
                    Err(TryRecvError::Closed) => break,
                    Err(TryRecvError::Empty) => panic!("it was closed"),
                }
            }
        }
        let ledger = self.ledger();
        for value in &ledger.sent {
            assert!(ledger.received.contains(value), "{value} is lost");
        }
        for value in &ledger.received {
            // An aborted G does not see its send succeed.
            let is_known = ledger.sent.contains(value) || ledger.sending.contains(value);
            assert!(is_known, "{value} was never sent");
        }
    }
}

/// Says that a lock is held, until it is dropped, with its G.
struct Held<'a>(&'a AtomicBool);

impl<'a> Held<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        assert!(!flag.swap(true, Ordering::AcqRel), "two hold the lock");
        Self(flag)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

type Kept = Vec<Root<Node<'static>>>;

fn start(world: Arc<World>, ops: Vec<Op>, depth: usize) -> JoinHandle<()> {
    go(async move {
        let mut kept = Kept::new();
        for (at, &op) in ops.iter().enumerate() {
            if let Op::Fork = op {
                if depth < 4 {
                    let rest = ops[at + 1..].to_vec();
                    let _ = start(world.clone(), rest, depth + 1).await;
                    return;
                }
            } else {
                step(&world, op, &mut kept).await;
            }
        }
    })
}

async fn step(world: &World, op: Op, kept: &mut Kept) {
    match op {
        Op::Send(to) => {
            let value = world.begin();
            let sent = world.channel(to).0.send(value).await.is_ok();
            world.end(value, sent);
        }
        Op::Recv(from) => world.receive(world.channel(from).1.recv().await),
        Op::TrySend(to) => {
            let value = world.begin();
            let sent = match world.channel(to).0.try_send(value) {
                Ok(()) => true,
                Err(TrySendError::Full(back) | TrySendError::Closed(back)) => {
                    assert_eq!(back, value);
                    false
                }
            };
            world.end(value, sent);
        }
        Op::TryRecv(from) => world.receive(world.channel(from).1.try_recv().ok()),
        Op::Select(one, two, to) => {
            let value = world.begin();
            let (one, two) = (&world.channel(one).1, &world.channel(two).1);
            let to = &world.channel(to).0;
            let sent = select! {
                got = recv(one) => { world.receive(got); false }
                got = recv(two) => { world.receive(got); false }
                sent = send(to, value) => sent.is_ok(),
            };
            world.end(value, sent);
        }
        Op::RecvWithin(from, tenths) => {
            let limit = Duration::from_micros(u64::from(tenths) * 100);
            let got = timeout(limit, world.channel(from).1.recv()).await;
            world.receive(got.ok().flatten());
        }
        Op::Close(number) => drop(world.channel(number).0.close()),
        Op::Lock => {
            let mut turns = world.lock.lock().await;
            let _held = Held::new(&world.is_locked);
            yield_now().await;
            *turns += 1;
        }
        Op::Yield => yield_now().await,
        Op::Sleep(time) => sleep(Duration::from_micros(u64::from(time) * 10)).await,
        Op::Call => blocking(|| std::thread::sleep(Duration::from_micros(20))).await,
        _ => heap_step(world, op, kept).await,
    }
}

async fn heap_step(world: &World, op: Op, kept: &mut Kept) {
    match op {
        Op::Keep(len) => {
            kept.push(with(|m| m.root(list(m, len.into()))));
            if kept.len() > 4 {
                kept.remove(0);
            }
        }
        Op::Collect => with(Mutator::collect),
        Op::Give(len) => {
            with(|m| {
                let _ = world
                    .objects
                    .get(m)
                    .try_send(m, list(m, u64::from(len) % 8));
            });
            yield_now().await;
        }
        Op::Take => with(|m| {
            if let Ok(first) = world.objects.get(m).try_recv(m) {
                assert_whole(first);
            }
        }),
        _ => with(|m| kept.iter().for_each(|first| assert_whole(first.get(m)))),
    }
}

impl Program {
    fn start_all(&self, world: &Arc<World>) -> Vec<JoinHandle<()>> {
        let ops = |ops: &Vec<Op>| ops.iter().copied().take(MOST).collect();
        let gs = self.gs.iter().take(MOST);
        gs.map(|steps| start(world.clone(), ops(steps), 0))
            .collect()
    }

    async fn play(&self) {
        let channel = |&room: &u8| chan(usize::from(room) % 3);
        let world = Arc::new(World {
            channels: self.rooms.iter().map(channel).collect(),
            ledger: StdMutex::default(),
            lock: Mutex::new(0),
            is_locked: AtomicBool::new(false),
            objects: with(|m| m.root(m.alloc(GcChan::<Node<'_>>::new(2)))),
        });
        let handles = self.start_all(&world);
        for &which in self.aborted.iter().take(4) {
            yield_now().await;
            if let Some(handle) = handles.get(usize::from(which)) {
                handle.abort();
            }
        }
        // Gs that wait for each other are freed when the channels close.
        sleep(Duration::from_millis(2)).await;
        world.close();
        for handle in handles {
            if let Err(error) = handle.await {
                assert!(error.is_cancelled(), "{error}");
            }
        }
        world.check();
    }
}

impl Case for Program {
    const MODULE: &'static str = "scheduler";

    fn run(&self) {
        let heap = Heap::builder().poison(true).build().expect("a heap");
        let procs = 1 + usize::from(self.procs) % 3;
        let rt = Runtime::builder(&heap)
            .procs(procs)
            .build()
            .expect("a runtime");
        let program = self.clone();
        rt.block_on(async move { program.play().await })
            .expect("a timer is no deadlock");
        rt.shutdown(Duration::from_secs(20))
            .expect("all have ended");
        heap.verify().expect("whole");
    }
}

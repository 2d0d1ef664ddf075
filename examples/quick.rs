//! One number for one operation that a program pays for, in at most a second. `.ci/compare` runs
//! this program for two revisions in turn.
//!
//! ```text
//! cargo run --release --example quick -- alloc
//! ```
//!
//! It prints the nanoseconds of processor time for one operation, and then the nanoseconds of wall
//! time. The processor time is that of the thread that does the work, or of the process if several
//! threads do. It says more if the machine is busy with other things.
//!
//! The program uses only this crate and `libc`, and of this crate only what is old, so that it
//! builds with older revisions.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greywave::{
    Gc, GcArray, GcCell, Heap, Mutator, Root, Runtime, Sender, Trace, chan, go, yield_now,
};

type Case = fn() -> Cost;

const CASES: [(&str, Case); 9] = [
    ("alloc", alloc),
    ("roots", roots),
    ("set", set_idle),
    ("set_marking", set_marking),
    ("message_ring", message_ring),
    ("trees", trees),
    ("spawn", spawn),
    ("ping_pong", ping_pong),
    ("skynet", skynet),
];

fn main() -> ExitCode {
    let asked = std::env::args().nth(1).unwrap_or_default();
    let Some((_, run)) = CASES.iter().find(|(name, _)| *name == asked) else {
        let names: Vec<_> = CASES.iter().map(|(name, _)| *name).collect();
        eprintln!("quick: {asked:?} is none of {}", names.join(", "));
        return ExitCode::from(2);
    };
    let cost = run();
    println!("{:.2} {:.2}", cost.processor, cost.clock);
    ExitCode::SUCCESS
}

/// Nanoseconds for one operation.
struct Cost {
    processor: f64,
    clock: f64,
}

/// Whose processor time counts.
#[derive(Clone, Copy)]
enum Of {
    Thread,
    Process,
}

fn processor_time(of: Of) -> Duration {
    let clock = match of {
        Of::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
        Of::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
    };
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes to `time`.
    let known = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(known, 0, "there is such a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn measure(of: Of, operations: usize, work: impl FnOnce()) -> Cost {
    let (before, start) = (processor_time(of), Instant::now());
    work();
    let (processor, clock) = (processor_time(of) - before, start.elapsed());
    let each = |time: Duration| time.as_nanos() as f64 / operations as f64;
    Cost {
        processor: each(processor),
        clock: each(clock),
    }
}

#[derive(Trace)]
struct Node<'gc> {
    next: Option<Gc<'gc, Node<'gc>>>,
    data: [u64; 7],
}

fn node<'gc>(m: &'gc Mutator, next: Option<Gc<'gc, Node<'gc>>>) -> Gc<'gc, Node<'gc>> {
    m.alloc(Node { next, data: [1; 7] })
}

/// Garbage of 64 bytes each.
fn alloc() -> Cost {
    const COUNT: usize = 20_000_000;
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    measure(Of::Thread, COUNT, || {
        for _ in 0..COUNT / 1000 {
            for _ in 0..1000 {
                black_box(node(&m, None));
            }
            m.safepoint();
        }
    })
}

/// A root is made, read and dropped.
fn roots() -> Cost {
    const COUNT: usize = 20_000_000;
    let heap = Heap::new();
    let m = heap.attach().expect("attached");
    let kept = m.root(node(&m, None));
    measure(Of::Thread, COUNT, || {
        for _ in 0..COUNT {
            let root = m.root(kept.get(&m));
            black_box(root.get(&m).data[0]);
        }
    })
}

const CELLS: usize = 1024;

#[derive(Trace)]
struct Edge<'gc>(GcCell<'gc, Node<'gc>>);

type Edges<'gc> = GcArray<(), Edge<'gc>>;

fn edges(m: &Mutator) -> Gc<'_, Edges<'_>> {
    m.alloc_array((), CELLS, |_| Edge(GcCell::null()))
}

/// `GcCell::set`, and a poll for each thousand.
fn set(m: &mut Mutator, rounds: usize) -> Cost {
    let targets = [m.root(node(m, None)), m.root(node(m, None))];
    let cells: Root<Edges<'static>> = m.root(edges(m));
    measure(Of::Thread, rounds * CELLS, || {
        for _ in 0..rounds {
            {
                let to = [targets[0].get(m), targets[1].get(m)];
                let cells = cells.get(m);
                for (at, edge) in cells.items().iter().enumerate() {
                    edge.0.set(m, to[at % 2]);
                }
            }
            m.safepoint();
        }
    })
}

fn set_idle() -> Cost {
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    set(&mut m, 100_000)
}

/// The same while another thread runs one cycle after another over a million objects.
fn set_marking() -> Cost {
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    let first = (1..1_000_000).fold(node(&m, None), |next, _| node(&m, Some(next)));
    let _live: Root<Node<'static>> = m.root(first);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed: only says when to leave.
            while !stop.load(Ordering::Relaxed) {
                heap.collect();
            }
        });
        let cost = set(&mut m, 50_000);
        stop.store(true, Ordering::Relaxed);
        drop(m);
        cost
    })
}

type Message = GcArray<u64, u64>;

#[derive(Trace)]
struct Slot<'gc>(GcCell<'gc, Message>);

/// Each message of a kilobyte takes the place of the oldest of 100,000. The markers' time counts.
fn message_ring() -> Cost {
    const MESSAGES: usize = 100_000;
    const INSERTS: usize = 1_000_000;
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    let ring: Root<GcArray<(), Slot<'static>>> =
        m.root(m.alloc_array((), MESSAGES, |_| Slot(GcCell::null())));
    measure(Of::Process, INSERTS, || {
        for stamp in 0..INSERTS {
            {
                let message = m.alloc_array(stamp as u64, 126, |at| (stamp + at) as u64);
                ring.get(&m).items()[stamp % MESSAGES].0.set(&m, message);
            }
            m.safepoint();
        }
    })
}

#[derive(Trace)]
struct Tree<'gc> {
    children: Option<(Gc<'gc, Tree<'gc>>, Gc<'gc, Tree<'gc>>)>,
}

fn tree(m: &Mutator, depth: u32) -> Gc<'_, Tree<'_>> {
    let children = (depth > 0).then(|| (tree(m, depth - 1), tree(m, depth - 1)));
    m.alloc(Tree { children })
}

fn count(tree: Gc<'_, Tree<'_>>) -> usize {
    1 + tree
        .children
        .map_or(0, |(left, right)| count(left) + count(right))
}

/// Small trees, while 2,000 of them live.
fn trees() -> Cost {
    const TREES: usize = 8_000;
    const DEPTH: u32 = 10;
    let heap = Heap::new();
    let mut m = heap.attach().expect("attached");
    let mut live: Vec<Root<Tree<'static>>> = Vec::new();
    let nodes = TREES << (DEPTH + 1);
    measure(Of::Process, nodes, || {
        let mut sum = 0;
        for number in 0..TREES {
            {
                let tree = tree(&m, DEPTH);
                sum += count(tree);
                match live.len() {
                    2_000 => live[number % 2_000] = m.root(tree),
                    _ => live.push(m.root(tree)),
                }
            }
            m.safepoint();
        }
        assert_eq!(sum, TREES * ((2 << DEPTH) - 1));
    })
}

fn run<F>(operations: usize, main: F) -> Cost
where
    F: Future<Output = ()> + Send + 'static,
{
    let rt = Runtime::builder(&Heap::new()).procs(1).build();
    let rt = rt.expect("a runtime");
    measure(Of::Process, operations, || {
        rt.block_on(main).expect("no deadlock");
    })
}

fn spawn() -> Cost {
    const COUNT: usize = 2_000_000;
    run(COUNT, async {
        for _ in 0..COUNT / 1000 {
            let gs: Vec<_> = (0..1000).map(|number| go(async move { number })).collect();
            for g in gs {
                black_box(g.await.expect("no panic"));
            }
            yield_now().await;
        }
    })
}

/// There and back.
fn ping_pong() -> Cost {
    const COUNT: usize = 2_000_000;
    run(COUNT, async {
        let ((ping, pinged), (pong, ponged)) = (chan(1), chan(1));
        let other = go(async move {
            while let Some(number) = pinged.recv().await {
                if pong.send(number + 1).await.is_err() {
                    break;
                }
            }
        });
        let mut number = 0;
        for _ in 0..COUNT {
            ping.send(number).await.expect("the other is there");
            number = ponged.recv().await.expect("it answers");
        }
        assert_eq!(number, COUNT);
        drop(ping);
        other.await.expect("no panic");
    })
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

fn leaves(to: Sender<usize>, number: usize, size: usize) -> Boxed {
    Box::pin(async move {
        let mut sum = number;
        if size > 1 {
            let (child, sums) = chan(10);
            for at in 0..10 {
                let below = size / 10;
                drop(go(leaves(child.clone(), number + at * below, below)));
            }
            sum = 0;
            for _ in 0..10 {
                sum += sums.recv().await.expect("each child sends");
            }
        }
        to.send(sum).await.expect("the parent receives");
    })
}

/// A G for each node of a tree of ten children each.
fn skynet() -> Cost {
    const LEAVES: usize = 1_000_000;
    run(LEAVES, async {
        let (to, from) = chan(1);
        drop(go(leaves(to, 0, LEAVES)));
        assert_eq!(from.recv().await, Some(LEAVES * (LEAVES - 1) / 2));
    })
}

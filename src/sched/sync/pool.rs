//! Objects to use again.
//!
//! A pool has a shard for each processor, and a P uses the shard of its number: one object of its own, and a stack. Who finds
//! both empty takes the oldest object of another shard's stack. Objects that nobody took since the last collection become
//! victims, which are used only where nothing else is left, and are dropped at the next. The order of places to look at, and
//! the two lives of an object, are Go's (`sync/pool.go`).
//!
//! **Invariant**
//! - `[X10]` A shard has caught up with the number of collections whenever its lock has been taken by `enter`. What that leaves
//!   over is dropped after the lock has been released.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use crate::gc::events::after_each_cycle;
use crate::sched::context;
use crate::sched::worker::Worker;
use crate::sys::lock::Brief;
use crate::sys::quiet::contain;
use crate::sys::thread::processors;

/// The pools of this process, which hear of the collections of every heap.
static POOLS: LazyLock<Pools> = LazyLock::new(|| {
    // Told by the collectors' threads: a count that is only looked at now and then would take two collections for one.
    after_each_cycle(|| POOLS.note_cycle());
    Pools::new()
});

/// Pools, and how many collections there were.
struct Pools {
    cycle: AtomicU64,
    all: Brief<Vec<Weak<dyn Ages>>>,
}

/// A pool, whatever is in it.
trait Ages: Send + Sync {
    /// Drops what is too old.
    fn age(&self);
}

impl Pools {
    fn new() -> Self {
        Self {
            cycle: AtomicU64::new(0),
            all: Brief::new(Vec::new()),
        }
    }

    fn add(&self, pool: Weak<dyn Ages>) {
        let mut all = self.all.lock();
        // Before it grows, those that are gone make room.
        if all.len() == all.capacity() {
            all.retain(|pool| pool.strong_count() > 0);
        }
        all.push(pool);
    }

    /// A heap was collected. Objects that nobody has taken since the collection before are dropped here: this runs drops of
    /// users, so the caller holds no lock. A drop that panics is over, as in a sweep.
    fn note_cycle(&self) {
        // Relaxed: a shard that reads the old number holds its objects a little longer.
        self.cycle.fetch_add(1, Ordering::Relaxed);
        let mut alive = Vec::new();
        self.all.lock().retain(|pool| {
            let pool = pool.upgrade();
            let is_alive = pool.is_some();
            alive.extend(pool);
            is_alive
        });
        for pool in alive {
            // The pool may be dropped here as well, if its owner has just gone.
            contain(move || {
                pool.age();
                drop(pool);
            });
        }
    }

    fn cycle(&self) -> u64 {
        self.cycle.load(Ordering::Relaxed)
    }
}

/// A pool of objects that are expensive to make, or large: take one, use it, put it back.
///
/// What is put into a pool may go at any time: an object that nobody takes survives one collection of a heap (any heap of
/// the process) and is dropped at the second, on the collector's thread, before whoever asked for that collection goes on. As
/// with the drop of an object in the heap, its drop may not wait for a mutator. Each processor has its own objects, the one put last is taken first, and no
/// task waits for another.
///
/// # Examples
/// ```
/// use greywave::Pool;
///
/// let buffers = Pool::new(|| Vec::<u8>::with_capacity(4096));
/// let mut buffer = buffers.get();
/// buffer.extend(b"grey");
/// buffer.clear();
/// buffers.put(buffer);
/// assert_eq!(buffers.get().capacity(), 4096);
/// ```
pub struct Pool<T: Send + 'static> {
    shelves: Arc<Shelves<T>>,
    new: Box<dyn Fn() -> T + Send + Sync>,
}

struct Shelves<T> {
    pools: &'static Pools,
    shards: Box<[Shard<T>]>,
}

/// Shards are touched by different processors.
#[repr(align(128))]
struct Shard<T> {
    /// How many objects others may take; read without the lock, to pass an empty one by.
    open: AtomicUsize,
    stocks: Brief<Stocks<T>>,
}

struct Stocks<T> {
    /// The collection that this shard has caught up with.
    cycle: u64,
    fresh: Stock<T>,
    /// What was there at the last collection.
    victim: Stock<T>,
}

struct Stock<T> {
    /// For those of this shard only.
    private: Option<T>,
    /// The newest at the back.
    shared: VecDeque<T>,
}

impl<T> Stock<T> {
    const fn new() -> Self {
        Self {
            private: None,
            shared: VecDeque::new(),
        }
    }

    fn take(&mut self) -> Option<T> {
        self.private.take().or_else(|| self.shared.pop_back())
    }

    fn put(&mut self, object: T) {
        match self.private {
            None => self.private = Some(object),
            Some(_) => self.shared.push_back(object),
        }
    }
}

impl<T: Send + 'static> Pool<T> {
    /// An empty pool; `new` makes an object where there is none to take.
    pub fn new(new: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self::within(&POOLS, new)
    }

    fn within(pools: &'static Pools, new: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let shelves = Arc::new(Shelves {
            pools,
            shards: (0..processors().next_power_of_two())
                .map(|_| Shard {
                    open: AtomicUsize::new(0),
                    stocks: Brief::new(Stocks {
                        cycle: pools.cycle(),
                        fresh: Stock::new(),
                        victim: Stock::new(),
                    }),
                })
                .collect(),
        });
        let weak: Weak<Shelves<T>> = Arc::downgrade(&shelves);
        pools.add(weak);
        Self {
            shelves,
            new: Box::new(new),
        }
    }

    /// An object that was put, or a new one.
    pub fn get(&self) -> T {
        self.try_get().unwrap_or_else(|| (self.new)())
    }

    /// An object that was put, if one is left.
    pub fn try_get(&self) -> Option<T> {
        let own = self.shelves.own();
        let fresh = |stocks: &mut Stocks<T>| stocks.fresh.take();
        let shared = |stocks: &mut Stocks<T>| stocks.fresh.shared.pop_front();
        let victim = |stocks: &mut Stocks<T>| stocks.victim.take();
        let old = |stocks: &mut Stocks<T>| stocks.victim.shared.pop_front();
        self.shelves
            .enter(own, fresh)
            .or_else(|| self.shelves.steal(own, shared))
            .or_else(|| self.shelves.enter(own, victim))
            .or_else(|| self.shelves.steal(own, old))
    }

    /// Puts an object into the pool, in whatever state it is: clean it before, or after it is taken.
    pub fn put(&self, object: T) {
        self.shelves
            .enter(self.shelves.own(), |stocks| stocks.fresh.put(object));
    }
}

impl<T> Shelves<T> {
    /// The shard of this P or thread.
    fn own(&self) -> usize {
        shard_number() & (self.shards.len() - 1)
    }

    /// What `act` returns, of the shard of that number. [X10]
    fn enter<R>(&self, number: usize, act: impl FnOnce(&mut Stocks<T>) -> R) -> R {
        let shard = &self.shards[number];
        let mut stocks = shard.stocks.lock();
        let over = stocks.catch_up(self.pools.cycle());
        let result = act(&mut stocks);
        let open = stocks.fresh.shared.len() + stocks.victim.shared.len();
        // Relaxed: a hint.
        shard.open.store(open, Ordering::Relaxed);
        drop(stocks);
        drop(over);
        result
    }

    /// What `act` finds in the first shard behind `own` that has something.
    fn steal(&self, own: usize, act: impl Fn(&mut Stocks<T>) -> Option<T>) -> Option<T> {
        let count = self.shards.len();
        (1..count)
            .map(|step| (own + step) & (count - 1))
            .filter(|&number| self.shards[number].open.load(Ordering::Relaxed) > 0)
            .find_map(|number| self.enter(number, &act))
    }
}

impl<T> Stocks<T> {
    /// Makes victims of what was there at the last collection; returns what was there at the one before.
    fn catch_up(&mut self, cycle: u64) -> [Option<Stock<T>>; 2] {
        let missed = cycle.saturating_sub(self.cycle);
        if missed == 0 {
            return [None, None];
        }
        self.cycle = cycle;
        let fresh = mem::replace(&mut self.fresh, Stock::new());
        if missed == 1 {
            [Some(mem::replace(&mut self.victim, fresh)), None]
        } else {
            let victim = mem::replace(&mut self.victim, Stock::new());
            [Some(victim), Some(fresh)]
        }
    }
}

impl<T: Send> Ages for Shelves<T> {
    fn age(&self) {
        for number in 0..self.shards.len() {
            self.enter(number, |_| ());
        }
    }
}

impl<T: Send> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// The number of this thread's P; outside a runtime a number of the thread, unlike those of the threads before it.
fn shard_number() -> usize {
    context::with_worker(|worker| worker.and_then(Worker::proc_index)).unwrap_or_else(thread_number)
}

fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    // A drop at the end of a thread may come here after the number is gone.
    let number = NUMBER.try_with(|number| {
        let known = number.get();
        known.unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(Some(new));
            new
        })
    });
    number.unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::lock::Unranked;

    fn pools() -> &'static Pools {
        Box::leak(Box::new(Pools::new()))
    }

    /// Counts what is alive.
    struct Counted(Arc<AtomicUsize>);

    impl Counted {
        fn pool(pools: &'static Pools, alive: &Arc<AtomicUsize>) -> Pool<Self> {
            let alive = alive.clone();
            Pool::within(pools, move || {
                alive.fetch_add(1, Ordering::Relaxed);
                Self(alive.clone())
            })
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Go's `TestPoolGC`.
    #[test]
    fn what_nobody_takes_is_dropped_at_the_second_collection() {
        let (pools, alive) = (pools(), Arc::default());
        let pool = Counted::pool(pools, &alive);
        let objects: Vec<Counted> = (0..100).map(|_| pool.get()).collect();
        objects.into_iter().for_each(|object| pool.put(object));
        pools.note_cycle();
        assert_eq!(alive.load(Ordering::Relaxed), 100);
        pools.note_cycle();
        assert_eq!(alive.load(Ordering::Relaxed), 0);
        assert!(pool.try_get().is_none());
    }

    #[test]
    fn what_is_taken_and_put_again_stays() {
        let (pools, alive) = (pools(), Arc::default());
        let pool = Counted::pool(pools, &alive);
        let (kept, idle) = (pool.get(), pool.get());
        pool.put(kept);
        pool.put(idle);
        for _ in 0..5 {
            pools.note_cycle();
            let kept = pool.try_get().expect("a victim is better than none");
            pool.put(kept);
        }
        assert_eq!(alive.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn victims_are_taken_when_nothing_else_is_there() {
        let pools = pools();
        let pool = Pool::within(pools, || 0);
        (1..=3).for_each(|i| pool.put(i));
        pools.note_cycle();
        (4..=5).for_each(|i| pool.put(i));
        let got: Vec<i32> = (0..6).map(|_| pool.get()).collect();
        assert_eq!(got, [4, 5, 1, 3, 2, 0]);
    }

    #[test]
    fn a_shard_that_missed_collections_catches_up_when_it_is_used() {
        let pools = pools();
        let pool = Pool::within(pools, || 0);
        pool.put(1);
        pools.cycle.fetch_add(1, Ordering::Relaxed);
        pool.put(2);
        pools.cycle.fetch_add(1, Ordering::Relaxed);
        assert_eq!(pool.get(), 2);
        pool.put(3);
        pools.cycle.fetch_add(2, Ordering::Relaxed);
        assert_eq!(pool.try_get(), None);
    }

    #[test]
    fn pools_that_are_gone_are_forgotten() {
        let pools = pools();
        for _ in 0..1000 {
            drop(Pool::within(pools, || 0));
        }
        assert!(pools.all.lock().len() < 10);
        pools.note_cycle();
        assert!(pools.all.lock().is_empty());
    }

    /// Drops run without a lock, so they may use the pool, and a panic in one of them is over.
    #[test]
    fn a_drop_may_use_the_pool_and_panic() {
        struct Back(&'static Unranked<Option<Pool<Self>>>);
        impl Drop for Back {
            fn drop(&mut self) {
                if let Some(pool) = &*self.0.lock() {
                    assert!(pool.try_get().is_none());
                }
                panic!("on purpose");
            }
        }
        let pools = pools();
        let place: &'static Unranked<Option<Pool<Back>>> = Box::leak(Box::new(Unranked::new(None)));
        let pool = Pool::within(pools, move || Back(place));
        pool.put(Back(place));
        *place.lock() = Some(pool);
        pools.note_cycle();
        pools.note_cycle();
        let other = Pool::within(pools, || 0);
        other.put(1);
        pools.note_cycle();
        assert_eq!(other.get(), 1);
    }
}

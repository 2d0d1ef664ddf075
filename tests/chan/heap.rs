//! Channels in the heap: their items need no roots, and a channel that nobody can reach is
//! collected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greywave::chan::{TryRecvError, TrySendError};
use greywave::{
    Gc, GcCell, GcChan, Heap, Mutator, Root, Runtime, Trace, blocking, go, timeout, with, yield_now,
};

/// Counts its drops; a field of its own, for what holds a `Gc` has no `Drop`.
#[derive(Trace)]
struct Counted(#[trace(skip)] Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Trace)]
struct Item<'gc> {
    number: usize,
    next: GcCell<'gc, Item<'gc>>,
    home: GcCell<'gc, GcChan<'gc, Item<'gc>>>,
    counted: Option<Counted>,
}

type Chan = Root<GcChan<'static, Item<'static>>>;

fn item<'gc>(number: usize) -> Item<'gc> {
    Item {
        number,
        next: GcCell::null(),
        home: GcCell::null(),
        counted: None,
    }
}

fn channel(capacity: usize) -> Chan {
    with(|m| m.root(m.alloc(GcChan::<Item<'_>>::new(capacity))))
}

fn run<F>(procs: usize, main: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let rt = Runtime::builder(&Heap::new()).procs(procs).build().unwrap();
    rt.block_on(main).unwrap()
}

#[test]
fn items_live_by_the_channel_alone_and_keep_their_order() {
    let heap = Heap::builder().verify(true).poison(true).build().unwrap();
    let rt = Runtime::builder(&heap).procs(1).build().unwrap();
    let main = async {
        let chan = channel(100);
        for number in 0..100 {
            let sent = chan.send(|m| {
                let next = m.alloc(item(number + 1000));
                m.alloc(Item {
                    next: GcCell::new(Some(next)),
                    ..item(number)
                })
            });
            sent.await.unwrap();
        }
        for number in 0..100 {
            if number % 20 == 0 {
                with(|m| m.collect());
            }
            let look = |_: &Mutator, item: Gc<'_, Item<'_>>| {
                // What was freed is poisoned: its edge leads nowhere.
                assert_eq!(item.number, number);
                item.next.get().unwrap().number
            };
            assert_eq!(chan.recv(look).await, Some(number + 1000));
        }
        assert!(with(|m| chan.get(m).is_empty()));
    };
    rt.block_on(main).unwrap();
    heap.verify().unwrap();
}

#[test]
fn each_item_arrives_once_while_the_collector_never_rests() {
    const EACH: usize = 3000;
    let heap = Heap::builder().gogc(Some(20)).build().unwrap();
    let rt = Runtime::builder(&heap).procs(2).build().unwrap();
    let sums = rt.block_on(async {
        let chan = channel(7);
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let to = chan.clone();
                go(async move {
                    for number in 0..EACH {
                        to.send(|m| m.alloc(item(number))).await.unwrap();
                    }
                })
            })
            .collect();
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let from = chan.clone();
                go(async move {
                    let mut sum = 0;
                    while let Some(number) = from.recv(|_, item| item.number).await {
                        sum += number;
                        if sum % 64 == 0 {
                            with(|m| m.collect());
                        }
                    }
                    sum
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        chan.close();
        let mut sums = 0;
        for receiver in receivers {
            sums += receiver.await.unwrap();
        }
        sums
    });
    assert_eq!(sums.unwrap(), 3 * EACH * (EACH - 1) / 2);
    heap.verify().unwrap();
}

#[test]
fn a_full_one_waits_and_a_closed_one_drains() {
    run(1, async {
        let chan = channel(2);
        with(|m| {
            let here = chan.get(m);
            assert_eq!((here.capacity(), here.len()), (2, 0));
            assert!(matches!(here.try_recv(m), Err(TryRecvError::Empty)));
            here.try_send(m, m.alloc(item(1))).unwrap();
            here.try_send(m, m.alloc(item(2))).unwrap();
            let third = m.alloc(item(3));
            let Err(TrySendError::Full(back)) = here.try_send(m, third) else {
                panic!("there is room for two");
            };
            assert!(Gc::ptr_eq(back, third));
        });
        let to = chan.clone();
        let waits = go(async move { to.send(|m| m.alloc(item(3))).await });
        yield_now().await;
        assert!(!waits.is_finished());
        assert_eq!(chan.recv(|_, item| item.number).await, Some(1));
        waits.await.unwrap().unwrap();
        let to = chan.clone();
        let late = go(async move { to.send(|m| m.alloc(item(4))).await });
        yield_now().await;
        chan.close();
        chan.close();
        late.await.unwrap().unwrap_err();
        assert!(with(|m| chan.get(m).is_closed()));
        assert!(chan.send(|m| m.alloc(item(5))).await.is_err());
        assert_eq!(chan.recv(|_, item| item.number).await, Some(2));
        assert_eq!(chan.recv(|_, item| item.number).await, Some(3));
        assert_eq!(chan.recv(|_, item| item.number).await, None);
        with(|m| {
            let here = chan.get(m);
            assert!(matches!(here.try_recv(m), Err(TryRecvError::Closed)));
            let sent = here.try_send(m, m.alloc(item(6)));
            assert!(matches!(sent, Err(TrySendError::Closed(_))));
        });
    });
}

#[test]
fn who_gives_up_or_panics_takes_nothing_along() {
    run(1, async {
        let chan = channel(1);
        let short = Duration::from_millis(2);
        assert!(timeout(short, chan.recv(|_, _| ())).await.is_err());
        chan.send(|m| m.alloc(item(1))).await.unwrap();
        assert!(
            timeout(short, chan.send(|m| m.alloc(item(2))))
                .await
                .is_err()
        );
        assert_eq!(chan.recv(|_, item| item.number).await, Some(1));
        let to = chan.clone();
        let panics = go(async move { to.send(|_| panic!("no item")).await });
        assert!(panics.await.unwrap_err().is_panic());
        // The place is free again.
        let again = timeout(Duration::from_secs(20), chan.send(|m| m.alloc(item(3))));
        again.await.unwrap().unwrap();
        assert_eq!(chan.recv(|_, item| item.number).await, Some(3));
    });
}

#[test]
fn a_channel_that_nobody_can_reach_goes_with_its_items() {
    const ITEMS: usize = 50;
    let drops = Arc::new(AtomicUsize::new(0));
    run(1, async {
        let chan = channel(ITEMS);
        for number in 0..ITEMS {
            let counted = Counted(drops.clone());
            let (to, home) = (chan.clone(), chan.clone());
            let sent = to.send(move |m| {
                m.alloc(Item {
                    counted: Some(counted),
                    home: GcCell::new(Some(home.get(m))),
                    ..item(number)
                })
            });
            sent.await.unwrap();
        }
        with(|m| m.collect());
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(chan);
        // It is a cycle: each item knows its channel.
        while drops.load(Ordering::Relaxed) < ITEMS {
            with(|m| m.collect());
            blocking(|| std::thread::sleep(Duration::from_millis(1))).await;
        }
    });
    assert_eq!(drops.load(Ordering::Relaxed), ITEMS);
}

#[test]
#[should_panic(expected = "the capacity of a GcChan is at least 1")]
fn room_for_nothing_is_refused() {
    let _ = GcChan::<Item<'_>>::new(0);
}

#[test]
fn debug_of_a_channel_shows_how_much_is_in_it() {
    run(1, async {
        let chan = channel(3);
        chan.send(|m| m.alloc(item(1))).await.unwrap();
        with(|m| {
            let here = chan.get(m);
            assert_eq!(
                format!("{here:?}"),
                "GcChan { len: 1, capacity: 3, is_closed: false }"
            );
            assert_eq!(here.try_recv(m).map(|item| item.number), Ok(1));
            here.close();
            assert!(format!("{here:?}").starts_with("GcChan { len: 0, "));
            assert!(format!("{here:?}").ends_with("is_closed: true }"));
            assert!(matches!(here.try_recv(m), Err(TryRecvError::Closed)));
        });
        assert!(chan.send(|m| m.alloc(item(2))).await.is_err());
    });
}

/// A sender that has been let in finds the channel closed: the item is not in it.
#[test]
fn a_channel_that_is_closed_while_an_item_is_made_takes_it_not() {
    let drops = Arc::new(AtomicUsize::new(0));
    run(1, async {
        let chan = channel(2);
        let (closer, counted) = (chan.clone(), Counted(drops.clone()));
        let sent = chan.send(move |m| {
            closer.get(m).close();
            m.alloc(Item {
                counted: Some(counted),
                ..item(1)
            })
        });
        assert!(sent.await.is_err());
        assert!(with(|m| chan.get(m).is_empty()));
        assert!(chan.recv(|_, item| item.number).await.is_none());
        with(|m| m.collect());
        assert_eq!(drops.load(Ordering::Relaxed), 1, "nobody has it");
    });
}

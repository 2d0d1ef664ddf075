//! Roots: taken, shared, dropped by mutators and on foreign threads, scanned, and outliving their heap.
//! The real `RootTable` and `RawRoot`, with two slots a block.

use std::ptr::NonNull;
use std::sync::Arc;

use super::{Edge, Objects, bit, reported};
use crate::gc::roots::{RawRoot, RootSlot, RootTable};
use crate::gc::stopped::Stopped;
use crate::sys::model::{Plain, explore};

const OLD: usize = 1;
const NEW: usize = 2;
const HEAP: usize = 7;

type Stock = Vec<NonNull<RootSlot>>;

/// The root job of the only block.
fn scan(table: &RootTable) -> Vec<usize> {
    reported(|tracer| table.scan(0, tracer))
}

/// A mutator moves what its root keeps into a black object, drops the root, and roots a new object in the same slot,
/// while the slot is scanned. `api::root::Root::drop` and `Mutator::root`.
fn drop_and_reuse_against_scan(shaded: bool) {
    explore(3, move |order| {
        let table = Arc::new(RootTable::new(HEAP));
        let mut stock = Stock::new();
        let root = table.take(OLD, &mut stock, true);
        let black = Arc::new(Edge::new(0));
        let content = Arc::new(Plain::new(0));
        let (here, there) = (table.clone(), table.clone());
        let (here_black, here_content) = (black.clone(), content.clone());
        let ((buffer, root), scanned) = order.race(
            move || {
                let buffer = Plain::new(0);
                here_black.set(&buffer, root.target());
                if shaded {
                    buffer.add(root.target());
                }
                assert_eq!(root.free_into(&mut stock), Some(OLD));
                here_content.set(7);
                let root = here.take(NEW, &mut stock, false);
                assert_eq!(root.target(), NEW);
                (buffer.take(), root)
            },
            move || {
                let found = scan(&there);
                if found.contains(&NEW) {
                    assert_eq!(content.get(), 7, "published before it was found");
                }
                found.into_iter().map(bit).sum::<u64>()
            },
        );
        root.release();
        // What a model asserts comes last: the table's drop needs a model that still runs.
        drop(table);
        let marked = buffer | scanned | bit(NEW);
        assert_eq!(bit(black.load()) & !marked, 0, "reachable and not marked");
    });
}

#[test]
fn loom_root_drop_and_reuse_against_scan() {
    drop_and_reuse_against_scan(true);
}

#[test]
#[should_panic(expected = "reachable and not marked")]
fn loom_root_drop_without_barrier_fails() {
    drop_and_reuse_against_scan(false);
}

/// A thread without a mutator drops a root while its block is scanned: the root counts until the end of the cycle. The
/// negative control frees released slots while marking runs.
fn foreign_release_against_scan(collected_too_early: bool) {
    explore(3, move |order| {
        let table = Arc::new(RootTable::new(HEAP));
        let root = table.take(OLD, &mut Stock::new(), true);
        assert_eq!(table.begin_marking(&Stopped::in_a_test()), 1, "one job");
        let (here, there) = (table.clone(), table.clone());
        let ((), scanned) = order.race(
            move || {
                root.release();
                if collected_too_early {
                    here.collect_released();
                }
            },
            move || scan(&there),
        );
        table.end_marking(&Stopped::in_a_test());
        table.collect_released();
        let after = scan(&table);
        drop(table);
        assert_eq!(scanned, [OLD], "a root of the cycle");
        assert!(after.is_empty(), "collected after marking");
    });
}

#[test]
fn loom_foreign_release_against_scan() {
    foreign_release_against_scan(false);
}

#[test]
#[should_panic(expected = "a root of the cycle")]
fn loom_released_slot_freed_while_marking_fails() {
    foreign_release_against_scan(true);
}

/// Two roots are released on a foreign thread while two mutators without free slots look for some: no slot is handed
/// out twice.
#[test]
fn loom_releases_against_two_collectors() {
    explore(2, |order| {
        let table = Arc::new(RootTable::new(HEAP));
        let mut stock = Stock::new();
        let released = [OLD, OLD].map(|target| table.take(target, &mut stock, true));
        assert!(stock.is_empty(), "a block has two slots");
        let (one, two) = (table.clone(), table.clone());
        let take = |table: &RootTable, target| {
            let mut stock = Stock::new();
            (table.take(target, &mut stock, true), stock.len())
        };
        let ((a, a_stock), _, (b, b_stock)) = order.race3(
            move || take(&one, OLD),
            move || released.map(RawRoot::release),
            move || take(&two, NEW),
        );
        assert_eq!((a.target(), b.target()), (OLD, NEW));
        assert_eq!(table.verify(a_stock + b_stock), Ok(()));
        a.release();
        b.release();
        table.collect_released();
        assert_eq!(table.verify(a_stock + b_stock), Ok(()));
    });
}

/// Two handles of one root go at the same time, one on a mutator's thread and one on a foreign one: the slot is freed
/// or released, once.
#[test]
fn loom_shared_root_dropped_on_two_threads() {
    explore(3, |order| {
        let table = Arc::new(RootTable::new(HEAP));
        let mut stock = Stock::new();
        let root = table.take(OLD, &mut stock, true);
        let shared = root.share();
        let ((freed, stock), ()) = order.race(
            move || {
                let freed = root.free_into(&mut stock).is_some();
                (freed, stock.len())
            },
            move || shared.release(),
        );
        assert_eq!(table.verify(stock), Ok(()));
        assert_eq!(scan(&table).is_empty(), freed);
        table.collect_released();
        assert!(scan(&table).is_empty());
        assert_eq!(table.verify(stock), Ok(()));
    });
}

/// The heap goes while its last roots are dropped on two foreign threads: the block is freed exactly once (loom counts
/// allocations), by whoever comes last.
#[test]
fn loom_orphaned_block_is_freed_once() {
    explore(3, |order| {
        let table = RootTable::new(HEAP);
        let mut stock = Stock::new();
        let first = table.take(OLD, &mut stock, true);
        let shared = first.share();
        let second = table.take(NEW, &mut stock, true);
        order.race3(
            move || {
                second.release();
                shared.release();
            },
            move || drop(table),
            move || {
                assert_eq!(first.heap(), HEAP, "alive while a handle is");
                first.release();
            },
        );
    });
}

/// A release races with the one who collects released slots: it is on the list or it is not, and is never taken for
/// another one. What is collected is rooted again; then the heap goes, too.
#[test]
fn loom_release_against_collection_and_orphaning() {
    explore(3, |order| {
        let table = RootTable::new(HEAP);
        let mut stock = Stock::new();
        let first = table.take(OLD, &mut stock, true);
        let second = table.take(OLD, &mut stock, true);
        second.release();
        order.race(
            move || first.release(),
            move || {
                table.collect_released();
                // One of the two slots, whichever was seen first.
                let again = table.take(NEW, &mut stock, true);
                assert_eq!(again.target(), NEW);
                drop(table);
                again.release();
            },
        );
    });
}

/// A foreign thread releases a block's last root while the table collects: the block is freed once (loom counts
/// allocations), and the foreign thread does not touch it after that (a freed block is overwritten).
#[test]
fn loom_release_against_the_end_of_its_block() {
    explore(3, |order| {
        let table = Arc::new(RootTable::new(HEAP));
        let mut stock = Stock::new();
        let root = table.take(OLD, &mut stock, true);
        let shared = root.share();
        table.give_back(&mut stock);
        let (here, there) = (table.clone(), table.clone());
        let (blocks, (), ()) = order.race3(
            move || {
                here.collect_released();
                here.blocks()
            },
            move || root.release(),
            move || shared.release(),
        );
        there.collect_released();
        assert!(blocks <= 1);
        assert_eq!(there.blocks(), 0, "the block has gone");
        assert_eq!(there.verify(0), Ok(()));
        drop((table, there));
    });
}

/// One thread makes roots and another one drops them, which gives slots back: no slot is handed out twice, and a block goes only
/// when both are done with it.
#[test]
fn loom_stock_goes_back_while_another_mutator_takes() {
    explore(2, |order| {
        let table = Arc::new(RootTable::new(HEAP));
        let mut stock = Stock::new();
        let roots = [OLD, OLD].map(|target| table.take(target, &mut stock, true));
        let (here, there) = (table.clone(), table.clone());
        let ((), (a, stock)) = order.race(
            move || {
                let mut stock = Stock::new();
                for root in roots {
                    here.free(root, &mut stock);
                }
                here.give_back(&mut stock);
            },
            move || {
                let mut stock = Stock::new();
                (there.take(NEW, &mut stock, true), stock.len())
            },
        );
        assert_eq!(a.target(), NEW);
        assert_eq!(table.verify(stock), Ok(()));
        assert_eq!(scan(&table), [NEW]);
        a.release();
        drop(table);
    });
}

//! Slots that are reused, shared, lost, and outlive their table; blocks that come and go.

use super::handle::REFS_MAX;
use super::*;
use crate::base::ptr_buf::PtrBuf;
use crate::object::trace::{LockView, Spill};

/// A few edges fit into the buffer.
struct Nowhere;

impl Spill for Nowhere {
    fn spill(&mut self, _: &mut PtrBuf) {
        unreachable!("the buffer is full");
    }
}

fn scanned_by(_: &RootTable, scan: impl FnOnce(&mut Tracer<'_>)) -> Vec<usize> {
    let (mut buf, mut spill) = (PtrBuf::new(), Nowhere);
    let locks = LockView::Stopped {
        cycle: 0,
        busy: false,
    };
    scan(&mut Tracer::new(&mut buf, &mut spill, locks));
    buf.as_slice().to_vec()
}

#[test]
fn slots_are_reused() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    for _ in 0..10_000 {
        let root = table.take(64, &mut stock, true);
        assert_eq!((root.target(), root.heap()), (64, 7));
        assert_eq!(root.free_into(&mut stock), Some(64));
    }
    assert_eq!(table.blocks(), 1);
    for _ in 0..10_000 {
        table.take(64, &mut stock, true).release();
    }
    assert_eq!(
        table.blocks(),
        1,
        "released slots are collected when the stock is empty"
    );
    assert!(table.verify(stock.len()).is_ok());
}

#[test]
fn a_shared_slot_goes_with_its_last_handle() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let a = table.take(64, &mut stock, true);
    let b = a.share();
    assert_eq!(a.free_into(&mut stock), None);
    assert_eq!(b.target(), 64);
    assert_eq!(b.free_into(&mut stock), Some(64));
}

#[test]
fn roots_outlive_their_table() {
    let mut stock = Vec::new();
    let table = RootTable::new(7);
    let roots: Vec<_> = (0..1000)
        .map(|i| table.take(64 + i * 8, &mut stock, true))
        .collect();
    let (early, late): (Vec<_>, Vec<_>) = roots.into_iter().partition(|r| r.target() % 16 == 0);
    early.into_iter().for_each(RawRoot::release);
    drop(table);
    assert!(late.iter().all(|r| r.heap() == 7));
    late.into_iter().for_each(RawRoot::release);
}

#[test]
fn a_slot_that_is_lost_is_reported() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let root = table.take(64, &mut stock, true);
    let free = SLOTS - 1;
    assert_eq!(table.verify(stock.len()), Ok(()));
    assert_eq!(
        table.verify(stock.len() - 1),
        Err(format!(
            "root slots: 1 in use + {} free != {SLOTS}",
            free - 1
        ))
    );
    root.release();
    // Released, it is a root until it is collected.
    assert_eq!(table.verify(stock.len()), Ok(()));
    table.collect_released();
    assert_eq!(table.verify(stock.len()), Ok(()));
}

#[test]
fn a_slot_that_is_free_and_in_use_is_reported() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let root = table.take(64, &mut stock, true);
    let swap = |add: NonNull<RootSlot>| {
        let mut inner = table.inner.lock();
        let block = inner.blocks[0].block;
        let set = &mut inner.blocks[0].free;
        let other = members(set).next().expect("a batch leaves some");
        let add = block.number_of(add);
        set[other / 64] &= !(1 << (other % 64));
        set[add / 64] |= 1 << (add % 64);
        block.slot(other)
    };
    let lost = swap(root.0);
    assert_eq!(
        table.verify(stock.len()),
        Err("a free root slot is in use".to_owned())
    );
    {
        let mut inner = table.inner.lock();
        let block = inner.blocks[0].block;
        let set = &mut inner.blocks[0].free;
        let (out, back) = (block.number_of(root.0), block.number_of(lost));
        set[out / 64] &= !(1 << (out % 64));
        set[back / 64] |= 1 << (back % 64);
    }
    assert_eq!(table.verify(stock.len()), Ok(()));
    table.inner.lock().blocks[0].free_slots -= 1;
    stock.pop();
    assert!(
        table
            .verify(stock.len() + 2)
            .is_err_and(|e| e.contains("lost count"))
    );
    root.release();
}

#[test]
fn roots_made_here_and_dropped_there_take_no_more_than_live_at_once() {
    let table = RootTable::new(7);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let roots: Vec<_> = (0..1000).map(|_| table.take(64, &mut here, true)).collect();
        for root in roots {
            table.free(root, &mut there);
            assert!(there.len() <= STOCK_MAX);
        }
        // 1000 roots and two stocks, some of it in blocks that others share.
        let most = (1000 + 2 * STOCK_MAX).div_ceil(SLOTS) + SPARE + 1;
        assert!(table.blocks() <= most, "{} blocks", table.blocks());
    }
    assert_eq!(table.verify(here.len() + there.len()), Ok(()));
}

#[test]
fn blocks_go_when_their_roots_have_gone_and_stay_for_those_that_live() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let roots: Vec<_> = (0..100 * SLOTS)
        .map(|n| table.take(64 + n, &mut stock, true))
        .collect();
    assert_eq!(table.blocks(), 100);
    // One root in each of ten blocks stays.
    let (stay, go): (Vec<_>, Vec<_>) = roots
        .into_iter()
        .partition(|root| (root.target() - 64).is_multiple_of(10 * SLOTS));
    let mut by_release = true;
    for root in go {
        by_release = !by_release;
        if by_release {
            root.release();
        } else {
            table.free(root, &mut stock);
        }
    }
    table.collect_released();
    let most = 10 + STOCK_MAX.div_ceil(1) + SPARE;
    assert!(table.blocks() <= most, "{} blocks", table.blocks());
    table.give_back(&mut stock);
    assert_eq!(table.blocks(), 10 + SPARE);
    assert_eq!(table.verify(0), Ok(()));
    let mut targets: Vec<_> = stay.iter().map(RawRoot::target).collect();
    let mut scanned = scanned_by(&table, |tracer| table.scan_all(tracer));
    targets.sort_unstable();
    scanned.sort_unstable();
    assert_eq!(scanned, targets);
    stay.into_iter().for_each(RawRoot::release);
    table.collect_released();
    assert_eq!(table.blocks(), SPARE);
}

#[test]
fn no_block_goes_while_somebody_scans() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let roots: Vec<_> = (0..20 * SLOTS)
        .map(|_| table.take(64, &mut stock, true))
        .collect();
    let jobs = table.begin_marking(&Stopped::in_a_test());
    for root in roots {
        table.free(root, &mut stock);
    }
    table.give_back(&mut stock);
    assert_eq!((table.blocks(), jobs), (20, 20));
    table.end_marking(&Stopped::in_a_test());
    table.collect_released();
    assert_eq!(table.blocks(), SPARE);
}

#[test]
fn making_roots_costs_the_same_however_many_live() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let count = 4000 * SLOTS;
    let roots: Vec<_> = (0..count)
        .map(|_| table.take(64, &mut stock, true))
        .collect();
    let looked_at = table.inner.lock().looked_at;
    assert!(
        looked_at < count / 8,
        "{looked_at} blocks were looked at for {count} roots"
    );
    roots.into_iter().for_each(RawRoot::release);
    // All of them are there for the next ones.
    let before = table.blocks();
    let again: Vec<_> = (0..count)
        .map(|_| table.take(64, &mut stock, true))
        .collect();
    assert!(table.blocks() <= before + before / 8);
    again.into_iter().for_each(RawRoot::release);
}

#[test]
fn handles_can_be_forgotten_up_to_a_limit() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let root = table.take(64, &mut stock, true);
    root.forget_shares(REFS_MAX - 2);
    let other = root.share();
    assert_eq!(other.free_into(&mut stock), None, "the others keep it");
    assert_eq!(root.target(), 64);
    root.release();
}

#[test]
fn a_job_that_there_is_no_block_for_reports_nothing() {
    let table = RootTable::new(7);
    let mut stock = Vec::new();
    let roots = [64, 72].map(|target| table.take(target, &mut stock, true));
    let scan = |job| {
        let mut found = scanned_by(&table, |tracer| table.scan(job, tracer));
        found.sort_unstable();
        found
    };
    assert_eq!(scan(0), [64, 72]);
    assert_eq!(scan(1), [0; 0]);
    roots.into_iter().for_each(RawRoot::release);
}

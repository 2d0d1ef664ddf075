//! Mutators that stall at their safepoints, against cycles, each other, and mutators that come and go.
//!
//! What makes them stall is put in by hand: a plan that the heap has passed, and a debt. What ends it is the collector, as
//! it is: the plan that a cycle makes, or the end of marking. They wait inside allocations, too: for the end of marking
//! with a debt, and for the end of a cycle as an allocation does that has found no room.

use super::*;
use crate::sys::random_model::explore;

/// A plan that every heap has passed, with room in it.
fn pass_the_plan(collector: &Collector) {
    // Relaxed (both): figures.
    collector.gauges.trigger.store(0, Ordering::Relaxed);
    collector.gauges.ceiling.store(1, Ordering::Relaxed);
    collector.gauges.goal.store(1, Ordering::Relaxed);
}

/// A thread that is past the bounds now and then.
fn run(collector: &Arc<Collector>, shared: RawRoot, turns: usize) {
    let mut mutator = Mutator::attach(collector);
    mutator.roots.push(shared);
    for _ in 0..turns {
        let new = mutator.alloc([mutator.roots[0].target(), 0, 0]);
        mutator.set(mutator.roots[0].target(), random(EDGES), new);
        let fall_into_debt = || {
            pass_the_plan(collector);
            mutator.local().credit.set(-(1 << 20));
        };
        match random(6) {
            0 => mutator.collect(),
            1 => mutator.safepoint(),
            2 => {
                fall_into_debt();
                if mutator.local().duty.marks() {
                    collector.pay_for(mutator.state(), 1 << 10);
                }
            }
            3 => {
                let begun = collector.mailbox.lock().begun;
                if collector.wait_for_running_cycle(mutator.state()) {
                    assert!(collector.mailbox.lock().done >= begun, "it is not over");
                }
            }
            _ => {
                fall_into_debt();
                mutator.state().word.ask(Request::Stall);
                mutator.safepoint();
            }
        }
        node(mutator.roots[0].target());
    }
    mutator.detach();
}

fn program(mutators: usize, turns: usize, cycles: usize) {
    let collector = start(u64::MAX);
    let mut first = Mutator::attach(&collector);
    let top = first.alloc([0; EDGES]);
    first.root(top);
    let threads = (0..mutators)
        .map(|_| {
            let (collector, shared) = (collector.clone(), first.roots[0].share());
            shuttle::thread::spawn(move || run(&collector, shared, turns))
        })
        .collect();
    first.collect_beside(threads, cycles);
    node(first.roots[0].target());
    first.detach();
    collector.shut_down();
}

#[test]
fn shuttle_stalls_against_cycles() {
    explore(300, || program(2, 4, 1));
}

#[test]
fn shuttle_waits_inside_allocations_against_cycles() {
    explore(300, || program(2, 6, 2));
}

#[test]
fn shuttle_stalls_with_no_cycle_but_their_own() {
    explore(300, || program(3, 3, 0));
}

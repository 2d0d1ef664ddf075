//! The deletion barrier against a marker and against another writer.
//! Stands for `GcCell::set`, `GcCell::swap`, `Collector::shade_later` and `Marker::scan`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Edge, Objects, bit};
use crate::sys::model::{Plain, explore};

const OLD: usize = 1;
const NEW: usize = 2;

/// How a mutator overwrites an edge.
#[derive(Clone, Copy, PartialEq)]
enum Write {
    /// As `GcCell::set` does.
    Shaded,
    /// The old value is shaded after the store and after the safepoint at which the buffer was asked for.
    ShadedLate,
    /// The store does not publish.
    Relaxed,
}

/// One edge, from a root's object; what it leads to first is reachable by it alone.
struct Scene {
    edge: Edge,
    /// The new object's plain field.
    content: Plain<u32>,
    /// An edge of a black object, which nobody scans any more.
    black: Edge,
    buffer: Plain<u64>,
}

/// The mutator moves OLD from the white edge to the black one. Returns what its buffer held at the safepoint.
fn mutate(scene: &Scene, how: Write) -> u64 {
    let old = scene.edge.load();
    scene.black.set(&scene.buffer, old);
    scene.content.set(7);
    match how {
        Write::Shaded => scene.edge.set(&scene.buffer, NEW),
        Write::ShadedLate => {
            scene.edge.store(NEW);
            let asked_for = scene.buffer.take();
            scene.buffer.add(old);
            return asked_for;
        }
        Write::Relaxed => {
            scene.buffer.add(scene.edge.load());
            // Relaxed: the fault.
            scene.edge.0.store(NEW, Ordering::Relaxed);
        }
    }
    scene.buffer.take()
}

fn barrier_against_marker(how: Write) {
    explore(3, move |order| {
        let scene = Arc::new(Scene {
            edge: Edge::new(OLD),
            content: Plain::new(0),
            black: Edge::new(0),
            buffer: Plain::new(0),
        });
        let (here, there) = (scene.clone(), scene.clone());
        let (buffer, seen) = order.race(
            move || mutate(&here, how),
            move || {
                let seen = there.edge.load();
                if seen == NEW {
                    assert_eq!(there.content.get(), 7, "published before it was found");
                }
                seen
            },
        );
        let marked = buffer | bit(seen) | bit(NEW);
        assert_eq!(
            bit(scene.black.load()) & !marked,
            0,
            "reachable and not marked"
        );
    });
}

#[test]
fn loom_barrier_against_marker() {
    barrier_against_marker(Write::Shaded);
}

#[test]
#[should_panic(expected = "reachable and not marked")]
fn loom_barrier_after_the_safepoint_fails() {
    barrier_against_marker(Write::ShadedLate);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn loom_barrier_without_publication_fails() {
    barrier_against_marker(Write::Relaxed);
}

/// Two writers of one edge, and what they see moves through black edges; a marker scans the white edges in between.
///
/// `edge` leads to 1, `other` to 2. One writer moves 2 from `other` to `edge`, the second takes what `edge` leads to
/// away into a black edge and clears it. With `swap` the second one uses the loop of `GcCell::swap`.
fn two_writers(shaded: bool, swap: bool) {
    explore(3, move |order| {
        let edges = Arc::new([Edge::new(1), Edge::new(2), Edge::new(0)]);
        let (one, two, three) = (edges.clone(), edges.clone(), edges.clone());
        let (first, second, mut marked) = order.race3(
            move || {
                let [edge, other, _] = &*one;
                let buffer = Plain::new(0);
                edge.set(&buffer, other.load());
                other.set(&buffer, 0);
                buffer.take()
            },
            move || {
                let [edge, _, black] = &*two;
                let buffer = Plain::new(0);
                if swap {
                    black.set(&buffer, swap_out(edge, &buffer));
                } else {
                    black.set(&buffer, edge.load());
                    edge.set(&buffer, 0);
                }
                buffer.take()
            },
            move || bit(three[0].load()) | bit(three[1].load()),
        );
        if shaded {
            marked |= first | second;
        }
        for left in &*edges {
            assert_eq!(bit(left.load()) & !marked, 0, "reachable and not marked");
        }
    });
}

/// `GcCell::swap` to null.
fn swap_out(edge: &Edge, buffer: &Plain<u64>) -> usize {
    let mut old = edge.load();
    loop {
        buffer.add(old);
        // AcqRel, and Acquire on failure: as in `GcCell::swap`.
        match edge
            .0
            .compare_exchange(old, 0, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(old) => return old,
            Err(now) => old = now,
        }
    }
}

#[test]
fn loom_two_writers_of_one_edge() {
    two_writers(true, false);
}

#[test]
fn loom_a_writer_and_a_swap_of_one_edge() {
    two_writers(true, true);
}

#[test]
#[should_panic(expected = "reachable and not marked")]
fn loom_two_writers_without_barrier_fails() {
    two_writers(false, false);
}

//! Frames: opened by their owner, scanned by a worker, dropped on any thread.
//! The real `FrameTable`, `FrameHeader::claim` and `scan_before_open`; the value is one plain edge.

use std::ptr::NonNull;
use std::sync::Arc;

use super::{CYCLE, reported};
use crate::gc::frames::{FrameHeader, FrameTable, scan_before_open};
use crate::gc::stopped::Stopped;
use crate::object::trace::Tracer;
use crate::sys::model::{Plain, explore};

const FIRST: usize = 8;
const LATER: usize = 9;

/// A frame's box: `api::frame::FrameBox`.
#[repr(C)]
struct FrameBox {
    header: FrameHeader,
    value: Plain<usize>,
    /// How often a box was freed.
    freed: Arc<Plain<u32>>,
}

unsafe fn trace(header: NonNull<FrameHeader>, tracer: &mut Tracer<'_>) {
    // SAFETY: the header is the first field of a box that is not freed: the table has it.
    let frame = unsafe { header.cast::<FrameBox>().as_ref() };
    tracer.edge(frame.value.get());
}

unsafe fn free(header: NonNull<FrameHeader>) {
    // SAFETY: leaked in `scene`, and freed once; the models check that.
    let frame = unsafe { Box::from_raw(header.cast::<FrameBox>().as_ptr()) };
    frame.freed.set(frame.freed.get() + 1);
}

struct Scene {
    table: FrameTable,
    frame: NonNull<FrameBox>,
    freed: Arc<Plain<u32>>,
}

/// A frame that was made before marking began, and holds FIRST.
fn scene() -> Arc<Scene> {
    let freed = Arc::new(Plain::new(0));
    let frame = NonNull::from(Box::leak(Box::new(FrameBox {
        header: FrameHeader::new(7, trace, free),
        value: Plain::new(FIRST),
        freed: freed.clone(),
    })));
    let table = FrameTable::new();
    table.add(frame.cast(), CYCLE - 1);
    assert_eq!(table.begin_marking(&Stopped::in_a_test()), 1, "one job");
    Arc::new(Scene {
        table,
        frame,
        freed,
    })
}

impl Scene {
    fn value(&self) -> &Plain<usize> {
        // SAFETY: the box is freed by `free_dead` only, at the end of each model.
        unsafe { &(*self.frame.as_ptr()).value }
    }

    /// A root job.
    fn scan(&self) -> Vec<usize> {
        reported(|tracer| self.table.scan(0, CYCLE, tracer))
    }

    /// `Frame::enter` while marking runs, and a change of the value.
    fn open_and_change(&self) -> Vec<usize> {
        let found = reported(|tracer| {
            // SAFETY: 1. the caller stands for the owner.
            unsafe { scan_before_open(self.frame.cast(), CYCLE, tracer) }
        });
        self.value().set(LATER);
        found
    }

    fn drop_frame(&self) {
        self.table.remove(self.frame.cast());
    }

    fn drop_and_end(&self) {
        self.drop_frame();
        self.end();
    }

    /// Marking ends, and the owner has dropped the frame.
    fn end(&self) {
        self.table.end_marking(&Stopped::in_a_test());
        self.table.free_dead();
        assert_eq!(self.freed.get(), 1, "freed once");
    }
}

/// What the frame held when marking began is reported once, by one of the two, and nobody reads what the owner writes.
#[test]
fn loom_frame_open_against_scan() {
    explore(3, |order| {
        let scene = scene();
        let (here, there) = (scene.clone(), scene.clone());
        let (mut found, scanned) = order.race(
            move || {
                let mut found = here.open_and_change();
                // Opened again in the same cycle: nothing to report.
                found.extend(here.open_and_change());
                found
            },
            move || there.scan(),
        );
        found.extend(scanned);
        assert_eq!(found, [FIRST]);
        scene.drop_and_end();
    });
}

/// Two workers and the owner.
#[test]
fn loom_frame_open_against_two_scans() {
    explore(2, |order| {
        let scene = scene();
        let (one, two, three) = (scene.clone(), scene.clone(), scene.clone());
        let (a, b, c) = order.race3(
            move || one.scan(),
            move || two.open_and_change(),
            move || three.scan(),
        );
        assert_eq!([a, b, c].concat(), [FIRST]);
        scene.drop_and_end();
    });
}

/// The negative control: the owner changes the value without a look at the header.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_frame_open_without_scan_fails() {
    explore(2, |order| {
        let scene = scene();
        let (here, there) = (scene.clone(), scene.clone());
        order.race(move || here.value().set(LATER), move || there.scan());
        scene.drop_and_end();
    });
}

/// The frame is dropped on another thread, before, while or after it is scanned: its content is reported, and its box
/// is freed once, after marking.
#[test]
fn loom_frame_drop_against_scan() {
    explore(3, |order| {
        let scene = scene();
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || here.drop_frame(),
            move || {
                assert_eq!(there.scan(), [FIRST]);
                assert_eq!(there.freed.get(), 0, "scanned after it was freed");
            },
        );
        scene.end();
    });
}

/// The frame is dropped on another thread while marking ends: freed once, at once or with the dead.
#[test]
fn loom_frame_drop_against_the_end_of_marking() {
    explore(3, |order| {
        let scene = scene();
        let (here, there) = (scene.clone(), scene.clone());
        order.race(
            move || here.drop_frame(),
            move || {
                there.table.end_marking(&Stopped::in_a_test());
                there.table.free_dead();
            },
        );
        // What was dropped between the two calls waits for the end of the next cycle.
        scene.end();
        assert_eq!(
            scene.table.begin_marking(&Stopped::in_a_test()),
            0,
            "off the list"
        );
    });
}

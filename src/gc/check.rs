//! A second, simple mark with the world stopped, compared with the concurrent one.
//!
//! Runs at the end of marking when `verify` is on. It follows the same traces with other bits, one object at a time, and
//! takes no part in anything clever: no barrier, no buffer, no piece of a list. An object that it reaches and the
//! concurrent mark missed is a broken collector; the process ends with a report.

use crate::base::addr::PAGE_SHIFT;
use crate::base::ptr_buf::PtrBuf;
use crate::gc::collector::Collector;
use crate::heap::bits::BitTable;
use crate::heap::span_class::ClassRef;
use crate::object::trace::{LockView, Spill, Tracer};
use crate::sys::fatal::fatal_args;

/// Where an edge comes from, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Root,
    Frame,
    Object(usize),
}

/// Collects what a trace reports.
#[derive(Debug, Default)]
struct Edges(Vec<usize>);

impl Spill for Edges {
    fn spill(&mut self, buf: &mut PtrBuf) {
        self.0.extend_from_slice(buf.as_slice());
        buf.clear();
    }
}

/// The edges that `trace` reports, read through every lock.
fn edges_of(buf: &mut PtrBuf, trace: impl FnOnce(&mut Tracer<'_>)) -> Vec<usize> {
    let mut edges = Edges::default();
    trace(&mut Tracer::new(buf, &mut edges, LockView::Stopped));
    edges.spill(buf);
    edges.0
}

impl Collector {
    /// Visits every object reachable from the roots once, with the world stopped: offset, class, and who points to it.
    ///
    /// # Errors
    /// What `visit` says; or an edge to something that is no object.
    pub(crate) fn walk_reachable(
        &self,
        mut visit: impl FnMut(usize, ClassRef, From) -> Result<(), String>,
    ) -> Result<(), String> {
        // The world is stopped: the arena does not grow under the walk.
        let end = (self.heap.top() as usize) << PAGE_SHIFT;
        let seen = BitTable::new(end).map_err(|e| format!("no memory for the walk: {e}"))?;
        let mut buf = PtrBuf::new();
        let mut stack = Vec::new();
        for block in 0..self.roots.jobs() {
            let found = edges_of(&mut buf, |tracer| self.roots.scan(block, tracer));
            stack.extend(found.into_iter().map(|to| (to, From::Root)));
        }
        let found = edges_of(&mut buf, |tracer| self.frames.scan_all(tracer));
        stack.extend(found.into_iter().map(|to| (to, From::Frame)));
        while let Some((address, from)) = stack.pop() {
            let Some(offset) = self.heap.offset_of(address) else {
                continue;
            };
            // Zero-sized, or visited. What is past the end is no object, which `find_object` says.
            if offset == 0 || (offset < end && !seen.set(offset)) {
                continue;
            }
            let (class, slot) = match self.heap.find_object(address) {
                Some((start, class, slot)) if start == offset => (class, slot),
                Some((start, class, _)) => {
                    return Err(format!(
                        "an edge from {} leads {} bytes into the slot of a {}",
                        self.name(from),
                        offset - start,
                        class.type_name()
                    ));
                }
                None => {
                    return Err(format!(
                        "an edge from {} leads to no span (offset {offset:#x})",
                        self.name(from)
                    ));
                }
            };
            visit(offset, class, from)?;
            if let Some(info) = class.info
                && class.scan
            {
                // SAFETY: [O1] the visit has not objected: the slot is allocated and reachable, so it holds an object of
                // its class's type.
                let found = edges_of(&mut buf, |tracer| unsafe {
                    (info.trace)(self.heap.at(offset), slot, tracer)
                });
                stack.extend(found.into_iter().map(|to| (to, From::Object(offset))));
            }
        }
        Ok(())
    }

    /// The name of where an edge comes from.
    pub(crate) fn name(&self, from: From) -> String {
        match from {
            From::Root => "a Root".to_owned(),
            From::Frame => "a Frame".to_owned(),
            From::Object(offset) => {
                let name = self.heap.class_at(offset).map_or("?", |c| c.type_name());
                let marked = if self.heap.mark.test(offset) {
                    "a marked"
                } else {
                    "an unmarked"
                };
                format!("{marked} {name} at offset {offset:#x}")
            }
        }
    }

    /// Compares the concurrent mark with a simple one. The world is stopped and marking is complete.
    pub(crate) fn check_marks(&self) {
        if let Err(report) = self.compare_marks() {
            fatal_args(format_args!(
                "verify: cycle {}: {report}",
                self.world.registry().cycle
            ));
        }
    }

    /// See [`check_marks`](Self::check_marks).
    ///
    /// # Errors
    /// The first object that the concurrent mark has missed.
    pub(crate) fn compare_marks(&self) -> Result<(), String> {
        self.walk_reachable(|offset, class, from| {
            if self.heap.mark.test(offset) {
                return Ok(());
            }
            Err(format!(
                "a reachable {} at offset {offset:#x} was not marked; it is reached from {}",
                class.type_name(),
                self.name(from)
            ))
        })
    }
}

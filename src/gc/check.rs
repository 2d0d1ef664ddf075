//! A second, simple mark with the world stopped, compared with the concurrent one.
//!
//! "Stopped" is not "at a safepoint": some mutators may be in the middle of a write. What they may be writing to is left out,
//! and counted; see [`Standstill`].
//!
//! Runs at the end of marking when `verify` is on. It follows the same traces with other bits, one object at a time, and
//! takes no part in anything clever: no barrier, no buffer, no piece of a list. An object that it reaches and the
//! concurrent mark missed is a broken collector; the process ends with a report.

use crate::base::addr::PAGE_SHIFT;
use crate::base::ptr_buf::PtrBuf;
use crate::gc::collector::Collector;
use crate::gc::standstill::Standstill;
use crate::gc::stopped::StoppedToRead;
use crate::heap::bits::BitTable;
use crate::heap::span_class::ClassRef;
use crate::object::trace::{Spill, Tracer};
use crate::sys::fatal::fatal_args;
use crate::sys::sync::Ordering;

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

/// Follows traces.
struct Walk<'a> {
    standstill: &'a Standstill,
    buf: PtrBuf,
    stack: Vec<(usize, From)>,
    /// Locks and frames that somebody may be writing to.
    left_out: u64,
}

impl Walk<'_> {
    /// Notes the edges that `trace` reports.
    fn follow(&mut self, from: From, trace: impl FnOnce(&mut Tracer<'_>)) {
        let mut edges = Edges::default();
        let mut tracer = Tracer::new(&mut self.buf, &mut edges, self.standstill.locks());
        trace(&mut tracer);
        self.left_out += u64::from(tracer.left_out());
        edges.spill(&mut self.buf);
        self.stack.extend(edges.0.into_iter().map(|to| (to, from)));
    }
}

impl Collector {
    /// Visits every object reachable from the roots once, with the world stopped: offset, class, and who points to it.
    /// Returns how many locks and frames were left out, because somebody may be writing to them.
    ///
    /// # Errors
    /// What `visit` says; or an edge to something that is no object.
    pub(crate) fn walk_reachable(
        &self,
        standstill: &Standstill,
        mut visit: impl FnMut(usize, ClassRef, From) -> Result<(), String>,
    ) -> Result<u64, String> {
        // The world is stopped: the arena does not grow under the walk.
        let end = (self.heap.top() as usize) << PAGE_SHIFT;
        // Like the mark bits: of zeroed memory only what is written to gets pages, and a refusal of
        // the system is an error. A vector of bits would be written to as a whole.
        let seen = BitTable::new(end).map_err(|e| format!("no memory for the walk: {e}"))?;
        let mut walk = Walk {
            standstill,
            buf: PtrBuf::new(),
            stack: Vec::new(),
            left_out: 0,
        };
        walk.follow(From::Root, |tracer| self.roots.scan_all(tracer));
        walk.follow(From::Frame, |tracer| {
            self.frames.scan_all(standstill, tracer)
        });
        while let Some((address, from)) = walk.stack.pop() {
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
                walk.follow(From::Object(offset), |tracer| unsafe {
                    (info.trace)(self.heap.at(offset), slot, tracer)
                });
            }
        }
        Ok(walk.left_out)
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

    /// Compares the concurrent mark, which is complete, with a simple one.
    pub(crate) fn check_marks(&self, stopped: &StoppedToRead<'_>) {
        if let Err(report) = self.compare_marks(stopped) {
            fatal_args(format_args!(
                "verify: cycle {}: {report}",
                self.figures.lock().cycles + 1
            ));
        }
    }

    /// See [`check_marks`](Self::check_marks).
    ///
    /// # Errors
    /// The first object that the concurrent mark has missed.
    pub(crate) fn compare_marks(&self, stopped: &StoppedToRead<'_>) -> Result<(), String> {
        let standstill = Standstill::of(&self.world, stopped);
        let left_out = self.walk_reachable(&standstill, |offset, class, from| {
            if self.heap.mark.test(offset) {
                return Ok(());
            }
            Err(format!(
                "a reachable {} at offset {offset:#x} was not marked; it is reached from {}",
                class.type_name(),
                self.name(from)
            ))
        })?;
        self.note_left_out(left_out);
        Ok(())
    }

    /// A verification has left out so many locks and frames.
    pub(crate) fn note_left_out(&self, left_out: u64) {
        // Relaxed: a figure.
        self.gauges.left_out.store(left_out, Ordering::Relaxed);
    }
}

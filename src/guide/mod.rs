//! The guide, with one page for each purpose.
//!
//! | page | for whom |
//! |---|---|
//! | [`applications`] | programs that keep a graph of objects, on one thread or several |
//! | [`virtual_machines`] | interpreters and other language runtimes |
//! | [`services`] | servers and pipelines of many tasks: the feature `sched` |
//! | [`tuning`] | those who trade memory against processor time |
//! | [`diagnosing`] | those who look for the cause of a delay, a leak or a crash |
//! | [`safety`] | those who want to know why safe code cannot break the heap |
//! | [`measurements`] | those who want figures, or want to repeat them |
//!
//! The pages are Markdown files in `src/guide`. Their examples run as tests of the documentation.

// Each page names the others by reference. The first definition of a reference counts, so the
// links below lead to the pages as rustdoc renders them, and those at the end of a page's own
// text lead to its neighbours where the file itself is shown.
macro_rules! page {
    ($(#[$items:meta])* $name:ident, $file:literal) => {
        #[doc = "[applications]: crate::guide::applications"]
        #[doc = "[virtual machines]: crate::guide::virtual_machines"]
        #[doc = "[services]: crate::guide::services"]
        #[doc = "[tuning]: crate::guide::tuning"]
        #[doc = "[diagnosing]: crate::guide::diagnosing"]
        #[doc = "[safety]: crate::guide::safety"]
        #[doc = "[measurements]: crate::guide::measurements"]
        #[doc = ""]
        #[doc = include_str!($file)]
        #[doc = ""]
        $(#[$items])*
        pub mod $name {}
    };
}

page! {
    /// **Items:** [`Heap`](crate::Heap), [`Mutator`](crate::Mutator), [`Gc`](crate::Gc),
    /// [`GcCell`](crate::GcCell), [`GcOnce`](crate::GcOnce), [`GcLock`](crate::GcLock),
    /// [`Root`](crate::Root), [`Frame`](crate::Frame), [`Weak`](crate::Weak),
    /// [`GcArray`](crate::GcArray), [`External`](crate::External),
    /// [`derive(Trace)`](crate::Trace), [`unsize!`](crate::unsize),
    /// [`dyn_target!`](crate::dyn_target), [`AllocError`](crate::AllocError).
    applications, "applications.md"
}

page! {
    /// **Items:** [`Word`](crate::Word), [`GcWord`](crate::GcWord),
    /// [`WordKinds`](crate::WordKinds), [`Frame`](crate::Frame), [`GcArray`](crate::GcArray),
    /// [`Mutator::safepoint_is_due`](crate::Mutator::safepoint_is_due),
    /// [`Mutator::blocking`](crate::Mutator::blocking), [`Weak`](crate::Weak),
    /// [`Root`](crate::Root).
    virtual_machines, "virtual_machines.md"
}

#[cfg(feature = "sched")]
page! {
    /// **Items:** [`Runtime`](crate::Runtime), [`go`](crate::go()), [`with`](crate::with()),
    /// [`JoinHandle`](crate::JoinHandle), [`chan`](mod@crate::chan), [`select!`](crate::select),
    /// [`GcChan`](crate::GcChan), [`blocking`](crate::blocking()), [`Context`](crate::Context),
    /// [`net`](crate::net), [`Deadlock`](crate::Deadlock),
    /// [`ShutdownError`](crate::ShutdownError).
    services, "services.md"
}

/// With the feature `sched`, this page describes how to write services.
#[cfg(not(feature = "sched"))]
pub mod services {}

page! {
    /// **Items:** [`HeapBuilder`](crate::HeapBuilder), [`Heap::set_gogc`](crate::Heap::set_gogc),
    /// [`Heap::set_memory_limit`](crate::Heap::set_memory_limit),
    /// [`Heap::release_free_memory`](crate::Heap::release_free_memory),
    /// [`External`](crate::External).
    tuning, "tuning.md"
}

page! {
    /// **Items:** [`HeapStats`](crate::HeapStats), [`Event`](crate::Event),
    /// [`HeapBuilder::on_event`](crate::HeapBuilder::on_event),
    /// [`HeapBuilder::trace_to`](crate::HeapBuilder::trace_to),
    /// [`Heap::verify`](crate::Heap::verify), [`VerifyError`](crate::VerifyError).
    diagnosing, "diagnosing.md"
}

page! {
    /// **Items:** [`Trace`](trait@crate::Trace), [`Rebrand`](crate::Rebrand),
    /// [`BrandedBy`](crate::BrandedBy), [`Gc`](crate::Gc), [`Mutator`](crate::Mutator).
    safety, "safety.md"
}

page! {
    /// **Items:** none; the programs are in `benches` and `examples`.
    measurements, "measurements.md"
}

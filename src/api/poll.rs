//! A safepoint in two halves, for interpreters.

use crate::api::mutator::Mutator;

impl Mutator {
    /// Returns whether the next [`safepoint`](Self::safepoint) has something to do. One relaxed
    /// load.
    ///
    /// `safepoint` borrows the mutator exclusively, so no pointer may be live. An interpreter that
    /// runs inside an open [`Frame`](crate::Frame) polls with this function instead, and closes the
    /// frame only when it must:
    ///
    /// ```
    /// use greywave::{Frame, Gc, Heap, Mutator};
    ///
    /// /// Pushes numbers until there are enough, or the collector asks for a safepoint.
    /// fn run<'m>(m: &'m Mutator, stack: &mut Vec<Gc<'m, u64>>) -> bool {
    ///     while stack.len() < 1000 {
    ///         stack.push(m.alloc(stack.len() as u64));
    ///         if m.safepoint_is_due() {
    ///             return false;
    ///         }
    ///     }
    ///     true
    /// }
    ///
    /// let heap = Heap::new();
    /// let mut m = heap.attach()?;
    /// let mut stack: Frame<Vec<Gc<'static, u64>>> = Frame::new(&m, Vec::new());
    /// while !run(&m, &mut stack.enter(&m)) {
    ///     m.safepoint();
    /// }
    /// # Ok::<(), greywave::AttachError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn safepoint_is_due(&self) -> bool {
        self.state().word.is_asked()
    }
}

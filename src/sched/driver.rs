//! Stand-in.
use crate::sys::clock::Moment;
use std::time::Duration;
#[derive(Debug)]
pub(crate) struct Driver(Moment);
impl Driver {
    pub(crate) fn new(_: usize) -> std::io::Result<Self> {
        Ok(Self(Moment::now()))
    }
    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed_ns()
    }
    pub(crate) fn run_timers(&self, _: usize, _: u64) -> usize {
        0
    }
    pub(crate) fn next_timer_of(&self, _: usize) -> u64 {
        u64::MAX
    }
    pub(crate) fn next_timer(&self) -> u64 {
        u64::MAX
    }
    pub(crate) fn poll(&self, _: Option<Duration>) -> Option<usize> {
        None
    }
    pub(crate) fn is_blocked(&self) -> bool {
        false
    }
    pub(crate) fn break_poll(&self) {}
    pub(crate) fn io_waiters(&self) -> usize {
        0
    }
    pub(crate) fn has_timers(&self) -> bool {
        false
    }
}

//! In a covariant parameter a lifetime may shrink. There is one function for each covariant row of
//! the table in `tests/variance.rs`; the test is that they compile.

use greywave::__private::Counting;
use greywave::*;

pub(crate) fn gc_brand_shrinks<'f, 'short: 'f, 'long: 'short>(x: Gc<'long, u8>) -> Gc<'short, u8> {
    x
}
pub(crate) fn gc_target_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Gc<'long, &'long u8>,
) -> Gc<'short, &'short u8> {
    x
}
pub(crate) fn weak_brand_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Weak<'long, u8>,
) -> Weak<'short, u8> {
    x
}
pub(crate) fn weak_target_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Weak<'long, &'long u8>,
) -> Weak<'short, &'short u8> {
    x
}
pub(crate) fn read_guard_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: ReadGuard<'long, u8>,
) -> ReadGuard<'short, u8> {
    x
}
pub(crate) fn write_guard_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: WriteGuard<'long, 'f, u8>,
) -> WriteGuard<'short, 'f, u8> {
    x
}
pub(crate) fn write_guard_mutator_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: WriteGuard<'f, 'long, u8>,
) -> WriteGuard<'f, 'short, u8> {
    x
}
pub(crate) fn array_header_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Gc<'long, GcArray<&'long u8, u8>>,
) -> Gc<'short, GcArray<&'short u8, u8>> {
    x
}
pub(crate) fn array_item_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Gc<'long, GcArray<u8, &'long u8>>,
) -> Gc<'short, GcArray<u8, &'short u8>> {
    x
}
pub(crate) fn root_target_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Root<&'long u8>,
) -> Root<&'short u8> {
    x
}
pub(crate) fn weak_root_target_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: WeakRoot<&'long u8>,
) -> WeakRoot<&'short u8> {
    x
}
pub(crate) fn alloc_error_value_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: AllocError<&'long u8>,
) -> AllocError<&'short u8> {
    x
}
pub(crate) fn frame_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Frame<&'long u8>,
) -> Frame<&'short u8> {
    x
}
pub(crate) fn frame_guard_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: FrameGuard<'long, 'f, u8>,
) -> FrameGuard<'short, 'f, u8> {
    x
}
pub(crate) fn counting_life_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Counting<'long>,
) -> Counting<'short> {
    x
}
pub(crate) fn join_handle_output_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: JoinHandle<&'long u8>,
) -> JoinHandle<&'short u8> {
    x
}
pub(crate) fn mutex_guard_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: MutexGuard<'long, u8>,
) -> MutexGuard<'short, u8> {
    x
}
pub(crate) fn rw_read_guard_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: RwLockReadGuard<'long, u8>,
) -> RwLockReadGuard<'short, u8> {
    x
}
pub(crate) fn rw_write_guard_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: RwLockWriteGuard<'long, u8>,
) -> RwLockWriteGuard<'short, u8> {
    x
}
pub(crate) fn send_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: chan::Send<'long, u8>,
) -> chan::Send<'short, u8> {
    x
}
pub(crate) fn recv_borrow_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: chan::Recv<'long, u8>,
) -> chan::Recv<'short, u8> {
    x
}
pub(crate) fn send_error_value_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: chan::SendError<&'long u8>,
) -> chan::SendError<&'short u8> {
    x
}
pub(crate) fn try_send_error_value_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: chan::TrySendError<&'long u8>,
) -> chan::TrySendError<&'short u8> {
    x
}
pub(crate) fn timeout_future_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Timeout<&'long u8>,
) -> Timeout<&'short u8> {
    x
}
pub(crate) fn blocking_call_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Blocking<&'long u8, u8>,
) -> Blocking<&'short u8, u8> {
    x
}
pub(crate) fn blocking_result_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Blocking<u8, &'long u8>,
) -> Blocking<u8, &'short u8> {
    x
}

//! A lifetime in a parameter never grows, and in an invariant one it does not shrink, either. One function for each covariant
//! row of the table in `tests/variance.rs`, two for each invariant one; the test there compares.

use greywave::__private::{Brand, Counting};
use greywave::*;

fn gc_brand_grows<'f, 'short: 'f, 'long: 'short>(x: Gc<'short, u8>) -> Gc<'long, u8> {
    x
}
fn gc_target_grows<'f, 'short: 'f, 'long: 'short>(
    x: Gc<'short, &'short u8>,
) -> Gc<'long, &'long u8> {
    x
}
fn weak_brand_grows<'f, 'short: 'f, 'long: 'short>(x: Weak<'short, u8>) -> Weak<'long, u8> {
    x
}
fn weak_target_grows<'f, 'short: 'f, 'long: 'short>(
    x: Weak<'short, &'short u8>,
) -> Weak<'long, &'long u8> {
    x
}
fn cell_brand_grows<'f, 'short: 'f, 'long: 'short>(x: GcCell<'short, u8>) -> GcCell<'long, u8> {
    x
}
fn cell_brand_shrinks<'f, 'short: 'f, 'long: 'short>(x: GcCell<'long, u8>) -> GcCell<'short, u8> {
    x
}
fn cell_target_grows<'f, 'short: 'f, 'long: 'short>(
    x: GcCell<'f, Gc<'short, u8>>,
) -> GcCell<'f, Gc<'long, u8>> {
    x
}
fn cell_target_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcCell<'f, Gc<'long, u8>>,
) -> GcCell<'f, Gc<'short, u8>> {
    x
}
fn once_cell_brand_grows<'f, 'short: 'f, 'long: 'short>(
    x: GcOnce<'short, u8>,
) -> GcOnce<'long, u8> {
    x
}
fn once_cell_brand_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcOnce<'long, u8>,
) -> GcOnce<'short, u8> {
    x
}
fn once_cell_target_grows<'f, 'short: 'f, 'long: 'short>(
    x: GcOnce<'f, Gc<'short, u8>>,
) -> GcOnce<'f, Gc<'long, u8>> {
    x
}
fn once_cell_target_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcOnce<'f, Gc<'long, u8>>,
) -> GcOnce<'f, Gc<'short, u8>> {
    x
}
fn lock_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: GcLock<Gc<'short, u8>>,
) -> GcLock<Gc<'long, u8>> {
    x
}
fn lock_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcLock<Gc<'long, u8>>,
) -> GcLock<Gc<'short, u8>> {
    x
}
fn read_guard_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: ReadGuard<'short, u8>,
) -> ReadGuard<'long, u8> {
    x
}
fn read_guard_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: ReadGuard<'f, Gc<'short, u8>>,
) -> ReadGuard<'f, Gc<'long, u8>> {
    x
}
fn read_guard_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: ReadGuard<'f, Gc<'long, u8>>,
) -> ReadGuard<'f, Gc<'short, u8>> {
    x
}
fn write_guard_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: WriteGuard<'short, 'f, u8>,
) -> WriteGuard<'long, 'f, u8> {
    x
}
fn write_guard_mutator_grows<'f, 'short: 'f, 'long: 'short>(
    x: WriteGuard<'f, 'short, u8>,
) -> WriteGuard<'f, 'long, u8> {
    x
}
fn write_guard_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: WriteGuard<'f, 'f, Gc<'short, u8>>,
) -> WriteGuard<'f, 'f, Gc<'long, u8>> {
    x
}
fn write_guard_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: WriteGuard<'f, 'f, Gc<'long, u8>>,
) -> WriteGuard<'f, 'f, Gc<'short, u8>> {
    x
}
fn array_header_grows<'f, 'short: 'f, 'long: 'short>(
    x: Gc<'short, GcArray<&'short u8, u8>>,
) -> Gc<'long, GcArray<&'long u8, u8>> {
    x
}
fn array_item_grows<'f, 'short: 'f, 'long: 'short>(
    x: Gc<'short, GcArray<u8, &'short u8>>,
) -> Gc<'long, GcArray<u8, &'long u8>> {
    x
}
fn root_target_grows<'f, 'short: 'f, 'long: 'short>(x: Root<&'short u8>) -> Root<&'long u8> {
    x
}
fn weak_root_target_grows<'f, 'short: 'f, 'long: 'short>(
    x: WeakRoot<&'short u8>,
) -> WeakRoot<&'long u8> {
    x
}
fn word_brand_grows<'f, 'short: 'f, 'long: 'short>(x: Word<'short, u8>) -> Word<'long, u8> {
    x
}
fn word_brand_shrinks<'f, 'short: 'f, 'long: 'short>(x: Word<'long, u8>) -> Word<'short, u8> {
    x
}
fn word_kinds_grows<'f, 'short: 'f, 'long: 'short>(x: Word<'f, &'short u8>) -> Word<'f, &'long u8> {
    x
}
fn word_kinds_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Word<'f, &'long u8>,
) -> Word<'f, &'short u8> {
    x
}
fn gc_word_brand_grows<'f, 'short: 'f, 'long: 'short>(x: GcWord<'short, u8>) -> GcWord<'long, u8> {
    x
}
fn gc_word_brand_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcWord<'long, u8>,
) -> GcWord<'short, u8> {
    x
}
fn gc_word_kinds_grows<'f, 'short: 'f, 'long: 'short>(
    x: GcWord<'f, &'short u8>,
) -> GcWord<'f, &'long u8> {
    x
}
fn gc_word_kinds_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcWord<'f, &'long u8>,
) -> GcWord<'f, &'short u8> {
    x
}
fn alloc_error_value_grows<'f, 'short: 'f, 'long: 'short>(
    x: AllocError<&'short u8>,
) -> AllocError<&'long u8> {
    x
}
fn frame_content_grows<'f, 'short: 'f, 'long: 'short>(x: Frame<&'short u8>) -> Frame<&'long u8> {
    x
}
fn frame_guard_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: FrameGuard<'short, 'f, u8>,
) -> FrameGuard<'long, 'f, u8> {
    x
}
fn frame_guard_mutator_grows<'f, 'short: 'f, 'long: 'short>(
    x: FrameGuard<'f, 'short, u8>,
) -> FrameGuard<'f, 'long, u8> {
    x
}
fn frame_guard_mutator_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: FrameGuard<'f, 'long, u8>,
) -> FrameGuard<'f, 'short, u8> {
    x
}
fn frame_guard_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: FrameGuard<'f, 'f, Gc<'short, u8>>,
) -> FrameGuard<'f, 'f, Gc<'long, u8>> {
    x
}
fn frame_guard_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: FrameGuard<'f, 'f, Gc<'long, u8>>,
) -> FrameGuard<'f, 'f, Gc<'short, u8>> {
    x
}
fn tracer_life_grows<'f, 'short: 'f, 'long: 'short>(x: Tracer<'short>) -> Tracer<'long> {
    x
}
fn tracer_life_shrinks<'f, 'short: 'f, 'long: 'short>(x: Tracer<'long>) -> Tracer<'short> {
    x
}
fn brand_life_grows<'f, 'short: 'f, 'long: 'short>(x: Brand<'short>) -> Brand<'long> {
    x
}
fn brand_life_shrinks<'f, 'short: 'f, 'long: 'short>(x: Brand<'long>) -> Brand<'short> {
    x
}
fn counting_life_grows<'f, 'short: 'f, 'long: 'short>(x: Counting<'short>) -> Counting<'long> {
    x
}
fn gc_chan_brand_grows<'f, 'short: 'f, 'long: 'short>(x: GcChan<'short, u8>) -> GcChan<'long, u8> {
    x
}
fn gc_chan_brand_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcChan<'long, u8>,
) -> GcChan<'short, u8> {
    x
}
fn gc_chan_item_grows<'f, 'short: 'f, 'long: 'short>(
    x: GcChan<'f, Gc<'short, u8>>,
) -> GcChan<'f, Gc<'long, u8>> {
    x
}
fn gc_chan_item_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: GcChan<'f, Gc<'long, u8>>,
) -> GcChan<'f, Gc<'short, u8>> {
    x
}
fn join_handle_output_grows<'f, 'short: 'f, 'long: 'short>(
    x: JoinHandle<&'short u8>,
) -> JoinHandle<&'long u8> {
    x
}
fn mutex_content_grows<'f, 'short: 'f, 'long: 'short>(x: Mutex<&'short u8>) -> Mutex<&'long u8> {
    x
}
fn mutex_content_shrinks<'f, 'short: 'f, 'long: 'short>(x: Mutex<&'long u8>) -> Mutex<&'short u8> {
    x
}
fn mutex_guard_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: MutexGuard<'short, u8>,
) -> MutexGuard<'long, u8> {
    x
}
fn mutex_guard_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: MutexGuard<'f, &'short u8>,
) -> MutexGuard<'f, &'long u8> {
    x
}
fn mutex_guard_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: MutexGuard<'f, &'long u8>,
) -> MutexGuard<'f, &'short u8> {
    x
}
fn rw_lock_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: RwLock<&'short u8>,
) -> RwLock<&'long u8> {
    x
}
fn rw_lock_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: RwLock<&'long u8>,
) -> RwLock<&'short u8> {
    x
}
fn rw_read_guard_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: RwLockReadGuard<'short, u8>,
) -> RwLockReadGuard<'long, u8> {
    x
}
fn rw_read_guard_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: RwLockReadGuard<'f, &'short u8>,
) -> RwLockReadGuard<'f, &'long u8> {
    x
}
fn rw_read_guard_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: RwLockReadGuard<'f, &'long u8>,
) -> RwLockReadGuard<'f, &'short u8> {
    x
}
fn rw_write_guard_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: RwLockWriteGuard<'short, u8>,
) -> RwLockWriteGuard<'long, u8> {
    x
}
fn rw_write_guard_content_grows<'f, 'short: 'f, 'long: 'short>(
    x: RwLockWriteGuard<'f, &'short u8>,
) -> RwLockWriteGuard<'f, &'long u8> {
    x
}
fn rw_write_guard_content_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: RwLockWriteGuard<'f, &'long u8>,
) -> RwLockWriteGuard<'f, &'short u8> {
    x
}
fn once_value_grows<'f, 'short: 'f, 'long: 'short>(x: Once<&'short u8>) -> Once<&'long u8> {
    x
}
fn once_value_shrinks<'f, 'short: 'f, 'long: 'short>(x: Once<&'long u8>) -> Once<&'short u8> {
    x
}
fn sender_value_grows<'f, 'short: 'f, 'long: 'short>(x: Sender<&'short u8>) -> Sender<&'long u8> {
    x
}
fn sender_value_shrinks<'f, 'short: 'f, 'long: 'short>(x: Sender<&'long u8>) -> Sender<&'short u8> {
    x
}
fn receiver_value_grows<'f, 'short: 'f, 'long: 'short>(
    x: Receiver<&'short u8>,
) -> Receiver<&'long u8> {
    x
}
fn receiver_value_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: Receiver<&'long u8>,
) -> Receiver<&'short u8> {
    x
}
fn send_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: chan::Send<'short, u8>,
) -> chan::Send<'long, u8> {
    x
}
fn send_value_grows<'f, 'short: 'f, 'long: 'short>(
    x: chan::Send<'f, &'short u8>,
) -> chan::Send<'f, &'long u8> {
    x
}
fn send_value_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: chan::Send<'f, &'long u8>,
) -> chan::Send<'f, &'short u8> {
    x
}
fn recv_borrow_grows<'f, 'short: 'f, 'long: 'short>(
    x: chan::Recv<'short, u8>,
) -> chan::Recv<'long, u8> {
    x
}
fn recv_value_grows<'f, 'short: 'f, 'long: 'short>(
    x: chan::Recv<'f, &'short u8>,
) -> chan::Recv<'f, &'long u8> {
    x
}
fn recv_value_shrinks<'f, 'short: 'f, 'long: 'short>(
    x: chan::Recv<'f, &'long u8>,
) -> chan::Recv<'f, &'short u8> {
    x
}
fn send_error_value_grows<'f, 'short: 'f, 'long: 'short>(
    x: chan::SendError<&'short u8>,
) -> chan::SendError<&'long u8> {
    x
}
fn try_send_error_value_grows<'f, 'short: 'f, 'long: 'short>(
    x: chan::TrySendError<&'short u8>,
) -> chan::TrySendError<&'long u8> {
    x
}
fn timeout_future_grows<'f, 'short: 'f, 'long: 'short>(
    x: Timeout<&'short u8>,
) -> Timeout<&'long u8> {
    x
}
fn blocking_call_grows<'f, 'short: 'f, 'long: 'short>(
    x: Blocking<&'short u8, u8>,
) -> Blocking<&'long u8, u8> {
    x
}
fn blocking_result_grows<'f, 'short: 'f, 'long: 'short>(
    x: Blocking<u8, &'short u8>,
) -> Blocking<u8, &'long u8> {
    x
}

fn main() {}

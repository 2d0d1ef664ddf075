//! Queues and tables that give back the memory of their peak.
//!
//! **Why.** A container keeps the room of its peak unless somebody shrinks it: a queue may once
//! have held ten million values and now hold one. It is not enough to wait until the queue is
//! empty, because a busy queue seldom is. So the code that removes a value calls
//! [`shrink_after_crowd`]: if at most an eighth of the room is in use, half of the room goes.
//!
//! **Cost.** To shrink from `c` to `c / 2` places copies at most `c / 8` values. The room was `c`
//! because more than `c / 2` values were there at once, or because it had been halved before.
//! Either way at least `c / 16` values were removed since the last change, and at least `3 c / 8`
//! must be added before the next growth. So each value pays a constant share, and a queue whose
//! length swings does not shrink and grow by turns. Below the floor that the caller sets nothing
//! happens, so a small queue costs a comparison.

use std::collections::VecDeque;

/// A container that grows with its content.
pub(crate) trait Grows {
    /// Returns how many values it holds.
    fn filled(&self) -> usize;
    /// Returns for how many values it has room.
    fn room(&self) -> usize;
    /// Shrinks the room to about `room`, but never below what the content needs.
    fn shrink_room(&mut self, room: usize);
}

macro_rules! grows {
    ($($t:ident)*) => { $(
        impl<T> Grows for $t<T> {
            #[inline]
            fn filled(&self) -> usize {
                self.len()
            }
            #[inline]
            fn room(&self) -> usize {
                self.capacity()
            }
            fn shrink_room(&mut self, room: usize) {
                self.shrink_to(room);
            }
        }
    )* };
}

grows! { Vec VecDeque }

/// Gives back half of the room if at most an eighth is in use, and all but `floor` places if
/// nothing is. At least `floor` places remain. See the head of this file.
#[inline]
pub(crate) fn shrink_after_crowd(list: &mut impl Grows, floor: usize) {
    if list.room() > floor && list.filled() <= list.room() / 8 {
        shrink(list, floor);
    }
}

#[cold]
fn shrink(list: &mut impl Grows, floor: usize) {
    let room = match list.filled() {
        0 => floor,
        _ => (list.room() / 2).max(floor),
    };
    list.shrink_room(room);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const FLOOR: usize = 16;
    const CROWD: usize = if cfg!(miri) { 4000 } else { 1 << 16 };

    #[test]
    fn one_that_stays_does_not_keep_the_room_of_all() {
        let mut queue: VecDeque<usize> = (0..CROWD).collect();
        while queue.len() > 1 {
            queue.pop_front();
            shrink_after_crowd(&mut queue, FLOOR);
            let bound = FLOOR.max(8 * (queue.len() + 1));
            assert!(queue.capacity() <= bound.max(CROWD / 2 + 1) || queue.len() > CROWD / 8);
        }
        assert_eq!(queue, [CROWD - 1]);
        assert!(queue.capacity() <= FLOOR, "{}", queue.capacity());
    }

    #[test]
    fn what_is_emptied_at_once_keeps_the_floor() {
        let mut list: Vec<u8> = vec![0; CROWD];
        list.clear();
        shrink_after_crowd(&mut list, FLOOR);
        assert!(list.capacity() <= FLOOR, "{}", list.capacity());
        let small = list.capacity();
        shrink_after_crowd(&mut list, FLOOR);
        assert_eq!(list.capacity(), small);
    }

    /// The changes of room count what is copied: a list whose length swings keeps its room.
    #[test]
    fn a_queue_that_swings_does_not_shrink_and_grow_by_turns() {
        // An interpreter has no time for the long ones.
        let lengths: &[usize] = if cfg!(miri) {
            &[1, FLOOR]
        } else {
            &[1, FLOOR, 100, 1000]
        };
        for &length in lengths {
            for swing in [1, 2, length] {
                let mut queue: VecDeque<usize> = (0..length + swing).collect();
                let (mut room, mut changes) = (queue.capacity(), 0);
                for round in 0..if cfg!(miri) { 50 } else { 1000 } {
                    for _ in 0..swing {
                        queue.pop_front();
                        shrink_after_crowd(&mut queue, FLOOR);
                    }
                    queue.extend(round..round + swing);
                    changes += usize::from(queue.capacity() != room);
                    room = queue.capacity();
                }
                assert!(changes <= 16, "{changes} at {length} and {swing}");
            }
        }
    }
}

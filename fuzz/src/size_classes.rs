//! Size classes and exact division against plain arithmetic; objects of any size and alignment on a
//! heap: where they should be, in nobody else's place, and with their content.

use arbitrary::Arbitrary;
use greywave::{Heap, Mutator, Root, Trace};

use crate::Case;
use crate::base::addr::PAGE_SIZE;
use crate::base::div::MagicDiv;
use crate::size_class::{SizeClass, class_of, slots, span_pages};

/// One step of a program.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    /// The class of a size, at an alignment of two to the power of so much.
    Class(u16, u8),
    /// The span of a slot of eight times so many bytes.
    Span(u16),
    /// A division.
    Divide(u32, u32),
    /// Bytes, into a place.
    Bytes(u8, u32),
    /// Text, into a place.
    Text(u8, u16),
    /// Aligned items: two to the power of so much, so many.
    Aligned(u8, u8, u16),
    /// An empty place.
    Forget(u8),
    /// A whole cycle.
    Collect,
}

/// See the module.
#[derive(Arbitrary, Clone, Debug)]
pub struct Program(pub Vec<Op>);

const PLACES: usize = 16;

macro_rules! aligned {
    ($($name:ident $align:literal),*) => { $(
        #[derive(Trace, Clone, Copy)]
        #[repr(align($align))]
        struct $name(u8);
    )* };
}

aligned! { A1 1, A2 2, A4 4, A8 8, A16 16, A64 64, A512 512, A4096 4096 }

/// What lies in a place.
enum Held {
    Nothing,
    Bytes(Root<[u8]>, usize),
    Text(Root<str>, usize),
    Other(Box<dyn Fn(&Mutator) -> (usize, usize)>),
}

fn byte(len: usize, at: usize) -> u8 {
    (len.wrapping_mul(31) ^ at) as u8
}

impl Held {
    /// Checks the content; returns address and length in bytes.
    fn check(&self, m: &Mutator) -> (usize, usize) {
        match self {
            Self::Nothing => (0, 0),
            Self::Bytes(root, len) => {
                let bytes = root.get(m);
                assert_eq!(bytes.len(), *len);
                for (at, value) in bytes.iter().enumerate() {
                    assert_eq!(*value, byte(*len, at), "byte {at} of {len}");
                }
                (bytes.as_ptr().addr(), *len)
            }
            Self::Text(root, len) => {
                let text = root.get(m);
                assert!(text.len() == *len && text.bytes().all(|b| b == b'g'));
                (text.as_ptr().addr(), *len)
            }
            Self::Other(check) => check(m),
        }
    }
}

macro_rules! items {
    ($m:ident, $len:expr, $name:ident) => {{
        let len = $len;
        let root: Root<[$name]> = $m.root($m.alloc_slice(len, |i| $name(byte(len, i))));
        Held::Other(Box::new(move |m| {
            let items = root.get(m);
            assert_eq!(items.len(), len);
            assert!(items.as_ref().as_ptr().is_aligned());
            for (at, item) in items.iter().enumerate() {
                assert_eq!(item.0, byte(len, at), "item {at} of {len}");
            }
            (
                items.as_ref().as_ptr().addr(),
                size_of_val::<[$name]>(&items),
            )
        }))
    }};
}

fn aligned_items(m: &Mutator, align: u8, len: usize) -> Held {
    match align % 8 {
        0 => items!(m, len, A1),
        1 => items!(m, len, A2),
        2 => items!(m, len, A4),
        3 => items!(m, len, A8),
        4 => items!(m, len, A16),
        5 => items!(m, len % 400, A64),
        6 => items!(m, len % 100, A512),
        _ => items!(m, len % 20, A4096),
    }
}

fn check_class(size: usize, align: usize) {
    let fits = |class: &SizeClass| class.size() >= size && class.size().is_multiple_of(align);
    let all = (0..SizeClass::COUNT).map(|class| SizeClass(class as u8));
    let want = if align > PAGE_SIZE {
        None
    } else {
        all.clone().find(fits)
    };
    assert_eq!(class_of(size, align), want, "{size} at {align}");
}

fn check_span(slot: usize) {
    let (pages, count) = (span_pages(slot), slots(slot));
    let bytes = pages * PAGE_SIZE;
    assert!((1..=10).contains(&pages) && count >= 1, "{slot}");
    assert!(
        count * slot <= bytes && (count + 1) * slot > bytes,
        "{slot}"
    );
    assert!(8 * (bytes - count * slot) <= bytes, "{slot}");
}

impl Case for Program {
    const MODULE: &'static str = "size_classes";

    fn run(&self) {
        let heap = Heap::builder()
            .reservation(64 << 20)
            .workers(1)
            .verify(true)
            .poison(true)
            .build()
            .expect("a heap");
        let mut m = heap.attach().expect("not attached");
        let mut places: Vec<Held> = (0..PLACES).map(|_| Held::Nothing).collect();
        for op in self.0.iter().take(100) {
            match *op {
                Op::Class(size, align) => check_class(usize::from(size), 1 << (align % 16)),
                Op::Span(slot) => check_span((usize::from(slot) % 4096 + 1) * 8),
                Op::Divide(n, by) => {
                    let by = by.max(1);
                    assert_eq!(MagicDiv::new(by).div(n), n / by, "{n} by {by}");
                }
                Op::Bytes(place, len) => {
                    let len = len as usize % (1 << 17);
                    let root = m.root(m.alloc_slice(len, |at| byte(len, at)));
                    places[usize::from(place) % PLACES] = Held::Bytes(root, len);
                }
                Op::Text(place, len) => {
                    let len = usize::from(len);
                    let root = m.root(m.alloc_str(&"g".repeat(len)));
                    places[usize::from(place) % PLACES] = Held::Text(root, len);
                }
                Op::Aligned(place, align, len) => {
                    let len = usize::from(len) % 3000;
                    places[usize::from(place) % PLACES] = aligned_items(&m, align, len);
                }
                Op::Forget(place) => places[usize::from(place) % PLACES] = Held::Nothing,
                Op::Collect => m.collect(),
            }
            m.safepoint();
        }
        m.collect();
        heap.verify().expect("whole");
        let mut at: Vec<_> = places.iter().map(|held| held.check(&m)).collect();
        at.retain(|(_, len)| *len > 0);
        at.sort_unstable();
        for pair in at.windows(2) {
            assert!(
                pair[0].0 + pair[0].1 <= pair[1].0,
                "two objects in one place"
            );
        }
    }
}

//! The programs for every pointer that frees what nobody holds any more by itself, whether it
//! owns, counts, or counts and collects.

/// Writes `Peer` and its programs for the pointer `$pointer` and the objects `Noscan`, `Scan` and
/// `Node` of the place where it is called.
macro_rules! owned_programs {
    ($pointer:ident) => {
        use std::hint::black_box;

        use crate::programs::alloc::{Alloc, BATCH, Run, words};
        use crate::programs::trees::Trees;

        /// The peer.
        #[derive(Debug)]
        pub struct Peer;

        impl Alloc for Peer {
            type Shared = ();

            fn shared() {}

            fn noscan<const W: usize>((): &(), run: &mut Run) {
                while run.more() {
                    for i in 0..BATCH {
                        black_box(&$pointer::new(Noscan::<W>(words(i))));
                    }
                }
            }

            fn scan<const K: usize>((): &(), run: &mut Run) {
                while run.more() {
                    for i in 0..BATCH {
                        black_box(&$pointer::new(Scan::<K> {
                            next: None,
                            data: words(i),
                        }));
                    }
                }
            }
        }

        impl Node {
            fn bottom_up(depth: u32) -> $pointer<Self> {
                let child = || Self::bottom_up(depth - 1);
                $pointer::new(Self {
                    children: (depth > 0).then(|| [child(), child()]),
                })
            }

            fn count(&self) -> u64 {
                1 + self
                    .children
                    .iter()
                    .flatten()
                    .map(|child| child.count())
                    .sum::<u64>()
            }
        }

        impl Trees for Peer {
            type Shared = ();

            fn shared() {}

            fn long_lived((): &(), depth: u32, during: impl FnOnce() + Send) -> u64 {
                let stretch = Node::bottom_up(depth + 1).count();
                let kept = Node::bottom_up(depth);
                during();
                stretch + kept.count()
            }

            fn worker((): &(), jobs: impl Iterator<Item = u32>) -> u64 {
                jobs.map(|depth| Node::bottom_up(depth).count()).sum()
            }
        }
    };
}

pub(super) use owned_programs;

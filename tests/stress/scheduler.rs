//! Programs against faults of the scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greywave::{DeadlockPolicy, Heap, Root, Runtime, chan, go, with, yield_now};

use crate::support::{Watch, is_broken};

/// Takes back in the heap what its G did there.
struct Undo {
    entry: Root<u64>,
    undone: Arc<AtomicU64>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        let entry = with(|m| *self.entry.get(m));
        self.undone.fetch_add(entry, Ordering::Relaxed);
    }
}

/// The future of a G that is aborted is dropped as that G: `with` works in its drops.
pub(crate) fn an_aborted_g_undoes_what_it_did_in_the_heap() {
    let rt = Runtime::builder(&Heap::new())
        .procs(1)
        .build()
        .expect("a runtime");
    let undone = Arc::new(AtomicU64::new(0));
    let counted = undone.clone();
    let end = rt.block_on(async move {
        let g = go(async move {
            let _undo = Undo {
                entry: with(|m| m.root(m.alloc(3_u64))),
                undone: counted,
            };
            std::future::pending::<()>().await;
        });
        yield_now().await;
        g.abort();
        g.await.expect_err("it was aborted")
    });
    assert!(end.expect("no deadlock").is_cancelled());
    assert_eq!(undone.load(Ordering::Relaxed), 3);
}

/// Everybody waits for each other from some moment on while the monitor, which has seen nothing of that, falls asleep.
pub(crate) fn a_deadlock_comes_as_the_monitor_falls_asleep() {
    for delay_ms in (0..180).step_by(12) {
        let waits = std::thread::spawn(move || {
            let rt = Runtime::builder(&Heap::new())
                .procs(1)
                .deadlocks(DeadlockPolicy::Always)
                .build()
                .expect("a runtime");
            std::thread::sleep(Duration::from_millis(delay_ms));
            let end = rt.block_on(async {
                let (_open, gate) = chan::<()>(0);
                gate.recv().await
            });
            assert!(end.is_err(), "nobody sends");
        });
        // Who is overslept hangs. With a fault in, that is known after seconds.
        let watch = Watch::begin();
        let mut looks = 0;
        while !waits.is_finished() {
            watch.check("the report");
            assert!(looks < 5_000 || !is_broken(), "no report has come");
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        waits.join().expect("no panic");
    }
}

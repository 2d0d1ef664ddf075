//! Programs with threads and channels, many times, with a collection at every safepoint.
//!
//! `LOX_RUNS` is how often each runs (default 20).

mod common;

use common::{check, own_cases};
use greywave::Heap;
use lox::Dialect;

#[test]
fn programs_with_threads_give_the_same_result_every_time() {
    let runs = std::env::var("LOX_RUNS").map_or(20, |runs| runs.parse().expect("a number"));
    let cases: Vec<_> = own_cases()
        .into_iter()
        .filter(|case| {
            case.path
                .components()
                .any(|part| part.as_os_str() == "threads")
        })
        .collect();
    assert!(cases.len() >= 4, "the programs with threads are gone");
    for stress in [false, true] {
        let heap = Heap::builder()
            .stress(stress)
            .poison(true)
            .build()
            .expect("a heap");
        for _ in 0..runs {
            check(&heap, Dialect::Book, &cases);
        }
        heap.verify().expect("a whole heap");
    }
}

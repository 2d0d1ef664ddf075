//! Repeats what fuzzing has seen, without a fuzzer: every file of the corpus, and the cases that
//! once failed.
//!
//! `cargo test --manifest-path fuzz/Cargo.toml --no-default-features`

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use greywave_fuzz::{Case, check, derive_input, heap_graph, pacer, scheduler, size_classes};

fn replay<C: Case + for<'a> Arbitrary<'a>>() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(C::MODULE);
    let mut count = 0;
    for file in std::fs::read_dir(&corpus).expect("the corpus is there") {
        let path = file.expect("it can be listed").path();
        let bytes = std::fs::read(&path).expect("it can be read");
        if let Ok(case) = C::arbitrary_take_rest(Unstructured::new(&bytes)) {
            check(&case);
            count += 1;
        }
    }
    assert!(count > 0, "no cases in {}", corpus.display());
}

#[test]
fn derive_input() {
    replay::<derive_input::Program>();
}

#[test]
fn heap_graph() {
    replay::<heap_graph::Program>();
}

#[test]
fn pacer() {
    replay::<pacer::Program>();
}

#[test]
fn size_classes() {
    replay::<size_classes::Program>();
}

#[test]
fn scheduler() {
    replay::<scheduler::Program>();
}

//! Random programs over the public interface against a model; see `greywave_fuzz::heap_graph`.

#![no_main]

use greywave_fuzz::{check, heap_graph::Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| check(&program));

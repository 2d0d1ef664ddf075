//! The pacer and its neighbours with any figures; see `greywave_fuzz::pacer`.

#![no_main]

use greywave_fuzz::{check, pacer::Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| check(&program));

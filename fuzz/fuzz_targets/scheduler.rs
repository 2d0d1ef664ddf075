//! Programs of Gs on a runtime; see `greywave_fuzz::scheduler`.

#![no_main]

use greywave_fuzz::{check, scheduler::Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| check(&program));

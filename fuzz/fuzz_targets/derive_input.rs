//! The derive's expansion of any type; see `greywave_fuzz::derive_input`.

#![no_main]

use greywave_fuzz::{check, derive_input::Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| check(&program));

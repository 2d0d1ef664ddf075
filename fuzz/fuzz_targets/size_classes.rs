//! Size classes, exact division, and objects of any size and alignment on a heap; see
//! `greywave_fuzz::size_classes`.

#![no_main]

use greywave_fuzz::{check, size_classes::Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| check(&program));

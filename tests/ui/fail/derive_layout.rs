//! What cannot be read field by field cannot be traced.
use greywave::Trace;

#[derive(Trace)]
#[repr(C, packed)]
struct Packed(u32);

#[derive(Trace)]
#[repr(packed(2))]
struct PackedToTwo(u32);

#[derive(Trace)]
union Union {
    number: u32,
    bytes: [u8; 4],
}

fn main() {}

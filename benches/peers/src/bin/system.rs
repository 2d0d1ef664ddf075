//! The programs, with the allocator of the C library under everything that calls malloc.

fn main() -> std::process::ExitCode {
    greywave_peers::main()
}

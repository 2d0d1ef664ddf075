//! The programs, with mimalloc under everything that calls malloc.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    greywave_peers::main()
}

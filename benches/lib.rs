//! Nothing: the package is its benchmarks, `cargo bench -p greywave-benches`.

//! This library is empty: the package consists of its benchmarks, `cargo bench -p
//! greywave-benches`.

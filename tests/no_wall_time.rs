//! No test judges by wall time; `support/patience.rs` says why, and what is allowed. This test
//! reads the sources of all tests.

use std::path::{Path, PathBuf};

/// Where a test may name the wall clock, and why that is no judgement.
const ALLOWED: [(&str, &str); 11] = [
    ("tests/support/patience.rs", "the one place for all others"),
    (
        "tests/stress/support.rs",
        "the end of a child process that hangs",
    ),
    (
        "tests/stress/stage.rs",
        "a collector that is broken on purpose is given up after seconds, a whole one after PATIENCE",
    ),
    ("tests/sabotage.rs", "prints how long a fault lived"),
    ("tests/peers_boa.rs", "a value of that type in the heap"),
    (
        "tests/time_net.rs",
        "deadlines are moments; what is compared is moments of the runtime's own clock",
    ),
    ("tests/sync/context.rs", "deadlines are moments"),
    (
        "tests/sched/deadlocks.rs",
        "threads that wait with a limit are what it is about",
    ),
    (
        "src/sys/thread/sleep.rs",
        "threads that wait with a limit are what it is about",
    ),
    ("tests/foreign/places.rs", "deadlines are moments"),
    (
        "src/sched/driver/tests.rs",
        "deadlines are moments; its watchdog waits as long as that of the other tests",
    ),
];

/// What reads the wall clock.
const READS: [&str; 5] = [
    "Instant::now",
    ".elapsed()",
    "SystemTime::now",
    "recv_timeout(",
    "wait_timeout(",
];

/// What is an upper bound on it, which none but the watchdog may have.
fn is_upper_bound(line: &str) -> bool {
    let after = line.split(".elapsed()").nth(1).unwrap_or("").trim_start();
    after.starts_with('<') || line.contains(".contains(&") && line.contains(".elapsed()")
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The tests in a file: all of it below `tests`, else what comes after `mod tests {`.
fn tests_in(name: &str, text: &str) -> String {
    if name.contains("tests/") || name.ends_with("tests.rs") {
        return text.to_owned();
    }
    text.split_once("\nmod tests {")
        .map_or_else(String::new, |(_, tests)| tests.to_owned())
}

fn findings() -> (usize, Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["tests", "src", "derive", "examples/lox", "fuzz/tests"] {
        if root.join(folder).is_dir() {
            sources(&root.join(folder), &mut files);
        }
    }
    let mut found = Vec::new();
    for file in &files {
        let name = file
            .strip_prefix(root)
            .expect("below")
            .to_string_lossy()
            .replace('\\', "/");
        if name == "tests/no_wall_time.rs" {
            continue;
        }
        let text = std::fs::read_to_string(file).expect("readable");
        let allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == name);
        for line in tests_in(&name, &text).lines().map(str::trim) {
            if line.starts_with("//") {
                continue;
            }
            if !allowed && READS.iter().any(|read| line.contains(read)) {
                found.push(format!("{name}: `{line}` reads the wall clock"));
            }
            if is_upper_bound(line) {
                found.push(format!("{name}: `{line}` judges by wall time"));
            }
        }
    }
    (files.len(), found)
}

#[test]
fn no_test_reads_the_wall_clock_but_where_it_is_no_judgement() {
    let (files, found) = findings();
    assert!(files > 100, "{files} files were read");
    assert!(
        found.is_empty(),
        "use tests/support/patience.rs, or say in ALLOWED why this is no judgement:\n{}",
        found.join("\n")
    );
}

#[test]
fn an_exception_is_of_use() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in ALLOWED {
        let text = std::fs::read_to_string(root.join(name)).expect(name);
        assert!(
            READS.iter().any(|read| text.contains(read)),
            "{name} needs no exception"
        );
    }
}

#[test]
fn an_upper_bound_is_found() {
    for line in [
        "assert!(start.elapsed() < LONG / 2);",
        "while start.elapsed() <= limit {",
        "assert!((MS * 100..LONG / 2).contains(&start.elapsed()));",
    ] {
        assert!(is_upper_bound(line), "{line}");
    }
    for line in ["assert!(start.elapsed() >= MS);", "a < b; c.elapsed()"] {
        assert!(!is_upper_bound(line), "{line}");
    }
}

//! Runs Lox programs and compares what they print with the comments in them.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use greywave::Heap;
use lox::{Dialect, Lox};

/// A program and what it should print.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) path: PathBuf,
    pub(crate) source: String,
    pub(crate) expected: String,
}

/// Reads the expectations: what follows `// out: ` on each line.
fn expectations(source: &str) -> String {
    let mut expected = String::new();
    for line in source.lines() {
        if let Some((_, rest)) = line.split_once("// out: ") {
            expected.push_str(rest);
            expected.push('\n');
        }
    }
    expected
}

/// Every program under `folder`, in the order of their names.
pub(crate) fn cases(folder: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of programs") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "lox") {
                let source = std::fs::read_to_string(&path).expect("text");
                let expected = expectations(&source);
                cases.push(Case {
                    path,
                    source,
                    expected,
                });
            }
        }
    }
    cases.sort_by(|a, b| a.path.cmp(&b.path));
    cases
}

/// Our own programs.
pub(crate) fn own_cases() -> Vec<Case> {
    cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs"))
}

/// The programs of the `loxcraft` crate, from the registry's copy of it; `None` if it cannot be
/// had.
pub(crate) fn loxcraft_cases() -> Option<Vec<Case>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .ok()?;
    let metadata = String::from_utf8(output.stdout).ok()?;
    // The only path in the output that ends like this.
    let end = metadata.find("/Cargo.toml\"").and_then(|_| {
        metadata
            .match_indices("/Cargo.toml\"")
            .map(|(at, _)| at)
            .find(|&at| {
                let start = metadata[..at].rfind('"').map_or(0, |quote| quote + 1);
                metadata[start..at]
                    .rsplit('/')
                    .next()
                    .is_some_and(|folder| folder.starts_with("loxcraft-"))
            })
    });
    let Some(end) = end else {
        println!("skipped: the loxcraft crate is not in the registry's cache");
        return None;
    };
    let start = metadata[..end].rfind('"').map_or(0, |quote| quote + 1);
    Some(cases(
        &Path::new(&metadata[start..end]).join("res/examples"),
    ))
}

/// What the program prints, and its error, over `heap`.
pub(crate) fn print_of(heap: &Heap, dialect: Dialect, source: &str) -> String {
    let output = Arc::new(Mutex::new(Vec::new()));
    let mut lox = Lox::new(heap, dialect, output.clone()).expect("this thread has no mutator");
    let result = lox.run(source);
    drop(lox);
    let bytes = std::mem::take(&mut *output.lock().expect("no panic while printing"));
    let mut printed = String::from_utf8(bytes).expect("UTF-8");
    if let Err(failure) = result {
        writeln!(printed, "{}", failure.headline(dialect)).expect("a string");
    }
    printed
}

/// Runs every case; panics with all that print something else.
pub(crate) fn check(heap: &Heap, dialect: Dialect, cases: &[Case]) {
    let mut wrong = String::new();
    for case in cases {
        let printed = print_of(heap, dialect, &case.source);
        if printed != case.expected {
            writeln!(
                wrong,
                "--- {}\nexpected:\n{}printed:\n{printed}",
                case.path.display(),
                case.expected
            )
            .expect("a string");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    println!("{} programs", cases.len());
}

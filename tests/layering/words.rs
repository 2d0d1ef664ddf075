//! Text is narrow, and one word stands for one thing: `src/README.md` has a glossary.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::files;
use super::map::{of_src, page, rows};

/// Rooms whose files do not all keep to the bounds yet: text of at most 100 columns, and at most
/// 600 lines. Every other file of `src` does.
const NOT_DONE: &[&str] = &["gc/", "sched/"];

/// The files of these rooms that do.
const DONE: &[&str] = &["gc/roots", "gc/lock_word"];

/// One file is longer: the settings of a heap, most of which is documentation.
const LONG: &[&str] = &["api/config.rs"];

/// The lines of `text` that are prose of more than 100 columns, numbered from 1. In a source file
/// that is a line which is a comment. Tables, code in fences and addresses of links may be wider.
fn wide_lines(text: &str, is_code: bool) -> Vec<usize> {
    let mut in_fence = false;
    let mut wide = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let mut prose = line.trim_start();
        if is_code {
            let Some(comment) = prose.strip_prefix("//") else {
                continue;
            };
            prose = comment.trim_start_matches(['/', '!']).trim_start();
        }
        if prose.starts_with("```") {
            in_fence = !in_fence;
        }
        let is_address = prose.starts_with('[') && prose.contains("]: ");
        let may_be_wide = in_fence || prose.starts_with('|') || is_address;
        if line.chars().count() > 100 && !may_be_wide {
            wide.push(n + 1);
        }
    }
    wide
}

/// The pages whose prose is as narrow as that of the sources.
const PAGES: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benches/peers/README.md",
    "derive/README.md",
    "examples/lox/README.md",
    "src/README.md",
    "src/guide/applications.md",
    "src/guide/diagnosing.md",
    "src/guide/measurements.md",
    "src/guide/safety.md",
    "src/guide/services.md",
    "src/guide/tuning.md",
    "src/guide/virtual_machines.md",
    "tests/peers.md",
];

/// The folders beside `src` whose comments are as narrow. What must not compile (`tests/ui`) keeps
/// its lines, which the compiler's messages name.
const BESIDE: &[&str] = &[
    "benches",
    "derive/src",
    "examples",
    "fuzz/fuzz_targets",
    "tests",
];

#[test]
fn pages_and_what_is_beside_src_are_narrow() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bad = Vec::new();
    let mut look = |name: String, text: &str, is_code: bool| {
        let wide = wide_lines(text, is_code).into_iter();
        bad.extend(wide.map(|n| format!("{name}:{n}: more than 100 columns")));
    };
    for page in PAGES {
        let text = fs::read_to_string(root.join(page)).expect("the page");
        look((*page).to_owned(), &text, false);
    }
    for folder in BESIDE {
        for (path, text) in files(&root.join(folder), ".rs") {
            let name = path.strip_prefix(root).expect("it was found there");
            let name = name.to_string_lossy().replace('\\', "/");
            if !name.starts_with("tests/ui/") && !name.contains("/target/") {
                look(name, &text, true);
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn text_is_narrow_and_files_are_short() {
    let mut bad = Vec::new();
    for (file, text) in of_src(".rs") {
        let starts = |list: &[&str]| list.iter().any(|start| file.starts_with(start));
        if starts(NOT_DONE) && !starts(DONE) {
            continue;
        }
        let wide = wide_lines(&text, true).into_iter();
        bad.extend(wide.map(|n| format!("{file}:{n}: a comment of more than 100 columns")));
        let lines = text.lines().count();
        if lines > 600 && !starts(LONG) {
            bad.push(format!(
                "{file}: {lines} lines; its tests, or an idea, can have a file"
            ));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_wide_line_is_found() {
    let long = "x".repeat(100);
    let code = format!(
        "// {long}\nlet {long};\n/// | {long} |\n//! ```\n//! {long}\n//! ```\n    /// {long}"
    );
    assert_eq!(wide_lines(&code, true), [1, 7]);
    let page = format!("{long}x\n[a]: {long}\n| {long} |\n```text\n{long}x\n```\n- {long}");
    assert_eq!(wide_lines(&page, false), [1, 7]);
}

/// The types that `lib`, the root of the crate, exports to users.
fn exported_types(lib: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in lib.split_inclusive(';') {
        // The attributes of an item stand before it, in the same part.
        let Some((before, item)) = part.split_once("pub use ") else {
            continue;
        };
        if before.contains("doc(hidden)") {
            continue;
        }
        let names = item.split(|c: char| !c.is_alphanumeric() && c != '_');
        found.extend(
            names
                .filter(|name| name.starts_with(|c: char| c.is_uppercase()))
                .map(str::to_owned),
        );
    }
    found
}

/// The names of types that a glossary has, each with how often.
fn glossary(page: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for row in rows(page, "Words") {
        let quoted = row
            .iter()
            .flat_map(|cell| cell.split('`').skip(1).step_by(2));
        for name in quoted.filter(|name| name.starts_with(|c: char| c.is_uppercase())) {
            *found.entry(name.to_owned()).or_default() += 1;
        }
    }
    found
}

/// What is wrong with a glossary, if a program can use the types `public`, and `is_defined` says
/// whether there is a type of some name.
fn word_offences(
    page: &str,
    public: &BTreeSet<String>,
    is_defined: impl Fn(&str) -> bool,
) -> Vec<String> {
    let words = glossary(page);
    let mut bad = Vec::new();
    for name in public {
        match words.get(name) {
            None => bad.push(format!("{name} is not in the glossary")),
            Some(1) => {}
            Some(n) => bad.push(format!("{name} is in the glossary {n} times")),
        }
    }
    let lost = words.keys().filter(|name| !is_defined(name));
    bad.extend(lost.map(|name| format!("{name} is in the glossary, and nowhere else")));
    bad
}

#[test]
fn each_public_word_is_in_the_glossary_once() {
    let lib = fs::read_to_string(super::src().join("lib.rs")).expect("the root");
    let public = exported_types(&lib);
    assert!(public.len() > 60, "{} types are exported", public.len());
    let mut defined = BTreeSet::new();
    for (_, text) in of_src(".rs") {
        let mut before = "";
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
            if ["struct", "enum", "trait", "type"].contains(&before) {
                defined.insert(word.to_owned());
            }
            before = word;
        }
    }
    let bad = word_offences(&page(), &public, |name| defined.contains(name));
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_word_that_is_missing_doubled_or_lost_is_found() {
    let lib = "mod a;\npub use derive::Trace;\n#[doc(hidden)]\npub use crate::Hidden;\n\
               #[cfg(x)]\npub use crate::api::{gc::Gc, go::{go, Never}};\n";
    let public = exported_types(lib);
    let names: Vec<&str> = public.iter().map(String::as_str).collect();
    assert_eq!(names, ["Gc", "Never", "Trace"]);
    let page = "\n## Words\n\n| term | meaning | names |\n|---|---|---|\n\
                | pointer | see `Trace` | `Gc` |\n| trace | it reports | `Trace`, `Lost` |\n";
    assert_eq!(
        word_offences(page, &public, |name| name != "Lost"),
        [
            "Never is not in the glossary",
            "Trace is in the glossary 2 times",
            "Lost is in the glossary, and nowhere else",
        ]
    );
}

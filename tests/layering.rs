//! The rules of the house that a text search can check. Imports point down, between layers and
//! between the files of a room. The map is complete. A safety argument cites invariants that are
//! defined somewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "layering/map.rs"]
mod map;
#[path = "layering/order.rs"]
mod order;
#[path = "layering/words.rs"]
mod words;

/// The layers and their rank: a file names only layers of lower rank. `object` and `pace` have
/// the same one, so they do not see each other.
const RANKS: &[(&str, u8)] = &[
    ("sys", 0),
    ("base", 1),
    ("pace", 2),
    ("object", 2),
    ("heap", 3),
    ("gc", 4),
    ("sched", 5),
    ("api", 6),
];

fn rank(layer: &str) -> Option<u8> {
    let (_, rank) = RANKS.iter().find(|(name, _)| *name == layer)?;
    Some(*rank)
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file below `at` whose name ends in `suffix`, with its text.
fn files(at: &Path, suffix: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut todo = vec![at.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue; // a layer that has no files yet
        };
        for entry in entries {
            let path = entry.expect("the source tree can be listed").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// What `line` of a file in `layer` does that the layers forbid.
fn offence(line: &str, layer: &str) -> Option<String> {
    let code = line.split("//").next().unwrap_or_default();
    if code.contains("crate::{") || code.contains("super::super") {
        return Some("write one `use crate::<layer>::..` for each layer".into());
    }
    let named = code.split("crate::").skip(1).map(|rest| {
        rest.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    });
    let up = |used: &String| {
        used != layer && rank(used).is_some_and(|used_rank| Some(used_rank) >= rank(layer))
    };
    let used = named.into_iter().find(up)?;
    Some(format!("{layer} must not name {used}"))
}

#[test]
fn imports_point_down() {
    let mut bad = Vec::new();
    for (layer, _) in RANKS {
        for (path, text) in files(&src().join(layer), ".rs") {
            for (n, line) in text.lines().enumerate() {
                if let Some(why) = offence(line, layer) {
                    bad.push(format!("{}:{}: {why}", path.display(), n + 1));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn an_import_that_points_up_is_found() {
    assert_eq!(offence("use crate::heap::Span;", "gc"), None);
    assert_eq!(offence("use crate::gc::Phase; // crate::api", "gc"), None);
    assert!(offence("use crate::gc::Phase;", "heap").is_some());
    assert!(offence("let p = crate::pace::goal();", "object").is_some());
    assert!(offence("use crate::{heap, gc};", "api").is_some());
}

/// The tags such as `[S2]` in `text`: one capital letter, then digits.
fn tags(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split('[').skip(1) {
        let Some((inside, after)) = rest.split_once(']') else {
            continue;
        };
        let mut chars = inside.chars();
        let is_tag = chars.next().is_some_and(|c| c.is_ascii_uppercase())
            && !chars.as_str().is_empty()
            && chars.all(|c| c.is_ascii_digit());
        // `[T5](..)` is a link.
        if is_tag && !after.starts_with('(') {
            found.push(inside.to_owned());
        }
    }
    found
}

/// The tags that the head of a file defines. The head is its `//!` lines; a definition is a tag
/// that opens a line or a list item, possibly in bold or in code quotes.
fn defined(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("//!"))
        .map(|line| line.trim_start_matches([' ', '-', '*', '`']))
        .filter(|line| line.starts_with('['))
        .filter_map(|line| {
            let end = line.find(']')?;
            tags(&line[..=end]).pop()
        })
        .collect()
}

/// The tags that the safety comments of a file cite, each with its line. A safety comment runs
/// from the line with that word to the end of its block of `//` lines.
fn cited(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (n, line) in text.lines().enumerate() {
        let comment = line.split_once("//").map(|(_, comment)| comment);
        inside = match comment {
            Some(comment) => {
                comment.contains("SAFETY:") || (inside && line.trim().starts_with("//"))
            }
            None => false,
        };
        if inside {
            let comment = comment.unwrap_or_default();
            found.extend(tags(comment).into_iter().map(|tag| (n + 1, tag)));
        }
    }
    found
}

#[test]
fn a_cited_invariant_is_defined_in_one_head() {
    // A head that is too long for its file is the README.md beside it.
    let pages = files(&src(), ".md").into_iter();
    let pages =
        pages.map(|(path, text)| (path, text.lines().map(|l| format!("//! {l}\n")).collect()));
    let files: Vec<(PathBuf, String)> = files(&src(), ".rs").into_iter().chain(pages).collect();
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in &files {
        for tag in defined(text) {
            homes
                .entry(tag)
                .or_default()
                .push(path.display().to_string());
        }
    }
    let mut bad = Vec::new();
    for (tag, homes) in homes.iter().filter(|(_, homes)| homes.len() > 1) {
        bad.push(format!(
            "[{tag}] is defined more than once: {}",
            homes.join(", ")
        ));
    }
    for (path, text) in &files {
        for (line, tag) in cited(text) {
            if !homes.contains_key(&tag) {
                bad.push(format!(
                    "{}:{line}: [{tag}] is defined in no head",
                    path.display()
                ));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn tags_are_read_as_they_are_written() {
    let text = "//! # Invariants\n//! - **[S1]** one owner; see [S9].\n//! [S2] published first.\n\
                // SAFETY: [S1] holds, and\n// so does [S2].\nlet x = [T; 4]; // not [S7]\n";
    assert_eq!(defined(text), ["S1", "S2"]);
    assert_eq!(cited(text), [(4, "S1".into()), (5, "S2".into())]);
}

/// What `line` of the scheduler does with a waker of others that `sched/wakers.rs` should do. Polls
/// may wake the task that they are polled by; a waker that is kept is a `KeptWaker`.
fn runs_foreign_code(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    let in_memory = ["Option<Waker>", "Vec<Waker>", ", Waker)", "Cell<Waker>"];
    if code.contains("waker().clone()")
        || code.contains("waker.clone()")
        || code.contains("clone_from(waker")
    {
        return Some("clone it by `KeptWaker::of`");
    }
    in_memory
        .iter()
        .any(|kept| code.contains(kept))
        .then_some("keep it as a `KeptWaker`")
}

/// Wakers of foreign executors are cloned, woken and dropped in one place, which sees to it that no
/// lock is held.
#[test]
fn foreign_wakers_are_kept_as_such() {
    // The joiner's waker is under no lock: the state of its G says whose it is. The main G's is
    // this crate's own.
    let others = ["task/", "block_on.rs", "wakers.rs", "models.rs", "tests.rs"];
    let mut bad = Vec::new();
    for (path, text) in files(&src().join("sched"), ".rs") {
        let name = path.to_string_lossy();
        if others.iter().any(|other| name.contains(other)) {
            continue;
        }
        let text = text.split("#[cfg(all(test,").next().unwrap_or_default();
        for (n, line) in text.lines().enumerate() {
            if let Some(why) = runs_foreign_code(line) {
                bad.push(format!("{name}:{}: {why}", n + 1));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_waker_that_is_not_kept_as_such_is_found() {
    assert!(runs_foreign_code("let waker = cx.waker().clone();").is_some());
    assert!(runs_foreign_code("    waker: Cell<Option<Waker>>,").is_some());
    assert!(runs_foreign_code("    waiting: VecDeque<(u64, Waker)>,").is_some());
    assert!(runs_foreign_code("    waker: Option<KeptWaker>, // was Option<Waker>").is_none());
}

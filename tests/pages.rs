//! What a test can check of the pages that users read: their size, that the files which they name
//! exist, and that every setting and every event is in the guide.
//!
//! The examples of the README and of the guide are tests of the documentation.

use std::fs;
use std::path::{Path, PathBuf};

/// The longest line of prose. Tables and code may be wider.
const COLUMNS: usize = 100;
/// The longest README, in lines. What does not fit belongs in the guide.
const README_LINES: usize = 250;
/// Where paths that a page names begin.
const PLACES: [&str; 7] = [
    "src/",
    "tests/",
    "examples/",
    "benches/",
    "derive/",
    "fuzz/",
    ".ci/",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn guide(page: &str) -> String {
    read(&root().join("src/guide").join(page))
}

/// The pages, each with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let at_root = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    let mut paths: Vec<PathBuf> = at_root.iter().map(|name| root().join(name)).collect();
    for entry in fs::read_dir(root().join("src/guide")).expect("the guide can be listed") {
        let path = entry.expect("the guide can be listed").path();
        if path.extension().is_some_and(|e| e == "md") {
            paths.push(path);
        }
    }
    paths.sort();
    let text = |path: PathBuf| (path.clone(), read(&path));
    paths.into_iter().map(text).collect()
}

/// The lines of prose in a page that are too long, by number.
fn too_long(page: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (n, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code && !line.starts_with('|') && line.chars().count() > COLUMNS {
            found.push(n + 1);
        }
    }
    found
}

/// The paths that a page names in code quotes. Each word of a quote counts, so that commands do.
fn named_paths(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    let quotes = prose.flat_map(|text| text.split('`').skip(1).step_by(2));
    let words = quotes.flat_map(|quote| quote.split_whitespace());
    words
        .filter(|word| PLACES.iter().any(|place| word.starts_with(place)))
        .collect()
}

/// Where the links of a page lead that are defined as `[name]: target`, but for those into the web.
fn link_targets(page: &str) -> Vec<&str> {
    let definitions = page.lines().filter(|line| line.starts_with('['));
    let targets = definitions.filter_map(|line| line.split_once("]: "));
    targets.map(|(_, target)| target).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(
        lines <= README_LINES,
        "README.md has {lines} lines, more than {README_LINES}"
    );
}

#[test]
fn prose_has_one_width() {
    for (path, text) in pages() {
        let lines = too_long(&text);
        assert!(
            lines.is_empty(),
            "{}: lines {lines:?} have more than {COLUMNS} columns",
            path.display()
        );
    }
}

#[test]
fn files_that_a_page_names_exist() {
    for (path, text) in pages() {
        let beside = path.parent().expect("a page is in a folder");
        // This page follows an example through its files.
        let is_about_lox = path.ends_with("virtual_machines.md");
        for named in named_paths(&text) {
            let exists = root().join(named).exists()
                || is_about_lox && root().join("examples/lox").join(named).exists();
            assert!(exists, "{}: there is no `{named}`", path.display());
        }
        for target in link_targets(&text) {
            assert!(
                beside.join(target).exists(),
                "{}: a link leads to {target}, which does not exist",
                path.display()
            );
        }
    }
}

/// The names between `before` and `after` on lines of `source`.
fn names<'a>(source: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    let rests = source.lines().filter_map(|line| line.split_once(before));
    let found = rests.filter_map(|(_, rest)| rest.split_once(after));
    let is_name = |name: &&str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    found.map(|(name, _)| name).filter(is_name).collect()
}

#[test]
fn every_setting_is_in_the_guide() {
    let builder = read(&root().join("src/api/config.rs"));
    let settings = names(&builder, "pub fn ", "(mut self");
    assert!(settings.contains(&"gogc"), "{settings:?}");
    let guide = guide("tuning.md") + &guide("diagnosing.md");
    for setting in settings {
        assert!(
            guide.contains(&format!("`{setting}`")),
            "neither tuning.md nor diagnosing.md names `{setting}`"
        );
    }
    // The switches of `GREYWAVE` are the arms `"name" => debug.field = on`.
    let switches = names(&builder, "\"", "\" => debug.");
    assert!(switches.contains(&"gctrace"), "{switches:?}");
    for switch in switches {
        assert!(
            guide.contains(&format!("`{switch}`")),
            "neither tuning.md nor diagnosing.md names the switch `{switch}`"
        );
    }
}

#[test]
fn every_event_is_in_the_guide() {
    let source = read(&root().join("src/gc/events.rs"));
    let (_, of_events) = source
        .split_once("pub enum Event {")
        .expect("the events are there");
    let (of_events, _) = of_events.split_once("\n}\n").expect("and have an end");
    let variants: Vec<&str> = of_events
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"))
        .filter(|name| name.chars().all(char::is_alphanumeric))
        .collect();
    assert!(variants.contains(&"CycleEnd"), "{variants:?}");
    let guide = guide("diagnosing.md");
    for variant in variants {
        assert!(
            guide.contains(variant),
            "diagnosing.md does not name Event::{variant}"
        );
    }
}

#[test]
fn pages_are_read_as_they_are_written() {
    let long = "x".repeat(COLUMNS + 1);
    let page = format!("{long}\n| {long}\n```\n{long} `tests/no.rs`\n```\n{long}\n");
    assert_eq!(too_long(&page), [1, 6]);
    let page = "See `src/lib.rs` and `bash .ci/run -x`.\n```\n`src/code.rs`\n```\n`m.src`";
    assert_eq!(named_paths(page), ["src/lib.rs", ".ci/run"]);
    let page = "[a link][a]\n\n[a]: src/lib.rs\n";
    assert_eq!(link_targets(page), ["src/lib.rs"]);
    assert_eq!(
        names(
            "    pub fn gogc(mut self, p: u32)\n",
            "pub fn ",
            "(mut self"
        ),
        ["gogc"]
    );
}

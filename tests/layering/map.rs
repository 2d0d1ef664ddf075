//! `src/README.md` is a map of the code: each file is on it once, and so is each invariant.

use std::collections::{BTreeMap, BTreeSet};

use super::{defined, files, src};

/// The lines of tables between two headings of the page.
pub(super) fn rows<'a>(page: &'a str, heading: &str) -> impl Iterator<Item = Vec<&'a str>> {
    let (_, section) = page
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("src/README.md has no heading {heading:?}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| {
        let row = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(row.split('|').map(str::trim).collect())
    });
    // The first two are the titles and the line below them.
    rows.skip(2)
}

/// What stands in backquotes and is the name of a file or a folder.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.ends_with(".rs") || name.ends_with('/'))
}

/// The files and folders (with a slash) that the codemap names, from `src`. A row whose first cell
/// is a folder in bold begins that folder; if its second cell is not empty, that names the files.
fn mapped(page: &str) -> Vec<String> {
    let mut folder = "";
    let mut found = Vec::new();
    for row in rows(page, "Codemap") {
        let mut cell = row[0];
        if let Some(bold) = cell.strip_prefix("**`") {
            folder = bold.trim_end_matches("`**");
            cell = row[1];
        }
        found.extend(names(cell).map(|name| format!("{folder}{name}")));
    }
    found
}

/// What is wrong with a map of these files.
fn map_offences(page: &str, exist: &BTreeSet<String>) -> Vec<String> {
    let named = mapped(page);
    let mut bad = Vec::new();
    // A `mod.rs` says what its folder is.
    for file in exist.iter().filter(|file| !file.ends_with("mod.rs")) {
        let folders = named
            .iter()
            .filter(|n| n.ends_with('/') && file.starts_with(n.as_str()));
        match named.iter().filter(|n| *n == file).count() + folders.count() {
            0 => bad.push(format!("{file} is not on the map")),
            1 => {}
            n => bad.push(format!("{file} is on the map {n} times")),
        }
    }
    for name in &named {
        let is_there = exist.contains(name)
            || name.ends_with('/') && exist.iter().any(|file| file.starts_with(name.as_str()));
        if !is_there {
            bad.push(format!("{name} is on the map, and nowhere else"));
        }
    }
    bad
}

/// The tags of a cell such as `[A1] [B2] – [B4]`.
fn tags_of(cell: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_range = false;
    for part in cell.split([' ', ',']) {
        if part == "–" {
            is_range = true;
            continue;
        }
        let Some(tag) = part.strip_prefix('[').and_then(|p| p.strip_suffix(']')) else {
            continue;
        };
        let number = |tag: &str| {
            tag[1..]
                .parse::<u32>()
                .expect("a tag is a letter and a number")
        };
        if std::mem::take(&mut is_range) {
            let from = number(found.last().expect("a range has a start")) + 1;
            found.extend((from..number(tag)).map(|n| format!("{}{n}", &tag[..1])));
        }
        found.push(tag.to_owned());
    }
    found
}

/// What is wrong with the table of invariants; `homes` has the file that defines each.
fn tag_offences(page: &str, homes: &BTreeMap<String, String>) -> Vec<String> {
    let mut listed = BTreeMap::<String, Vec<&str>>::new();
    for row in rows(page, "Invariants") {
        for tag in tags_of(row[0]) {
            listed.entry(tag).or_default().push(row[1]);
        }
    }
    let mut bad = Vec::new();
    for (tag, home) in homes {
        match listed.get(tag).map(Vec::as_slice) {
            None => bad.push(format!(
                "[{tag}] of {home} is not in the table of invariants"
            )),
            Some([cell]) if names(cell).any(|name| home.ends_with(name)) => {}
            Some(cells) => bad.push(format!(
                "[{tag}] of {home} stands in the table at {cells:?}"
            )),
        }
    }
    let lost = listed.keys().filter(|tag| !homes.contains_key(*tag));
    bad.extend(lost.map(|tag| format!("[{tag}] is in the table, and in no head")));
    bad
}

pub(super) fn page() -> String {
    std::fs::read_to_string(src().join("README.md")).expect("the map")
}

/// The files of `src` whose names end in `suffix`, each with its text.
pub(super) fn of_src(suffix: &str) -> impl Iterator<Item = (String, String)> {
    files(&src(), suffix).into_iter().map(|(path, text)| {
        let path = path.strip_prefix(src()).expect("it was found there");
        (path.to_string_lossy().replace('\\', "/"), text)
    })
}

#[test]
fn each_file_is_on_the_map_once() {
    let exist = of_src(".rs").map(|(file, _)| file).collect();
    let bad = map_offences(&page(), &exist);
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn each_invariant_is_in_the_table_once() {
    let homes = of_src(".rs").flat_map(|(file, text)| {
        let tags = defined(&text).into_iter();
        tags.map(move |tag| (tag, file.clone()))
    });
    let bad = tag_offences(&page(), &homes.collect());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_hole_in_the_map_is_found() {
    let page = "\n## Codemap\n| file | what |\n|---|---|\n| `lib.rs` | `no.rs` |\n\
                | **`a/`** | |\n| `x.rs`, `y.rs`, `deep/` | |\n| **`b/`** | `z.rs`: it, `gone.rs` |\n\
                \n## Invariants\n| tags | file | about |\n|---|---|---|\n| [A1] – [A3] [B1] | `a/x.rs` | |\n\
                \n## Next\n| `other.rs` | |\n";
    let exist = ["lib.rs", "a/x.rs", "a/deep/x.rs", "a/new.rs", "b/z.rs"];
    let exist = exist.map(str::to_owned).into();
    assert_eq!(
        map_offences(page, &exist),
        [
            "a/new.rs is not on the map",
            "a/y.rs is on the map, and nowhere else",
            "b/gone.rs is on the map, and nowhere else",
        ]
    );
    let homes = [
        ("A1", "a/x.rs"),
        ("A2", "a/x.rs"),
        ("B1", "b/z.rs"),
        ("C1", "b/z.rs"),
    ];
    let homes = homes.map(|(tag, file)| (tag.to_owned(), file.to_owned()));
    assert_eq!(
        tag_offences(page, &homes.into()),
        [
            "[B1] of b/z.rs stands in the table at [\"`a/x.rs`\"]",
            "[C1] of b/z.rs is not in the table of invariants",
            "[A3] is in the table, and in no head",
        ]
    );
}

//! The order inside a room: a file names, and calls, only what is in files before it.

use std::collections::BTreeMap;

use super::{files, src};

/// The files of a room, lowest first; those with nothing but tests come last.
struct Room {
    name: &'static str,
    order: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room {
        name: "sys",
        order: &[
            "inject.rs",
            "sync.rs",
            "fatal.rs",
            "clock.rs",
            "lock.rs",
            "space.rs",
            "mem.rs",
            "blocks.rs",
            "cgroup.rs",
            "quiet.rs",
            "os_thread.rs",
            "sabotage.rs",
            "shadow.rs",
            "thread.rs",
            "thread/sleep.rs",
            "model.rs",
            "random_model.rs",
        ],
    },
    Room {
        name: "base",
        order: &["addr.rs", "crowd.rs", "div.rs", "ptr_buf.rs"],
    },
    Room {
        name: "pace",
        order: &[
            "assist.rs",
            "cons_mark.rs",
            "heap_goal.rs",
            "pi.rs",
            "scavenge.rs",
            "lag.rs",
            "limiter.rs",
            "trigger.rs",
            "pacer.rs",
            "survival.rs",
            "sweep_pace.rs",
            "workers.rs",
            "sim.rs",
            "external_sim.rs",
            "scenarios.rs",
            "outcomes.rs",
            "surprises.rs",
            "properties.rs",
        ],
    },
    Room {
        name: "heap",
        order: &[
            "size_class.rs",
            "bits.rs",
            "span.rs",
            "mcentral.rs",
            "span_class.rs",
            "run.rs",
            "page_cache.rs",
            "pages/chunk.rs",
            "pages/hints.rs",
            "pages.rs",
            "pages/idle.rs",
            "dead.rs",
            "backing.rs",
            "mcache.rs",
            "mheap.rs",
            "mheap/page_map.rs",
            "release.rs",
            "mheap/birth.rs",
            "sweep.rs",
            "mheap/cursors.rs",
            "large.rs",
            "pages/model.rs",
            "pages/tests.rs",
            "mheap/tests.rs",
            "models.rs",
        ],
    },
];

/// Functions that are called like some of std, so a call may be one of those.
const CALLED_AS_IN_STD: &[&str] = &["add", "capacity", "fill", "insert", "remove"];

/// The lines of a file that are neither comments nor its tests at the end, numbered from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|line| !line.ends_with("mod tests {"))
        .map(|line| line.split("//").next().unwrap_or_default())
        .enumerate()
        .map(|(n, line)| (n + 1, line))
}

/// A name at the start of `text`.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The paths in `line`, from the room's root, that begin with `crate::<room>`, `super` or `self`.
/// `module` is the path of the file that has the line.
fn paths(line: &str, room: &str, module: &[&str]) -> Vec<Vec<String>> {
    let parent = &module[..module.len() - 1];
    let bases = [
        (format!("crate::{room}::"), &[][..]),
        ("super::".into(), parent),
        ("self::".into(), module),
    ];
    let mut found = Vec::new();
    for (start, base) in bases {
        for rest in line.split(&start).skip(1) {
            let mut path: Vec<String> = base.iter().map(|&part| part.to_owned()).collect();
            path.extend(rest.split("::").map(|part| name(part).to_owned()));
            found.push(path);
        }
    }
    found
}

/// The place in the order of the file that `path` leads into: the longest part of it that is one.
fn place(order: &[&str], path: &[String]) -> Option<usize> {
    (1..=path.len()).rev().find_map(|len| {
        let file = format!("{}.rs", path[..len].join("/"));
        order.iter().position(|&other| other == file)
    })
}

/// The functions that just one of these files has, each with the file's place.
fn functions(texts: &[(&str, &str)]) -> BTreeMap<String, usize> {
    let mut homes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, (_, text)) in texts.iter().enumerate() {
        for (_, line) in code(text) {
            for rest in line.split("fn ").skip(1) {
                homes.entry(name(rest).to_owned()).or_default().push(at);
            }
        }
    }
    let alone = homes
        .into_iter()
        .filter(|(name, homes)| homes.len() == 1 && !CALLED_AS_IN_STD.contains(&name.as_str()));
    alone.map(|(name, homes)| (name, homes[0])).collect()
}

/// What the files of `room`, by their order, name or call that stands behind them.
fn offences(room: &str, texts: &[(&str, &str)]) -> Vec<String> {
    let order: Vec<&str> = texts.iter().map(|(file, _)| *file).collect();
    let functions = functions(texts);
    let mut bad = Vec::new();
    for (at, (file, text)) in texts.iter().enumerate() {
        let module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
        for (n, line) in code(text) {
            for path in paths(line, room, &module) {
                if place(&order, &path).is_some_and(|there| there > at) {
                    bad.push(format!("{room}/{file}:{n} names {}", path.join("::")));
                }
            }
            let calls = line.split(['.', ':']).skip(1).filter(|rest| {
                let called = name(rest);
                rest[called.len()..].starts_with('(')
            });
            for call in calls.map(name) {
                if functions.get(call).is_some_and(|&there| there > at) {
                    let home = order[functions[call]];
                    bad.push(format!("{room}/{file}:{n} calls `{call}` of {home}"));
                }
            }
        }
    }
    bad
}

#[test]
fn a_file_names_and_calls_only_what_stands_before_it() {
    for room in ROOMS {
        let found = files(&src().join(room.name), ".rs");
        let found: BTreeMap<String, String> = found
            .into_iter()
            .map(|(path, text)| {
                let path = path.strip_prefix(src().join(room.name));
                let path = path.expect("it was found there");
                (path.to_string_lossy().replace('\\', "/"), text)
            })
            .filter(|(file, _)| file != "mod.rs")
            .collect();
        let missing: Vec<&&str> = room
            .order
            .iter()
            .filter(|file| !found.contains_key(**file))
            .collect();
        assert!(
            missing.is_empty(),
            "{}: no such files: {missing:?}",
            room.name
        );
        let strange: Vec<&String> = found
            .keys()
            .filter(|file| !room.order.contains(&file.as_str()))
            .collect();
        assert!(
            strange.is_empty(),
            "{}: {strange:?} have no place in the order of the room (tests/layering/order.rs)",
            room.name
        );
        let texts: Vec<(&str, &str)> = room
            .order
            .iter()
            .map(|&file| (file, found[file].as_str()))
            .collect();
        let bad = offences(room.name, &texts);
        assert!(
            bad.is_empty(),
            "what stands behind them:\n{}",
            bad.join("\n")
        );
    }
}

#[test]
fn a_name_and_a_call_that_point_up_are_found() {
    let low = "use crate::heap::low::Low;\nfn below() {}\n";
    let high = "use super::low::{Low};\nuse self::part::Part;\nfn above() { x.below() }\n";
    let part = "use super::High;\nfn within() { Low::below() }\n";
    let order = [("low.rs", low), ("high/part.rs", part), ("high.rs", high)];
    assert_eq!(
        offences("heap", &order),
        ["heap/high/part.rs:1 names high::High"]
    );
    let order = [("high.rs", high), ("high/part.rs", part), ("low.rs", low)];
    assert_eq!(
        offences("heap", &order),
        [
            "heap/high.rs:1 names low::",
            "heap/high.rs:2 names high::part::Part",
            "heap/high.rs:3 calls `below` of low.rs",
            "heap/high/part.rs:2 calls `below` of low.rs",
        ]
    );
    let tests = [
        ("a.rs", "mod tests {\n use super::b::B; // super::b\n}"),
        ("b.rs", ""),
    ];
    assert_eq!(offences("heap", &tests), [""; 0]);
}

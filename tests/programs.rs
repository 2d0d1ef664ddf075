//! The example programs do what they say, on the small inputs of `tests/data`. The readers of the
//! two recorded formats say what is wrong with a broken input, and where.

#![cfg(feature = "sched")]
#![allow(
    clippy::duplicate_mod,
    reason = "each program brings its own copy of examples/common"
)]

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use greywave::Heap;

#[path = "../examples/common/mod.rs"]
mod common;

#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/binary_trees.rs"]
mod binary_trees;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/gcbench.rs"]
mod gcbench;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/heap_graph.rs"]
mod heap_graph;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/make_samples.rs"]
mod make_samples;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/malloc_replay.rs"]
mod malloc_replay;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/pace.rs"]
mod pace;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/server.rs"]
mod server;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/tour.rs"]
mod tour;

use common::args::Args;
use common::decode::{self, DecodeError, Problem};
use common::hg::Graph;
use common::mt::{self, Event, Events};
use common::report::{Bytes, Nanos};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A file of this test's own.
fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("the directory for tests is writable");
    path
}

/// The heaps that a program must run on.
fn heaps() -> [Heap; 3] {
    let build = |builder: greywave::HeapBuilder| builder.build().expect("a valid configuration");
    [
        build(Heap::builder()),
        build(Heap::builder().stress(true)),
        build(Heap::builder().verify(true).poison(true)),
    ]
}

mod programs {
    use super::{
        Bytes, Duration, Graph, Heap, Nanos, binary_trees, data, gcbench, heap_graph, heaps,
        malloc_replay, mt, scratch, server, tour,
    };
    use crate::common::mt::Event;

    #[test]
    fn binary_trees_counts_every_node() {
        for heap in heaps() {
            let lines = binary_trees::run(&heap, 8, 2).expect("it runs");
            let expected = [
                "stretch tree of depth 9\t check: 1023",
                "256\t trees of depth 4\t check: 7936",
                "64\t trees of depth 6\t check: 8128",
                "16\t trees of depth 8\t check: 8176",
                "long lived tree of depth 8\t check: 511",
            ];
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn binary_trees_larger_than_its_parts() {
        let lines = binary_trees::run(&Heap::new(), 12, 3).expect("it runs");
        let expected = [
            "stretch tree of depth 13\t check: 16383",
            "4096\t trees of depth 4\t check: 126976",
            "1024\t trees of depth 6\t check: 130048",
            "256\t trees of depth 8\t check: 130816",
            "64\t trees of depth 10\t check: 131008",
            "16\t trees of depth 12\t check: 131056",
            "long lived tree of depth 12\t check: 8191",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn gcbench_finishes_with_its_data_intact() {
        for heap in heaps() {
            let mut lines = Vec::new();
            gcbench::run(&heap, 8, |line| lines.push(line.to_owned())).expect("it runs");
            // Three lines at the start, three for each of the depths 4, 6 and 8, the time.
            assert_eq!(lines.len(), 13, "{lines:?}");
        }
    }

    #[test]
    fn heap_graph_agrees_with_its_model() {
        for heap in heaps() {
            let graph = heap_graph::load(&data("sample.hg.zst")).expect("the sample is whole");
            let options = heap_graph::Options {
                cycles: 20,
                seed: 1,
            };
            let report = heap_graph::run(&heap, graph, options).expect("the heap is the graph");
            assert_eq!(report.objects, 600);
            assert!(report.span_bytes >= report.payload_bytes);
            assert!(report.stats.cycles >= 40);
        }
    }

    #[test]
    fn heap_graph_of_a_lone_root() {
        for size in [0, 1, 8, 40_000] {
            let graph = Graph::from_objects(&[(size, Vec::new())]).encode();
            let path = scratch(&format!("lone-{size}.hg"), &graph);
            let graph = heap_graph::load(&path).expect("a root alone is a graph");
            let options = heap_graph::Options { cycles: 3, seed: 1 };
            let report = heap_graph::run(&Heap::new(), graph, options).expect("it runs");
            assert_eq!((report.objects, report.edges, report.changes), (1, 0, 0));
        }
    }

    #[test]
    fn heap_graph_names_the_file() {
        let path = scratch("not-a-graph.hg", b"HG2\0");
        let error = heap_graph::load(&path).expect_err("another magic number");
        assert!(error.contains("not-a-graph.hg: at byte 0"), "{error}");
        let error = heap_graph::load(&data("absent.hg")).expect_err("no such file");
        assert!(error.contains("absent.hg"), "{error}");
    }

    #[test]
    fn malloc_replay_leaves_what_the_trace_left() {
        for heap in heaps() {
            for poll in [1, 256] {
                let files = vec![data("sample.mt.zst"), data("sample.mt.zst")];
                let outcome = malloc_replay::run(&heap, files, poll).expect("nothing is lost");
                let [(_, one), (_, two)] = outcome.traces.as_slice() else {
                    panic!("two traces were replayed")
                };
                assert_eq!((one.events, two.events), (6_000, 6_000));
                assert_eq!(one.left_bytes, two.left_bytes);
                assert!(one.left_objects > 0 && one.peak_bytes > one.left_bytes);
                assert!(outcome.live_bytes >= 2 * one.left_bytes);
            }
        }
    }

    #[test]
    fn malloc_replay_of_nothing() {
        let files = vec![scratch("empty.mt", b"")];
        let outcome = malloc_replay::run(&Heap::new(), files, 1).expect("no events, no fault");
        assert_eq!(outcome.traces[0].1.events, 0);
    }

    #[test]
    fn malloc_replay_names_the_file_and_the_offset() {
        let twice = mt::encode([
            Event::Alloc { size: 100 },
            Event::Free { object: 0 },
            Event::Free { object: 0 },
        ]);
        // 200 takes two bytes, each free one.
        let path = scratch("twice.mt", &twice);
        let error = malloc_replay::run(&Heap::new(), vec![path], 256).expect_err("freed twice");
        assert!(
            error.ends_with("twice.mt: at byte 3 of the decoded input: object 0 is freed twice")
        );
        let error = malloc_replay::run(&Heap::new(), vec![data("absent.mt")], 256);
        assert!(error.expect_err("no such file").contains("absent.mt"));
    }

    #[test]
    fn malloc_replay_says_when_there_is_no_room() {
        let path = scratch("huge.mt", &mt::encode([Event::Alloc { size: 1 << 60 }]));
        let error = malloc_replay::run(&Heap::new(), vec![path], 256).expect_err("an exbibyte");
        assert!(error.contains("1152921504606846976 bytes"), "{error}");
    }

    #[test]
    fn tour_keeps_its_document_whole() {
        for heap in heaps() {
            let time = Duration::from_millis(300);
            for gs in [0, 50] {
                let options = tour::Options {
                    threads: 3,
                    gs,
                    time,
                    paragraphs: 3_000,
                    seed: 1,
                };
                let mut lines = 0;
                let report =
                    tour::run(&heap, options, |_| lines += 1).expect("the document is whole");
                assert!(report.times.edits.count() > 0 && report.paragraphs > 0);
                assert_eq!(report.times.turns.count() > 0, gs > 0);
                assert!(report.time >= time);
                assert!(
                    lines >= 2,
                    "one after writing, one for each second, and one at the end of a part of one"
                );
            }
        }
    }

    #[test]
    fn server_answers_what_its_other_side_expects() {
        for heap in heaps() {
            for rate in [0, 2_000] {
                let load = server::Load {
                    connections: 20,
                    time: Duration::from_millis(300),
                    rate,
                    procs: Some(2),
                };
                // Another heap and another runtime, as in the process that the program starts.
                let send = move |at| {
                    let outcome = server::send(&Heap::new(), at, load);
                    let outcome = outcome.map_err(|error| error.to_string())?;
                    Ok(outcome.latency.count())
                };
                let answered = server::self_test(&heap, load, send).expect("both agree");
                assert!(answered > 20, "{answered} requests");
            }
        }
    }

    #[test]
    fn figures_are_shown_in_a_unit_of_their_size() {
        let shown = [0, 1023, 1024, 1 << 20, 3 << 29].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.50 GiB"]);
        let shown = [999, 1_500, 2_000_000, 3_000_000_000].map(|ns| Nanos(ns).to_string());
        assert_eq!(shown, ["999 ns", "1.5 µs", "2.00 ms", "3.00 s"]);
        assert_eq!(
            format!("{:>8}|{:<6}|", Bytes(7), Nanos(5)),
            "     7 B|5 ns  |"
        );
    }
}

mod samples {
    use super::{Event, Events, Graph, Read, data, decode, make_samples};

    #[test]
    fn are_what_make_samples_writes() {
        let samples = [
            ("sample.mt.zst", make_samples::trace()),
            ("sample.hg.zst", make_samples::graph()),
        ];
        for (name, expected) in samples {
            let mut bytes = Vec::new();
            let mut input = decode::open(&data(name)).expect("the sample is there");
            input
                .read_to_end(&mut bytes)
                .expect("the sample can be unpacked");
            assert!(
                bytes == expected,
                "{name} is out of date: run the example make_samples"
            );
        }
    }

    #[test]
    fn have_what_is_worth_testing() {
        let trace = make_samples::trace();
        let events: Vec<_> = Events::new(trace.as_slice())
            .collect::<Result<_, _>>()
            .expect("whole");
        let has = |wanted: usize| {
            events
                .iter()
                .any(|it| matches!(it, Event::Alloc { size } if *size == wanted))
        };
        assert!([0, 1, 17, 4096, 100_000].into_iter().all(has));
        assert!(
            events
                .iter()
                .filter(|it| matches!(it, Event::Free { .. }))
                .count()
                > 2_000
        );

        let graph = Graph::read(make_samples::graph().as_slice()).expect("whole");
        assert!((0..graph.objects()).any(|it| graph.degree(it) >= 5_000));
        assert!((0..graph.objects()).any(|it| graph.size(it) == 0 && graph.degree(it) == 0));
        assert!((0..graph.objects()).any(|it| graph.edges_of(it).contains(&(it as u32))));
    }
}

/// Programs that outrun the collector keep to their bounds. Bytes are counted, whatever the machine
/// does meanwhile.
mod bounds {
    use super::pace::bounds::{Amount, PROGRAMS, Verdict};

    const MIB: u64 = 1 << 20;

    fn run(name: &str) -> Vec<Verdict> {
        let amount = Amount {
            bytes: 96 * MIB,
            polls: 8,
        };
        let program = PROGRAMS.iter().find(|(known, _)| *known == name);
        let (_, program) = program.expect("there is such a program");
        let verdicts = program(amount).expect("it runs");
        for verdict in &verdicts {
            assert!(verdict.is_ok(), "{verdict}");
        }
        verdicts
    }

    #[test]
    fn what_objects_own_outside_the_heap_is_within_bounds() {
        let [verdict] = &run("external")[..] else {
            panic!("one verdict")
        };
        // 6 MiB live, and what comes while marking runs.
        assert!(verdict.goal <= 24 * MIB, "{verdict}");
        assert!(verdict.cycles >= 4, "{verdict}");
    }

    #[test]
    fn threads_of_garbage_are_within_bounds() {
        let verdicts = run("garbage");
        assert_eq!(verdicts.len(), 4);
        for verdict in verdicts {
            // Nothing lives but what comes while marking runs.
            assert!(verdict.goal <= 24 * MIB, "{verdict}");
            assert!(verdict.cycles >= 4, "{verdict}");
        }
    }

    #[test]
    fn garbage_beside_a_late_neighbour_is_within_bounds() {
        let verdicts = run("neighbour");
        assert!(verdicts.iter().all(|v| v.goal <= 24 * MIB), "{verdicts:?}");
    }

    #[test]
    fn garbage_is_within_limits_and_never_out_of_memory() {
        assert_eq!(run("limits").len(), 4);
    }
}

mod traces {
    use super::{DecodeError, Event, Events, Problem, data, decode, io, mt, scratch};

    /// What a trace is decoded to, and the error that ends it.
    fn decoded(bytes: &[u8]) -> (Vec<Event>, Option<DecodeError>) {
        let mut events = Events::new(bytes);
        let mut read = Vec::new();
        loop {
            match events.next() {
                Some(Ok(event)) => read.push(event),
                Some(Err(error)) => {
                    assert!(events.next().is_none(), "nothing comes after an error");
                    return (read, Some(error));
                }
                None => return (read, None),
            }
        }
    }

    #[test]
    fn round_trip() {
        let events = vec![
            Event::Alloc { size: 0 },
            Event::Alloc { size: 63 },
            Event::Alloc { size: 64 },
            Event::Free { object: 1 },
            Event::Alloc {
                size: isize::MAX as usize,
            },
            Event::Free { object: 0 },
            Event::Free { object: 3 },
        ];
        let (read, error) = decoded(&mt::encode(events.iter().copied()));
        assert!(error.is_none());
        assert_eq!(read, events);
    }

    #[test]
    fn a_long_trace_is_read_piece_by_piece() {
        // More than one buffer, so numbers lie across its end.
        let events = (0..40_000).map(|size| Event::Alloc { size });
        let (read, error) = decoded(&mt::encode(events.clone()));
        assert!(error.is_none());
        assert!(read.into_iter().eq(events));
    }

    #[test]
    fn an_end_inside_a_number() {
        let (read, error) = decoded(&[0x10, 0x80, 0x80]);
        let error = error.expect("the last byte says that one more follows");
        assert_eq!((read.len(), error.offset), (1, 3));
        assert!(matches!(error.problem, Problem::Truncated("a number")));
    }

    #[test]
    fn a_number_that_does_not_fit() {
        let eleven_bytes = [
            0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01,
        ];
        let bit_64 = [
            0x00, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02,
        ];
        for (bytes, offset) in [(eleven_bytes, 0), (bit_64, 1)] {
            let (_, error) = decoded(&bytes);
            let error = error.expect("it does not fit 64 bits");
            assert_eq!(error.offset, offset);
            assert!(matches!(error.problem, Problem::VarintTooLong));
        }
    }

    #[test]
    fn the_largest_size_there_is() {
        // 2^64 - 2, of which the lowest bit is no part of the size.
        let most = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        let (read, error) = decoded(&most);
        assert!(
            error.is_none()
                && read
                    == [Event::Alloc {
                        size: isize::MAX as usize
                    }]
        );
    }

    #[test]
    fn a_free_of_what_was_never_allocated() {
        // Two allocations, then a free of the third one back, or of the one to come.
        for (free, back) in [(3 << 1 | 1, 3), (1, 0)] {
            let (read, error) = decoded(&[0x10, 0x10, free]);
            let error = error.expect("there is no such object");
            assert_eq!((read.len(), error.offset), (2, 2));
            let Problem::FreeOfUnknown {
                back: found,
                allocated: 2,
            } = error.problem
            else {
                panic!("{error}")
            };
            assert_eq!(found, back);
        }
    }

    #[test]
    fn a_broken_packing() {
        let packed = std::fs::read(data("sample.mt.zst")).expect("the sample is there");
        let mut flipped = packed.clone();
        flipped[packed.len() / 2] ^= 0x55;
        let mut followed = packed.clone();
        followed.extend(b"garbage");
        let cases = [
            ("cut.mt.zst", &packed[..packed.len() / 2]),
            ("flipped.mt.zst", &flipped),
            ("followed.mt.zst", &followed),
            ("plain.mt.zst", b"\x10\x10\x03"),
        ];
        for (name, bytes) in cases {
            let input = decode::open(&scratch(name, bytes)).expect("it can be opened");
            let error = Events::new(input).find_map(Result::err);
            let error = error.unwrap_or_else(|| panic!("{name} was read to its end"));
            let text = error.to_string();
            assert!(text.starts_with("at byte "), "{text}");
            if name != "flipped.mt.zst" {
                assert!(matches!(error.problem, Problem::Io(_)), "{name}: {error}");
            }
        }
    }

    #[test]
    fn an_input_that_fails_says_why() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the cable"))
            }
        }
        let error = Events::new(Broken).find_map(Result::err).expect("it fails");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!((error.offset, cause.as_deref()), (0, Some("the cable")));
    }
}

mod graphs {
    use super::{DecodeError, Graph, Problem};

    /// Three objects in a ring, and an edge from the root to itself.
    fn ring() -> Graph {
        Graph::from_objects(&[(24, vec![1, 0]), (0, vec![2]), (100, vec![0])])
    }

    const SIZES: usize = 12;
    const DEGREES: usize = SIZES + 3 * 4;
    const TARGETS: usize = DEGREES + 3 * 4;
    const END: usize = TARGETS + 4 * 4;

    /// The ring with `word` at a place of the file.
    fn with(at: usize, word: u32) -> Vec<u8> {
        let mut bytes = ring().encode();
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        bytes
    }

    fn error_of(bytes: &[u8]) -> DecodeError {
        Graph::read(bytes).expect_err("the graph is broken")
    }

    #[test]
    fn round_trip() {
        let graph = Graph::read(ring().encode().as_slice()).expect("it is whole");
        assert_eq!(graph, ring());
        assert_eq!((graph.objects(), graph.edges()), (3, 4));
        assert_eq!(graph.edges_of(0), [1, 0]);
        assert_eq!((graph.degree(2), graph.size(2)), (1, 100));
        assert_eq!(graph.payload_bytes(), 24 + 8 + 100);
    }

    #[test]
    fn an_end_too_early() {
        let bytes = ring().encode();
        assert_eq!(bytes.len(), END);
        for end in 0..END {
            let error = error_of(&bytes[..end]);
            let expected = match end {
                0..SIZES => "the header",
                SIZES..DEGREES => "the sizes",
                DEGREES..TARGETS => "the degrees",
                _ => "the targets",
            };
            assert_eq!(error.offset, end as u64);
            assert!(matches!(error.problem, Problem::Truncated(what) if what == expected));
        }
    }

    #[test]
    fn another_magic_number() {
        let error = error_of(&with(0, u32::from_le_bytes(*b"HG2\0")));
        assert!(
            error.offset == 0 && matches!(&error.problem, Problem::Magic(it) if it == b"HG2\0")
        );
        assert!(error.to_string().ends_with("not \"HG2\\x00\""), "{error}");
    }

    #[test]
    fn a_graph_without_a_root() {
        let error = error_of(&with(4, 0));
        assert!(error.offset == 4 && matches!(error.problem, Problem::NoRoot));
    }

    #[test]
    fn a_header_that_promises_too_much() {
        // It must not ask for the memory before the words are there.
        let error = error_of(&with(4, u32::MAX));
        assert!(
            error.offset == END as u64 && matches!(error.problem, Problem::Truncated("the sizes"))
        );
    }

    #[test]
    fn degrees_that_do_not_add_up() {
        for degree in [0, 3, u32::MAX] {
            let error = error_of(&with(DEGREES, degree));
            let expected = u64::from(degree) + 2;
            assert_eq!(error.offset, DEGREES as u64);
            assert!(
                matches!(error.problem, Problem::DegreeSum { sum, edges: 4 } if sum == expected)
            );
        }
    }

    #[test]
    fn an_edge_to_nowhere() {
        let error = error_of(&with(TARGETS + 8, 3));
        assert_eq!(error.offset, TARGETS as u64 + 8);
        assert!(matches!(
            error.problem,
            Problem::Target {
                target: 3,
                objects: 3
            }
        ));
    }

    #[test]
    fn an_object_that_nothing_leads_to() {
        let error = error_of(&with(TARGETS + 8, 0));
        assert_eq!(error.offset, SIZES as u64 + 8);
        assert!(matches!(error.problem, Problem::Unreachable { object: 2 }));
    }

    #[test]
    fn bytes_after_the_end() {
        let mut bytes = ring().encode();
        bytes.push(0);
        let error = error_of(&bytes);
        assert!(error.offset == END as u64 && matches!(error.problem, Problem::Trailing));
    }
}

mod arguments {
    use super::Args;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split(' ').filter(|it| !it.is_empty()).map(Into::into))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn options_and_words() {
        let mut args = parse("one --depth 7 --threads=2 -- --two").expect("it can be read");
        assert_eq!(args.number("--depth", 1, 0..=9).expect("in range"), 7);
        assert_eq!(args.number("--threads", 1, 0..=9).expect("in range"), 2);
        assert_eq!(args.number("--absent", 5, 0..=9).expect("the default"), 5);
        assert_eq!(args.words(1..=2).expect("two words"), ["one", "--two"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            parse("--depth").expect_err("no value"),
            "--depth needs a value"
        );
        for (line, value) in [("--depth 10", "10"), ("--depth -1", "-1"), ("--depth=", "")] {
            let mut args = parse(line).expect("it can be read");
            let error = args
                .number("--depth", 1_u32, 0..=9)
                .expect_err("out of range");
            let expected = format!("--depth: '{value}' is not a number from 0 to 9");
            assert_eq!(error.to_string(), expected);
        }
        let words = |line: &str| parse(line).expect("it can be read").words(1..=1);
        let error = |line: &str| words(line).expect_err("refused").to_string();
        assert_eq!(error("one two"), "'two' is one argument too many");
        assert_eq!(error(""), "an argument is missing");
        assert_eq!(
            error("one --dept 3"),
            "--dept is not an option, or is given twice"
        );
    }
}

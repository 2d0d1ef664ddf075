//! How a runtime is made: what is refused, what the environment sets, and what is refused outside a
//! runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greywave::{Heap, Runtime, go, go_named, sleep, with, yield_now};

use crate::common::{LONG, on, runtime};
use crate::support::{child, is_child, text, within};

/// The message of the panic in `f`.
fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let heap = Heap::new();
    let refused = |procs, threads| {
        let builder = Runtime::builder(&heap).procs(procs).max_threads(threads);
        builder.build().expect_err("out of range").to_string()
    };
    assert_eq!(refused(0, 10), "procs is \"0\"; allowed: 1 to 4096");
    assert_eq!(
        refused(4097, 10_000),
        "procs is \"4097\"; allowed: 1 to 4096"
    );
    for threads in [0, 1, 2] {
        assert_eq!(
            refused(2, threads),
            format!("max_threads is \"{threads}\"; allowed: more than the number of procs")
        );
    }
    let least = Runtime::builder(&heap).procs(2).max_threads(3);
    let rt = within(LONG, || least.build().expect("just enough"));
    assert_eq!(rt.block_on(async { 7 }).expect("no deadlock"), 7);
}

#[test]
fn the_environment_says_how_many_procs_unless_a_call_does() {
    if is_child("procs") {
        let heap = Heap::builder().workers(1).build().expect("not read");
        println!("two: {:?}", Runtime::builder(&heap).procs(2).build());
        match Runtime::builder(&heap).build() {
            Ok(rt) => println!("built: {rt:?}"),
            Err(error) => println!("error: {error}"),
        }
        return;
    }
    let run = |value| {
        let test = "settings::the_environment_says_how_many_procs_unless_a_call_does";
        text(&child(test, "procs", &[("GOMAXPROCS", value)]))
    };
    for (value, told) in [
        ("3", "built: Runtime { procs: 3, .. }"),
        ("1", "built: Runtime { procs: 1, .. }"),
        (
            "0",
            "error: GOMAXPROCS is \"0\"; allowed: a number from 1 to 4096",
        ),
        ("4097", "error: GOMAXPROCS is \"4097\"; allowed:"),
        ("many", "error: GOMAXPROCS is \"many\"; allowed:"),
    ] {
        let text = run(value);
        assert!(text.contains(told), "{value}: {text}");
        assert!(
            text.contains("two: Ok(Runtime { procs: 2, .. })"),
            "{value}: {text}"
        );
    }
}

#[test]
fn the_environment_asks_for_a_line_of_the_schedulers() {
    if is_child("line") {
        match Runtime::builder(&Heap::builder().build().expect("a heap"))
            .procs(2)
            .build()
        {
            Ok(rt) => rt
                .block_on(sleep(Duration::from_millis(200)))
                .expect("no deadlock"),
            Err(error) => println!("error: {error}"),
        }
        return;
    }
    let run = |value| {
        let test = "settings::the_environment_asks_for_a_line_of_the_schedulers";
        text(&child(test, "line", &[("GREYWAVE", value)]))
    };
    let text = run("schedtrace=1");
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("SCHED ")).collect();
    assert!(lines.len() > 1, "{text}");
    for line in lines {
        assert!(line.contains("ms: gomaxprocs=2 idleprocs="), "{line}");
    }
    for off in ["schedtrace=0", "poison=0"] {
        let text = run(off);
        assert!(
            !text.contains("SCHED ") && text.contains("1 passed"),
            "{text}"
        );
    }
}

#[test]
fn what_needs_a_g_says_so_outside_of_one() {
    let text = panic_of(|| drop(go(async {})));
    assert!(
        text.starts_with("go was called outside a runtime, at tests/sched/settings.rs:"),
        "{text}"
    );
    assert!(text.ends_with(": use Runtime::go"), "{text}");
    let text = panic_of(|| drop(go_named("nobody", async {})));
    assert!(
        text.starts_with("go was called outside a runtime"),
        "{text}"
    );
    assert_eq!(panic_of(|| with(|_| ())), "`with` was called outside a G");
    let heap = Heap::new();
    let _m = heap.attach().expect("attached");
    let text = panic_of(|| with(|_| ()));
    assert!(
        text.starts_with("`with` inside a section, or on a thread with a mutator"),
        "{text}"
    );
    let rt = on(&heap, 1);
    let text = panic_of(|| drop(rt.block_on(async {})));
    assert!(
        text.starts_with("block_on was called by a running mutator"),
        "{text}"
    );
}

#[test]
fn a_section_in_a_section_and_block_on_in_a_g_are_refused() {
    within(LONG, || {
        let rt = runtime(1);
        let texts = Arc::new(Mutex::new(Vec::new()));
        let main = async {
            let told = panic_of(|| with(|_| with(|_| ())));
            texts.lock().expect("no panic").push(told);
            // The section that the panic went through has ended.
            assert_eq!(with(|m| *m.alloc(3)), 3);
            let told = panic_of(|| drop(rt.block_on(async {})));
            texts.lock().expect("no panic").push(told);
            yield_now().await;
        };
        rt.block_on(main).expect("no deadlock");
        let texts = texts.lock().expect("no panic");
        assert!(texts[0].starts_with("`with` inside a section"), "{texts:?}");
        assert!(
            texts[1].starts_with("block_on was called in a G"),
            "{texts:?}"
        );
    });
}

#[test]
fn a_runtime_knows_its_heap_and_counts_its_gs() {
    within(LONG, || {
        let heap = Heap::new();
        let rt = on(&heap, 3);
        assert_eq!(format!("{rt:?}"), "Runtime { procs: 3, .. }");
        rt.heap().collect();
        assert_eq!(heap.stats().cycles, 1, "the same heap");
        assert!(rt.is_empty());
        let gs: Vec<_> = (0..10).map(|_| rt.go(sleep(LONG))).collect();
        let mut stats = rt.stats();
        while stats.waiting < gs.len() {
            std::thread::yield_now();
            stats = rt.stats();
        }
        assert_eq!((stats.procs, stats.gs, rt.len()), (3, 10, 10));
        assert!(stats.polls >= 10, "{stats:?}");
        gs.iter().for_each(|g| g.abort());
        while !rt.is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(rt.stats().waiting, 0);
    });
}

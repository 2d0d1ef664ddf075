//! The variance of each public type in its parameters, and its auto traits: there is one table for
//! each, and each public type has a row.
//!
//! `tests/ui/fail/sched/variance.rs`, which is made from the same table, contains what must not
//! compile.

#![cfg(feature = "sched")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use greywave::__private::{Brand, Counting};
use greywave::*;

#[path = "variance/covariant.rs"]
#[expect(
    dead_code,
    single_use_lifetimes,
    reason = "that it compiles is the test"
)]
mod covariant;

/// Type and parameter; how it varies; a name for functions; a type that has `'x` in that parameter,
/// and `'f`, which is shorter than all others, wherever else it needs a lifetime. A type parameter
/// that chooses a layout or a kind is invariant, and so is what something can be stored through.
/// The rest varies as the values inside do.
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("Gc 'gc", "covariant", "gc_brand", "Gc<'x, u8>"),
    ("Gc T", "covariant", "gc_target", "Gc<'x, &'x u8>"),
    ("Weak 'gc", "covariant", "weak_brand", "Weak<'x, u8>"),
    ("Weak T", "covariant", "weak_target", "Weak<'x, &'x u8>"),
    ("GcCell 'gc", "invariant", "cell_brand", "GcCell<'x, u8>"),
    (
        "GcCell T",
        "invariant",
        "cell_target",
        "GcCell<'f, Gc<'x, u8>>",
    ),
    (
        "GcOnce 'gc",
        "invariant",
        "once_cell_brand",
        "GcOnce<'x, u8>",
    ),
    (
        "GcOnce T",
        "invariant",
        "once_cell_target",
        "GcOnce<'f, Gc<'x, u8>>",
    ),
    (
        "GcLock T",
        "invariant",
        "lock_content",
        "GcLock<Gc<'x, u8>>",
    ),
    (
        "ReadGuard 'a",
        "covariant",
        "read_guard_borrow",
        "ReadGuard<'x, u8>",
    ),
    (
        "ReadGuard T",
        "invariant",
        "read_guard_content",
        "ReadGuard<'f, Gc<'x, u8>>",
    ),
    (
        "WriteGuard 'a",
        "covariant",
        "write_guard_borrow",
        "WriteGuard<'x, 'f, u8>",
    ),
    (
        "WriteGuard 'm",
        "covariant",
        "write_guard_mutator",
        "WriteGuard<'f, 'x, u8>",
    ),
    (
        "WriteGuard T",
        "invariant",
        "write_guard_content",
        "WriteGuard<'f, 'f, Gc<'x, u8>>",
    ),
    (
        "GcArray H",
        "covariant",
        "array_header",
        "Gc<'x, GcArray<&'x u8, u8>>",
    ),
    (
        "GcArray T",
        "covariant",
        "array_item",
        "Gc<'x, GcArray<u8, &'x u8>>",
    ),
    ("Root T", "covariant", "root_target", "Root<&'x u8>"),
    (
        "WeakRoot T",
        "covariant",
        "weak_root_target",
        "WeakRoot<&'x u8>",
    ),
    ("Word 'gc", "invariant", "word_brand", "Word<'x, u8>"),
    ("Word K", "invariant", "word_kinds", "Word<'f, &'x u8>"),
    ("GcWord 'gc", "invariant", "gc_word_brand", "GcWord<'x, u8>"),
    (
        "GcWord K",
        "invariant",
        "gc_word_kinds",
        "GcWord<'f, &'x u8>",
    ),
    (
        "AllocError T",
        "covariant",
        "alloc_error_value",
        "AllocError<&'x u8>",
    ),
    ("Frame T", "covariant", "frame_content", "Frame<&'x u8>"),
    (
        "FrameGuard 'f",
        "covariant",
        "frame_guard_borrow",
        "FrameGuard<'x, 'f, u8>",
    ),
    (
        "FrameGuard 'm",
        "invariant",
        "frame_guard_mutator",
        "FrameGuard<'f, 'x, u8>",
    ),
    (
        "FrameGuard T",
        "invariant",
        "frame_guard_content",
        "FrameGuard<'f, 'f, Gc<'x, u8>>",
    ),
    ("Tracer 'a", "invariant", "tracer_life", "Tracer<'x>"),
    ("Brand 'b", "invariant", "brand_life", "Brand<'x>"),
    ("Counting 'a", "covariant", "counting_life", "Counting<'x>"),
    ("GcChan 'gc", "invariant", "gc_chan_brand", "GcChan<'x, u8>"),
    (
        "GcChan T",
        "invariant",
        "gc_chan_item",
        "GcChan<'f, Gc<'x, u8>>",
    ),
    (
        "JoinHandle T",
        "covariant",
        "join_handle_output",
        "JoinHandle<&'x u8>",
    ),
    ("Mutex T", "invariant", "mutex_content", "Mutex<&'x u8>"),
    (
        "MutexGuard 'a",
        "covariant",
        "mutex_guard_borrow",
        "MutexGuard<'x, u8>",
    ),
    (
        "MutexGuard T",
        "invariant",
        "mutex_guard_content",
        "MutexGuard<'f, &'x u8>",
    ),
    ("RwLock T", "invariant", "rw_lock_content", "RwLock<&'x u8>"),
    (
        "RwLockReadGuard 'a",
        "covariant",
        "rw_read_guard_borrow",
        "RwLockReadGuard<'x, u8>",
    ),
    (
        "RwLockReadGuard T",
        "invariant",
        "rw_read_guard_content",
        "RwLockReadGuard<'f, &'x u8>",
    ),
    (
        "RwLockWriteGuard 'a",
        "covariant",
        "rw_write_guard_borrow",
        "RwLockWriteGuard<'x, u8>",
    ),
    (
        "RwLockWriteGuard T",
        "invariant",
        "rw_write_guard_content",
        "RwLockWriteGuard<'f, &'x u8>",
    ),
    ("Once T", "invariant", "once_value", "Once<&'x u8>"),
    ("Sender T", "invariant", "sender_value", "Sender<&'x u8>"),
    (
        "Receiver T",
        "invariant",
        "receiver_value",
        "Receiver<&'x u8>",
    ),
    ("Send 'a", "covariant", "send_borrow", "chan::Send<'x, u8>"),
    (
        "Send T",
        "invariant",
        "send_value",
        "chan::Send<'f, &'x u8>",
    ),
    ("Recv 'a", "covariant", "recv_borrow", "chan::Recv<'x, u8>"),
    (
        "Recv T",
        "invariant",
        "recv_value",
        "chan::Recv<'f, &'x u8>",
    ),
    (
        "SendError T",
        "covariant",
        "send_error_value",
        "chan::SendError<&'x u8>",
    ),
    (
        "TrySendError T",
        "covariant",
        "try_send_error_value",
        "chan::TrySendError<&'x u8>",
    ),
    (
        "Timeout F",
        "covariant",
        "timeout_future",
        "Timeout<&'x u8>",
    ),
    (
        "Blocking F",
        "covariant",
        "blocking_call",
        "Blocking<&'x u8, u8>",
    ),
    (
        "Blocking R",
        "covariant",
        "blocking_result",
        "Blocking<u8, &'x u8>",
    ),
];

/// Hidden types that `select!` makes and consumes in one expression: nobody can name one of another
/// lifetime.
const MADE_BY_A_MACRO: &[&str] = &[
    "Chooser",
    "RecvCase",
    "SendCase",
    "FutureCase",
    "Choice",
    "Select",
    "SelectNow",
    "Enqueued",
    "Never",
];

/// Content that must be `'static`, so that no lifetime in it can change.
const ALWAYS_STATIC: &[&str] = &["Pool T"];

/// Every `pub struct` and `pub enum` of the library, with its parameters. (The lint
/// `unreachable_pub` sees to it that these are the public types.)
fn public_types() -> Vec<(String, Vec<String>)> {
    fn walk(at: &Path, found: &mut Vec<(String, Vec<String>)>) {
        for entry in fs::read_dir(at).expect("the source tree can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            if path.extension().is_none_or(|end| end != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            found.extend(text.lines().filter_map(declared));
        }
    }
    let mut found = Vec::new();
    for layer in ["object", "gc", "sched", "api"] {
        walk(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("src")
                .join(layer),
            &mut found,
        );
    }
    found
}

/// The name and the parameters of the type that `line` declares to be public.
fn declared(line: &str) -> Option<(String, Vec<String>)> {
    let rest = ["pub struct ", "pub enum ", "pub union "];
    let rest = rest
        .iter()
        .find_map(|start| line.trim_start().strip_prefix(start))?;
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let params = rest.strip_prefix('<').map_or(String::new(), |rest| {
        let mut depth = 1;
        let inside = rest.chars().take_while(|c| {
            depth += i32::from(*c == '<') - i32::from(*c == '>');
            depth > 0
        });
        inside.collect()
    });
    let mut depth = 0;
    let params = params.split(|c: char| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        c == ',' && depth == 0
    });
    let params = params.map(|param| param.split(':').next().unwrap_or("").trim().to_owned());
    let params = params.filter(|param| !param.is_empty() && !param.starts_with("const "));
    Some((name.to_owned(), params.collect()))
}

#[test]
fn declarations_are_read() {
    let read = |line| declared(line).map(|(name, params)| format!("{name} {}", params.join(" ")));
    assert_eq!(read("pub struct Heap {").as_deref(), Some("Heap "));
    assert_eq!(
        read("    pub enum A<'a, T: X<Y = Z>, U>(T);").as_deref(),
        Some("A 'a T U")
    );
    assert_eq!(read("pub(crate) struct Hidden<T>(T);"), None);
}

#[test]
fn every_parameter_of_every_public_type_has_a_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.0).collect();
    assert_eq!(rows.len(), ROWS.len(), "a row is there twice");
    let mut wanted = BTreeSet::new();
    for (name, params) in public_types() {
        let made = MADE_BY_A_MACRO.contains(&name.as_str());
        wanted.extend(
            params
                .iter()
                .filter(|_| !made)
                .map(|param| format!("{name} {param}")),
        );
    }
    wanted.retain(|row| !ALWAYS_STATIC.contains(&row.as_str()));
    let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let missing: Vec<_> = wanted.symmetric_difference(&rows).collect();
    assert!(
        missing.is_empty(),
        "in the library or in the table, not in both: {missing:?}"
    );
}

#[test]
fn every_row_is_refused_as_it_says() {
    let dense = |text: &str| (text.split_whitespace().collect::<String>()).replace(",)", ")");
    let asked = dense(include_str!("ui/fail/sched/variance.rs"));
    let granted = dense(include_str!("variance/covariant.rs"));
    let said = include_str!("ui/fail/sched/variance.stderr");
    let (mut refused, mut shrink) = (0, 0);
    for (row, variance, name, of) in ROWS {
        let [short, long] = ["'short", "'long"].map(|lifetime| of.replace("'x", lifetime));
        let function = |how, from, to| {
            let start = format!("fn {name}_{how}<'f, 'short: 'f, 'long: 'short>");
            let whole = dense(&format!("{start}(x: {from}) -> {to} {{ x }}"));
            (start, whole)
        };
        let mut refuses = |(start, whole): (String, String)| {
            assert!(asked.contains(&whole), "{row}: {whole}");
            assert!(
                said.contains(&start),
                "{row} is said to be {variance}: {start}"
            );
            refused += 1;
        };
        refuses(function("grows", &short, &long));
        let shrinks = function("shrinks", &long, &short);
        if *variance == "invariant" {
            refuses(shrinks);
        } else {
            assert!(granted.contains(&shrinks.1), "{row}: {}", shrinks.1);
            shrink += 1;
        }
    }
    let count = |text: &str| text.matches("'long:'short>").count();
    assert_eq!(
        (count(&asked), count(&granted)),
        (refused, shrink),
        "one has no row"
    );
}

/// Which of the auto traits a type has, in words.
macro_rules! auto_traits {
    ($of:ty) => {{
        let mut has = Vec::new();
        auto_traits!(has $of; "Send" std::marker::Send; "Sync" Sync; "Unpin" Unpin;
            "UnwindSafe" std::panic::UnwindSafe; "RefUnwindSafe" std::panic::RefUnwindSafe);
        has.join(" ")
    }};
    ($has:ident $of:ty; $($name:literal $trait:path);*) => { $({
        #[allow(dead_code, reason = "for the types that have it not")]
        trait Not {
            const HAS: bool = false;
        }
        impl<T: ?Sized> Not for T {}
        struct Of<T: ?Sized>(std::marker::PhantomData<T>);
        #[allow(dead_code, reason = "for the types that have it")]
        impl<T: ?Sized + $trait> Of<T> {
            const HAS: bool = true;
        }
        if <Of<$of>>::HAS {
            $has.push($name);
        }
    })* };
}

macro_rules! table_of_auto_traits {
    ($($name:ident $of:ty = $traits:literal;)*) => {
        const NAMED: &[&str] = &[$(stringify!($name)),*];

        #[test]
        fn auto_traits_are_those_of_the_table() {
            let mut wrong = Vec::new();
            $(
                let has = auto_traits!($of);
                if has != $traits {
                    wrong.push(format!("{} {} = {has:?};", stringify!($name), stringify!($of)));
                }
            )*
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    };
}

#[test]
fn every_public_type_is_in_the_table_of_auto_traits() {
    let named: BTreeSet<&str> = NAMED.iter().copied().collect();
    let all = public_types();
    let missing: Vec<_> = all
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !named.contains(name) && !MADE_BY_A_MACRO.contains(name))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

/// Neither `Send` nor `Sync`.
type Local = *const u8;

table_of_auto_traits! {
    Gc Gc<'static, u8> = "Unpin UnwindSafe RefUnwindSafe";
    Weak Weak<'static, u8> = "Unpin UnwindSafe RefUnwindSafe";
    GcCell GcCell<'static, u8> = "Unpin UnwindSafe";
    GcOnce GcOnce<'static, u8> = "Unpin UnwindSafe";
    GcLock GcLock<u8> = "Unpin UnwindSafe";
    ReadGuard ReadGuard<'static, u8> = "Unpin";
    WriteGuard WriteGuard<'static, 'static, u8> = "Unpin";
    GcArray GcArray<u8, u8> = "Unpin UnwindSafe RefUnwindSafe";
    Root Root<Local> = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    WeakRoot WeakRoot<Local> = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Word Word<'static, u8> = "Unpin UnwindSafe";
    GcWord GcWord<'static, u8> = "Unpin UnwindSafe";
    AllocError AllocError<u8> = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    AllocError AllocError<Local> = "Unpin UnwindSafe RefUnwindSafe";
    Frame Frame<u8> = "Send Unpin";
    Frame Frame<Gc<'static, u8>> = "Send Unpin";
    FrameGuard FrameGuard<'static, 'static, u8> = "Unpin";
    Tracer Tracer<'static> = "Unpin";
    Brand Brand<'static> = "Send Unpin UnwindSafe";
    Counting Counting<'static> = "Unpin";
    ItImplementsDrop __private::ItImplementsDrop = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    External External = "Send Sync Unpin";
    Heap Heap = "Send Sync Unpin";
    HeapBuilder HeapBuilder = "Send Sync Unpin";
    Mutator Mutator = "Unpin";
    HeapStats HeapStats = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    UnmetLimit UnmetLimit = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    SizeStats SizeStats = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    MetricKind MetricKind = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Metric Metric = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    ConfigError ConfigError = "Send Sync Unpin";
    AttachError AttachError = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    VerifyError VerifyError = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Event Event = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    ThreadActivity ThreadActivity = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    PendingRequest PendingRequest = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    RequestKind RequestKind = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    PauseSummary PauseSummary = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Runtime Runtime = "Send Sync Unpin";
    RuntimeBuilder RuntimeBuilder = "Send Sync Unpin";
    GcChan GcChan<'static, u8> = "Unpin";
    JoinHandle JoinHandle<u8> = "Send Sync Unpin";
    JoinHandle JoinHandle<Local> = "Unpin";
    JoinError JoinError = "Send Sync Unpin";
    Mutex Mutex<u8> = "Send Sync Unpin";
    Mutex Mutex<Local> = "Unpin";
    MutexGuard MutexGuard<'static, u8> = "Send Sync Unpin";
    MutexGuard MutexGuard<'static, Local> = "Unpin";
    MutexGuard MutexGuard<'static, std::cell::Cell<u8>> = "Send Unpin";
    RwLock RwLock<u8> = "Send Sync Unpin";
    RwLock RwLock<Local> = "Unpin";
    RwLock RwLock<std::cell::Cell<u8>> = "Send Unpin";
    RwLockReadGuard RwLockReadGuard<'static, u8> = "Send Sync Unpin";
    RwLockReadGuard RwLockReadGuard<'static, std::cell::Cell<u8>> = "Unpin";
    RwLockWriteGuard RwLockWriteGuard<'static, u8> = "Send Sync Unpin";
    RwLockWriteGuard RwLockWriteGuard<'static, std::cell::Cell<u8>> = "Unpin";
    Once Once<u8> = "Send Sync Unpin";
    Once Once<std::cell::Cell<u8>> = "Send Unpin";
    Once Once<Local> = "Unpin";
    Pool Pool<u8> = "Send Sync Unpin";
    Pool Pool<std::cell::Cell<u8>> = "Send Sync Unpin";
    Cond Cond = "Send Sync Unpin RefUnwindSafe";
    WaitGroup WaitGroup = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    WaitGroupGuard WaitGroupGuard = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Context Context = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    ContextError ContextError = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    CancelHandle CancelHandle = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Sender Sender<u8> = "Send Sync Unpin";
    Sender Sender<std::cell::Cell<u8>> = "Send Sync Unpin";
    Sender Sender<Local> = "Unpin";
    Receiver Receiver<u8> = "Send Sync Unpin";
    Receiver Receiver<Local> = "Unpin";
    Send chan::Send<'static, u8> = "Send";
    Send chan::Send<'static, Local> = "";
    Recv chan::Recv<'static, u8> = "Send";
    Recv chan::Recv<'static, Local> = "";
    SendError chan::SendError<u8> = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    TrySendError chan::TrySendError<u8> = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    TryRecvError chan::TryRecvError = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    AlreadyClosed chan::AlreadyClosed = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Yield Yield = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Sleep Sleep = "Send Sync Unpin";
    After After = "Send Sync Unpin";
    Elapsed Elapsed = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Timeout Timeout<u8> = "Send Sync Unpin";
    Timeout Timeout<Local> = "Unpin";
    Interval Interval = "Send Sync Unpin";
    Blocking Blocking<u8, u8> = "Send Sync Unpin";
    Blocking Blocking<Local, u8> = "Unpin";
    Blocking Blocking<u8, Local> = "Unpin";
    RuntimeStats RuntimeStats = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    ShutdownError ShutdownError = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    GInfo GInfo = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    Deadlock Deadlock = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    DeadlockPolicy DeadlockPolicy = "Send Sync Unpin UnwindSafe RefUnwindSafe";
    UdpSocket net::UdpSocket = "Send Sync Unpin";
    TcpListener net::TcpListener = "Send Sync Unpin";
    TcpStream net::TcpStream = "Send Sync Unpin";
}

//! `lox [--gc-stats] [--dialect=book|loxcraft] [SCRIPT]`

mod repl;

use std::process::ExitCode;

use greywave::Heap;
use lox::{Dialect, Lox};

const USAGE: &str = "usage: lox [--gc-stats] [--dialect=book|loxcraft] [SCRIPT]
  SCRIPT      the program; without one, a prompt
  --gc-stats  tells what the collector did, when the program is over
  --dialect   whose words errors are in (default: book)";

struct Options {
    gc_stats: bool,
    dialect: Dialect,
    script: Option<String>,
}

fn parse(args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        gc_stats: false,
        dialect: Dialect::Book,
        script: None,
    };
    for arg in args {
        match arg.as_str() {
            "--gc-stats" => options.gc_stats = true,
            "--dialect=book" => options.dialect = Dialect::Book,
            "--dialect=loxcraft" => options.dialect = Dialect::Loxcraft,
            _ if arg.starts_with('-') || options.script.is_some() => return None,
            _ => options.script = Some(arg),
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let heap = match Heap::builder().build() {
        Ok(heap) => heap,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(64);
        }
    };
    let code = run(&heap, &options);
    if options.gc_stats {
        print_stats(&heap);
    }
    ExitCode::from(code)
}

fn run(heap: &Heap, options: &Options) -> u8 {
    let mut lox = match Lox::new(heap, options.dialect, Lox::stdout()) {
        Ok(lox) => lox,
        Err(error) => {
            eprintln!("{error}");
            return 70;
        }
    };
    let Some(path) = &options.script else {
        return repl::run(&mut lox, options.dialect);
    };
    let source = match std::fs::read_to_string(path) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("Could not read \"{path}\": {error}.");
            return 74;
        }
    };
    match lox.run(&source) {
        Ok(()) => 0,
        Err(failure) => {
            eprint!("{}", failure.report(options.dialect));
            failure.exit_code()
        }
    }
}

fn print_stats(heap: &Heap) {
    let stats = heap.stats();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    eprintln!(
        "cycles {}  live {:.1} MiB  allocated {:.1} MiB  mapped {:.1} MiB  marking {:.1} ms",
        stats.cycles,
        mib(stats.live_bytes),
        mib(stats.allocated_bytes),
        mib(stats.mapped_bytes),
        stats.total_mark_ns as f64 / 1e6,
    );
    eprintln!(
        "stops {}  median {:.0} us  99 % {:.0} us  longest {:.0} us",
        stats.pauses.count,
        stats.pauses.p50_ns as f64 / 1e3,
        stats.pauses.p99_ns as f64 / 1e3,
        stats.pauses.max_ns as f64 / 1e3,
    );
}

//! Runs benchmarks on two interpreters, turn by turn, and prints a table: processor time and peak
//! memory.
//!
//! ```text
//! compare ROUNDS LOX LOXCRAFT SCRIPT..
//! ```
//! Linux only: the figures come from `/proc`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// One run.
#[derive(Clone, Copy)]
struct Figures {
    /// Processor time of all threads, in seconds.
    cpu: f64,
    /// The most memory resident at a time, in MiB.
    peak: f64,
}

/// Clock ticks a second in `/proc`, on every Linux.
const TICKS: f64 = 100.0;

fn run(program: &str, script: &str) -> Result<Figures, Box<dyn Error>> {
    let mut child = Command::new(program)
        .arg(script)
        .stdout(Stdio::null())
        .spawn()?;
    let folder = format!("/proc/{}", child.id());
    let mut peak = 0.0_f64;
    let cpu = loop {
        let status = std::fs::read_to_string(format!("{folder}/status"))?;
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = high.and_then(|text| {
            text.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<f64>()
                .ok()
        });
        peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        if status
            .lines()
            .any(|line| line.starts_with("State:") && line.contains('Z'))
        {
            // Over, and not yet waited for: its times are final and still there.
            let stat = std::fs::read_to_string(format!("{folder}/stat"))?;
            let fields: Vec<_> = stat
                .rsplit(')')
                .next()
                .unwrap_or("")
                .split_whitespace()
                .collect();
            let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok());
            break (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS;
        }
        sleep(Duration::from_millis(5));
    };
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{program} {script}: {status}").into());
    }
    Ok(Figures { cpu, peak })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, lox, loxcraft, scripts @ ..] = args.as_slice() else {
        return Err("usage: compare ROUNDS LOX LOXCRAFT SCRIPT..".into());
    };
    let rounds: usize = rounds.parse()?;
    println!("| program | greywave | loxcraft | ratio | greywave | loxcraft | ratio |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for script in scripts {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            ours.push(run(lox, script)?);
            theirs.push(run(loxcraft, script)?);
        }
        let of = |runs: &[Figures], f: fn(&Figures) -> f64| median(runs.iter().map(f).collect());
        let (a, b) = (of(&ours, |f| f.cpu), of(&theirs, |f| f.cpu));
        let (p, q) = (of(&ours, |f| f.peak), of(&theirs, |f| f.peak));
        let name = Path::new(script)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        println!(
            "| `{name}` | {a:.2} s | {b:.2} s | {:.2} | {p:.1} MiB | {q:.1} MiB | {:.2} |",
            a / b,
            p / q
        );
    }
    Ok(())
}

//! How long what people do with a mounted dump takes, beside what is promised.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::capture::{Moment, capture};
use testkit::guest::{boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel};
use testkit::pipeline::Tool;

use super::{built, pack};
use crate::outcome::{Failure, Outcome};

/// Processes that the guest starts itself, so that there are some 120 of them with the kernel's.
const IDLERS: u32 = 45;
/// How often each command is started; medians are told.
const TIMES: usize = 21;
/// Files of the tree that are all read.
const FILES: &str = "5500";
/// A counter that says when the system booted, which procps wants to know.
const COUNTER: &str = "100000000000";

/// Measures, prints a table, and writes the raw figures.
pub fn run(tool: &Tool, output: Option<&Path>) -> Outcome {
    let program = built(tool, "requests")?;
    let pack = pack(tool, &Kernel::find(DEFAULT)?)?;
    let stem = run_file("files-speed")?;
    let options = testkit::guest::Target { idlers: IDLERS, kaslr: true, ..testkit::guest::Target::default() };
    let mut guest = boot_target(&options, Duration::from_secs(600))?;
    let target = capture(&mut guest, &stem, Moment::Idle)?;
    drop(guest);
    let packs: [OsString; 3] = [target.elf.clone().into(), "--packs".into(), pack.into()];
    let words = |verb: &str, after: &[&str]| -> Vec<OsString> {
        let mut words = vec![verb.into(), "--quiet".into()];
        words.extend(packs.iter().cloned());
        words.extend(after.iter().map(OsString::from));
        words
    };
    let cat = times(tool, &words("cat", &["/proc/1/maps"]))?;
    let ps = times(tool, &words("exec", &["--tsc", COUNTER, "--", "ps", "auxww"]))?;
    let known = requests(&program, &packs, &["--tsc", COUNTER])?;
    let unknown = requests(&program, &packs, &[])?;
    let report = json!({
        "processes": target.truth.processes.len(), "cat_ms": cat, "ps_ms": ps, "counter_known": known,
        "counter_unknown": unknown,
    });
    println!(
        "| {} processes | promised | median | 90 % below |\n| --- | --- | --- | --- |",
        report["processes"]
    );
    println!("{}", line("first `cat` of a process", "20 ms", &cat));
    println!("{}", line("`exec -- ps auxww`", "1000 ms", &ps));
    for (what, asked) in [("", &known), (", counter unknown", &unknown)] {
        let warm = asked["warm_ms"].as_array().into_iter().flatten().filter_map(Value::as_f64);
        println!("{}", line(&format!("warm request{what}"), "1 ms", &warm.collect::<Vec<_>>()));
        let seconds = asked["seconds"].as_f64().unwrap_or(f64::NAN);
        println!("| {FILES} files{what} | 15 s | {seconds:.1} s | |");
    }
    if let Some(path) = output {
        std::fs::write(path, format!("{report}\n"))?;
    }
    Ok(())
}

/// What the example says that asks in one session.
fn requests(program: &Path, packs: &[OsString], more: &[&str]) -> Result<Value, Failure> {
    let asked = std::process::Command::new(program).arg(FILES).args(packs).args(more).output()?;
    if !asked.status.success() {
        let messages = String::from_utf8_lossy(&asked.stderr);
        return Err(format!("{} {}: {messages}", program.display(), asked.status).into());
    }
    Ok(serde_json::from_slice(&asked.stdout)?)
}

/// Milliseconds that a command takes, each time in a new process, after one that fills the caches.
fn times(tool: &Tool, words: &[OsString]) -> Result<Vec<f64>, Failure> {
    tool.succeed(words)?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let begin = Instant::now();
        tool.succeed(words)?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

fn line(name: &str, promised: &str, times: &[f64]) -> String {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(f64::NAN);
    format!("| {name} | {promised} | {:.1} ms | {:.1} ms |", at(50), at(90))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_median() {
        let times: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(line("a", "1 ms", &times), "| a | 1 ms | 50.0 ms | 90.0 ms |");
        assert_eq!(line("a", "1 ms", &[]), "| a | 1 ms | NaN ms | NaN ms |");
    }
}

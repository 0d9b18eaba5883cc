//! How long what people do with a mounted dump takes, beside what is promised.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::capture::{Moment, capture};
use testkit::guest::{Target, boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel};
use testkit::pipeline::Tool;

use super::ready::{built, pack};
use crate::outcome::{Failure, Outcome};
use crate::processor::{TICK_MS, children};

/// Processes that the guest starts itself, so that there are some 120 of them with the kernel's.
const IDLERS: u32 = 45;
/// How often each command is started; medians are told.
const TIMES: usize = 21;
/// Files of the tree that are all read.
const FILES: &str = "5500";
/// The guests: what they are, and more arguments for QEMU. By default Linux takes the time stamp
/// counter of one emulated processor for its clock, and a device's, the HPET's, with several.
const GUESTS: [(&str, &[&str]); 2] = [("1 processor, TSC", &[]), ("4 processors, HPET", &["-smp", "4"])];

/// Measures, prints a table, and writes the raw figures.
pub fn run(tool: &Tool, output: Option<&Path>) -> Outcome {
    let program = built(tool, "requests")?;
    let pack = pack(tool, &Kernel::find(DEFAULT)?)?;
    let mut reports = Vec::new();
    for (name, qemu) in GUESTS {
        reports.push(guest(tool, &program, &pack, (name, qemu))?);
    }
    if let Some(path) = output {
        std::fs::write(path, format!("{}\n", Value::from(reports)))?;
    }
    Ok(())
}

fn guest(tool: &Tool, program: &Path, pack: &Path, (name, qemu): (&str, &[&str])) -> Result<Value, Failure> {
    let stem = run_file("files-speed")?;
    let options = Target {
        idlers: IDLERS,
        kaslr: true,
        qemu: qemu.iter().map(OsString::from).collect(),
        ..Target::default()
    };
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
    let ps = times(tool, &words("exec", &["--", "ps", "auxww"]))?;
    let asked = requests(program, &packs)?;
    let report = json!({
        "guest": name, "processes": target.truth.processes.len(), "cat": cat, "ps": ps, "requests": asked,
    });
    print(&report);
    Ok(report)
}

/// Prints a guest's table.
fn print(report: &Value) {
    let (cat, ps, asked) = (&report["cat"], &report["ps"], &report["requests"]);
    let name = report["guest"].as_str().unwrap_or_default();
    println!(
        "| {name}, {} processes | promised | median | 90 % below | processor time |\n|{}",
        report["processes"],
        " --- |".repeat(5)
    );
    println!("{}", line("first `cat` of a process", "20 ms", &numbers(&cat["ms"]), &cat["processor_ms"]));
    println!("{}", line("`exec -- ps auxww`", "1000 ms", &numbers(&ps["ms"]), &ps["processor_ms"]));
    // Linux counts a running thread's time at ticks: only their mean says something.
    let processor = numbers(&asked["warm_processor_ms"]);
    let processor = json!(processor.iter().sum::<f64>() / processor.len() as f64);
    println!("{}", line("warm request", "1 ms", &numbers(&asked["warm_ms"]), &processor));
    let seconds = |name: &str| asked[name].as_f64().unwrap_or(f64::NAN);
    let (clock, processor) = (seconds("seconds"), seconds("processor_seconds"));
    println!("| {FILES} files | 15 s | {clock:.1} s | | {processor:.1} s |\n");
}

/// What the example says that asks in one session.
fn requests(program: &Path, packs: &[OsString]) -> Result<Value, Failure> {
    let asked = std::process::Command::new(program).arg(FILES).args(packs).output()?;
    if !asked.status.success() {
        let messages = String::from_utf8_lossy(&asked.stderr);
        return Err(format!("{} {}: {messages}", program.display(), asked.status).into());
    }
    Ok(serde_json::from_slice(&asked.stdout)?)
}

/// Milliseconds that a command takes, each time in a new process, after one that fills the caches;
/// and how much of it processors gave it, on average.
fn times(tool: &Tool, words: &[OsString]) -> Result<Value, Failure> {
    tool.succeed(words)?;
    let (mut times, before) = (Vec::new(), children()?);
    for _ in 0..TIMES {
        let begin = Instant::now();
        tool.succeed(words)?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let ticks = children()? - before;
    Ok(json!({ "ms": times, "processor_ms": ticks as f64 * TICK_MS / TIMES as f64 }))
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn line(name: &str, promised: &str, times: &[f64], processor: &Value) -> String {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(f64::NAN);
    let processor = processor.as_f64().unwrap_or(f64::NAN);
    format!("| {name} | {promised} | {:.1} ms | {:.1} ms | {processor:.1} ms |", at(50), at(90))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_median() {
        let times: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(line("a", "1 ms", &times, &json!(2)), "| a | 1 ms | 50.0 ms | 90.0 ms | 2.0 ms |");
        assert!(line("a", "1 ms", &[], &Value::Null).contains("NaN"));
    }
}

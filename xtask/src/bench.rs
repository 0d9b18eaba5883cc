//! `cargo xtask bench`: the figures that the project promises, measured on this machine.
//!
//! Boot with and without the recorder, bytes of trace per instruction, time to build, the first run
//! of a process and later ones. The raw figures go to `benches/runs/<date>-<host>.json`, to be
//! committed with a word on what changed.

use crate::outcome::Outcome;
use crate::{demo, setup};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::capture::{Moment, capture};
use testkit::guest::{Guest, Target, Training, boot_target, run_file, training_argv};
use testkit::layout;
use testkit::pipeline::{Tool, program_of};

/// Boots of each kind; the medians are compared.
const BOOTS: usize = 5;

/// Runs the verb.
pub fn run() -> Outcome {
    setup::run()?;
    let tool = demo::tool()?;
    let boots = boots(&tool)?;
    let directory = layout::run().join("bench");
    let traces = tool.record(&Training::default(), &directory)?;
    let mut sizes = Vec::new();
    for trace in &traces {
        let words = words(&["trace", "info", "--json"], std::slice::from_ref(trace));
        let info = tool.json(&words)?;
        sizes.push(json!({
            "trace": trace.file_name().map(|name| name.to_string_lossy().into_owned()),
            "instructions": info["instructions"],
            "bytes_per_instruction_raw": info["bytes_per_instruction_raw"],
            "bytes_per_instruction": info["bytes_per_instruction"],
            "snapshot_bytes": info["snapshot_bytes"],
        }));
    }
    let pslist: Vec<PathBuf> = traces.iter().filter(|trace| program_of(trace) == "pslist").cloned().collect();
    let mut guest = boot_target(&Target::default(), Duration::from_secs(300))?;
    let files = capture(&mut guest, &run_file("bench-target")?, Moment::Idle)?;
    drop(guest);
    let mut builds = Vec::new();
    let mut runs = Vec::new();
    for policy in ["guard", "assume"] {
        let file = directory.join(format!("pslist.{policy}.prog"));
        let mut seconds = Vec::new();
        for _ in 0..5 {
            let begin = Instant::now();
            tool.build_with("pslist", &pslist, &file, &["--policy", policy])?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        builds.push(json!({ "policy": policy, "seconds": seconds }));
    }
    for (policy, way) in [("guard", "--slice"), ("assume", "--slice"), ("guard", "--whole")] {
        let file = directory.join(format!("pslist.{policy}.prog"));
        let mut fresh = Vec::new();
        for _ in 0..15 {
            let begin = Instant::now();
            tool.answer(&file, &files.elf, &[], &[way])?;
            fresh.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        fresh.sort_by(f64::total_cmp);
        let answer = tool.answer(&file, &files.elf, &[], &[way, "--repeat", "200"])?;
        runs.push(json!({
            "program": "pslist", "policy": policy, "way": way, "processes": files.truth.processes.len(),
            "fresh_process_milliseconds": fresh[fresh.len() / 2],
            "warm_milliseconds": answer["milliseconds"], "operations": answer["operations"],
                "instructions": answer["instructions"],
        }));
    }
    let report =
        json!({ "machine": machine(), "boot": boots, "traces": sizes, "build": builds, "run": runs });
    let folder = layout::root().join("benches/runs");
    std::fs::create_dir_all(&folder)?;
    let day = text("date", &["+%Y-%m-%d"]);
    let file = folder
        .join(format!("{day}-{}-cores.json", std::thread::available_parallelism().map_or(1, usize::from)));
    layout::write(&file, (serde_json::to_string_pretty(&report)? + "\n").as_bytes())?;
    println!("{}\nbench: written to {}", serde_json::to_string_pretty(&report)?, file.display());
    Ok(())
}

/// Seconds of whole training guests without any trainer, with and without the recorder, in turn.
fn boots(tool: &Tool) -> Result<Value, Box<dyn std::error::Error>> {
    let training = Training { trainers: vec!["none".to_owned()], ..Training::default() };
    let argv = training_argv(&training)?;
    let scratch = layout::run().join("bench-boot");
    let (mut plain, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        let begin = Instant::now();
        Guest::boot(&argv)?.wait_for_end(Duration::from_secs(300))?;
        plain.push(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        let mut words = words(&["record", "--quiet", "-o"], std::slice::from_ref(&scratch));
        words.push("--".into());
        words.extend(argv.iter().cloned());
        // It ends with the complaint that nothing was marked.
        tool.run(&words)?;
        loaded.push(begin.elapsed().as_secs_f64());
    }
    let median = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    Ok(json!({ "without_recorder_seconds": plain, "with_recorder_seconds": loaded,
            "ratio_of_medians": median(&loaded) / median(&plain) }))
}

fn words(fixed: &[&str], paths: &[PathBuf]) -> Vec<OsString> {
    fixed.iter().map(OsString::from).chain(paths.iter().map(OsString::from)).collect()
}

fn text(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn machine() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
    });
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": text("uname", &["-r"]),
        "rustc": text("rustc", &["--version"]),
        "qemu": text("qemu-system-x86_64", &["--version"]).lines().next(),
        "commit": text("git", &["rev-parse", "--short", "HEAD"]),
        "command": "cargo xtask bench",
    })
}

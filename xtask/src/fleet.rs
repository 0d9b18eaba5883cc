//! `cargo xtask fleet`: the example of a fleet, `examples/fleet.py`, over two hundred dumps.
//!
//! Most are one dump by many names, one is cut off, and one has a kernel without a pack. In the
//! middle a worker is killed. Every target must have come to its end once, with the processes that
//! the guest itself had. The Python packages are no part of set-up: the user says where they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::capture::{Capture, Moment, capture};
use testkit::guest::{Target, boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel};
use testkit::layout;

use crate::files::ready::pack;
use crate::outcome::{Failure, Outcome};
use crate::{demo, setup};

/// How many targets there are.
const TARGETS: usize = 200;
/// After how many answers a worker is killed.
const KILLED_AFTER: usize = 60;
/// A kernel for which no pack is made.
const UNKNOWN: &str = "cloud";

/// Options of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// An interpreter of Python that has the packages dask, distributed and duckdb
    #[arg(long, value_name = "FILE")]
    python: PathBuf,
    /// Where what came out goes, as JSON
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Outcome {
    setup::run()?;
    let tool = demo::tool()?;
    let pack = pack(&tool, &Kernel::find(DEFAULT)?)?;
    let known = captured("fleet-known", DEFAULT)?;
    let unknown = captured("fleet-unknown", UNKNOWN)?;
    let (targets, cut) = named(&known, &unknown)?;
    let lines = layout::run().join("fleet.jsonl");
    let mut command = Command::new(&arguments.python);
    command.arg(layout::root().join("examples/fleet.py")).arg("--virtuoso").arg(&tool.virtuoso);
    command.arg("--output").arg(&lines).arg("--kill-after").arg(KILLED_AFTER.to_string());
    command.args(&targets).args(["--", "ps", "--packs"]).arg(pack.parent().unwrap_or(&pack));
    let begin = Instant::now();
    let done = command.output()?;
    let seconds = begin.elapsed().as_secs_f64();
    let messages = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        return Err(format!("{}: {messages}", done.status).into());
    }
    let found: Value = serde_json::from_slice(&done.stdout)?;
    println!("fleet: {TARGETS} targets in {seconds:.1} s: {found:#}");
    check(&found, &known, &cut, &unknown.elf)?;
    if !messages.contains("died") && !messages.contains("Removing worker") && !messages.contains("Restarting")
    {
        return Err(format!("no worker was killed: {messages}").into());
    }
    if let Some(path) = &arguments.output {
        let report =
            json!({ "targets": TARGETS, "killed_after": KILLED_AFTER, "seconds": seconds, "found": found });
        std::fs::write(path, format!("{report}\n"))?;
    }
    Ok(())
}

fn captured(name: &str, kernel: &str) -> Result<Capture, Failure> {
    let options = Target { kernel: kernel.to_owned(), kaslr: true, idlers: 40, ..Target::default() };
    let mut guest = boot_target(&options, Duration::from_secs(600))?;
    Ok(capture(&mut guest, &run_file(name)?, Moment::Idle)?)
}

/// All targets by name, and which of them is cut off.
fn named(known: &Capture, unknown: &Capture) -> Result<(Vec<PathBuf>, PathBuf), Failure> {
    let directory = layout::run().join("fleet");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    let cut = directory.join("cut.elf");
    let bytes = std::fs::read(&known.elf)?;
    std::fs::write(&cut, &bytes[..bytes.len() / 2])?;
    let mut targets = vec![cut.clone(), unknown.elf.clone()];
    for number in targets.len()..TARGETS {
        let name = directory.join(format!("{number:03}.elf"));
        std::fs::hard_link(&known.elf, &name)?;
        targets.push(name);
    }
    Ok((targets, cut))
}

/// Whether every target came to its end once, and the answers are the guest's truth.
fn check(found: &Value, known: &Capture, cut: &Path, unknown: &Path) -> Outcome {
    let codes = json!([
        { "code": 0, "lines": TARGETS - 2, "targets": TARGETS - 2 },
        { "code": 1, "lines": 1, "targets": 1 },
        { "code": 20, "lines": 1, "targets": 1 },
    ]);
    if found["codes"] != codes {
        return Err(format!("not each target came to its end once: {}", found["codes"]).into());
    }
    let failed: Vec<(&str, &Value)> = found["without_answer"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| (it["target"].as_str().unwrap_or_default(), &it["code"]))
        .collect();
    for (path, code) in [(cut, 1), (unknown, 20)] {
        if !failed.iter().any(|it| Path::new(it.0) == path && *it.1 == code) {
            return Err(format!("{} has not ended with {code}: {failed:?}", path.display()).into());
        }
    }
    for row in found["names"].as_array().into_iter().flatten() {
        let of_name = known.truth.processes.iter().filter(|it| Some(it.task_name()) == row["name"].as_str());
        let expected = json!(of_name.count() * (TARGETS - 2));
        if row["processes"] != expected {
            return Err(format!("{row}, where the guest has {expected} in all").into());
        }
    }
    Ok(())
}

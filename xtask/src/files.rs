//! `cargo xtask files`: what guests say of all their files, compared with what file programs say of
//! their dumps.
//!
//! Each target walks its tree, is captured, and walks again; what it said alike twice is asked of
//! the dump, in one session (`crates/cli/examples/files.rs`). A row for each target and for each
//! difference; an answer that is wrong fails the task, after all have been asked. The Debian ones
//! need mmdebstrap, which set-up does not install.

pub mod ready;
mod report;
mod speed;
mod targets;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use testkit::kernel::Kernel;
use testkit::pipeline::Tool;

use crate::demo::tool;
use crate::outcome::{Failure, Outcome};
use crate::setup;
use ready::{built, pack};
use targets::{Place, Target};

/// Options of the comparison.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these targets, separated by commas; rows of others in the output file stay
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Seconds that asking one target may take: what is not asked by then is left out
    #[arg(long, default_value_t = 900)]
    time: u64,
    /// Ask the captures that an earlier run left
    #[arg(long)]
    reuse: bool,
    /// Keep captures of targets about which nothing was wrong, too
    #[arg(long)]
    keep: bool,
    /// Where the rows go, as JSON lines
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Measure how long requests take instead, and write the raw figures to the output file
    #[arg(long)]
    speed: bool,
    /// Only print the table of the rows in the output file
    #[arg(long, requires = "output")]
    table: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Outcome {
    if arguments.speed {
        setup::run()?;
        return speed::run(&tool()?, arguments.output.as_deref());
    }
    let mut rows = match &arguments.output {
        Some(path) if path.is_file() => report::read(path)?,
        _ => Vec::new(),
    };
    if arguments.table {
        print!("{}", report::table(&rows));
        return Ok(());
    }
    setup::run()?;
    let wanted = targets::chosen(&arguments.targets)?;
    let tool = tool()?;
    let program = built(&tool, "files")?;
    let (mut wrong, mut failed) = (0, Vec::new());
    for (number, target) in wanted.iter().enumerate() {
        println!("files: {} ({} of {})", target.name, number + 1, wanted.len());
        match asked(arguments, &tool, &program, target) {
            Ok(found) => {
                let sums = found.first().cloned().unwrap_or_default();
                println!("files: {}", report::line(&sums));
                wrong += sums["wrong"].as_u64().unwrap_or(0);
                rows.retain(|row| row["target"] != target.name);
                rows.extend(found);
                if let Some(path) = &arguments.output {
                    report::write(path, &rows)?;
                }
            }
            Err(error) => {
                println!("files: {}: {error}", target.name);
                failed.push(target.name.clone());
            }
        }
    }
    print!("{}", report::table(&rows));
    if wrong > 0 {
        return Err(format!("{wrong} answers are wrong").into());
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("not asked: {}", failed.join(", ")).into()) }
}

/// Captures a target and asks about all its files; its rows, the sums first.
fn asked(arguments: &Arguments, tool: &Tool, program: &Path, target: &Target) -> Result<Vec<Value>, Failure> {
    let kernel = Kernel::find(target.kernel)?;
    let pack = pack(tool, &kernel)?;
    let place = target.place()?;
    let begin = Instant::now();
    if !(arguments.reuse && place.elf.is_file() && place.truth.is_file()) {
        target.capture()?;
    }
    let captured = begin.elapsed().as_secs();
    let mut command = Command::new(program);
    command.arg(&place.truth).arg(arguments.time.to_string()).arg(&place.elf).arg("--packs").arg(&pack);
    // Its bar is for who waits.
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{} {}", program.display(), output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut found: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut sums = found.pop().ok_or("no sums")?;
    sums["kernel"] = kernel.release.into();
    sums["about"] = target.about.clone().into();
    sums["capture_seconds"] = json!(captured);
    if sums["wrong"] == 0 && !arguments.keep {
        remove(&place)?;
    }
    found.insert(0, sums);
    for row in &mut found {
        row["target"] = target.name.clone().into();
    }
    Ok(found)
}

fn remove(place: &Place) -> Outcome {
    std::fs::remove_file(&place.elf)?;
    Ok(std::fs::remove_file(&place.truth)?)
}

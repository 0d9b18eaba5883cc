//! `virtuoso trace check`: replays recordings through the lifter.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use lift::Mode;
use serde_json::json;
use slicer::{CheckReport, Id, Recording, StepId};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{files, format, output};

/// Replay every recorded instruction and compare stores, next addresses and known registers
///
/// A disagreement is an instruction that the lifter models wrongly, or a damaged recording: each is
/// printed with its bytes.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso trace check pslist.trace
  virtuoso trace check --json *.trace")]
pub struct CheckArgs {
    /// Trace files
    #[arg(required = true, value_name = "TRACE")]
    files: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let mut clean = true;
        for path in &self.files {
            let what = format!("checking {}", files::name(path));
            let (recording, report) = context.progress.during(what, || {
                files::recording(path).map(|recording| {
                    let report = slicer::check(&recording);
                    (recording, report)
                })
            })?;
            clean &= report.is_clean();
            if self.json { print_json(path, &recording, &report)? } else { print(path, &recording, &report)? }
        }
        if clean { Ok(()) } else { Err(Failure::quiet(Exit::Disagree)) }
    }
}

/// The share of instructions that agreed, in percent, rounded down so that 100 means all.
fn percent(report: &CheckReport) -> String {
    let hundredths = (report.agreed * 10_000).checked_div(report.instructions).unwrap_or(10_000);
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => whole.to_string(),
        (whole, part) => format!("{whole}.{part:02}"),
    }
}

fn disassembly(recording: &Recording, step: StepId) -> String {
    let code = recording.code_of(step);
    lift::disassemble(code.mode, code.insn.pc, &code.bytes)
}

fn print(path: &Path, recording: &Recording, report: &CheckReport) -> Result<(), Failure> {
    let mut out = output::stdout();
    writeln!(
        out,
        "{}: {} of {} instructions replayed ({} %), {} interruptions",
        path.display(),
        report.agreed,
        report.instructions,
        percent(report),
        report.interruptions
    )?;
    let mut seen = Vec::new();
    for it in &report.disagreements {
        if seen.contains(&it.pc) {
            continue;
        }
        seen.push(it.pc);
        let steps: Vec<String> = report
            .disagreements
            .iter()
            .filter(|other| other.pc == it.pc)
            .map(|other| other.step.index().to_string())
            .collect();
        let code = recording.code_of(it.step);
        let bits = match code.mode {
            Mode::Bits64 => String::new(),
            mode => format!(" ({}-bit)", mode.bits()),
        };
        writeln!(
            out,
            "  {:#x}{bits}: {}  {}",
            it.pc,
            format::hex(&it.bytes),
            disassembly(recording, it.step)
        )?;
        writeln!(out, "      {}", it.what)?;
        writeln!(out, "      instruction {}", steps.join(" "))?;
    }
    let unlisted = (report.instructions - report.agreed).saturating_sub(report.disagreements.len() as u64);
    if unlisted > 0 {
        writeln!(out, "  and {unlisted} more")?;
    }
    Ok(out.flush()?)
}

fn print_json(path: &Path, recording: &Recording, report: &CheckReport) -> Result<(), Failure> {
    let disagreements: Vec<_> = report
        .disagreements
        .iter()
        .map(|it| {
            json!({"step": it.step.index(), "pc": it.pc.0, "bytes": format::hex(&it.bytes),
                   "instruction": disassembly(recording, it.step), "what": it.what})
        })
        .collect();
    output::json(&json!({
        "file": engine::Text::of_path(path),
        "instructions": report.instructions,
        "agreed": report.agreed,
        "clean": report.is_clean(),
        "interruptions": report.interruptions,
        "disagreements": disagreements,
    }))
}

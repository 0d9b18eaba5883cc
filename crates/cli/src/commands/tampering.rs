//! `virtuoso tampering`: whether a target's kernel code is what training has.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use engine::Relocation;
use engine::tampering::{Change, Difference, compare};
use serde_json::json;

use crate::commands::Context;
use crate::commands::run::Asked;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::symbols::Symbols;
use crate::{format, output};

/// Compare a target's kernel code with the trusted copy of it
///
/// All code of the training system is compared, whatever the program uses of it; a `*` marks
/// functions in its slice. Code that kernels patch themselves (switches and trace points, while
/// they lead to trusted code) is counted; every other difference is listed and is an alarm, exit
/// code 23. Answers are computed from trusted code either way.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso tampering pslist.prog guest.elf --symbols System.map
  virtuoso tampering pslist.prog guest.elf --json
  virtuoso tampering pslist.prog qmp:/run/guest.qmp")]
pub struct TamperingArgs {
    #[command(flatten)]
    asked: Asked,
    /// System.map or ELF file that names the training system's functions
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// List self-patched code too
    #[arg(long)]
    all: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl TamperingArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let program = self.asked.program()?;
        let system = self.asked.companion(&program, "the comparison")?;
        let symbols = self.symbols.as_deref().map(Symbols::read).transpose()?;
        let mut target = self.asked.target(&program, context)?;
        let run = self.asked.run(&target)?;
        let found = Relocation::find(&program, &run).map_err(|error| self.asked.failure(&error))?;
        let mut placed = found.system(&system);
        let report = context.progress.during("comparing code", || {
            placed.find_modules(&system, run.memory, false);
            compare(&program, &system, run.memory, &placed)
        });
        target.resume()?;
        if report.pages == 0 {
            let text = format!(
                "{}: none of the training system's {} code pages is there: another kernel, or another \
                 address of it",
                self.asked.target_path().display(),
                system.len()
            );
            return Err(Failure::new(Exit::OtherKernel, text));
        }
        let name = |address: u64| symbols.as_ref().and_then(|symbols| symbols.name(address));
        // Without symbols a function's end is unknown: the slice's own instructions around the
        // place decide.
        let used = |difference: &Difference| {
            program.functions.iter().any(|function| {
                let end = function
                    .blocks
                    .iter()
                    .map(|block| block.term_pc)
                    .filter(|pc| pc.abs_diff(function.pc) < 1 << 16);
                (function.pc..=end.max().unwrap_or(function.pc)).contains(&difference.address)
            })
        };
        let foreign = report.foreign().count();
        let count = |change: Change| report.differences.iter().filter(|it| it.change == change).count();
        if self.json {
            let differences: Vec<_> = report
                .differences
                .iter()
                .map(|it| {
                    json!({"address": it.address, "change": it.change, "function": name(it.address),
                        "used": used(it),
                           "trusted": hex(&it.trusted), "found": hex(&it.found), "leads_to": it.leads_to})
                })
                .collect();
            output::json(&json!({
                "target": self.asked.target_path().display().to_string(),
                "pages": report.pages,
                "unclear": report.unclear,
                "absent": report.absent,
                "other": report.other,
                "switches": count(Change::Switch),
                "trace_points": count(Change::TracePoint),
                "locks": count(Change::Lock),
                "foreign": foreign,
                "differences": differences,
            }))?;
        } else {
            let mut out = output::stdout();
            writeln!(
                out,
                "{} pages of code compared; {} hold other code, {} are not there",
                report.pages, report.other, report.absent
            )?;
            if report.unclear > 0 {
                writeln!(
                    out,
                    "this system's page tables do not tell code from data: of {} pages that it may write, \
                     only the program's own instructions were compared",
                    report.unclear
                )?;
            }
            writeln!(
                out,
                "patched by the kernel itself: {} switches, {} trace points, {} lock prefixes",
                count(Change::Switch),
                count(Change::TracePoint),
                count(Change::Lock)
            )?;
            writeln!(out, "foreign changes: {foreign}")?;
            for it in report.differences.iter().filter(|it| self.all || it.change == Change::Foreign) {
                let place =
                    name(it.address).map_or(String::new(), |name| format!(" {}", format::plain(&name)));
                let leads = it.leads_to.map_or(String::new(), |to| {
                    let name = name(to).filter(|_| system.page(to & !4095).is_some());
                    format!(
                        ", leads to {to:#x}{}",
                        name.map_or(String::new(), |name| format!(" {}", format::plain(&name)))
                    )
                });
                let mark = if used(it) { "*" } else { " " };
                writeln!(
                    out,
                    "{mark} {:#x}{place}: {} became {}{leads}",
                    it.address,
                    hex(&it.trusted),
                    hex(&it.found)
                )?;
            }
            out.flush()?;
        }
        if foreign == 0 {
            return Ok(());
        }
        let text = format!(
            "{foreign} changes of the kernel's code are not its own; answers still come from trusted code"
        );
        Err(Failure::new(Exit::Tampered, text))
    }
}

fn hex(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > 16 { format!(" (and {} more)", bytes.len() - 16) } else { String::new() };
    shown.join(" ") + &more
}

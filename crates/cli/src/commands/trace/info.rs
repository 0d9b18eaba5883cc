//! `virtuoso trace info`: header and sizes.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use machine::Reg;
use serde_json::json;
use trace::{Direction, Trace, Variable};

use crate::failure::Failure;
use crate::format::plain;
use crate::{files, format, output};

/// Print what was recorded, how much, and how large it is
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso trace info pslist.trace
  virtuoso trace info --json *.trace")]
pub struct InfoArgs {
    /// Trace files
    #[arg(required = true, value_name = "TRACE")]
    files: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl InfoArgs {
    /// Runs the verb.
    pub fn run(&self) -> Result<(), Failure> {
        for path in &self.files {
            let trace = files::trace(path)?;
            if self.json { print_json(path, &trace)? } else { print(path, &trace)? }
        }
        Ok(())
    }
}

/// Bytes of instructions, accesses and registers for each executed instruction, before compression
/// and in the file.
fn per_instruction(trace: &Trace) -> (f64, f64) {
    let sizes = trace.sizes();
    let count = trace.end().instructions.max(1) as f64;
    (
        (sizes.event_raw + sizes.insn_raw) as f64 / count,
        (sizes.event_stored + sizes.insn_stored) as f64 / count,
    )
}

fn spec(variable: &Variable) -> String {
    format!("{}:{}", variable.name, variable.ty)
}

const fn direction(variable: &Variable) -> &'static str {
    match variable.direction {
        Direction::Input => "input",
        Direction::Output => "output",
    }
}

fn print(path: &Path, trace: &Trace) -> Result<(), Failure> {
    let (header, sizes, end) = (trace.header(), trace.sizes(), trace.end());
    let (raw, stored) = per_instruction(trace);
    let snapshot = trace.snapshot();
    let mut out = output::stdout();
    writeln!(out, "{}: {} ({})", path.display(), plain(&header.program), format::size(sizes.file))?;
    writeln!(
        out,
        "  recorded by    {} in {}, {}",
        plain(&header.producer),
        plain(&header.emulator),
        plain(&header.arch)
    )?;
    writeln!(out, "  processor      {} of {}, {}-bit code", header.vcpu, header.vcpus, header.mode_bits)?;
    writeln!(out, "  begin          {:#x}", trace.begin_regs().get_or_zero(Reg::Rip))?;
    for variable in &header.variables {
        writeln!(out, "  {:<14} {} at {:#x}", direction(variable), plain(&spec(variable)), variable.addr.0)?;
    }
    writeln!(out, "  instructions   {} executed, {} distinct", end.instructions, trace.insns().len())?;
    writeln!(out, "  accesses       {}", end.accesses)?;
    writeln!(out, "  per instruction {raw:.2} bytes raw, {stored:.2} compressed")?;
    writeln!(
        out,
        "  snapshot       {} pages of {} RAM, {} in the file",
        snapshot.page_addrs().len(),
        format::size(header.ram_size),
        format::size(sizes.snapshot_stored)
    )?;
    for range in &header.ram_ranges {
        writeln!(
            out,
            "  RAM            {:#x}..{:#x}",
            range.start.0,
            range.start.0.saturating_add(range.size)
        )?;
    }
    Ok(out.flush()?)
}

fn print_json(path: &Path, trace: &Trace) -> Result<(), Failure> {
    let (header, sizes, end) = (trace.header(), trace.sizes(), trace.end());
    let (raw, stored) = per_instruction(trace);
    let variables: Vec<_> = header
        .variables
        .iter()
        .map(
            |it| json!({"direction": direction(it), "spec": spec(it), "address": it.addr.0, "size": it.size}),
        )
        .collect();
    let ranges: Vec<_> =
        header.ram_ranges.iter().map(|it| json!({"start": it.start.0, "size": it.size})).collect();
    output::json(&json!({
        "file": engine::Text::of_path(path),
        "program": header.program,
        "producer": header.producer,
        "emulator": header.emulator,
        "arch": header.arch,
        "vcpu": header.vcpu,
        "vcpus": header.vcpus,
        "mode_bits": header.mode_bits,
        "begin": trace.begin_regs().get_or_zero(Reg::Rip),
        "variables": variables,
        "instructions": end.instructions,
        "distinct_instructions": trace.insns().len(),
        "accesses": end.accesses,
        "bytes_per_instruction_raw": raw,
        "bytes_per_instruction": stored,
        "snapshot_pages": trace.snapshot().page_addrs().len(),
        "snapshot_bytes": sizes.snapshot_stored,
        "ram_bytes": header.ram_size,
        "ram": ranges,
        "file_bytes": sizes.file,
    }))
}

//! `virtuoso trace dump`: the events as text.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use lift::Mode;
use trace::{Access, Event, StaticInsn};

use crate::failure::Failure;
use crate::{files, format, output};

/// Print instructions, accesses and register changes
///
/// Each instruction has its number, address, bytes and disassembly, then what it accessed. Register
/// changes stand before the instruction they were read at.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso trace dump pslist.trace
  virtuoso trace dump --from 5000 --count 200 pslist.trace")]
pub struct DumpArgs {
    /// Trace files
    #[arg(required = true, value_name = "TRACE")]
    files: Vec<PathBuf>,
    /// Number of the first instruction to print
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// How many instructions to print
    #[arg(long, default_value_t = 100, value_name = "N")]
    count: u64,
}

impl DumpArgs {
    /// Runs the verb.
    pub fn run(&self) -> Result<(), Failure> {
        let mut out = output::stdout();
        for path in &self.files {
            let trace = files::trace(path)?;
            if self.files.len() > 1 {
                writeln!(out, "{}:", path.display())?;
            }
            let end = self.from.saturating_add(self.count);
            let mut number = 0;
            for event in trace.events() {
                match event.map_err(|error| files::trace_failure(path, &error))? {
                    Event::Insn(id) => {
                        if number >= end {
                            break;
                        }
                        if let Some(insn) = trace.insns().get(id.0 as usize).filter(|_| number >= self.from) {
                            writeln!(out, "{}", instruction(number, insn))?;
                        }
                        number += 1;
                    }
                    Event::Access(it) if number > self.from => writeln!(out, "{:10}{}", "", access(&it))?,
                    Event::Regs(changed) if number >= self.from && number < end => {
                        let changed: Vec<String> =
                            changed.iter().map(|(reg, value)| format!("{}={value:#x}", reg.name())).collect();
                        writeln!(out, "{:10}regs {}", "", changed.join(" "))?;
                    }
                    Event::Access(_) | Event::Regs(_) => {}
                }
            }
            let total = trace.end().instructions;
            if end < total {
                writeln!(out, "... {} more instructions (--from {end})", total - end)?;
            } else if self.from >= total {
                writeln!(out, "the trace has {total} instructions")?;
            }
        }
        Ok(out.flush()?)
    }
}

fn instruction(number: u64, insn: &StaticInsn) -> String {
    let mode = Mode::from_bits(insn.mode_bits.into()).unwrap_or(Mode::Bits64);
    let text = lift::disassemble(mode, insn.pc.0, insn.bytes());
    format!("{number:>8}  {:016x}  {:<30}  {text}", insn.pc.0, format::hex(insn.bytes()))
}

fn access(it: &Access) -> String {
    let kind = if it.store { "store" } else { "load " };
    let device = if it.io { " device" } else { "" };
    let next = it.next_page.map(|page| format!(" and {:#x}", page.0)).unwrap_or_default();
    format!(
        "{kind} {} {:#x} (physical {:#x}{next}{device}) = {:#x}",
        it.size, it.vaddr.0, it.paddr.0, it.value
    )
}

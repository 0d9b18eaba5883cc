//! `virtuoso target`: looks at captured machines.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use machine::target::cpus_json;
use machine::{Cpu, PagingMode, Reg, Target, TargetOptions};

use crate::failure::Failure;
use crate::{format, output};

/// Look at captured machines
#[derive(Subcommand, Debug)]
pub enum Verb {
    Info(InfoArgs),
}

impl Verb {
    /// Runs the verb.
    pub fn run(&self) -> Result<(), Failure> {
        match self {
            Verb::Info(args) => args.run(),
        }
    }
}

/// Print a capture's format, memory and processors
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso target info guest.elf
  virtuoso target info guest.kdump
  virtuoso target info guest.lime --cpu-file guest.cpu.json
  virtuoso target info guest.elf --json > guest.cpu.json   # processor state that --cpu-file reads")]
pub struct InfoArgs {
    /// A dump of a guest: an ELF core or kdump, LiME, AVML, VMware's .vmss and .vmem, or raw RAM; the content decides
    target: PathBuf,
    /// Processor state as JSON; default: the dump's own, and TARGET.cpu.json where it has none
    #[arg(long, value_name = "FILE")]
    cpu_file: Option<PathBuf>,
    /// Print the processors' state in the form that --cpu-file reads
    #[arg(long)]
    json: bool,
}

impl InfoArgs {
    fn run(&self) -> Result<(), Failure> {
        let target = open(&self.target, self.cpu_file.as_ref())?;
        let mut out = output::stdout();
        if self.json {
            writeln!(out, "{}", cpus_json(&target.cpus))?;
            return Ok(out.flush()?);
        }
        writeln!(out, "{}: {}, {} of RAM", target.path.display(), target.format, format::size(target.mem.size()))?;
        for range in target.mem.ranges() {
            writeln!(out, "  RAM  {:#x}..{:#x}", range.start.0, range.end.0)?;
        }
        for (number, cpu) in target.cpus.iter().enumerate() {
            writeln!(out, "  CPU {number}  {}", describe(cpu))?;
        }
        Ok(out.flush()?)
    }
}

/// Opens a target with or without a file of processor state.
pub fn open(path: &PathBuf, cpu_file: Option<&PathBuf>) -> Result<Target, Failure> {
    Target::open(path, &TargetOptions { cpu_file: cpu_file.cloned() }).map_err(Failure::input)
}

fn describe(cpu: &Cpu) -> String {
    let reg = |reg: Reg| cpu.regs.get(reg).map_or_else(|| "unknown".to_string(), |value| format!("{value:#x}"));
    let paging = PagingMode::from_regs(&cpu.regs).map_or_else(|error| error.to_string(), |mode| mode.to_string());
    let bits = cpu.code_bits().map_or_else(|| "code of unknown width".to_string(), |bits| format!("{bits}-bit code"));
    format!(
        "rip {}, privilege level {}, {bits}, paging {paging}, cr3 {}, gs base {}, kernel gs base {}",
        reg(Reg::Rip),
        cpu.regs.get(Reg::Cpl).map_or_else(|| "unknown".to_string(), |level| level.to_string()),
        reg(Reg::Cr3),
        reg(Reg::GsBase),
        reg(Reg::KernelGsBase)
    )
}

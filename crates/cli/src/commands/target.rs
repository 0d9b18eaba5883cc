//! `virtuoso target`: looks at captured machines and live guests.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use machine::target::{Format, Placement, cpus_json};
use machine::{Cpu, PagingMode, Reg, TargetOptions};

use crate::context::Context;
use crate::failure::Failure;
use crate::live::Moment;
use crate::target::{formats, open, placement, unpacking};
use crate::{format, output};

/// Look at captured machines and live guests
#[derive(Subcommand, Debug)]
pub enum Verb {
    Info(InfoArgs),
}

impl Verb {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        match self {
            Verb::Info(args) => args.run(context),
        }
    }
}

/// Print a target's format, memory and processors
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso target info guest.elf
  virtuoso target info guest.kdump
  virtuoso target info guest.lime --cpu-file guest.cpu.json
  virtuoso target info qmp:/run/guest.qmp
  virtuoso target info guest.elf --json > guest.cpu.json   # processor state that --cpu-file reads")]
pub struct InfoArgs {
    /// A dump of a guest: an ELF core or kdump, LiME, AVML, VMware's .vmss and .vmem, a migration
    /// stream or a file of virsh save, or raw RAM; the content decides; or a live guest: qmp:SOCKET
    /// or libvirt:DOMAIN
    target: PathBuf,
    /// Processor state as JSON; default: the dump's own, and TARGET.cpu.json where it has none
    #[arg(long, value_name = "FILE")]
    cpu_file: Option<PathBuf>,
    /// What the dump is; default: what its content shows, unless a guest may have written that
    /// content into its RAM
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    format: Option<Format>,
    /// Look at a dump that was cut off: what is missing is absent
    #[arg(long)]
    partial: bool,
    /// Where RAM lies that is in one piece (raw RAM, migration streams): flat, pc, q35 or microvm
    /// for QEMU's machines, or `START..END@OFFSET,...` with the offset in the file or stream, which
    /// may be left out
    #[arg(long, value_name = "PLACEMENT", value_parser = placement)]
    ram: Option<Placement>,
    /// Print the processors' state in the form that --cpu-file reads
    #[arg(long)]
    json: bool,
}

impl InfoArgs {
    fn run(&self, context: Context) -> Result<(), Failure> {
        let options = TargetOptions {
            cpu_file: self.cpu_file.clone(),
            without_cpus: true,
            format: self.format,
            partial: self.partial,
            placement: self.ram.clone(),
            unpacking: unpacking(context),
        };
        let mut target = open(&self.target, &options, &Moment::any(INFO_PAUSE), context)?;
        target.resume()?;
        let mut out = output::stdout();
        if self.json {
            writeln!(out, "{}", cpus_json(&target.cpus))?;
            return Ok(out.flush()?);
        }
        writeln!(
            out,
            "{}: {}{}, {} of RAM",
            target.path.display(),
            target.format,
            target.packed.map_or_else(String::new, |packing| format!(", compressed with {packing}")),
            format::size(target.mem.size())
        )?;
        for range in target.mem.ranges() {
            writeln!(out, "  RAM  {:#x}..{:#x}", range.start.0, range.end.0)?;
        }
        for (number, cpu) in target.cpus.iter().enumerate() {
            writeln!(out, "  CPU {number}  {}", describe(cpu))?;
        }
        if target.cpus.is_empty() {
            writeln!(
                out,
                "  CPUs  not in the file; `virtuoso run` finds what it needs in memory, or give --cpu-file"
            )?;
        }
        Ok(out.flush()?)
    }
}

/// The longest pause for looking at a live guest, which takes some milliseconds.
const INFO_PAUSE: Duration = Duration::from_secs(5);

fn describe(cpu: &Cpu) -> String {
    let reg =
        |reg: Reg| cpu.regs.get(reg).map_or_else(|| "unknown".to_string(), |value| format!("{value:#x}"));
    let paging =
        PagingMode::from_regs(&cpu.regs).map_or_else(|error| error.to_string(), |mode| mode.to_string());
    let bits = cpu
        .code_bits()
        .map_or_else(|| "code of unknown width".to_string(), |bits| format!("{bits}-bit code"));
    format!(
        "rip {}, privilege level {}, {bits}, paging {paging}, cr3 {}, gs base {}, kernel gs base {}",
        reg(Reg::Rip),
        cpu.regs.get(Reg::Cpl).map_or_else(|| "unknown".to_string(), |level| level.to_string()),
        reg(Reg::Cr3),
        reg(Reg::GsBase),
        reg(Reg::KernelGsBase)
    )
}

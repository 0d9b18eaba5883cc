//! `virtuoso tampering`: whether a target's kernel code is what training has.

use std::path::PathBuf;

use clap::Args;
use engine::Relocation;
use engine::tampering::compare;
use machine::Reg;

use crate::asked::Asked;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::symbols::Symbols;
use crate::tampering::Report;

/// Compare a target's kernel code and read-only data with the trusted copies of them
///
/// All code of the training system, its modules wherever they lie, its read-only data and its
/// interrupt gates are compared, whatever the program uses of them; a `*` marks functions in its
/// slice. Only what a training boot shows of a place counts as the kernel's own. Other changes that
/// have the form of a kernel's own patch and lead to trusted code are listed as unknown, exit code
/// 33; all the rest is foreign, exit code 23. Where there is none of them but not everything could
/// be compared, the exit code is 28. Answers are computed from trusted code either way.
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
    /// List the variants that training shows too
    #[arg(long)]
    all: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl TamperingArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let report = self.compare(context)?;
        if self.json {
            report.print_json()?
        } else {
            report.print(self.all)?
        }
        report.alarm().map_or(Ok(()), Err)
    }

    /// Compares the target's code with the trusted copy; a live guest runs again afterwards.
    fn compare(&self, context: Context) -> Result<Report, Failure> {
        let program = self.asked.program()?;
        let system = self.asked.companion(&program, "the comparison")?;
        system.check().map_err(|error| self.asked.program_failure(&error.to_string()))?;
        let symbols = self.symbols.as_deref().map(Symbols::read).transpose()?;
        let mut target = self.asked.target(&program, context)?;
        let found = target.during(|target| {
            let run = self.asked.run(target)?;
            let found = Relocation::find(&program, &run).map_err(|error| self.asked.failure(&error))?;
            let tables: Vec<Option<u64>> =
                target.cpus.iter().map(|cpu| cpu.regs.get(Reg::IdtrBase)).collect();
            Ok(context
                .progress
                .during("comparing code", || compare(&program, &system, run.memory, &found, &tables)))
        })?;
        if found.pages == 0 {
            let text = format!(
                "{}: none of the training system's {} code pages is there: another kernel, or another \
                 address of it",
                self.asked.target_path().display(),
                system.len()
            );
            return Err(Failure::new(Exit::OtherKernel, text));
        }
        let name = |address: u64| symbols.as_ref().and_then(|symbols| symbols.name(address));
        Ok(Report::new(self.asked.target_path(), found, &program, &system, name))
    }
}

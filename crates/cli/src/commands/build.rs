//! `virtuoso build`: from recordings to a program and its companion file.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ir::{Program, System};
use machine::Reg;
use serde_json::json;
use slicer::{BuildOptions, Policy, Recording};

use crate::commands::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::statistics::{Counts, companion_name, source_line, sources_json};
use crate::symbols::Symbols;
use crate::trainer::Trainer;
use crate::{files, format, output};

/// Turn recordings of one training program into an introspection program
///
/// Cuts interrupts and faults, finds what the declared outputs depend on, and writes that down as a program. Several
/// recordings of the same trainer are merged. Beside the program lies the companion file of the training system, named by its hash: whole
/// runs take their code from it, and all programs trained on one system share it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso build pslist.trace -o pslist.prog --elf trainers/pslist
  virtuoso build a.trace b.trace -o getpsfile.prog --elf trainers/getpsfile --symbols System.map")]
pub struct BuildArgs {
    /// Recordings of the same trainer; the first gives the start state
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// The program file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The trainer's executable: its malloc, calloc, realloc and free become operations of the runtime
    #[arg(long, value_name = "FILE")]
    elf: Option<PathBuf>,
    /// What to do about branches that training saw going one way only
    #[arg(long, value_enum, default_value = "guard")]
    policy: PolicyArg,
    /// System.map or ELF file that names the training system's functions; only for listings
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// [`Policy`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// They always go that way: small, and sometimes silently wrong
    Assume,
    /// Those that can matter for the answer become guards
    Guard,
    /// Every one becomes a guard
    Whole,
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Assume => Self::Assume,
            PolicyArg::Guard => Self::Guard,
            PolicyArg::Whole => Self::Whole,
        }
    }
}

impl BuildArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let inputs = self.traces.iter().chain(&self.elf).chain(&self.symbols);
        files::not_an_input(&self.output, inputs.map(PathBuf::as_path))?;
        let symbols = self.symbols.as_deref().map(Symbols::read).transpose()?;
        let mut recordings = Vec::new();
        for path in &self.traces {
            let what = format!("reading {}", files::name(path));
            recordings.push(context.progress.during(what, || files::recording(path))?);
        }
        let trainer = self.trainer(&recordings, context)?;
        let mut options = BuildOptions { policy: self.policy.into(), ..BuildOptions::default() };
        if let Some(trainer) = &trainer {
            options.summaries.clone_from(&trainer.summaries);
        }
        let built = context
            .progress
            .during("slicing", || slicer::build(&recordings, &options))
            .map_err(|error| self.failure(error))?;
        let (mut program, system) = (built.program, built.system);
        for symbols in symbols.iter().chain(trainer.as_ref().map(|trainer| &trainer.symbols)) {
            symbols.name_functions(&mut program);
        }
        let bytes = program.to_bytes().map_err(internal)?;
        let companion = self.write(&program, &system, &bytes, context)?;
        if self.json {
            self.print_json(&program, bytes.len(), &companion)
        } else {
            self.print(&program, bytes.len(), &companion)
        }
    }

    fn trainer(&self, recordings: &[Recording], context: Context) -> Result<Option<Trainer>, Failure> {
        let (Some(path), Some(first)) = (&self.elf, recordings.first()) else { return Ok(None) };
        let trainer = Trainer::read(path, first.begin_regs().get_or_zero(Reg::Rip))?;
        if let (Some(why), false) = (trainer.no_summaries, context.quiet) {
            let what = "its allocations run as ordinary code; link it statically and do not strip it";
            output::note(&format!("{}: {why}, so {what}", path.display()));
        }
        Ok(Some(trainer))
    }

    /// Writes the companion file where it is not there yet, then the program, which needs it.
    fn write(&self, program: &Program, system: &System, bytes: &[u8], context: Context) -> Result<PathBuf, Failure> {
        let companion = self.output.with_file_name(companion_name(&program.system));
        if files::name(&companion) == files::name(&self.output) {
            return Err(Failure::file(
                &self.output,
                "the companion file has this name; choose another for the program",
            ));
        }
        let present = std::fs::read(&companion)
            .is_ok_and(|bytes| System::from_bytes(&bytes).is_ok_and(|there| there.hash() == program.system));
        if !present {
            let bytes = context.progress.during("packing the system's code", || system.to_bytes()).map_err(internal)?;
            files::write(&companion, &bytes)?;
        }
        if let Err(failure) = files::write(&self.output, bytes) {
            if !present {
                // Best effort: the failure that is reported is the program's.
                let _ = std::fs::remove_file(&companion);
            }
            return Err(failure);
        }
        Ok(companion)
    }

    /// What stops a build, with the trace's name where there is only one.
    fn failure(&self, error: slicer::Error) -> Failure {
        let next = match error {
            slicer::Error::Malformed(_) => return internal(error),
            slicer::Error::Paging(_) => "; record it again with `virtuoso record`",
            slicer::Error::NothingToDo(_) => "; check the trainer's marks and declared outputs, and record it again",
            _ => "",
        };
        match self.traces.as_slice() {
            [only] => Failure::file(only, format!("{error}{next}")),
            _ => Failure::input(format!("{error}{next}")),
        }
    }

    fn print(&self, program: &Program, bytes: usize, companion: &Path) -> Result<(), Failure> {
        let (counts, from) = (Counts::total(program), &program.provenance);
        let mut out = output::stdout();
        writeln!(
            out,
            "{}: program {} ({bytes} bytes), companion {}",
            self.output.display(),
            format::plain(&program.name),
            companion.display()
        )?;
        for source in &from.sources {
            writeln!(out, "  {}", source_line(source))?;
        }
        writeln!(
            out,
            "  distinct instructions: {} executed, {} in the slice",
            from.static_instructions, from.static_in_slice
        )?;
        writeln!(
            out,
            "  {} functions, {} blocks, {} operations, {} guards, {} unexplored sides (policy {})",
            program.functions.len(),
            counts.blocks,
            counts.operations,
            counts.guards,
            counts.unexplored,
            from.policy
        )?;
        Ok(out.flush()?)
    }

    fn print_json(&self, program: &Program, bytes: usize, companion: &Path) -> Result<(), Failure> {
        let from = &program.provenance;
        output::json(&json!({
            "program": program.name,
            "file": self.output.display().to_string(),
            "companion": companion.display().to_string(),
            "bytes": bytes,
            "policy": from.policy,
            "sources": sources_json(program),
            "instructions": from.sources.iter().map(|it| it.instructions).sum::<u64>(),
            "kept": from.sources.iter().map(|it| it.kept).sum::<u64>(),
            "in_slice": from.sources.iter().map(|it| it.in_slice).sum::<u64>(),
            "static_instructions": from.static_instructions,
            "static_in_slice": from.static_in_slice,
            "functions": program.functions.len(),
            "counts": Counts::total(program),
        }))
    }
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Internal, format!("{error}; please report it with the traces"))
}

//! `virtuoso build`: from recordings to a program and its companion file.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use slicer::{BuildOptions, ContextCells, Form, Policy, Recording, Stage};

use crate::built::{self, Built};
use crate::context::Context;
use crate::failure::Failure;
use crate::files;
use crate::inputs::parse_rehearsal;
use crate::output;
use crate::symbols::Symbols;
use crate::trainer::Trainer;
use crate::training::{self, InputTexts, Trained, Wishes, train};

/// Turn recordings of one training program into an introspection program
///
/// Cuts interrupts and faults, finds what the declared outputs depend on, and writes that down as a
/// program. Several recordings of the same trainer are merged. Beside the program lies the
/// companion file of the training system, named by its hash: whole runs take their code from it,
/// and all programs trained on one system share it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso build pslist.trace -o pslist.prog --elf trainers/pslist
  virtuoso build a.trace b.trace -o getpsfile.prog --elf trainers/getpsfile --symbols System.map
  virtuoso build pslist.trace -o pslist.prog --elf trainers/pslist --base kaslr/getpid.trace
  virtuoso build gettime.trace -o gettime.prog --exe gettime.exe --beside pslist.trace
  virtuoso build getpid.trace --elf trainers/getpid --dump cfg --dot | dot -Tsvg >getpid.svg
  virtuoso build getpsfile.trace -o getpsfile.prog --elf trainers/getpsfile --rehearse pid=1 --rehearse \
  pid=2")]
pub struct BuildArgs {
    /// Recordings of the same trainer; the first gives the start state
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// The program file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "dump")]
    output: Option<PathBuf>,
    /// The trainer's executable, ELF or PE: its malloc, calloc, realloc and free, and what it
    /// imports of Windows' heap, become operations of the runtime
    #[arg(long, visible_alias = "exe", value_name = "FILE")]
    elf: Option<PathBuf>,
    /// A recording of the same kernel at another address, of whatever trainer: tells what moves, so
    /// that the program runs over guests whose kernel lies elsewhere
    #[arg(long, value_name = "TRACE")]
    base: Option<PathBuf>,
    /// A recording of another trainer in the same boot: what it shows of the processor's context
    /// counts for this program too; may be given several times
    #[arg(long, value_name = "TRACE")]
    beside: Vec<PathBuf>,
    /// What to do about branches that training saw going one way only
    #[arg(long, value_enum, default_value = "guard")]
    policy: PolicyArg,
    /// Whose view the program takes
    #[arg(long, value_enum, default_value = "auto")]
    view: ViewArg,
    /// Run the trainer once more over each recording's memory with these inputs, and merge what it
    /// executes
    #[arg(long, value_name = "NAME=VALUE[,..]", value_parser = parse_rehearsal)]
    rehearse: Vec<InputTexts>,
    /// Make the program even if none of its outputs depends on the target: every target gets the
    /// same answer
    #[arg(long)]
    allow_constant: bool,
    /// System.map or ELF file that names the training system's functions; only for listings
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long, conflicts_with = "dump")]
    json: bool,
    /// Print what this stage makes of the recordings instead, and write nothing: retained (steps),
    /// contexts, graph (dependences), cfg (control flow), liveness, slice or program
    #[arg(long, value_parser = parse_stage, value_name = "STAGE", conflicts_with = "output")]
    dump: Option<Stage>,
    /// Print the stage as a graph for Graphviz: contexts, graph, cfg or slice
    #[arg(long, requires = "dump")]
    dot: bool,
}

/// The stage with this name, for clap.
fn parse_stage(name: &str) -> Result<Stage, String> {
    let names = Stage::ALL.map(Stage::name).join(", ");
    Stage::by_name(name).ok_or_else(|| format!("there is no such stage; give one of {names}"))
}

/// The values of `--policy`, one for each [`Policy`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// They always go that way: small, and sometimes silently wrong
    Assume,
    /// Those that can matter for the answer become guards
    Guard,
    /// Every one becomes a guard
    Whole,
}

/// The values of `--view`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ViewArg {
    /// An idle processor's where the answer does not depend on who runs, else the paused one's
    Auto,
    /// The paused processor's, with its process's permissions
    Paused,
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
        let inputs = self.traces.iter().chain(&self.elf).chain(&self.symbols).chain(&self.base);
        let inputs = inputs.chain(&self.beside);
        if let Some(output) = &self.output {
            files::not_an_input(output, inputs.map(PathBuf::as_path))?;
        }
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
        let paused = self.view == ViewArg::Paused;
        let base = self.base.as_deref().map(files::recording).transpose()?;
        let (constant, rehearse) = (self.allow_constant, self.rehearse.clone());
        let mut beside = ContextCells::default();
        for path in &self.beside {
            let shown = training::context_of(&files::recording(path)?);
            beside = beside.and(&shown.map_err(|error| built::failure(&self.beside, error))?);
        }
        let systems = self.output.as_deref().map(built::companions_beside).unwrap_or_default();
        let (base, systems) = (base.as_ref(), systems.as_slice());
        let wishes = Wishes { options, paused, constant, base, beside, systems, rehearse };
        let Some(output) = &self.output else { return self.print_stage(&recordings, &wishes, context) };
        let trained = context.progress.during("rehearsing and slicing", || train(&recordings, &wishes));
        let Trained { mut program, system, execution_context, left_out } =
            trained.map_err(|error| built::failure(&self.traces, error))?;
        for symbols in symbols.iter().chain(trainer.as_ref().map(|trainer| &trainer.symbols)) {
            symbols.name_functions(&mut program);
        }
        let bytes = program.to_bytes().map_err(built::internal)?;
        let companion = built::write(output, &program, &system, &bytes, context)?;
        let built = Built {
            file: output,
            program: &program,
            bytes: bytes.len(),
            companion: &companion,
            execution_context,
            left_out,
        };
        if self.json { built.print_json() } else { built.print() }
    }

    /// Prints a stage instead of building.
    fn print_stage(
        &self,
        recordings: &[Recording],
        wishes: &Wishes<'_>,
        context: Context,
    ) -> Result<(), Failure> {
        let Some(stage) = self.dump else { return Ok(()) };
        let form = if self.dot { Form::Dot } else { Form::Text };
        let text = context
            .progress
            .during("rehearsing and slicing", || training::dump(recordings, wishes, stage, form));
        let text = text.map_err(|error| built::failure(&self.traces, error))?;
        let mut out = output::stdout();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    fn trainer(&self, recordings: &[Recording], context: Context) -> Result<Option<Trainer>, Failure> {
        let mut recorded = recordings.iter().filter(|it| !it.trace.header().whole_run);
        let (Some(path), Some(first)) = (&self.elf, recorded.next()) else { return Ok(None) };
        let trainer = Trainer::read(path, first)?;
        trainer.remark(&path.display(), context);
        Ok(Some(trainer))
    }
}

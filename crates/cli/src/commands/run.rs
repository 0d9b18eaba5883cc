//! `virtuoso run`: asks a target, by the slice, by the whole run, or by both.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use engine::locate::{Hints, LocateError, locate};
use engine::{
    Environment, Inputs, Limits, Outcome, Run, RunError, SliceProgram, Values, WholeProgram, parse_inputs,
};
use ir::Program;
use machine::Target;

use crate::commands::{Context, target};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::{Name, Opened};
use crate::report::{Attempt, Report};
use crate::statistics::companion_name;
use crate::{exit, files, format, output};

/// Run a program over a paused machine or a live guest and print its answer
///
/// By default the slice runs; where it meets code that training did not see, the whole run answers
/// (the trainer's and the kernel's trusted code over the target's memory), and a remark says so.
/// The target is never written, and no code is ever taken from it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso run pslist.prog guest.elf
  virtuoso run getpsfile.prog guest.elf --input pid=1 --json
  virtuoso run lsmod.prog guest.raw --cpu-file guest.cpu.json --verify
  virtuoso run pslist.prog qmp:/run/guest.qmp", after_long_help = format!("Examples:
  virtuoso run pslist.prog guest.elf
  virtuoso run getpsfile.prog guest.elf --input pid=1 --json
  virtuoso run lsmod.prog guest.raw --cpu-file guest.cpu.json --verify
  virtuoso run pslist.prog qmp:/run/guest.qmp      # a running guest: paused, asked, resumed

{}", exit::help()))]
pub struct RunArgs {
    #[command(flatten)]
    asked: Asked,
    /// Only the slice: where it stops there is no answer
    #[arg(long, group = "mode")]
    slice: bool,
    /// Only the whole run
    #[arg(long, group = "mode")]
    whole: bool,
    /// Both, and compare
    #[arg(long, group = "mode")]
    verify: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print the times taken on standard error
    #[arg(long)]
    time: bool,
    /// Run this many times more in the same process and report the median time of those: how a
    /// long-lived user would see it
    #[arg(long, value_name = "N", default_value_t = 0)]
    repeat: u32,
}

/// How to look at a target.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// The processor whose view is taken, counted from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    cpu: usize,
    /// Processor state as JSON; default: the dump's own, TARGET.cpu.json where it has none, or what
    /// is found in memory
    #[arg(long, value_name = "FILE")]
    cpu_file: Option<PathBuf>,
    /// Root of page tables that map the kernel, for a dump without processor state; default: found
    /// in memory
    #[arg(long, value_name = "ADDR", value_parser = format::parse_number)]
    cr3: Option<u64>,
    /// The kernel's GS base, for a dump without processor state; default: found in memory
    #[arg(long, value_name = "ADDR", value_parser = format::parse_number)]
    gs: Option<u64>,
    /// The target's time stamp counter at the pause, where it is known
    #[arg(long, value_name = "N", value_parser = format::parse_number)]
    tsc: Option<u64>,
    /// Operations a run may execute
    #[arg(long, value_name = "N", value_parser = format::parse_number)]
    fuel: Option<u64>,
    /// Milliseconds that a live guest may be paused; then it is resumed, and there is no answer
    #[arg(long, value_name = "MS", value_parser = format::parse_number, default_value_t = 10_000)]
    max_pause: u64,
    /// The training system's companion file; default: the one beside the program that it names by
    /// hash
    #[arg(long, value_name = "FILE")]
    system: Option<PathBuf>,
}

impl TargetArgs {
    /// Opens a target for a program, by which the processors are found where the target does not
    /// say; a live guest is paused from here on.
    pub fn open(&self, path: &Path, program: &Program, context: Context) -> Result<Opened, Failure> {
        let hints = Hints { cr3: self.cr3, gs_base: self.gs };
        let hinted = hints.cr3.is_some() || hints.gs_base.is_some();
        if hinted && Name::parse(path).is_some() {
            return Err(Failure::file(
                path,
                "a live guest has its own processor state; leave --cr3 and --gs out",
            ));
        }
        let mut opened = target::open(path, self.cpu_file.as_deref(), self.max_pause(), context)?;
        if !opened.cpus.is_empty() && !hinted {
            return Ok(opened);
        }
        let found =
            context.progress.during("finding the processors", || locate(program, &*opened.mem, hints));
        let found = found.map_err(|error| {
            let taken =
                if opened.format == "raw" { " (a file of no known format is taken for raw RAM)" } else { "" };
            let text = format!(
                "{}: {error}{taken}; give the processors' state with --cpu-file, or --cr3 and --gs",
                path.display()
            );
            match error {
                LocateError::Gates | LocateError::Tables => Failure::new(Exit::OtherKernel, text),
                _ => Failure::input(text),
            }
        })?;
        if !context.quiet {
            output::note(&format!("{}: {}", path.display(), format::located(&found)));
        }
        opened.found(found);
        Ok(opened)
    }

    /// How long a live guest may be paused.
    pub const fn max_pause(&self) -> Duration {
        Duration::from_millis(self.max_pause)
    }
}

/// A program, a target and how to look at it: what every run needs.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    /// The program, made by `virtuoso build`
    program: PathBuf,
    /// A dump of a paused guest, or a live guest: qmp:SOCKET or libvirt:DOMAIN
    target: PathBuf,
    /// Value of an input; lists are separated by commas
    #[arg(short, long = "input", value_name = "NAME=VALUE", value_parser = parse_input)]
    inputs: Vec<(String, String)>,
    #[command(flatten)]
    how: TargetArgs,
}

impl Asked {
    /// The same without a command line.
    pub const fn new(
        program: PathBuf,
        target: PathBuf,
        how: TargetArgs,
        inputs: Vec<(String, String)>,
    ) -> Self {
        Self { program, target, inputs, how }
    }

    /// The same with another program.
    #[must_use]
    pub fn with_program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// The same with those of the inputs that the program has.
    #[must_use]
    pub fn with_inputs(mut self, program: &Program, inputs: &[(String, String)]) -> Self {
        let known = |name: &String| program.inputs.iter().any(|field| field.name == *name);
        self.inputs = inputs.iter().filter(|(name, _)| known(name)).cloned().collect();
        self
    }

    /// The program.
    pub fn program(&self) -> Result<Program, Failure> {
        files::program(&self.program)
    }

    /// Where the program is.
    pub fn program_path(&self) -> &Path {
        &self.program
    }

    /// Whether the target is a live guest.
    pub fn is_live(&self) -> bool {
        Name::parse(&self.target).is_some()
    }

    /// Where the target is.
    pub fn target_path(&self) -> &Path {
        &self.target
    }

    /// Something is wrong with the program.
    pub fn program_failure(&self, what: &str) -> Failure {
        Failure::file(&self.program, what)
    }

    /// The inputs as bytes.
    pub fn inputs(&self, program: &Program) -> Result<Inputs, Failure> {
        parse_inputs(program, &self.inputs).map_err(|error| Failure::file(&self.program, error))
    }

    /// The target; a live guest is paused from here on.
    pub fn target(&self, program: &Program, context: Context) -> Result<Opened, Failure> {
        self.how.open(&self.target, program, context)
    }

    /// The target as a run sees it.
    pub fn run<'t>(&self, target: &'t Target) -> Result<Run<'t>, Failure> {
        let cpu = target.cpus.get(self.how.cpu).ok_or_else(|| {
            let last = target.cpus.len().saturating_sub(1);
            Failure::file(
                &self.target,
                format!("it has no processor {}; give --cpu 0 to {last}", self.how.cpu),
            )
        })?;
        let mut limits = Limits::default();
        if let Some(fuel) = self.how.fuel {
            limits.fuel = fuel;
        }
        Ok(Run { memory: &*target.mem, regs: &cpu.regs, env: Environment { tsc: self.how.tsc }, limits })
    }

    /// The companion file; `why` says what for.
    pub fn companion(&self, program: &Program, why: &str) -> Result<ir::System, Failure> {
        let name = companion_name(&program.system);
        let path = self.how.system.clone().unwrap_or_else(|| self.program.with_file_name(&name));
        if self.how.system.is_none() && !path.exists() {
            return Err(Failure::input(format!(
                "{why} needs the training system's companion file {}, which is not there; copy it beside the \
                 program or name it with --system",
                path.display()
            )));
        }
        let system = files::system(&path)?;
        if system.hash() != program.system {
            return Err(Failure::file(
                &path,
                format!("it belongs to another training system; the program needs {name}"),
            ));
        }
        Ok(system)
    }

    /// The answer about an opened target: the slice's, or else the whole run's.
    pub fn answer(&self, program: &Program, target: &Target, context: Context) -> Result<Values, Failure> {
        let inputs = self.inputs(program)?;
        let run = self.run(target)?;
        let slice = SliceProgram::new(program).map_err(|error| self.failure(&error.into()))?;
        let why = match slice.run(&run, &inputs).map_err(|error| self.failure(&error))?.0 {
            Outcome::Answer(values) => return Ok(values),
            Outcome::Stopped(stopped) => format!("the slice stopped ({stopped}), and the whole run"),
        };
        let system = self.companion(program, &why)?;
        let mut whole = WholeProgram::new(program, &system);
        let outcome = context.progress.during("whole run", || whole.run(&run, &inputs));
        match outcome.map_err(|error| self.failure(&error))?.0 {
            Outcome::Answer(values) => Ok(values),
            Outcome::Stopped(stopped) => {
                let text = format!("{}: the whole run stopped: {stopped}", self.program.display());
                Err(Failure::new(Exit::of(&stopped), text))
            }
        }
    }

    /// Why a run could not begin.
    pub fn failure(&self, error: &RunError) -> Failure {
        match error {
            RunError::Elsewhere { .. } => Failure::new(
                Exit::OtherKernel,
                format!(
                    "{}: {error}; build it again with --base and a recording of the same kernel booted with \
                     another base",
                    self.target.display()
                ),
            ),
            RunError::Constant { .. } => Failure::new(
                Exit::OtherKernel,
                format!(
                    "{}: {error}; build the program again with --base and a recording of a guest like this \
                     one (memory size, processors)",
                    self.target.display()
                ),
            ),
            RunError::OtherKernel { .. } => Failure::new(
                Exit::OtherKernel,
                format!(
                    "{}: {error}; train on the target's kernel and build the program again",
                    self.target.display()
                ),
            ),
            RunError::TooLarge(_) => {
                Failure::file(&self.program, format!("{error}; mark less work between begin and end"))
            }
            RunError::Input(_) => Failure::file(&self.program, error),
            error => Failure::file(&self.target, error),
        }
    }
}

/// The slice's outcome, or where it stopped and a whole run is at hand that one's; and which it
/// was.
pub fn slice_or_whole(
    slice: &SliceProgram<'_>,
    whole: Option<&mut WholeProgram<'_>>,
    run: &Run<'_>,
    inputs: &Inputs,
) -> Result<(Outcome, &'static str), RunError> {
    match (slice.run(run, inputs)?.0, whole) {
        (Outcome::Stopped(_), Some(whole)) => Ok((whole.run(run, inputs)?.0, "whole")),
        (outcome, _) => Ok((outcome, "slice")),
    }
}

/// The median time of so many calls; `first` when there are none.
fn median(
    first: Duration,
    count: u32,
    mut call: impl FnMut() -> Result<(), RunError>,
) -> Result<Duration, RunError> {
    let mut times = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        call()?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or(first))
}

/// An input as `NAME=VALUE`.
pub fn parse_input(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give the input as NAME=VALUE, for example pid=1")?;
    Ok((name.to_string(), value.to_string()))
}

impl RunArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let begin = Instant::now();
        let program = self.asked.program()?;
        let inputs = self.asked.inputs(&program)?;
        // A live guest waits while the target is open: what can be made ready before, is.
        let slice = (!self.whole).then(|| SliceProgram::new(&program)).transpose();
        let slice = slice.map_err(|error| self.asked.failure(&error.into()))?;
        let mut system = None;
        if self.whole || self.verify || self.asked.is_live() && !self.slice {
            system = self
                .asked
                .companion(&program, "the whole run")
                .map(Some)
                .or_else(|failure| if self.whole || self.verify { Err(failure) } else { Ok(None) })?;
        }
        let mut target = self.asked.target(&program, context)?;
        let mut report = Report::new(&program.name, &self.asked.target, begin.elapsed());
        report.located = target.located().cloned();
        let asked = self.attempts(&program, &inputs, slice.as_ref(), system, &target, &mut report, context);
        // A pause that was over too early is the cause of whatever went wrong.
        report.pause = target.resume()?.map(|pause| pause.length);
        asked?;
        self.finish(&report, context)
    }

    /// Asks the target in the ways that are wanted.
    #[expect(clippy::too_many_arguments, reason = "all of it is made ready before a live guest is paused")]
    fn attempts(
        &self,
        program: &Program,
        inputs: &Inputs,
        slice: Option<&SliceProgram<'_>>,
        system: Option<ir::System>,
        target: &Target,
        report: &mut Report<'_>,
        context: Context,
    ) -> Result<(), Failure> {
        let run = self.asked.run(target)?;
        if let Some(slice) = slice {
            let begin = Instant::now();
            let (outcome, operations) =
                slice.run(&run, inputs).map_err(|error| self.asked.failure(&error))?;
            let time = median(begin.elapsed(), self.repeat, || slice.run(&run, inputs).map(drop))
                .map_err(|error| self.asked.failure(&error))?;
            report.slice = Some(Attempt { outcome, steps: operations, time });
        }
        if self.whole || self.verify || (!self.slice && !report.slice_answers()) {
            let why = match report.slice.as_ref().map(|attempt| &attempt.outcome) {
                Some(Outcome::Stopped(stopped)) => {
                    format!("the slice stopped ({stopped}), and the whole run")
                }
                _ => "the whole run".to_string(),
            };
            let system = system.map_or_else(|| self.asked.companion(program, &why), Ok)?;
            let begin = Instant::now();
            let mut whole = WholeProgram::new(program, &system);
            let (outcome, told) = context
                .progress
                .during("whole run", || whole.run(&run, inputs))
                .map_err(|error| self.asked.failure(&error))?;
            report.assertions = told.assertions;
            let time = median(begin.elapsed(), self.repeat, || whole.run(&run, inputs).map(drop))
                .map_err(|error| self.asked.failure(&error))?;
            report.whole = Some(Attempt { outcome, steps: told.instructions, time });
        }
        Ok(())
    }

    fn finish(&self, report: &Report<'_>, context: Context) -> Result<(), Failure> {
        if self.time {
            output::note(&report.times());
        }
        if self.json {
            output::json(&report.json(self.verify))?;
        } else {
            report.print(self.verify)?;
        }
        if !context.quiet {
            for remark in report.remarks(self.verify) {
                output::note(&remark);
            }
        }
        match report.exit(self.verify) {
            Exit::Done => Ok(()),
            exit => match report.failure() {
                Some(text) => Err(Failure::new(exit, text)),
                None => Err(Failure::quiet(exit)),
            },
        }
    }
}

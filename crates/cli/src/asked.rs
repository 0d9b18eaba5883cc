//! Asking a target: a program, a target, and the way from both to a run and its outcome.
//!
//! Every verb that runs programs does it through here, so that all of them find companion files,
//! inputs and processors alike and fail with the same words. What an answer means, and how it is
//! printed, is the verb's own business.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::{
    Environment, Inputs, Limits, Outcome, Run, RunError, SliceProgram, Values, WholeProgram, parse_inputs,
};
use ir::Program;
use machine::Target;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::inputs::parse_input;
use crate::live::{Name, Opened};
use crate::statistics::companion_name;
use crate::target::TargetArgs;

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
    /// The question that a command line with these values would ask.
    pub const fn new(
        program: PathBuf,
        target: PathBuf,
        how: TargetArgs,
        inputs: Vec<(String, String)>,
    ) -> Self {
        Self { program, target, inputs, how }
    }

    /// The same question, asked with another program.
    #[must_use]
    pub fn with_program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// The same question with those of the inputs that the program has.
    #[must_use]
    pub fn with_inputs(mut self, program: &Program, inputs: &[(String, String)]) -> Self {
        let known = |name: &String| program.inputs.iter().any(|variable| variable.name == *name);
        self.inputs = inputs.iter().filter(|(name, _)| known(name)).cloned().collect();
        self
    }

    /// Reads and verifies the program.
    pub fn program(&self) -> Result<Program, Failure> {
        files::program(&self.program)
    }

    /// The path of the program file.
    pub fn program_path(&self) -> &Path {
        &self.program
    }

    /// Whether the target is a live guest.
    pub fn is_live(&self) -> bool {
        Name::parse(&self.target).is_some()
    }

    /// The target as the user named it: a path, or a live guest's name.
    pub fn target_path(&self) -> &Path {
        &self.target
    }

    /// The failure that names the program file and says what is wrong with it.
    pub fn program_failure(&self, what: &str) -> Failure {
        Failure::file(&self.program, what)
    }

    /// The inputs as the bytes that the trainer would have had in its variables.
    pub fn inputs(&self, program: &Program) -> Result<Inputs, Failure> {
        parse_inputs(program, &self.inputs).map_err(|error| Failure::file(&self.program, error))
    }

    /// Opens the target; a live guest is paused from here on.
    pub fn target(&self, program: &Program, context: Context) -> Result<Opened, Failure> {
        self.how.open(&self.target, program, context)
    }

    /// The target as a run sees it: its memory, one processor, and the limits of the run.
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

    /// Reads the companion file; `why` says in messages what needs it.
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

    /// The failure that says why a run could not begin, and what to do.
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

/// What the slice comes to, or, where it stops and a whole run is at hand, what that comes to; and
/// which of them it was: `slice` or `whole`.
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

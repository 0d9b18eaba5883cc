//! Asking a target: a program, a target, and the way from both to a run and its outcome.
//!
//! Every verb that runs programs does it through here, so that all of them find companion files,
//! inputs and processors alike and fail with the same words. What an answer means, and how it is
//! printed, is the verb's own business.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::{
    ApicId, Departures, Environment, Inputs, Limits, Run, RunError, Session, SliceProgram, Values,
    parse_inputs,
};
use ir::Program;
use machine::Target;

use crate::context::Context;
use crate::departures;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::inputs::parse_input;
use crate::live::{Name, Opened};
use crate::statistics::{companion_name, modules_name};
use crate::target::{Engine, TargetArgs};
use crate::ways::{Verdict, Ways};

/// What a trainer's return code `rc` is where its /proc is something else than the system's own,
/// procfs, whose magic number this is: outside the ranges of errno and of Windows' errors.
const NO_PROCFS: i128 = -0x9fa0;

/// What a program's own return code says went wrong, in words.
#[must_use]
pub fn guest_error(values: &Values) -> Option<String> {
    match values.number("rc")? {
        0.. => None,
        NO_PROCFS => Some(
            "the guest's /proc is no procfs: something else is mounted there, or the root of the program's \
             view has none, and no answer can come from it; pidprobe asks without /proc, and a program built \
             with --view paused asks from the root of the process that was paused"
                .to_string(),
        ),
        code => Some(format!("the guest's own code answers with the error code {code}")),
    }
}

/// An answer, and what there is to say about it.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The outputs.
    pub values: Values,
    /// The outputs that are full, so that there may be more.
    pub full: Vec<String>,
    /// Why the other way does not verify it, where it does not.
    pub unverified: Option<String>,
    /// Where the runs did not follow the target.
    pub departures: Departures,
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

    /// The same, or what a recorded trainer had where the user gives none.
    pub fn inputs_or(&self, program: &Program, recorded: impl FnOnce() -> Inputs) -> Result<Inputs, Failure> {
        if self.inputs.is_empty() { Ok(recorded()) } else { self.inputs(program) }
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
        let (env, limits) =
            (Environment { tsc: self.how.tsc, apic: ApicId::Listed(self.how.cpu) }, self.limits());
        Ok(Run { memory: &*target.mem, regs: &cpu.regs, env, limits })
    }

    /// The most that a run may use.
    pub fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            time: self.how.max_time,
            fuel: self.how.fuel.unwrap_or(usual.fuel),
            machine_code: self.how.engine == Engine::Compile,
            ..usual
        }
    }

    /// Where the companion file is: as the user says, or beside the program.
    fn companion_path(&self, program: &Program) -> PathBuf {
        let beside = || self.program.with_file_name(companion_name(&program.system));
        self.how.system.clone().unwrap_or_else(beside)
    }

    /// Whether there is no companion file where it would be, and the user names none.
    pub fn lacks_companion(&self, program: &Program) -> bool {
        self.how.system.is_none() && !self.companion_path(program).exists()
    }

    /// Opens the companion file; `why` says in messages what needs it. Most of it is read when it
    /// is used, but for a live guest, which would wait for it.
    pub fn companion(&self, program: &Program, why: &str) -> Result<ir::System, Failure> {
        let name = companion_name(&program.system);
        let path = self.companion_path(program);
        if self.how.system.is_none() && !path.exists() {
            return Err(Failure::input(format!(
                "{why} needs the training system's companion file {}, which is not there; copy it beside the \
                 program or name it with --system",
                path.display()
            )));
        }
        let mut system = files::system(&path)?;
        if system.hash() != program.system {
            return Err(Failure::file(
                &path,
                format!("it belongs to another training system; the program needs {name}"),
            ));
        }
        let modules = path.with_file_name(modules_name(&program.system));
        if modules.exists() {
            system.set_modules(files::modules(&modules, program.system)?);
        }
        if Name::parse(&self.target).is_some() {
            system.check().map_err(|error| Failure::file(&path, error))?;
        }
        Ok(system)
    }

    /// The answer about an opened target by both ways, or by the one that comes to an end.
    pub fn answer(&self, program: &Program, target: &Target, context: Context) -> Result<Answered, Failure> {
        let inputs = self.inputs(program)?;
        let run = self.run(target)?;
        let slice = SliceProgram::new(program).map_err(|error| self.failure(&error.into()))?;
        let system = self.companion(program, "the whole run");
        let session = system.as_ref().ok().map(|system| Session::new(run, system));
        let ways = context.progress.during("slice and whole run", || match &session {
            Some(session) => Ways::in_session(&session.program(program)?, &inputs, &run.limits),
            None => Ways::ask(&slice, None, &run, &inputs),
        });
        let ways = ways.map_err(|error| self.failure(&error))?;
        self.judge(program, &ways, system.as_ref().err())
    }

    /// The answer that both ways give; a failure if they differ or both stop. `no_whole` says why
    /// there was no whole run.
    pub fn judge(
        &self,
        program: &Program,
        ways: &Ways,
        no_whole: Option<&Failure>,
    ) -> Result<Answered, Failure> {
        let name = self.program.display();
        match ways.verdict() {
            Some(Verdict::Answer { values, .. }) => Ok(Answered {
                values: values.clone(),
                full: values.full(program),
                unverified: ways.unverified().or_else(|| no_whole.map(Failure::to_string)),
                departures: ways.departures.clone(),
            }),
            Some(Verdict::Differ { changed, .. }) => {
                let outputs = ways.differing().join(", ");
                let why = departures::changed(changed)
                    .unwrap_or_else(|| "trust neither, and please report it".to_owned());
                let text = format!(
                    "{name}: slice and whole run differ in {outputs}: `virtuoso run` prints both; {why}"
                );
                Err(Failure::new(Exit::differ(changed), text))
            }
            Some(Verdict::Stopped { stopped, by }) => {
                let next = no_whole.map_or(String::new(), |why| format!("; {why}"));
                Err(Failure::new(
                    Exit::of(stopped),
                    format!("{name}: {} stopped: {stopped}{next}", by.title()),
                ))
            }
            None => Err(Failure::file(&self.program, "it was asked in no way")),
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
            RunError::Copy { .. } => Failure::new(
                Exit::OtherKernel,
                format!(
                    "{}: {error}; look for tampering with its interrupt table and page tables",
                    self.target.display()
                ),
            ),
            RunError::GsBase { .. } => {
                Failure::file(&self.target, format!("{error}; pause the guest at another moment"))
            }
            RunError::TooLarge(_) => {
                Failure::file(&self.program, format!("{error}; mark less work between begin and end"))
            }
            RunError::Input(_) | RunError::Companion(_) => Failure::file(&self.program, error),
            error => Failure::file(&self.target, error),
        }
    }
}

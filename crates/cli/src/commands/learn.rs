//! `virtuoso learn`: brings the paths that a target takes into a program.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::{Inputs, Outcome, Relocation, Run, SliceProgram, Values, WholeProgram};
use ir::{Program, System};
use machine::VirtAddr;
use rustc_hash::FxHashMap;
use slicer::{BuildOptions, ContextCells, Policy, Recording};
use trace::Trace;

use crate::asked::Asked;
use crate::built::{self, Built};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::training::{InputTexts, Trained, Wishes, learned_name, record_whole, train};
use crate::{evidence, files, output};

/// Make a program answer by its slice where it stopped at a path that training did not see
///
/// Runs it whole over the target, merges what that run executed with the recordings the program was
/// built from, and writes a new program. No guest is booted. Code still comes from the training
/// system alone: the target decides which of it is executed, never what it is. What was learned is
/// kept as a trace beside the new program, so that learning can go on from there.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso learn pslist.prog guest.elf -o pslist2.prog
  virtuoso learn getpsfile.prog guest.elf --input pid=1 -o getpsfile2.prog --traces traces/")]
pub struct LearnArgs {
    #[command(flatten)]
    asked: Asked,
    /// The program file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Folder with the recordings that the program was built from, beside the program's own; may be
    /// given several times
    #[arg(long, value_name = "DIR")]
    traces: Vec<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// What a target has to teach.
enum Lesson {
    /// The slice answers, and there is a reason to leave it at that.
    Nothing { why: String },
    /// A whole run, as the trace to write to a file, and the program built with it.
    Learned { file: PathBuf, bytes: Vec<u8>, trained: Box<Trained> },
}

impl LearnArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let program = self.asked.program()?;
        let inputs = self.asked.inputs(&program)?;
        let mut target = self.asked.target(&program, context)?;
        // A live guest runs again before anything is written.
        let lesson = target.during(|target| {
            let run = self.asked.run(target)?;
            self.lesson(&program, &run, &inputs, context)
        })?;
        match lesson {
            Lesson::Nothing { why } => {
                output::note(&format!(
                    "the slice answers already, {why}: there is nothing to learn, and the program is copied \
                     as it is"
                ));
                let bytes = program.to_bytes().map_err(built::internal)?;
                files::write(&self.output, &bytes)
            }
            Lesson::Learned { file, bytes, trained } => {
                files::write(&file, &bytes)?;
                self.write(&trained, context)
            }
        }
    }

    /// What the target teaches.
    fn lesson(
        &self,
        program: &Program,
        run: &Run<'_>,
        inputs: &Inputs,
        context: Context,
    ) -> Result<Lesson, Failure> {
        let slice = SliceProgram::new(program).map_err(|error| self.asked.failure(&error.into()))?;
        let (outcome, _) = slice.run(run, inputs).map_err(|error| self.asked.failure(&error))?;
        let mut system = self.asked.companion(program, "learning from a whole run")?;
        // What training did not load lies elsewhere in each target, and a slice has its addresses.
        system.forget_modules();
        if let Outcome::Answer(answer) = &outcome {
            let mut whole = WholeProgram::new(program, &system);
            let whole = whole.run(run, inputs).map_err(|error| self.asked.failure(&error))?.0;
            // Where they differ the whole run has something to teach.
            match &whole {
                Outcome::Answer(whole) if whole == answer => {
                    return Ok(Lesson::Nothing { why: "as the whole run does".to_owned() });
                }
                Outcome::Answer(_) => {}
                Outcome::Stopped(stopped) => {
                    return Ok(Lesson::Nothing { why: format!("and the whole run stopped: {stopped}") });
                }
            }
        }
        let slide = Relocation::find(program, run).map_err(|error| self.asked.failure(&error))?.slide();
        if slide != 0 {
            return Err(Failure::input(format!(
                "{}: its kernel lies {slide:#x} bytes from training's, and a whole run there cannot be \
                 merged; learn from a target with the kernel where training had it",
                self.asked.target_path().display()
            )));
        }
        let mut recordings = self.recordings(program, context)?;
        let (values, bytes) = self.whole_run(&recordings, program, &system, run, inputs, context)?;
        let file = self.output.with_file_name(learned_name(&program.name, &bytes));
        let trace =
            Trace::from_bytes(bytes.as_slice()).map_err(|error| files::trace_failure(&file, &error))?;
        recordings.push(Recording::load(&files::name(&file), trace).map_err(built::internal)?);
        let trained = self.merged((program, &system), &recordings, context)?;
        let slice = SliceProgram::new(&trained.program).map_err(|error| self.asked.failure(&error.into()))?;
        let (outcome, _) = slice.run(run, inputs).map_err(|error| self.asked.failure(&error))?;
        judge(&outcome, &values)?;
        Ok(Lesson::Learned { file, bytes, trained: Box::new(trained) })
    }

    /// Writes the new program and tells of it.
    fn write(&self, trained: &Trained, context: Context) -> Result<(), Failure> {
        let Trained { program, system, execution_context, left_out } = trained;
        let encoded = program.to_bytes().map_err(built::internal)?;
        let companion = built::write(&self.output, program, system, &encoded, context)?;
        let built = Built {
            file: &self.output,
            program,
            bytes: encoded.len(),
            companion: &companion,
            execution_context: execution_context.clone(),
            left_out: left_out.clone(),
        };
        if self.json { built.print_json() } else { built.print() }
    }

    /// The whole run over the target: what it answers, and the bytes of its trace.
    fn whole_run(
        &self,
        recordings: &[Recording],
        program: &Program,
        system: &System,
        run: &Run<'_>,
        inputs: &Inputs,
        context: Context,
    ) -> Result<(Values, Vec<u8>), Failure> {
        let header = recordings.iter().map(|it| it.trace.header()).find(|header| !header.whole_run);
        let header = header.ok_or_else(|| self.asked.program_failure("it names no recording of a guest"))?;
        let recorded = context
            .progress
            .during("whole run", || record_whole(header, program, system, run, inputs))
            .map_err(|error| Failure::file(&self.output, error))?;
        match recorded {
            (Outcome::Answer(values), bytes) => Ok((values, bytes)),
            (Outcome::Stopped(stopped), _) => {
                let text = format!(
                    "nothing was learned, for the whole run stopped: {stopped}; see `virtuoso run --whole`"
                );
                Err(Failure::new(Exit::of(&stopped), text))
            }
        }
    }

    /// The program built again as it was, from the recordings given, with the companion file that
    /// it has.
    fn merged(
        &self,
        (program, system): (&Program, &System),
        recordings: &[Recording],
        context: Context,
    ) -> Result<Trained, Failure> {
        let base = match &program.provenance.base {
            Some(name) => Some(self.recording(name, context)?),
            None => None,
        };
        let wishes =
            wishes(program, base.as_ref(), recordings).map_err(|why| self.asked.program_failure(&why))?;
        let wishes = Wishes { systems: std::slice::from_ref(system), ..wishes };
        let trained = context.progress.during("rehearsing and slicing", || train(recordings, &wishes));
        let mut trained = trained.map_err(|error| built::failure(&[], error))?;
        keep_names(program, &mut trained.program);
        Ok(trained)
    }

    /// Reads the recordings that the program was built from, each once.
    fn recordings(&self, program: &Program, context: Context) -> Result<Vec<Recording>, Failure> {
        let mut names: Vec<&str> = Vec::new();
        for source in &program.provenance.sources {
            if !names.contains(&source.trace.as_str()) {
                names.push(&source.trace);
            }
        }
        names.into_iter().map(|name| self.recording(name, context)).collect()
    }

    /// Reads a recording that the program names, from its own folder or one given with `--traces`.
    fn recording(&self, name: &str, context: Context) -> Result<Recording, Failure> {
        let own = self.asked.program_path().parent().unwrap_or(Path::new(""));
        let folders: Vec<&Path> =
            std::iter::once(own).chain(self.traces.iter().map(PathBuf::as_path)).collect();
        // A name from the file must not lead out of the folder.
        let file = Path::new(name).file_name().unwrap_or_default();
        let found = folders.iter().map(|folder| folder.join(file)).find(|path| path.is_file());
        let path = found.ok_or_else(|| {
            Failure::input(format!(
                "learning needs the recordings that the program was built from, and {} is not there; name \
                 its folder with --traces",
                folders[0].join(file).display()
            ))
        })?;
        context.progress.during(format!("reading {name}"), || files::recording(&path))
    }
}

/// Refuses a new program whose slice does not give the whole run's answer on the target that was
/// learned from. A build follows new code for a limited number of rounds, so the slice may still
/// stop there.
fn judge(outcome: &Outcome, whole: &Values) -> Result<(), Failure> {
    match outcome {
        Outcome::Answer(answer) if answer == whole => Ok(()),
        Outcome::Answer(_) => {
            let text = "nothing was written, for the new slice and the whole run give different answers; \
                please report it";
            Err(Failure::new(Exit::Differ, text))
        }
        Outcome::Stopped(stopped) => {
            let text = format!(
                "nothing was written, for the new slice still stops on this target: {stopped}; ask the \
                 program you have with `virtuoso run`, whose whole run answers"
            );
            Err(Failure::new(Exit::of(stopped), text))
        }
    }
}

/// What the program was built with, as wishes for building it again; an error says what is unknown.
fn wishes<'r>(
    program: &Program,
    base: Option<&'r Recording>,
    recordings: &[Recording],
) -> Result<Wishes<'r>, String> {
    let from = &program.provenance;
    let policy = Policy::by_name(&from.policy)
        .ok_or_else(|| format!("it was built with the unknown policy {:?}", from.policy))?;
    let summaries = program.summaries.iter().map(|&(addr, summary)| (VirtAddr(addr), summary)).collect();
    let mut rehearse: Vec<InputTexts> = Vec::new();
    for inputs in
        from.sources.iter().filter_map(|source| source.rehearsed.as_deref()).filter(|it| !it.is_empty())
    {
        let texts: InputTexts = inputs
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, text)| (name.to_string(), text.to_string()))
            .collect();
        if !rehearse.contains(&texts) {
            rehearse.push(texts);
        }
    }
    let options = BuildOptions { policy, summaries, overrides: Vec::new() };
    // One that was asked for may be learned on.
    let constant = !evidence::is_of_target(program);
    let header = recordings.iter().map(|it| it.trace.header()).find(|header| !header.whole_run);
    let beside = header.map(|header| ContextCells::of_program(&program.overrides, header));
    let beside = beside.unwrap_or_default();
    Ok(Wishes { options, paused: !program.runs_idle(), constant, base, beside, systems: &[], rehearse })
}

/// Gives functions of the new program the names that symbols gave them in the old one.
fn keep_names(old: &Program, new: &mut Program) {
    let names: FxHashMap<u64, &str> =
        old.functions.iter().filter(|it| !it.name.is_empty()).map(|it| (it.pc, it.name.as_str())).collect();
    for function in &mut new.functions {
        if let Some(name) = names.get(&function.pc) {
            function.name = (*name).to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::{Stopped, Value};

    use super::*;

    #[test]
    fn only_the_whole_runs_answer_is_written() {
        let values = |pid: u64| Values(vec![("pid".to_owned(), Value::Unsigned(pid))]);
        let refused = |outcome: Outcome| {
            judge(&outcome, &values(1)).map_err(|failure| (failure.exit, failure.to_string()))
        };
        assert_eq!(refused(Outcome::Answer(values(1))), Ok(()));
        let (exit, text) = refused(Outcome::Answer(values(2))).unwrap_err();
        assert_eq!(exit, Exit::Differ);
        assert!(text.contains("different answers"), "{text}");
        let stopped = Stopped::Unexplored { at: 0x10, to: 0x20 };
        let (exit, text) = refused(Outcome::Stopped(stopped)).unwrap_err();
        assert_eq!(exit, Exit::Unexplored);
        assert!(text.contains("nothing was written") && text.contains("still stops"), "{text}");
    }
}

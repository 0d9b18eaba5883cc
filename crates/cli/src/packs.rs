//! Packs: the programs of one training system in a directory, and which of several fits a target.
//!
//! A pack is a directory with programs as `virtuoso build` names them (`pslist.prog`) and their
//! companion file. Which pack belongs to a target its kernel code decides, byte by byte, as for
//! every run; names of directories are for people.

use std::path::{Path, PathBuf};

use engine::{Relocation, Run, SliceProgram, WholeProgram, parse_inputs};
use ir::{Program, System};

use crate::asked::{Answered, Asked};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::Opened;
use crate::target::TargetArgs;
use crate::ways::Ways;
use crate::{files, output};

/// Directories with programs, `packs` itself and those in it, by name.
fn directories(packs: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(packs).map_err(|error| {
        Failure::file(packs, format!("cannot read it: {error}; give a directory of packs"))
    })?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found.insert(0, packs.to_owned());
    Ok(found)
}

/// A program of the pack that fits a target, and how to ask it.
pub struct Member {
    asked: Asked,
    /// The program, read and verified.
    pub program: Program,
    /// The training system's code, which whole runs need, or why it is not there.
    system: Result<System, Failure>,
}

impl Member {
    fn new(asked: Asked, program: Program) -> Self {
        Self { system: asked.companion(&program, "the whole run"), asked, program }
    }

    /// The program called `name` in the same pack; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn other(&self, name: &str) -> Result<Option<Self>, Failure> {
        let path = self.asked.program_path().with_file_name(format!("{name}.prog"));
        if !path.is_file() {
            return Ok(None);
        }
        let asked = self.asked.clone().with_program(path);
        let program = asked.program()?;
        Ok(Some(Self::new(asked, program)))
    }

    /// Ready to be asked any number of times.
    ///
    /// # Errors
    /// The program is too large.
    pub fn query(&self) -> Result<Query<'_>, Failure> {
        let slice = SliceProgram::new(&self.program).map_err(|error| self.asked.failure(&error.into()))?;
        let whole = self.system.as_ref().ok().map(|system| WholeProgram::new(&self.program, system));
        Ok(Query { member: self, slice, whole })
    }

    /// The target as a run sees it.
    ///
    /// # Errors
    /// It has no such processor.
    pub fn run<'t>(&self, opened: &'t Opened) -> Result<Run<'t>, Failure> {
        self.asked.run(opened)
    }

    /// The path of the program file.
    pub fn path(&self) -> &Path {
        self.asked.program_path()
    }
}

/// A program that is asked again and again about one target.
pub struct Query<'p> {
    member: &'p Member,
    slice: SliceProgram<'p>,
    whole: Option<WholeProgram<'p>>,
}

impl Query<'_> {
    /// The answer by both ways, or by the one that comes to an end.
    ///
    /// # Errors
    /// Neither answers, or they differ.
    pub fn ask(&mut self, run: &Run<'_>, inputs: &[(String, String)]) -> Result<Answered, Failure> {
        let asked = &self.member.asked;
        let inputs = parse_inputs(&self.member.program, inputs)
            .map_err(|error| Failure::file(self.member.path(), error))?;
        let ways = Ways::ask(&self.slice, self.whole.as_mut(), run, &inputs)
            .map_err(|error| asked.failure(&error))?;
        asked.judge(&self.member.program, &ways, self.member.system.as_ref().err())
    }
}

/// Opens a target and finds the pack whose program `name` was made from its kernel.
///
/// # Errors
/// No pack has the program, or none fits: then why, for each.
pub fn choose(
    packs: &Path,
    name: &str,
    target: &Path,
    how: &TargetArgs,
    context: Context,
) -> Result<(Member, Opened), Failure> {
    let mut opened: Option<Opened> = None;
    let mut reasons = Vec::new();
    for directory in directories(packs)? {
        let path = directory.join(format!("{name}.prog"));
        if !path.is_file() {
            continue;
        }
        let asked = Asked::new(path.clone(), target.to_owned(), how.clone(), Vec::new());
        let program = match files::program(&path) {
            Ok(program) => program,
            Err(failure) => {
                // Another pack may do; this one should not be thought of as tried.
                output::note(&format!("{failure}; this pack is left out"));
                reasons.push(failure.to_string());
                continue;
            }
        };
        // What the processors do not say is found by the program, so one that does not fit finds
        // nothing.
        let there = match opened.take().map_or_else(|| how.open(target, &program, context), Ok) {
            Ok(there) => there,
            Err(failure) if failure.exit == Exit::OtherKernel => {
                reasons.push(reason(&directory, target, &failure));
                continue;
            }
            Err(failure) => return Err(failure),
        };
        match Relocation::find(&program, &asked.run(&there)?).map(drop).map_err(|error| asked.failure(&error))
        {
            Ok(()) => return Ok((Member::new(asked, program), there)),
            Err(failure) if failure.exit == Exit::OtherKernel => {
                reasons.push(reason(&directory, target, &failure))
            }
            Err(failure) => {
                let mut there = there;
                return there.during(|_| Err(failure));
            }
        }
        opened = Some(there);
    }
    // A live guest that runs again has no memory to be read, and then no pack fits.
    if let Some(mut there) = opened {
        there.resume()?;
    }
    if reasons.is_empty() {
        let text = format!(
            "it has no {name}.prog, nor has a directory in it; give a directory of packs with --packs"
        );
        return Err(Failure::file(packs, text));
    }
    let text =
        format!("{}: none of the packs was made from its kernel:\n{}", target.display(), reasons.join("\n"));
    Err(Failure::new(Exit::OtherKernel, text))
}

/// Why a pack does not fit, without the target's name.
fn reason(directory: &Path, target: &Path, failure: &Failure) -> String {
    let text = failure.to_string();
    let text = text.strip_prefix(&format!("{}: ", target.display())).unwrap_or(&text);
    let text = text.split(';').next().unwrap_or(text);
    format!("{}: {text}", directory.display())
}

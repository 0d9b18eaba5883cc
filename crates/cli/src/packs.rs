//! Packs: the programs of one training system in a directory, and which of several fits a target.
//!
//! A pack is a directory with programs as `virtuoso build` names them (`pslist.prog`) and their
//! companion file. Which pack belongs to a target its kernel code decides, byte by byte, as for
//! every run; names of directories are for people. A program without kernel code fits everything
//! and so says nothing: its pack is recognised by another program of the same training system, or
//! not at all.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Relocation, Run, RunError, Session, SessionProgram, SliceProgram, parse_inputs};
use ir::{Program, System};

use crate::asked::{Answered, Asked};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::Opened;
use crate::target::TargetArgs;
use crate::ways::Ways;
use crate::{banner, files, output};

/// Where packs are that nobody names: `virtuoso/packs` in the user's directory for data (XDG Base
/// Directory Specification).
///
/// # Errors
/// The user has no such directory.
pub fn default_directory() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("virtuoso/packs")).ok_or_else(|| {
        Failure::input("neither XDG_DATA_HOME nor HOME is set; name the directory with --packs")
    })
}

/// Directories with programs, `packs` itself and those in it, by name.
pub fn directories(packs: &Path) -> Result<Vec<PathBuf>, Failure> {
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
    /// The training system's code, which whole runs need, or why it is not there: once for all
    /// programs of that system, for opening it is most of what the first answer costs.
    system: Arc<Result<System, Failure>>,
}

impl Member {
    fn new(asked: Asked, program: Program) -> Self {
        Self { system: Arc::new(asked.companion(&program, "the whole run")), asked, program }
    }

    /// The program called `name` in the same pack; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or nothing ties it to the target.
    pub fn other(&self, name: &str) -> Result<Option<Self>, Failure> {
        let path = self.path_of(name);
        if !path.is_file() {
            return Ok(None);
        }
        let asked = self.asked.clone().with_program(path);
        let program = asked.program()?;
        // One with kernel code is compared with the target's by each run.
        if code_bytes(&program) < LEAST_CODE && program.system != self.program.system {
            let text = format!(
                "it holds no kernel code by which a target could be recognised, and was not made in the \
                 training system of {}; train both together",
                self.path().display()
            );
            return Err(Failure::new(
                Exit::OtherKernel,
                format!("{}: {text}", asked.program_path().display()),
            ));
        }
        if program.system == self.program.system {
            return Ok(Some(Self { asked, program, system: Arc::clone(&self.system) }));
        }
        Ok(Some(Self::new(asked, program)))
    }

    /// The companion file.
    ///
    /// # Errors
    /// Why there is none.
    pub fn system(&self) -> Result<&System, Failure> {
        self.system.as_ref().as_ref().map_err(|failure| Failure::new(failure.exit, failure))
    }

    /// Where the pack has the program with this name, if it has it.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.asked.program_path().with_file_name(format!("{name}.prog"))
    }

    /// A session over a target.
    ///
    /// # Errors
    /// Whole runs cannot be made, for want of the companion file.
    pub fn session<'s>(&'s self, run: &Run<'s>) -> Result<Session<'s>, Failure> {
        match &*self.system {
            Ok(system) => Ok(Session::new(*run, system)),
            Err(failure) => Err(Failure::new(failure.exit, failure)),
        }
    }

    /// The failure that says why a run of it could not begin.
    pub fn failure(&self, error: &RunError) -> Failure {
        self.asked.failure(error)
    }

    /// Ready to be asked any number of times about the target of `run`, with the session over it.
    ///
    /// # Errors
    /// The program is too large.
    pub fn query<'q>(
        &'q self,
        run: &Run<'q>,
        session: Option<&'q Session<'q>>,
    ) -> Result<Query<'q>, Failure> {
        let slice = SliceProgram::new(&self.program).map_err(|error| self.asked.failure(&error.into()))?;
        let whole = session.map(|session| session.program(&self.program));
        Ok(Query { member: self, run: *run, slice, whole })
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
pub struct Query<'q> {
    member: &'q Member,
    run: Run<'q>,
    slice: SliceProgram<'q>,
    /// In a session, if whole runs can be made.
    whole: Option<Result<SessionProgram<'q, 'q>, RunError>>,
}

impl Query<'_> {
    /// The answer by both ways, or by the one that comes to an end.
    ///
    /// # Errors
    /// Neither answers, or they differ.
    pub fn ask(&self, inputs: &[(String, String)]) -> Result<Answered, Failure> {
        let asked = &self.member.asked;
        let inputs = parse_inputs(&self.member.program, inputs)
            .map_err(|error| Failure::file(self.member.path(), error))?;
        let ways = match &self.whole {
            Some(Ok(program)) => Ways::in_session(program, &inputs, &self.run.limits),
            Some(Err(error)) => Err(error.clone()),
            None => Ways::ask(&self.slice, None, &self.run, &inputs),
        };
        let ways = ways.map_err(|error| asked.failure(&error))?;
        asked.judge(&self.member.program, &ways, (*self.member.system).as_ref().err())
    }
}

/// A program as it was found in a directory of packs, and what its pack is recognised by.
struct Candidate {
    directory: PathBuf,
    asked: Asked,
    program: Program,
    /// The program of the same training system by whose kernel code a target is recognised, where
    /// the one that is asked for has too little.
    recogniser: Option<Program>,
}

/// Bytes of kernel code by which a target can be recognised: fewer are found in many kernels.
const LEAST_CODE: usize = 16;

/// How many bytes of kernel code a program has.
fn code_bytes(program: &Program) -> usize {
    program.code.iter().map(|range| range.bytes.len()).sum()
}

impl Candidate {
    /// The program `name` of a directory; `None` if it has none, and the reason where it cannot be
    /// used.
    fn read(directory: PathBuf, name: &str, target: &Path, how: &TargetArgs) -> Option<Result<Self, String>> {
        let path = directory.join(format!("{name}.prog"));
        if !path.is_file() {
            return None;
        }
        let program = match files::program(&path) {
            Ok(program) => program,
            Err(failure) => {
                // Another pack may do; this one should not be thought of as tried.
                output::note(&format!("{failure}; this pack is left out"));
                return Some(Err(failure.to_string()));
            }
        };
        let recogniser = (code_bytes(&program) < LEAST_CODE).then(|| recogniser(&directory, &program));
        let recogniser = match recogniser {
            None => None,
            Some(Some(other)) => Some(other),
            Some(None) => {
                let why = "its programs hold no kernel code by which a target could be recognised";
                return Some(Err(format!("{}: {why}", directory.display())));
            }
        };
        let asked = Asked::new(path, target.to_owned(), how.clone(), Vec::new());
        Some(Ok(Self { directory, asked, program, recogniser }))
    }

    /// The program that recognises a target.
    fn evidence(&self) -> &Program {
        self.recogniser.as_ref().unwrap_or(&self.program)
    }

    /// How much of the kernel code is another one in the target; or why that is not its kernel.
    fn compare(&self, opened: &Opened) -> Result<Result<Fit, Failure>, Failure> {
        let run = self.asked.run(opened)?;
        let found = Relocation::find(self.evidence(), &run).and_then(|relocation| {
            // What recognises the target is not always what is asked for.
            Relocation::find(&self.program, &run).map(|_| relocation.fit())
        });
        match found.map_err(|error| self.asked.failure(&error)) {
            Ok((differing, checked)) => Ok(Ok(Fit { differing, checked })),
            Err(failure) if failure.exit == Exit::OtherKernel => Ok(Err(failure)),
            Err(failure) => Err(failure),
        }
    }
}

/// The program in a directory that has the most kernel code of the training system that `program`
/// was made in; `None` if none has enough.
fn recogniser(directory: &Path, program: &Program) -> Option<Program> {
    let entries = std::fs::read_dir(directory).ok()?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "prog"));
    paths.sort();
    let programs = paths.iter().filter_map(|path| files::program(path).ok());
    let same = programs.filter(|other| other.system == program.system && code_bytes(other) >= LEAST_CODE);
    same.max_by_key(code_bytes)
}

/// How well a pack fits a target: bytes of kernel code that differ, of those compared.
#[derive(Clone, Copy)]
struct Fit {
    differing: u64,
    checked: u64,
}

impl Fit {
    /// Whether it is better evidence: a smaller part differs, or of a larger code the same part.
    fn beats(self, other: Self) -> bool {
        let part = |a: Self, b: Self| u128::from(a.differing) * u128::from(b.checked);
        match part(self, other).cmp(&part(other, self)) {
            Ordering::Less => true,
            Ordering::Equal => self.checked > other.checked,
            Ordering::Greater => false,
        }
    }
}

/// Opens a target and finds the pack whose program `name` was made from its kernel: of several
/// that fit, the one of whose kernel code the target has most.
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
    let read = |directory| Candidate::read(directory, name, target, how);
    // Who has no packs yet wants to know how to come by one.
    let with_advice = |failure: Failure| match banner::of_dump(target, how) {
        Some(advice) => failure.because(&advice),
        None => failure,
    };
    let found: Vec<_> = directories(packs).map_err(with_advice)?.into_iter().filter_map(read).collect();
    if found.is_empty() {
        let text = format!(
            "it has no {name}.prog, nor has a directory in it; give a directory of packs with --packs"
        );
        return Err(with_advice(Failure::file(packs, text)));
    }
    let mut reasons: Vec<String> = found.iter().filter_map(|it| it.as_ref().err().cloned()).collect();
    let candidates: Vec<Candidate> = found.into_iter().filter_map(Result::ok).collect();
    let mut best: Option<(Candidate, Fit)> = None;
    // Only with a pack that may fit is there a question, for which a live guest is paused.
    let mut opened = match candidates.is_empty() {
        true => None,
        false => Some(how.open_without(target, context)?),
    };
    // By whose program the processors were found, where the target does not name them.
    let mut found_by: Option<PathBuf> = None;
    for candidate in candidates {
        let Some(opened) = &mut opened else { break };
        if found_by.is_none() {
            // A program that does not fit finds no processors; another may.
            match how.find(opened, target, candidate.evidence(), context) {
                Ok(()) => found_by = Some(candidate.directory.clone()),
                Err(missing) if missing.another_may => {
                    reasons.push(reason(&candidate.directory, target, &missing.failure));
                    continue;
                }
                Err(missing) => return opened.during(|_| Err(missing.failure)),
            }
        }
        let fit = match candidate.compare(opened) {
            Ok(fit) => fit,
            Err(failure) => return opened.during(|_| Err(failure)),
        };
        match fit {
            Ok(fit) if best.as_ref().is_none_or(|(_, other)| fit.beats(*other)) => {
                best = Some((candidate, fit));
            }
            Ok(_) => {}
            Err(failure) => reasons.push(reason(&candidate.directory, target, &failure)),
        }
    }
    let mut advice = None;
    if let (None, Some(opened)) = (&best, &mut opened) {
        advice = Some(banner::of_opened(opened));
        // A live guest that runs again has no memory to be read, and then no pack fits.
        opened.resume()?;
    }
    let (Some((candidate, _)), Some(mut opened)) = (best, opened) else {
        let text = format!(
            "{}: none of the packs was made from its kernel:\n{}",
            target.display(),
            reasons.join("\n")
        );
        let failure = Failure::new(Exit::OtherKernel, text);
        let advice = advice.or_else(|| banner::of_dump(target, how));
        return Err(match advice {
            Some(advice) => failure.because(&advice),
            None => failure,
        });
    };
    if opened.located().is_some() && found_by.as_ref() != Some(&candidate.directory) {
        let found = how.find(&mut opened, target, candidate.evidence(), context);
        if let Err(missing) = found {
            return opened.during(|_| Err(missing.failure));
        }
    }
    Ok((Member::new(candidate.asked, candidate.program), opened))
}

/// Why a pack does not fit, without the target's name.
fn reason(directory: &Path, target: &Path, failure: &Failure) -> String {
    let text = failure.to_string();
    let text = text.strip_prefix(&format!("{}: ", target.display())).unwrap_or(&text);
    let text = text.split(';').next().unwrap_or(text);
    format!("{}: {text}", directory.display())
}

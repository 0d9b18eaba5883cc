//! `virtuoso each`: one question to many targets, several at a time.
//!
//! Each target is asked by a process of its own: one that ends badly takes no other with it, and
//! what is known of one target is never another's. Output is JSON lines, for programs that query
//! many of them; a target's lines are written at once, so that whoever reads them, or goes on after
//! an interruption, finds all of a target or nothing.

mod answer;
mod log;
mod question;

use std::ffi::OsString;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, Command};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::counted;
use crate::output;
use answer::Answer;
use log::Log;
use question::Question;

/// Ask many targets the same, several at a time, and print JSON lines
///
/// Behind `--` stand the verb and its words; `{}` is where the target goes, which otherwise stands
/// where the verb wants it. Verbs that have --json get it. Each fact is a line with `target` and
/// `row`: an element of a list, with the list's name as `table`, an object, or the text that was
/// printed. Behind them each target has a line with `code` (its exit code), `rows`, `seconds`, and
/// what was said on standard error as `messages`. With --output a target that already has that line
/// is not asked again, so that the same command goes on after an interruption. The exit code is
/// that of the first target that has another than 0.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso each dumps/*.elf -o ps.jsonl -- ps
  virtuoso each --jobs 8 --from guests.txt -o report.jsonl -- report --no-hashes
  virtuoso each dumps/*.elf -- run pslist.prog {}
  virtuoso each dumps/*.elf -o version.jsonl --again -- cat {} /proc/version")]
pub struct EachArgs {
    /// Dumps or live guests
    #[arg(value_name = "TARGET", required_unless_present = "from")]
    targets: Vec<OsString>,
    /// A file with more of them, one on each line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How many are asked at a time; default: as many as there are processors
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Where the lines go, behind those that are there; default: standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Ask those again that had another exit code than 0
    #[arg(long, requires = "output")]
    again: bool,
    /// The verb and its words
    #[arg(last = true, required = true, value_name = "VERB")]
    words: Vec<OsString>,
}

impl EachArgs {
    /// Runs the verb, for a command with all its verbs.
    pub fn run(&self, context: Context, all: &Command) -> Result<(), Failure> {
        let question = Question::new(&self.words, all)?;
        let targets = self.targets()?;
        let log = Log::open(self.output.as_deref(), &question, self.again)?;
        let left: Vec<&OsString> = targets.iter().filter(|target| !log.has(target)).collect();
        let known = targets.len() - left.len();
        if known > 0 && !context.quiet {
            output::note(&format!("{} already in the file", counted(known, "target")));
        }
        let jobs = self
            .jobs
            .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
        let codes = ask(&question, &left, (jobs, &log, context))?;
        // In the order of the command line, whoever came to an end first.
        match codes.into_iter().find(|code| *code != Some(0)) {
            None => Ok(()),
            Some(code) => Err(Failure::quiet(code.and_then(Exit::of_code).unwrap_or(Exit::Input))),
        }
    }

    fn targets(&self) -> Result<Vec<OsString>, Failure> {
        let mut targets = self.targets.clone();
        if let Some(file) = &self.from {
            let lines = |from: &mut dyn BufRead| from.lines().collect::<Result<Vec<String>, _>>();
            let read = match file.to_str() {
                Some("-") => lines(&mut std::io::stdin().lock()),
                _ => std::fs::File::open(file).and_then(|file| lines(&mut std::io::BufReader::new(file))),
            };
            let read = read.map_err(|error| Failure::file(file, format!("cannot read it: {error}")))?;
            targets.extend(read.into_iter().filter(|line| !line.trim().is_empty()).map(OsString::from));
        }
        let mut seen = std::collections::HashSet::new();
        targets.retain(|target| seen.insert(target.clone()));
        match targets.is_empty() {
            true => Err(Failure::input("there is no target; name some, or give a --from that has lines")),
            false => Ok(targets),
        }
    }
}

/// Asks all, so many at a time; the result is the exit code of each.
fn ask(
    question: &Question,
    targets: &[&OsString],
    (jobs, log, context): (usize, &Log, Context),
) -> Result<Vec<Option<u8>>, Failure> {
    let next = AtomicUsize::new(0);
    let codes = Mutex::new(vec![None; targets.len()]);
    let steps = Mutex::new((context.progress.steps(targets.len() as u64), 0));
    let work = || -> Result<(), Failure> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(target) = targets.get(at) else { return Ok(()) };
            let answer = Answer::ask(question, target)?;
            log.add(&answer)?;
            if let Ok(mut codes) = codes.lock() {
                codes[at] = answer.code();
            }
            if let Ok(mut steps) = steps.lock() {
                steps.1 += 1;
                steps.0.reached(steps.1, || format!("{} of {} targets", steps.1, targets.len()));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.min(targets.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(ended) => ended,
            Err(_) => Err(Failure::input("a thread ended without a result")),
        })
    })?;
    Ok(codes.into_inner().unwrap_or_default())
}

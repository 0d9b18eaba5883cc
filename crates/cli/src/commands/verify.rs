//! `virtuoso verify`: looks for a target on which slice and whole run give different answers.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use engine::{Outcome, SliceProgram, Stopped};
use ir::Program;
use serde_json::Value as Json;
use signal_hook::consts::SIGINT;
use signal_hook::flag;
use slicer::Start;

use crate::asked::Asked;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::Name;
use crate::search::report::{self, print_differing};
use crate::search::{Counts, Found, Question, Unchanged};
use crate::ways::{Verdict, Ways};
use crate::{files, format, output, recorded};

/// Search for a change of a target that makes slice and whole run give different answers
///
/// A word or two of the target's memory, of those that the whole run reads, become something else:
/// 0, all ones, another bit, a neighbouring number, another pointer, another object's value, a
/// character. Slice and whole run are asked about that target. The same answer, or one that stops,
/// is well. Two answers are a finding, exit code 21: the slice lacks something that another target
/// may need. The dump itself is never changed. A recording of the trainer is a target, too: its
/// guest at the begin mark, with the inputs that the trainer had. Live guests are refused, for they
/// would stand still meanwhile. The same seed tries the same cases in the same order, and each
/// finding is the first case of a seed of its own. Ctrl-C ends the search and prints what was
/// found.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso verify pslist.prog guest.elf --search 60s
  virtuoso verify getpsfile.prog guest.elf --input pid=1 --search 10m --seed 2 --json
  virtuoso verify pslist.prog guest.elf --cases 500   # so many, however long it takes
  virtuoso verify pslist.prog guest.elf --cases 1 --seed 0x6e789e6aa1b965f4   # a finding again
  virtuoso verify pslist.prog traces/pslist-0001.trace --search 10s")]
pub struct VerifyArgs {
    #[command(flatten)]
    asked: Asked,
    /// How long to search, such as 60s or 10m; at least one case is tried
    #[arg(long, value_name = "TIME", value_parser = format::parse_time, required_unless_present = "cases")]
    search: Option<Duration>,
    /// Number that decides what is changed
    #[arg(long, value_name = "N", value_parser = format::parse_number, default_value_t = 1)]
    seed: u64,
    /// Try so many cases at most
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl VerifyArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        if Name::parse(self.asked.target_path()).is_some() {
            let text = "a search would keep the guest paused; dump its memory and search over the dump";
            return Err(Failure::file(self.asked.target_path(), text));
        }
        let program = self.asked.program()?;
        let system = self.asked.companion(&program, "a search, which compares with whole runs,")?;
        let slice = SliceProgram::new(&program).map_err(|error| self.asked.failure(&error.into()))?;
        if files::is_trace(self.asked.target_path()) {
            let path = self.asked.target_path();
            let recording = context.progress.during("reading the recording", || files::recording(path))?;
            let start = Start::new(&recording).map_err(|error| Failure::file(path, error))?;
            let run = recorded::run(&start, self.asked.limits());
            let inputs = self.asked.inputs_or(&program, || start.inputs())?;
            let question =
                Question { program: &program, system: &system, slice: &slice, run, inputs: &inputs };
            return self.about(&question, context);
        }
        let inputs = self.asked.inputs(&program)?;
        let target = self.asked.target(&program, context)?;
        let run = self.asked.run(&target)?;
        self.about(
            &Question { program: &program, system: &system, slice: &slice, run, inputs: &inputs },
            context,
        )
    }

    /// Searches and prints what was found.
    fn about(&self, question: &Question<'_>, context: Context) -> Result<(), Failure> {
        let program = question.program;
        let unchanged = context
            .progress
            .during("the unchanged target", || question.unchanged())
            .map_err(|error| self.asked.failure(&error))?;
        let begin = Instant::now();
        let found = match self.begins(program, &unchanged.ways, context)? {
            true => Some(self.search(question, &unchanged, begin, context)?),
            false => None,
        };
        self.print(&program.name, &unchanged, found.as_ref(), begin.elapsed().as_secs_f64())?;
        match found.as_ref().map(|found| found.counts.different) {
            Some(0) => Ok(()),
            Some(count) => Err(Failure::new(
                Exit::Differ,
                format!(
                    "slice and whole run give different answers about {}: what the slice says of such \
                     targets is not to be trusted; please report it with the program and the seeds",
                    format::counted(count as usize, "changed target")
                ),
            )),
            None => self.asked.judge(program, &unchanged.ways, None).map(drop),
        }
    }

    /// Whether there is something to search for: not where the unchanged target has two answers
    /// already.
    fn begins(&self, program: &Program, ways: &Ways, context: Context) -> Result<bool, Failure> {
        if let Some(Outcome::Stopped(stopped @ Stopped::Unrepeated { .. })) = &ways.whole {
            let text =
                format!("there is no whole run to compare with: {stopped}; train with another trainer");
            return Err(Failure::new(Exit::of(stopped), text));
        }
        let remark = match (ways.verdict(), &ways.slice, &ways.whole) {
            (Some(Verdict::Differ { .. }), ..) => return Ok(false),
            // The failure says why.
            (Some(Verdict::Stopped { .. }), ..) => {
                self.asked.judge(program, ways, None)?;
                return Ok(false);
            }
            (_, Some(Outcome::Stopped(stopped)), _) => {
                format!("over the unchanged target the slice stops: {stopped}")
            }
            (_, _, Some(Outcome::Stopped(stopped))) => {
                format!("over the unchanged target the whole run stops: {stopped}")
            }
            _ => return Ok(true),
        };
        if !context.quiet {
            output::note(&format!("{remark}; few changed targets will have two answers to compare"));
        }
        Ok(true)
    }

    fn search(
        &self,
        question: &Question<'_>,
        unchanged: &Unchanged,
        begin: Instant,
        context: Context,
    ) -> Result<Found, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        flag::register_conditional_default(SIGINT, Arc::clone(&stop))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&stop)))
            .map_err(|error| Failure::input(format!("cannot listen to signals: {error}")))?;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let total = self.search.map(milliseconds).or(self.cases).unwrap_or(0);
        let steps = context.progress.steps(total);
        Ok(question.search(unchanged, self.seed, |counts: &Counts| {
            let spent = begin.elapsed();
            let done = self.search.map_or(counts.cases, |_| milliseconds(spent).min(total));
            steps.reached(done, || format!("{} cases, {} different", counts.cases, counts.different));
            self.search.is_none_or(|limit| spent < limit)
                && self.cases.is_none_or(|limit| counts.cases < limit)
                && !stop.load(Ordering::Relaxed)
        }))
    }

    fn print(
        &self,
        program: &str,
        unchanged: &Unchanged,
        found: Option<&Found>,
        seconds: f64,
    ) -> Result<(), Failure> {
        if self.json {
            let mut object = report::json(unchanged, found);
            object["program"] = program.into();
            object["target"] = serde_json::json!(engine::Text::of_path(self.asked.target_path()));
            object["seed"] = format!("{:#x}", self.seed).into();
            object["seconds"] = Json::from((seconds * 1e3).round() / 1e3);
            return output::json(&object);
        }
        let mut out = output::stdout();
        if let Some(found) = found {
            report::print(&mut out, unchanged, found, seconds)?;
        } else if let Some(Verdict::Differ { slice, whole, .. }) = unchanged.ways.verdict() {
            writeln!(out, "different over the unchanged target")?;
            print_differing(&mut out, &unchanged.ways.differing(), slice, whole)?;
        }
        Ok(out.flush()?)
    }
}

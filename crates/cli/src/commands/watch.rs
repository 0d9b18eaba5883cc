//! `virtuoso watch`: asks a live guest again and again and tells what changed.
//!
//! All that can be made ready is made ready before the first pause; in a pause nothing is printed.
//! Whatever goes wrong in a round is that round's outcome, as long as the guest's monitor answers.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use engine::locate::{Hints, locate};
use engine::{Run, SliceProgram, Stopped, Values, WholeProgram};
use ir::{Program, System};
use machine::Target;
use serde_json::{Value as Json, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::asked::Asked;
use crate::changes::compare;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inputs::parse_input;
use crate::live::{Guest, Name, not_whole, processors, unheard};
use crate::target::TargetArgs;
use crate::ways::{Verdict, Way, Ways};
use crate::{departures, format, output, report};

/// How long Ctrl-C may go unnoticed between two rounds, at most.
const NAP: Duration = Duration::from_millis(50);

/// Run programs over a live guest at an interval and print what changed
///
/// Each round pauses the guest once, asks all programs about that moment, and resumes it. The first
/// round prints the answers, the others what is new, gone or changed. Rounds are answered by the
/// slices; where something changed, and every tenth round, the whole runs verify them. Ctrl-C ends
/// it after the round, with a summary of the pauses.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso watch pslist.prog qmp:/run/guest.qmp
  virtuoso watch pslist.prog lsmod.prog qmp:/run/guest.qmp --interval 500ms --max-pause 100 --json
  virtuoso watch getpsfile.prog libvirt:web --input pid=1 --count 10")]
pub struct WatchArgs {
    /// The programs, made by `virtuoso build`
    #[arg(required = true)]
    programs: Vec<PathBuf>,
    /// A live guest: qmp:SOCKET or libvirt:DOMAIN
    target: PathBuf,
    /// Time from one pause to the next, such as 1s, 500ms or 2m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = format::parse_time)]
    interval: Duration,
    /// End after so many rounds; default: go on until Ctrl-C
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Value of an input, given to every program that has it
    #[arg(short, long = "input", value_name = "NAME=VALUE", value_parser = parse_input)]
    inputs: Vec<(String, String)>,
    #[command(flatten)]
    how: TargetArgs,
    /// Print JSON lines: one object for each program and round, and one summary
    #[arg(long)]
    json: bool,
}

/// A program ready to run, and its last answer.
struct Watched<'p> {
    asked: Asked,
    program: &'p Program,
    inputs: engine::Inputs,
    slice: SliceProgram<'p>,
    whole: Option<WholeProgram<'p>>,
    last: Option<Values>,
    /// What was said last of where whole runs did not follow the guest.
    said: Vec<String>,
}

/// Every so many rounds the whole run verifies a slice that gives what it gave before.
const VERIFY_EVERY: u64 = 10;

/// What a program gave in one round.
enum Given {
    Answer {
        values: Values,
        by: Way,
        verified: bool,
        /// What there is to say about it, and was not said of the one before.
        remarks: Vec<String>,
    },
    /// Slice and whole run gave different answers.
    Differ {
        /// In these outputs.
        outputs: Vec<String>,
        /// The words of the target's read-only data that somebody changed.
        changed: Vec<u64>,
    },
    Stopped {
        stopped: Stopped,
        by: Way,
    },
    /// The pause was over before the program had an answer.
    TooLate,
    /// Somebody else ended the pause.
    Torn,
}

/// What a round gave, for each program.
struct Round {
    given: Vec<Given>,
    /// How long the pause was.
    length: Duration,
    /// Whether somebody else had paused the guest.
    standing: bool,
}

impl Watched<'_> {
    /// Asks by the slice, and by the whole run if the slice stops, says something new, or `verify`.
    fn ask(&mut self, run: &Run<'_>, verify: bool) -> Result<Given, Failure> {
        let mut ways =
            Ways::ask(&self.slice, None, run, &self.inputs).map_err(|it| self.asked.failure(&it))?;
        let mut remarks = Vec::new();
        let new = ways.slice_answer().is_none_or(|values| self.last.as_ref() != Some(values));
        if let Some(whole) = self.whole.as_mut().filter(|_| new || verify) {
            let (outcome, report) = whole.run(run, &self.inputs).map_err(|it| self.asked.failure(&it))?;
            ways.whole = Some(outcome);
            ways = ways.explained(|| whole.changed_data(run)).map_err(|it| self.asked.failure(&it))?;
            let said = departures::remarks(&report.departures);
            if said != self.said {
                remarks.clone_from(&said);
                self.said = said;
            }
        }
        Ok(match ways.verdict() {
            Some(Verdict::Answer { values, by, verified }) => {
                Given::Answer { values: values.clone(), by, verified, remarks }
            }
            Some(Verdict::Differ { .. }) | None => {
                Given::Differ { outputs: ways.differing(), changed: ways.changed.clone() }
            }
            Some(Verdict::Stopped { stopped, by }) => Given::Stopped { stopped: stopped.clone(), by },
        })
    }
}

/// Counts over the rounds so far.
#[derive(Default)]
struct Tally {
    rounds: u64,
    changed: u64,
    unanswered: u64,
    full: u64,
    too_late: u64,
    torn: u64,
    /// Whether the guest stood still in the last round before it was paused.
    standing: bool,
    /// What was said last of what the monitor does not tell.
    unheard: Option<String>,
    /// The length of each pause in microseconds, in the order of the rounds.
    pauses: Vec<u32>,
}

impl Tally {
    fn pause(&mut self, length: Duration) {
        self.pauses.push(u32::try_from(length.as_micros()).unwrap_or(u32::MAX));
    }

    /// Median and maximum of the pauses in milliseconds; 0 before the first round.
    fn lengths(&self) -> (f64, f64) {
        let mut sorted = self.pauses.clone();
        sorted.sort_unstable();
        let at = |index: usize| f64::from(sorted.get(index).copied().unwrap_or(0)) / 1e3;
        (at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
    }
}

impl WatchArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let Some(name) = Name::parse(&self.target) else {
            let text = "it names no live guest; give qmp:SOCKET or libvirt:DOMAIN, or ask a dump with \
                `virtuoso run`";
            return Err(Failure::file(&self.target, text));
        };
        let loaded = self.load(context)?;
        let mut watched = Vec::new();
        for (asked, program, system) in &loaded {
            let failed = |error: engine::TooLarge| asked.failure(&error.into());
            watched.push(Watched {
                asked: asked.clone(),
                program,
                inputs: asked.inputs(program)?,
                slice: SliceProgram::new(program).map_err(failed)?,
                whole: system.as_ref().map(|system| WholeProgram::new(program, system)),
                last: None,
                said: Vec::new(),
            });
        }
        let mut guest = Guest::connect(&name, &self.target, context)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Failure::input(format!("cannot listen to signals: {error}")))?;
        }
        let mut tally = Tally::default();
        let begin = Instant::now();
        let ended = self.rounds(&mut guest, &mut watched, &mut tally, &stop, begin);
        self.summary(&tally)?;
        ended
    }

    fn load(&self, context: Context) -> Result<Vec<(Asked, Program, Option<System>)>, Failure> {
        let mut loaded = Vec::new();
        for path in &self.programs {
            let asked = Asked::new(path.clone(), self.target.clone(), self.how.clone(), Vec::new());
            let program = asked.program()?;
            let asked = asked.with_inputs(&program, &self.inputs);
            let system = match asked.companion(&program, "the whole run") {
                Ok(system) => Some(system),
                Err(failure) => {
                    if !context.quiet {
                        output::note(&format!("{failure}; where the slice stops there is no answer"));
                    }
                    None
                }
            };
            loaded.push((asked, program, system));
        }
        Ok(loaded)
    }

    fn rounds(
        &self,
        guest: &mut Guest,
        watched: &mut [Watched<'_>],
        tally: &mut Tally,
        stop: &AtomicBool,
        begin: Instant,
    ) -> Result<(), Failure> {
        let mut next = begin;
        while !stop.load(Ordering::Relaxed) && self.count.is_none_or(|count| tally.rounds < count) {
            let left = next.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                std::thread::sleep(left.min(NAP));
                continue;
            }
            // A round that takes longer than the interval puts off the next one.
            next = (next + self.interval).max(Instant::now());
            let at = begin.elapsed();
            let round = self.round(guest, watched, tally)?;
            tally.rounds += 1;
            tally.pause(round.length);
            self.tell_standing(round.standing, tally);
            for (watched, given) in watched.iter_mut().zip(round.given) {
                self.print(watched, given, tally, at, round.length)?;
            }
        }
        Ok(())
    }

    /// One pause, in which all programs are asked.
    fn round(
        &self,
        guest: &mut Guest,
        watched: &mut [Watched<'_>],
        tally: &mut Tally,
    ) -> Result<Round, Failure> {
        let (mut target, pause) = match guest.pause(&self.how.moment()) {
            Ok(paused) => paused,
            Err(failure) if matches!(failure.exit, Exit::Torn | Exit::PauseOver) => {
                let given = self.nothing(&failure, watched, tally);
                return Ok(Round { given, length: Duration::ZERO, standing: tally.standing });
            }
            Err(failure) => return Err(failure),
        };
        let standing = !pause.is_ours();
        // A program that finds none says so when it is asked.
        if self.how.lacks_gs(&target.cpus)
            && let Some(Ok(found)) =
                watched.first().map(|it| locate(it.program, &*target.mem, Hints::default()))
        {
            target.cpus = processors(&found);
        }
        let given = ask_all(watched, &target, tally.rounds.is_multiple_of(VERIFY_EVERY));
        let report = guest.resume(pause)?;
        // A pause that was not ours to its end is the cause of whatever went wrong in its round.
        let given = match not_whole(&self.target, &report) {
            Some(failure) => self.nothing(&failure, watched, tally),
            None => given?,
        };
        if let Some(problem) = report.problem.as_ref().filter(|_| report.is_whole()) {
            output::note(problem);
        }
        let remark = unheard(&self.target, &report);
        if tally.unheard != remark
            && let Some(remark) = &remark
        {
            output::note(remark);
        }
        tally.unheard = remark;
        Ok(Round { given, length: report.length, standing })
    }

    /// What a round gives whose pause was not ours to its end.
    fn nothing(&self, failure: &Failure, watched: &[Watched<'_>], tally: &mut Tally) -> Vec<Given> {
        if !self.json {
            output::note(&failure.to_string());
        }
        let torn = failure.exit == Exit::Torn;
        *(if torn { &mut tally.torn } else { &mut tally.too_late }) += 1;
        watched.iter().map(|_| if torn { Given::Torn } else { Given::TooLate }).collect()
    }

    /// Says once that a guest stands still that we have not paused, and once that it runs again:
    /// its answers do not change meanwhile.
    fn tell_standing(&self, standing: bool, tally: &mut Tally) {
        if std::mem::replace(&mut tally.standing, standing) == standing {
            return;
        }
        let name = self.target.display();
        if standing {
            output::note(&format!(
                "{name}: the guest stands still: somebody else has paused it; it stays paused"
            ));
        } else {
            output::note(&format!("{name}: the guest runs again"));
        }
    }

    fn print(
        &self,
        watched: &mut Watched<'_>,
        given: Given,
        tally: &mut Tally,
        at: Duration,
        pause: Duration,
    ) -> Result<(), Failure> {
        let name = &watched.program.name;
        let mut object = json!({
            "round": tally.rounds, "seconds": round(at.as_secs_f64()), "program": name,
            "pause_milliseconds": round(pause.as_secs_f64() * 1e3), "standing_still": tally.standing,
        });
        let text = told(watched.program, &mut watched.last, given, tally, &mut object);
        if self.json {
            return output::json(&object);
        }
        if text.is_empty() {
            return Ok(());
        }
        let mut out = output::stdout();
        writeln!(out, "+{:.1} s {}:{text}", at.as_secs_f64(), format::plain(name))?;
        Ok(out.flush()?)
    }

    fn summary(&self, tally: &Tally) -> Result<(), Failure> {
        let (median, maximum) = tally.lengths();
        if self.json {
            return output::json(&json!({"summary": {
                "rounds": tally.rounds, "changed": tally.changed, "unanswered": tally.unanswered,
                "full": tally.full, "pauses_over": tally.too_late, "pauses_torn": tally.torn,
                "pause_median_milliseconds": median, "pause_maximum_milliseconds": maximum,
            }}));
        }
        let mut out = output::stdout();
        writeln!(
            out,
            "{} rounds: {} answers changed, {} without an answer{}; guest paused for {median:.1} ms in the \
             median, {maximum:.1} ms at most",
            tally.rounds,
            tally.changed,
            tally.unanswered,
            if tally.full > 0 { format!(", {} full", tally.full) } else { String::new() }
        )?;
        Ok(out.flush()?)
    }
}

/// What a program's round says, for people; its object gets the fields that belong to it.
fn told(
    program: &Program,
    last: &mut Option<Values>,
    given: Given,
    tally: &mut Tally,
    object: &mut Json,
) -> String {
    let mut text = String::new();
    match given {
        Given::Answer { values, by, verified, remarks } => {
            object["outcome"] = "answer".into();
            object["by"] = by.name().into();
            object["verified"] = verified.into();
            match &*last {
                None => {
                    object["outputs"] = json!(values);
                    for (name, value) in &values.0 {
                        let _ = write!(
                            text,
                            "\n  {} = {}",
                            format::plain(name),
                            format::value(value, name.len() + 5)
                        );
                    }
                }
                Some(before) => {
                    let changes = compare(before, &values);
                    tally.changed += u64::from(!changes.is_empty());
                    text = changes.text();
                    changes.add_to(object);
                }
            }
            for remark in &remarks {
                let _ = write!(text, "\n  {remark}");
            }
            if !remarks.is_empty() {
                object["remarks"] = remarks.into();
            }
            let full = values.full(program);
            let before = last.replace(values).map(|before| before.full(program));
            if before.unwrap_or_default() != full {
                for name in &full {
                    let _ = write!(text, "\n  {}", report::full(program, name));
                }
            }
            tally.full += u64::from(!full.is_empty());
            object["full"] = json!(full);
        }
        Given::Differ { outputs, changed } => {
            tally.unanswered += 1;
            let why = departures::changed(&changed).map_or(String::new(), |it| format!("; {it}"));
            text = format!(
                "\n  no answer: slice and whole run differ in {}{why}",
                format::plain(&outputs.join(", "))
            );
            object["outcome"] = "differ".into();
            object["differing"] = json!(outputs);
            object["changed"] = json!(changed);
        }
        Given::Stopped { stopped, by } => {
            tally.unanswered += 1;
            text = format!("\n  no answer: {}", format::plain(&stopped.to_string()));
            object["outcome"] = json!(stopped)["outcome"].take();
            object["by"] = by.name().into();
            object["stop"] = json!(stopped);
        }
        Given::TooLate => {
            tally.unanswered += 1;
            object["outcome"] = "pause-over".into();
        }
        Given::Torn => {
            tally.unanswered += 1;
            object["outcome"] = "torn".into();
        }
    }
    text
}

/// Asks all programs about one moment of the guest.
fn ask_all(watched: &mut [Watched<'_>], target: &Target, verify: bool) -> Result<Vec<Given>, Failure> {
    watched
        .iter_mut()
        .map(|watched| {
            let asked = watched.asked.clone();
            watched.ask(&asked.run(target)?, verify)
        })
        .collect()
}

/// A number with three places behind the point.
fn round(number: f64) -> Json {
    json!((number * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_median_and_maximum() {
        let mut tally = Tally::default();
        assert_eq!(tally.lengths(), (0.0, 0.0));
        [3, 1, 2].iter().for_each(|&length| tally.pause(Duration::from_millis(length)));
        assert_eq!(tally.lengths(), (2.0, 3.0));
    }

    #[test]
    fn a_full_list_is_told_when_it_becomes_full() {
        use engine::Value;

        let text = "program \"test\"\noutput \"pids\" u32[field \"count\" max 3] @0x5000\n";
        let program = ir::text::parse_program(text, machine::Reg::NAMES).expect("it parses");
        let (mut last, mut tally) = (None, Tally::default());
        let mut round = |pids: &[u64]| {
            let list = Value::List(pids.iter().map(|&pid| Value::Unsigned(pid)).collect());
            let values = Values(vec![("pids".into(), list)]);
            let mut object = json!({});
            let given = Given::Answer { values, by: Way::Slice, verified: true, remarks: Vec::new() };
            let text = told(&program, &mut last, given, &mut tally, &mut object);
            (text.contains("is full: there may be more"), object["full"].take())
        };
        assert_eq!(round(&[1, 2]), (false, json!([])));
        assert_eq!(round(&[1, 2, 3]), (true, json!(["pids"])));
        assert_eq!(round(&[1, 2, 4]), (false, json!(["pids"])));
        assert_eq!(tally.full, 2);
    }
}

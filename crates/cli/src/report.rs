//! What `run` found and how: both ways, the answer among them, the comparison.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use engine::locate::Located;
use engine::{Outcome, Stopped, Text, Values};
use ir::Program;
use serde_json::{Value as Json, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::ways::{Verdict, Way, Ways, stop};
use crate::{departures, evidence, format, output};

/// What one way of running cost.
pub struct Cost {
    /// How much was executed: operations of a slice, instructions of a whole run.
    pub steps: u64,
    /// How long the run took; the median where it was repeated.
    pub time: Duration,
}

/// Everything that `run` found, before it is printed.
pub struct Report<'r> {
    program: &'r Program,
    target: &'r Path,
    opening: Duration,
    /// How both ways ended.
    pub ways: Ways,
    /// What the slice cost, where it ran.
    pub slice_cost: Option<Cost>,
    /// What the whole run cost, where it ran.
    pub whole_cost: Option<Cost>,
    /// Why there was no whole run, though one was wanted.
    pub no_whole_run: Option<String>,
    /// How long the guest was paused, if it is a live one.
    pub pause: Option<Duration>,
    /// How the processors were found in memory, where the target does not say.
    pub located: Option<Located>,
    /// Whether to say what outputs depend on.
    pub explain: bool,
    /// Addresses of kernel assertions that the whole run stepped over.
    pub assertions: Vec<u64>,
}

impl<'r> Report<'r> {
    /// A report without runs yet; `opening` is the time it took to read program and target.
    #[must_use]
    pub fn new(program: &'r Program, target: &'r Path, opening: Duration) -> Self {
        Self {
            program,
            target,
            opening,
            ways: Ways::default(),
            slice_cost: None,
            whole_cost: None,
            no_whole_run: None,
            pause: None,
            located: None,
            explain: false,
            assertions: Vec::new(),
        }
    }

    /// Why the slice stopped, if it did.
    #[must_use]
    pub fn slice_stop(&self) -> Option<&Stopped> {
        stop(self.ways.slice.as_ref())
    }

    /// The exit code that the runs lead to.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.ways.verdict() {
            Some(Verdict::Stopped { stopped, .. }) => Exit::of(stopped),
            Some(Verdict::Differ { changed, .. }) => Exit::differ(changed),
            Some(Verdict::Answer { values, .. }) if !values.full(self.program).is_empty() => Exit::Full,
            Some(Verdict::Answer { .. }) | None => Exit::Done,
        }
    }

    /// The text of the failure where there is no answer.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let Some(Verdict::Stopped { stopped, by }) = self.ways.verdict() else { return None };
        Some(format!("{} stopped: {stopped}; {}", by.title(), next_step(stopped, by == Way::Whole)))
    }

    /// Remarks about how the answer was obtained; `verify`: also if nothing is remarkable.
    #[must_use]
    pub fn remarks(&self, verify: bool) -> Vec<String> {
        let mut remarks = Vec::new();
        match (self.ways.verdict(), self.slice_stop()) {
            (Some(Verdict::Answer { verified: true, .. }), _) if verify => {
                remarks.push("verified: slice and whole run agree".to_string());
            }
            (Some(Verdict::Differ { changed, .. }), _) => {
                remarks.push(format!("slice and whole run differ in: {}", self.ways.differing().join(", ")));
                remarks.extend(departures::changed(changed));
            }
            (Some(Verdict::Stopped { by: Way::Whole, .. }), Some(stopped)) => {
                remarks.push(format!("the slice stopped: {stopped}; the whole run was tried"));
            }
            _ => {}
        }
        if let Some(why) = self.ways.unverified().or_else(|| self.no_whole_run.clone()) {
            remarks.push(format!("not verified: {why}"));
        }
        remarks.extend(self.ways.full(self.program).iter().map(|name| full(self.program, name)));
        let answered = !matches!(self.ways.verdict(), Some(Verdict::Stopped { .. }) | None);
        remarks.extend(answered.then(|| evidence::remark(self.program)).flatten());
        remarks.extend(departures::remarks(&self.ways.departures));
        let mut places = self.assertions.clone();
        places.sort_unstable();
        for same in places.chunk_by(|a, b| a == b) {
            let times = if same.len() == 1 { String::new() } else { format!(", {} times", same.len()) };
            remarks.push(format!("the whole run stepped over a kernel assertion at {:#x}{times}", same[0]));
        }
        remarks
    }

    /// The times taken, as one line.
    #[must_use]
    pub fn times(&self) -> String {
        let mut text = format!("opening {:.3} ms", milliseconds(self.opening));
        if let Some(it) = &self.slice_cost {
            text.push_str(&format!(", slice {:.3} ms ({} operations)", milliseconds(it.time), it.steps));
        }
        if let Some(it) = &self.whole_cost {
            text.push_str(&format!(
                ", whole run {:.3} ms ({} instructions)",
                milliseconds(it.time),
                it.steps
            ));
        }
        if let Some(pause) = self.pause {
            text.push_str(&format!(", guest paused for {:.3} ms", milliseconds(pause)));
        }
        text
    }

    /// Prints the outputs; both answers where they differ.
    pub fn print(&self) -> Result<(), Failure> {
        let mut out = output::stdout();
        match self.ways.verdict() {
            Some(Verdict::Answer { values, .. }) => print_values(&mut out, values)?,
            Some(Verdict::Differ { slice, whole, .. }) => {
                writeln!(out, "by slice:")?;
                print_values(&mut out, slice)?;
                writeln!(out, "by whole run:")?;
                print_values(&mut out, whole)?;
            }
            Some(Verdict::Stopped { .. }) | None => {}
        }
        for line in if self.explain { evidence::lines(self.program) } else { Vec::new() } {
            writeln!(out, "{}", format::plain(&line))?;
        }
        Ok(out.flush()?)
    }

    /// Everything that was found, as one JSON object. Where two answers differ there is none, and
    /// `slice_outputs` and `whole_outputs` have them.
    #[must_use]
    pub fn json(&self) -> Json {
        let verdict = self.ways.verdict();
        let (values, by, verified) = match &verdict {
            Some(Verdict::Answer { values, by, verified }) => (Some(*values), Some(*by), *verified),
            _ => (None, None, false),
        };
        let differs = matches!(verdict, Some(Verdict::Differ { .. }));
        let ended = match verdict {
            Some(Verdict::Answer { .. }) => "answer".into(),
            Some(Verdict::Differ { .. }) => "differ".into(),
            _ => outcome(self.ways.whole.as_ref().or(self.ways.slice.as_ref())),
        };
        // What the answer cost: a whole run that only verifies is not counted.
        let slice = self.slice_cost.as_ref().map_or(0.0, |it| milliseconds(it.time));
        let whole = self.whole_cost.as_ref().filter(|_| by != Some(Way::Slice));
        let whole = whole.map_or(0.0, |it| milliseconds(it.time));
        let mut object = json!({
            "program": self.program.name,
            "target": Text::of_path(self.target),
            "by": by.map(Way::name),
            "outcome": ended,
            "verified": verified,
            "differing": self.ways.differing(),
            "changed": self.ways.changed,
            "outputs": values,
            "full": self.ways.full(self.program),
            "constant": evidence::constant(self.program),
            "slice_outputs": self.ways.slice_answer().filter(|_| differs),
            "whole_outputs": self.ways.whole_answer(),
            "operations": self.slice_cost.as_ref().map(|it| it.steps),
            "instructions": self.whole_cost.as_ref().map(|it| it.steps),
            "milliseconds": slice + whole,
            "opening_milliseconds": milliseconds(self.opening),
            "pause_milliseconds": self.pause.map(milliseconds),
            "processors_found": self.located.as_ref().map(|found| json!({
                "processors": found.cpus.len(), "gates": found.gates, "page_tables": found.roots,
                "anchors": found.signature,
            })),
            "assertions": self.assertions,
            "restored": self.ways.departures.restored,
            "overruled": self.ways.departures.overruled,
            "clocks": self.ways.departures.clocks,
            "slice_outcome": outcome(self.ways.slice.as_ref()),
            "slice_stop": stop(self.ways.slice.as_ref()),
            "whole_outcome": outcome(self.ways.whole.as_ref()),
            "whole_stop": stop(self.ways.whole.as_ref()),
        });
        if self.explain {
            object["depends_on"] = evidence::json(self.program);
        }
        object
    }
}

/// That an output of a program is full, and what to do.
#[must_use]
pub fn full(program: &Program, name: &str) -> String {
    let output = program.outputs.iter().find(|output| output.name == *name);
    let output = output.map_or_else(|| format::plain(name).into_owned(), format::variable);
    format!("the output {output} is full: there may be more; train with a larger buffer and build it again")
}

/// An outcome's name: `answer`, or the stop's own as it serialises.
pub fn outcome(outcome: Option<&Outcome>) -> Json {
    match outcome {
        Some(Outcome::Answer(_)) => "answer".into(),
        Some(Outcome::Stopped(stopped)) => json!(stopped)["outcome"].take(),
        None => Json::Null,
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn print_values(out: &mut impl Write, values: &Values) -> std::io::Result<()> {
    for (name, value) in &values.0 {
        writeln!(out, "{} = {}", format::plain(name), format::value(value, name.len() + 3))?;
    }
    Ok(())
}

/// What the user can do about a stop.
pub const fn next_step(stopped: &Stopped, whole: bool) -> &'static str {
    match stopped {
        Stopped::OutOfFuel { .. } => "give it more with --fuel",
        Stopped::OutOfTime { .. } => {
            "give it more with --max-time, and distrust program and target if that does not help"
        }
        Stopped::Blocked { .. } => {
            "pause the guest at another moment, or take another processor's view with --cpu"
        }
        Stopped::Switched { .. } => {
            "train with a trainer that does not wait between its marks, or pause the guest at another moment"
        }
        Stopped::Unrepeated { .. } => "run with --slice, or train with a trainer that does its work itself",
        Stopped::NeedsDevice { clock: true, .. } => {
            "the guest's clock is a device here, at any moment: train with a trainer that asks for the time \
             of the kernel's last tick (guests/trainers/gettime.c: CLOCK_REALTIME_COARSE)"
        }
        Stopped::UnknownCounter { .. } => "give the counter's value at the pause with --tsc",
        Stopped::NeedsDevice { .. } if whole => {
            "a system that cannot go on may also want to print so; pause the guest at another moment, or \
             take another processor's view with --cpu"
        }
        Stopped::Limit { .. } => "mark less work in the trainer, or give smaller inputs",
        Stopped::Unmapped { .. } if whole => {
            "check that the dump is complete, or take another processor's view with --cpu"
        }
        Stopped::NoCode { object: Some(_), .. } => {
            "somebody changed it, or the system did: compare it with `virtuoso tampering`"
        }
        Stopped::NoCode { .. } if whole => {
            "if a module of the target's is there that training did not load, give the pack the modules of \
             the kernel (`virtuoso modules`); else record another training run that gets past this place"
        }
        Stopped::Unsupported { .. } if whole => "record another training run that gets past this place",
        _ if whole => "take another processor's view with --cpu, or pause the guest at another moment",
        _ => "run without --slice to fall back to the whole run, or train this path and build again",
    }
}

#[cfg(test)]
mod tests {
    use engine::Value;

    use super::*;

    #[test]
    fn another_moment_is_no_advice_where_the_clock_is_a_device() {
        let stop = |clock| Stopped::NeedsDevice { at: 1, what: "reads".to_string(), clock };
        for whole in [false, true] {
            let text = next_step(&stop(true), whole);
            assert!(text.contains("CLOCK_REALTIME_COARSE") && !text.contains("another moment"), "{text}");
        }
        assert!(next_step(&stop(false), true).contains("another moment"));
    }

    #[test]
    fn a_constant_beside_an_answer_is_said() {
        let text = "program \"test\"\noutput \"pid\" u32 @0x5000\noutput \"sec\" u32 @0x5004\n\
                    depends \"pid\"\ndepends \"sec\" memory\n";
        let program = ir::text::parse_program(text, machine::Reg::NAMES).expect("it parses");
        let mut report = Report::new(&program, Path::new("guest.elf"), Duration::ZERO);
        assert_eq!(report.remarks(false), [""; 0], "nothing was answered");
        let values = vec![("pid".into(), Value::Unsigned(4)), ("sec".into(), Value::Unsigned(9))];
        let answer = Some(Outcome::Answer(Values(values)));
        report.ways = Ways { slice: answer.clone(), whole: answer, ..Ways::default() };
        let remarks = report.remarks(false);
        assert!(remarks.len() == 1 && remarks[0].starts_with("pid depends on nothing"), "{remarks:?}");
        assert_eq!(report.json()["constant"], json!(["pid"]));
    }

    #[test]
    fn a_difference_comes_before_a_full_list() {
        let text = "program \"test\"\noutput \"pids\" u32[field \"count\" max 2] @0x5000\n";
        let program = ir::text::parse_program(text, machine::Reg::NAMES).expect("it parses");
        let list = |last: u64| {
            let items = vec![Value::Unsigned(1), Value::Unsigned(last)];
            Some(Outcome::Answer(Values(vec![("pids".into(), Value::List(items))])))
        };
        let mut report = Report::new(&program, Path::new("guest.elf"), Duration::ZERO);
        report.ways = Ways { slice: list(7), whole: list(7), ..Ways::default() };
        assert_eq!(report.exit(), Exit::Full);
        let remarks = report.remarks(false);
        assert!(remarks.len() == 1 && remarks[0].contains("pids:u32[count<=2] is full"), "{remarks:?}");
        assert_eq!(report.json()["full"], json!(["pids"]));
        report.ways.whole = list(8);
        assert_eq!(report.exit(), Exit::Differ);
        assert_eq!(report.json()["full"], json!([]));
        report.ways.changed = vec![0x10];
        assert_eq!(report.exit(), Exit::Tampered, "the target explains it");
        assert!(report.remarks(false)[1].contains("(at 0x10)"), "{:?}", report.remarks(false));
    }
}

//! What `run` found and how: both attempts, the answer among them, the comparison.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use engine::locate::Located;
use engine::{Outcome, Stopped, Values};
use serde_json::{Value as Json, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::{format, output};

/// One way of running and how it ended.
pub struct Attempt {
    /// How the run ended: an answer, or where it stopped.
    pub outcome: Outcome,
    /// How much was executed: operations of a slice, instructions of a whole run.
    pub steps: u64,
    /// How long the run took; the median where it was repeated.
    pub time: Duration,
}

/// Everything that `run` found, before it is printed.
pub struct Report<'r> {
    program: &'r str,
    target: &'r Path,
    opening: Duration,
    /// The attempt by the slice, where it ran.
    pub slice: Option<Attempt>,
    /// The attempt by the whole run, where it ran.
    pub whole: Option<Attempt>,
    /// How long the guest was paused, if it is a live one.
    pub pause: Option<Duration>,
    /// How the processors were found in memory, where the target does not say.
    pub located: Option<Located>,
    /// Addresses of kernel assertions that the whole run stepped over.
    pub assertions: Vec<u64>,
}

impl<'r> Report<'r> {
    /// A report without attempts yet; `opening` is the time it took to read program and target.
    #[must_use]
    pub const fn new(program: &'r str, target: &'r Path, opening: Duration) -> Self {
        Self {
            program,
            target,
            opening,
            slice: None,
            whole: None,
            pause: None,
            located: None,
            assertions: Vec::new(),
        }
    }

    /// Whether the slice ran and answered.
    #[must_use]
    pub fn slice_answers(&self) -> bool {
        answer(self.slice.as_ref()).is_some()
    }

    /// The answer and the way it was obtained, `slice` or `whole`.
    fn answer(&self) -> Option<(&Values, &'static str)> {
        let slice = answer(self.slice.as_ref()).map(|values| (values, "slice"));
        slice.or_else(|| answer(self.whole.as_ref()).map(|values| (values, "whole")))
    }

    /// Whether both attempts answered and their answers differ.
    fn differ(&self) -> bool {
        matches!((answer(self.slice.as_ref()), answer(self.whole.as_ref())), (Some(a), Some(b)) if a != b)
    }

    /// What ends the command: the last attempt's stop.
    fn stop(&self) -> Option<&Stopped> {
        stop(self.whole.as_ref().or(self.slice.as_ref()))
    }

    /// The exit code that the attempts lead to.
    #[must_use]
    pub fn exit(&self, verify: bool) -> Exit {
        match self.stop() {
            Some(stopped) => Exit::of(stopped),
            None if verify && self.differ() => Exit::Differ,
            None => Exit::Done,
        }
    }

    /// The text of the failure where there is no answer.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let stopped = self.stop()?;
        let way = if self.whole.is_some() { "the whole run" } else { "the slice" };
        Some(format!("{way} stopped: {stopped}; {}", next_step(stopped, self.whole.is_some())))
    }

    /// Remarks about how the answer was obtained.
    #[must_use]
    pub fn remarks(&self, verify: bool) -> Vec<String> {
        let mut remarks = Vec::new();
        if let (Some(stopped), Some(_)) = (stop(self.slice.as_ref()), &self.whole) {
            let result = if answer(self.whole.as_ref()).is_some() {
                "the answer is the whole run's"
            } else {
                "the whole run was tried"
            };
            remarks.push(format!("the slice stopped: {stopped}; {result}"));
        }
        if verify && self.slice_answers() {
            match answer(self.whole.as_ref()) {
                Some(_) if self.differ() => {
                    remarks.push(format!("slice and whole run differ in: {}", self.differing().join(", ")))
                }
                Some(_) => remarks.push("verified: slice and whole run agree".to_string()),
                None => remarks.push("not verified: only the slice answered".to_string()),
            }
        }
        let mut places = self.assertions.clone();
        places.sort_unstable();
        for same in places.chunk_by(|a, b| a == b) {
            let times = if same.len() == 1 { String::new() } else { format!(", {} times", same.len()) };
            remarks.push(format!("the whole run stepped over a kernel assertion at {:#x}{times}", same[0]));
        }
        remarks
    }

    fn differing(&self) -> Vec<String> {
        let (Some(a), Some(b)) = (answer(self.slice.as_ref()), answer(self.whole.as_ref())) else {
            return Vec::new();
        };
        a.0.iter().filter(|(name, value)| b.get(name) != Some(value)).map(|(name, _)| name.clone()).collect()
    }

    /// The times taken, as one line.
    #[must_use]
    pub fn times(&self) -> String {
        let mut text = format!("opening {:.3} ms", milliseconds(self.opening));
        if let Some(it) = &self.slice {
            text.push_str(&format!(", slice {:.3} ms ({} operations)", milliseconds(it.time), it.steps));
        }
        if let Some(it) = &self.whole {
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
    pub fn print(&self, verify: bool) -> Result<(), Failure> {
        let mut out = output::stdout();
        if let Some((values, _)) = self.answer() {
            if verify && self.differ() {
                writeln!(out, "by slice:")?;
            }
            print_values(&mut out, values)?;
        }
        if let Some(values) = answer(self.whole.as_ref()).filter(|_| verify && self.differ()) {
            writeln!(out, "by whole run:")?;
            print_values(&mut out, values)?;
        }
        Ok(out.flush()?)
    }

    /// Everything that was found, as one JSON object.
    #[must_use]
    pub fn json(&self, verify: bool) -> Json {
        let (values, by) = self.answer().map_or((None, None), |(values, by)| (Some(values), Some(by)));
        // What the answer cost: a whole run that only verifies is not counted.
        let slice = self.slice.as_ref().map_or(0.0, |it| milliseconds(it.time));
        let whole =
            self.whole.as_ref().filter(|_| by != Some("slice")).map_or(0.0, |it| milliseconds(it.time));
        let ended =
            by.map_or_else(|| outcome(self.whole.as_ref().or(self.slice.as_ref())), |_| "answer".into());
        let mut object = json!({
            "program": self.program,
            "target": self.target.display().to_string(),
            "by": by,
            "outcome": ended,
            "outputs": values,
            "operations": self.slice.as_ref().map(|it| it.steps),
            "instructions": self.whole.as_ref().map(|it| it.steps),
            "milliseconds": slice + whole,
            "opening_milliseconds": milliseconds(self.opening),
            "pause_milliseconds": self.pause.map(milliseconds),
            "processors_found": self.located.as_ref().map(|found| json!({
                "processors": found.cpus.len(), "gates": found.gates, "page_tables": found.roots,
                    "anchors": found.signature,
            })),
            "assertions": self.assertions,
            "slice_outcome": outcome(self.slice.as_ref()),
            "slice_stop": stop(self.slice.as_ref()),
            "whole_outcome": outcome(self.whole.as_ref()),
            "whole_stop": stop(self.whole.as_ref()),
        });
        if verify {
            object["verified"] =
                json!(self.slice_answers() && answer(self.whole.as_ref()).is_some() && !self.differ());
            object["differing"] = json!(self.differing());
            object["whole_outputs"] = json!(answer(self.whole.as_ref()));
        }
        object
    }
}

fn answer(attempt: Option<&Attempt>) -> Option<&Values> {
    match &attempt?.outcome {
        Outcome::Answer(values) => Some(values),
        Outcome::Stopped(_) => None,
    }
}

fn stop(attempt: Option<&Attempt>) -> Option<&Stopped> {
    match &attempt?.outcome {
        Outcome::Answer(_) => None,
        Outcome::Stopped(stopped) => Some(stopped),
    }
}

/// An outcome's name: `answer`, or the stop's own as it serialises.
fn outcome(attempt: Option<&Attempt>) -> Json {
    match attempt.map(|attempt| &attempt.outcome) {
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
const fn next_step(stopped: &Stopped, whole: bool) -> &'static str {
    match stopped {
        Stopped::OutOfFuel { .. } => "give it more with --fuel",
        Stopped::Blocked { .. } => {
            "pause the guest at another moment, or take another processor's view with --cpu"
        }
        Stopped::Switched { .. } => {
            "train with a trainer that does not wait between its marks, or pause the guest at another moment"
        }
        Stopped::Unrepeated { .. } => "run with --slice, or train with a trainer that does its work itself",
        Stopped::NeedsDevice { .. } if whole => {
            "a system that cannot go on may also want to print so; pause the guest at another moment, or \
             take another processor's view with --cpu"
        }
        Stopped::Limit { .. } => "mark less work in the trainer, or give smaller inputs",
        Stopped::Unmapped { .. } if whole => {
            "check that the dump is complete, or take another processor's view with --cpu"
        }
        Stopped::NoCode { .. } | Stopped::Unsupported { .. } if whole => {
            "record another training run that gets past this place"
        }
        _ if whole => "take another processor's view with --cpu, or pause the guest at another moment",
        _ => "run without --slice to fall back to the whole run, or train this path and build again",
    }
}

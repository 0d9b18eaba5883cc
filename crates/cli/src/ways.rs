//! Both ways of running, and what they say together.
//!
//! Slice and whole run come to an answer by different means: the slice by what training saw, the
//! whole run by all of the trusted code. Where both end and agree the answer is verified; where
//! they differ there is none. Where only one ends, its answer counts and is said to be unverified.

use engine::{
    Departures, Inputs, Limits, Outcome, Run, RunError, SessionProgram, SliceProgram, Stopped, Values,
    WholeProgram, WholeReport,
};
use ir::Program;

/// A way of running a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The slice: operations of what training saw.
    Slice,
    /// The whole run: all of the trusted code.
    Whole,
}

impl Way {
    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slice => "slice",
            Self::Whole => "whole",
        }
    }

    /// What it is called in a sentence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Slice => "the slice",
            Self::Whole => "the whole run",
        }
    }
}

/// How a slice run and a whole run ended, as far as they were made.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// How the slice ended.
    pub slice: Option<Outcome>,
    /// How the whole run ended.
    pub whole: Option<Outcome>,
    /// Where the whole run did not follow the target.
    pub departures: Departures,
    /// Where both answer and differ: the words of the target's read-only data that somebody
    /// changed, by the training system's addresses.
    pub changed: Vec<u64>,
}

/// What both say together.
#[derive(Debug)]
pub enum Verdict<'w> {
    /// An answer, and the way it was obtained. Both gave it if it is `verified`.
    Answer {
        /// The answer.
        values: &'w Values,
        /// The way it was obtained first.
        by: Way,
        /// Whether the other way came to the same.
        verified: bool,
    },
    /// Two answers.
    Differ {
        /// The slice's.
        slice: &'w Values,
        /// The whole run's.
        whole: &'w Values,
        /// The words of the target's read-only data that somebody changed. Whole runs read what no
        /// recording joined with an answer, such as the end of a format string; if nobody changed
        /// such a word, the slice lacks something.
        changed: &'w [u64],
    },
    /// No answer: why the last one tried stopped, and which it was.
    Stopped {
        /// Why.
        stopped: &'w Stopped,
        /// The way that was tried last.
        by: Way,
    },
}

impl Ways {
    /// Asks by the slice, and by the whole run where one is at hand.
    ///
    /// # Errors
    /// A run could not begin.
    pub fn ask(
        slice: &SliceProgram<'_>,
        whole: Option<&mut WholeProgram<'_>>,
        run: &Run<'_>,
        inputs: &Inputs,
    ) -> Result<Self, RunError> {
        let slice = Some(slice.run(run, inputs)?.0);
        let Some(whole) = whole else { return Ok(Self { slice, ..Self::default() }) };
        let ways = Self { slice, ..Self::of_whole(whole.run(run, inputs)?) };
        ways.explained(|| whole.changed_data(run))
    }

    /// Asks a program of a session by both ways.
    ///
    /// # Errors
    /// A run could not begin.
    pub fn in_session(
        program: &SessionProgram<'_, '_>,
        inputs: &Inputs,
        limits: &Limits,
    ) -> Result<Self, RunError> {
        let slice = program.ask_slice(inputs, limits)?.0;
        Self { slice: Some(slice), ..Self::of_whole(program.ask(inputs, limits)?) }
            .compared(program, inputs, limits)
    }

    /// Where both differ, looks for a reason; where the whole run had pointers restored and the
    /// slice stopped, asks the slice once more with the same pointers.
    ///
    /// # Errors
    /// The run could not begin.
    pub fn compared(
        mut self,
        program: &SessionProgram<'_, '_>,
        inputs: &Inputs,
        limits: &Limits,
    ) -> Result<Self, RunError> {
        let stopped = matches!(self.slice, Some(Outcome::Stopped(_)));
        if !self.departures.restored.is_empty() && stopped && self.whole_answer().is_some() {
            self.slice = Some(program.ask_slice_restored(inputs, limits)?.0);
        }
        self.explained(|| Ok(program.changed_data()))
    }

    /// The same, with what `changed` finds where there are two answers.
    ///
    /// # Errors
    /// Those of `changed`.
    pub fn explained(
        mut self,
        changed: impl FnOnce() -> Result<Vec<u64>, RunError>,
    ) -> Result<Self, RunError> {
        if self.differ() {
            self.changed = changed()?;
        }
        Ok(self)
    }

    /// How a whole run ended.
    #[must_use]
    pub fn of_whole((outcome, report): (Outcome, WholeReport)) -> Self {
        Self { whole: Some(outcome), departures: report.departures, ..Self::default() }
    }

    /// The slice's answer.
    #[must_use]
    pub fn slice_answer(&self) -> Option<&Values> {
        answer(self.slice.as_ref())
    }

    /// The whole run's answer.
    #[must_use]
    pub fn whole_answer(&self) -> Option<&Values> {
        answer(self.whole.as_ref())
    }

    /// Whether there are two answers.
    #[must_use]
    pub fn differ(&self) -> bool {
        self.slice_answer().zip(self.whole_answer()).is_some_and(|(slice, whole)| slice != whole)
    }

    /// What both say together; `None` if neither was tried.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict<'_>> {
        let verdict = match (self.slice_answer(), self.whole_answer()) {
            (Some(slice), Some(whole)) if slice != whole => {
                Verdict::Differ { slice, whole, changed: &self.changed }
            }
            (Some(values), whole) => Verdict::Answer { values, by: Way::Slice, verified: whole.is_some() },
            (None, Some(values)) => Verdict::Answer { values, by: Way::Whole, verified: false },
            (None, None) => {
                let (outcome, by) = match (&self.whole, &self.slice) {
                    (Some(whole), _) => (whole, Way::Whole),
                    (None, slice) => (slice.as_ref()?, Way::Slice),
                };
                let Outcome::Stopped(stopped) = outcome else { return None };
                Verdict::Stopped { stopped, by }
            }
        };
        Some(verdict)
    }

    /// Why only one way answers, as far as the other was tried.
    #[must_use]
    pub fn unverified(&self) -> Option<String> {
        match (self.verdict()?, stop(self.slice.as_ref()), stop(self.whole.as_ref())) {
            (Verdict::Answer { by: Way::Whole, .. }, Some(stopped), _) => {
                Some(format!("the slice stopped: {stopped}; the answer is the whole run's"))
            }
            (Verdict::Answer { by: Way::Slice, .. }, _, Some(stopped)) => {
                Some(format!("the whole run stopped: {stopped}; the answer is the slice's"))
            }
            _ => None,
        }
    }

    /// The outputs of the answer that are full, so that there may be more.
    #[must_use]
    pub fn full(&self, program: &Program) -> Vec<String> {
        match self.verdict() {
            Some(Verdict::Answer { values, .. }) => values.full(program),
            _ => Vec::new(),
        }
    }

    /// The names of outputs in which two answers differ.
    #[must_use]
    pub fn differing(&self) -> Vec<String> {
        let (Some(a), Some(b)) = (self.slice_answer(), self.whole_answer()) else { return Vec::new() };
        a.0.iter().filter(|(name, value)| b.get(name) != Some(value)).map(|(name, _)| name.clone()).collect()
    }
}

fn answer(outcome: Option<&Outcome>) -> Option<&Values> {
    match outcome? {
        Outcome::Answer(values) => Some(values),
        Outcome::Stopped(_) => None,
    }
}

/// Why a way stopped, if it was tried and did.
#[must_use]
pub fn stop(outcome: Option<&Outcome>) -> Option<&Stopped> {
    match outcome? {
        Outcome::Answer(_) => None,
        Outcome::Stopped(stopped) => Some(stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Value;

    fn answers(number: u64) -> Option<Outcome> {
        Some(Outcome::Answer(Values(vec![("x".into(), Value::Unsigned(number))])))
    }

    fn stops() -> Option<Outcome> {
        Some(Outcome::Stopped(Stopped::OutOfFuel { at: 0x10, used: 1 }))
    }

    #[test]
    fn only_equal_answers_are_verified() {
        let both = |slice, whole| Ways { slice, whole, ..Ways::default() };
        let verified = |ways: &Ways| match ways.verdict() {
            Some(Verdict::Answer { by, verified, .. }) => Some((by, verified)),
            _ => None,
        };
        assert_eq!(verified(&both(answers(1), answers(1))), Some((Way::Slice, true)));
        assert_eq!(verified(&both(answers(1), None)), Some((Way::Slice, false)));
        assert_eq!(verified(&both(answers(1), stops())), Some((Way::Slice, false)));
        assert_eq!(verified(&both(stops(), answers(1))), Some((Way::Whole, false)));
        let differ = both(answers(1), answers(2));
        assert!(matches!(differ.verdict(), Some(Verdict::Differ { .. })));
        assert_eq!(differ.differing(), ["x"]);
        assert!(matches!(both(stops(), stops()).verdict(), Some(Verdict::Stopped { by: Way::Whole, .. })));
        assert!(both(None, None).verdict().is_none());

        assert_eq!(both(answers(1), answers(1)).unverified(), None);
        let said = |ways: Ways| ways.unverified().is_some_and(|why| why.contains("the slice stopped"));
        assert!(said(both(stops(), answers(1))) && !said(both(answers(1), stops())));
        assert!(both(answers(1), stops()).unverified().is_some());
    }
}

//! What became of one program of a pack.

use serde_json::{Value, json};

use crate::format::counted;
use crate::train::verify::Verdict;

/// How one program of the pack was built and verified.
pub struct Row {
    /// The name that its trainer's begin mark gives it.
    pub name: String,
    /// How many recordings it was built from.
    pub recordings: usize,
    /// The number of distinct instructions in the slice.
    pub in_slice: u64,
    /// Whether it was not built because none of its outputs depends on the target.
    pub constant: bool,
    /// How it did on each recording of the second guest; or why it could not be built.
    pub verdicts: Result<Vec<Verdict>, String>,
}

impl Row {
    /// Why the program is not written, if it is not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &self.verdicts {
            Err(why) => Some(format!("not built: {why}")),
            Ok(all) if all.is_empty() => {
                Some("not verified: no recording of the second guest can judge it; train again".to_owned())
            }
            Ok(all) => {
                let wrong = all.iter().find(|it| matches!(it, Verdict::Wrong(_)))?;
                Some(format!("not verified: {wrong}"))
            }
        }
    }

    /// The row as a JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let problem = self.problem();
        json!({
            "program": self.name, "recordings": self.recordings, "static_in_slice": self.in_slice,
                "asked": self.asked(),
            "by_slice": self.by_slice(), "verified": problem.is_none(), "problem": problem,
        })
    }

    /// The row as a line of text.
    #[must_use]
    pub fn text(&self) -> String {
        let (recordings, instructions) =
            (counted(self.recordings, "recording"), counted(self.in_slice as usize, "instruction"));
        let what = self.problem().unwrap_or_else(|| {
            format!(
                "verified by {}, {} of them by the slice",
                counted(self.asked(), "answer"),
                self.by_slice()
            )
        });
        format!("{}: {recordings}, {instructions} in the slice, {what}", self.name)
    }

    fn asked(&self) -> usize {
        self.verdicts.as_ref().map_or(0, Vec::len)
    }

    fn by_slice(&self) -> usize {
        self.verdicts.iter().flatten().filter(|it| **it == Verdict::BySlice).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_answer_spoils_a_program_and_a_stopped_slice_does_not() {
        let row = |verdicts| Row {
            name: "pslist".to_owned(),
            recordings: 1,
            in_slice: 7,
            constant: false,
            verdicts: Ok(verdicts),
        };
        let stopped = || Verdict::ByWhole("a path".to_owned());
        let good = row(vec![Verdict::BySlice, stopped()]);
        assert_eq!((good.problem(), good.by_slice()), (None, 1));
        assert!(good.text().contains("verified by 2 answers, 1 of them by the slice"), "{}", good.text());
        assert!(row(vec![stopped(), Verdict::Wrong("no".to_owned())]).problem().is_some());
        assert!(row(Vec::new()).problem().is_some());
    }
}

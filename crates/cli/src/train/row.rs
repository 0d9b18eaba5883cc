//! What became of one program of a pack.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::format::counted;
use crate::train::search::Searched;
use crate::train::verify::Verdict;

/// How one program of the pack was built and verified.
pub struct Row {
    /// The name that its trainer's begin mark gives it.
    pub name: String,
    /// How many recordings it was built from.
    pub recordings: usize,
    /// Why other recordings of the first guest had no part in it, a sentence each.
    pub left_out: Vec<String>,
    /// The number of distinct instructions in the slice.
    pub in_slice: u64,
    /// Whether it was not built because none of its outputs depends on the target.
    pub constant: bool,
    /// How it did on each recording of the second guest that can judge it; or why it could not be
    /// built.
    pub verdicts: Result<Vec<Verdict>, String>,
    /// Recordings of the second guest that judge nothing, for an interrupt spoilt them.
    pub not_judging: usize,
    /// What the search over the second guest found, if it was searched.
    pub search: Option<Searched>,
    /// Where a program lies that gives two answers about changes of the second guest.
    pub differing: Option<Differing>,
}

/// A program that is not written into the pack because it gives two answers.
pub struct Differing {
    /// Its file.
    pub program: PathBuf,
    /// The recording of the second guest over which it does.
    pub recording: PathBuf,
}

impl Row {
    /// A program of which nothing is known yet but that it was not built, and why.
    #[must_use]
    pub fn not_built(name: &str, why: String) -> Self {
        Self {
            name: name.to_owned(),
            recordings: 0,
            left_out: Vec::new(),
            in_slice: 0,
            constant: false,
            verdicts: Err(why),
            not_judging: 0,
            search: None,
            differing: None,
        }
    }

    /// Why the program is not written, if it is not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &self.verdicts {
            Err(why) => Some(format!("not built: {why}")),
            Ok(all) if all.is_empty() => {
                Some("not verified: no recording of the second guest can judge it; train again".to_owned())
            }
            Ok(all) => match all.iter().find(|it| matches!(it, Verdict::Wrong(_))) {
                Some(wrong) => Some(format!("not verified: {wrong}")),
                None => self.two_answers(),
            },
        }
    }

    /// What there is to say of two answers about changes of the second guest.
    fn two_answers(&self) -> Option<String> {
        let searched = self.search.as_ref()?;
        let (_, first) = searched.left.first()?;
        let why = searched.not_learned.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        let again = self.differing.as_ref().map_or(String::new(), |it| {
            let shown = |path: &Path| path.display().to_string();
            format!(
                ". It is kept for a report: virtuoso verify {} {} --cases 1 --seed {:#x}",
                shown(&it.program),
                shown(&it.recording),
                first.seed
            )
        });
        Some(format!(
            "not verified: slice and whole run give different answers in {} about {} of {} of the second \
             guest's memory, and learning does not mend it{why}. `virtuoso run` asks both and would end with \
             exit code 21 there, never with a wrong answer; its slice alone would answer wrongly. Train with \
             more calls of the trainer, with other arguments{again}",
            first.outputs.join(", "),
            searched.different(),
            counted(searched.counts.cases as usize, "change"),
        ))
    }

    /// The row as a JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let problem = self.problem();
        let path = |path: &PathBuf| engine::Text::of_path(path);
        json!({
            "program": self.name,
            "recordings": self.recordings,
            "left_out": self.left_out,
            "static_in_slice": self.in_slice,
            "asked": self.asked(),
            "by_slice": self.by_slice(),
            "not_judging": self.not_judging,
            "search": self.search.as_ref().map(Searched::json),
            "differing": self.differing.as_ref().map(|it| json!({
                "program": path(&it.program), "recording": path(&it.recording),
            })),
            "verified": problem.is_none(),
            "problem": problem,
        })
    }

    /// The row as a line of text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut parts = vec![counted(self.recordings, "recording")];
        if !self.left_out.is_empty() {
            parts.push(format!("{} more left out", self.left_out.len()));
        }
        parts.push(format!("{} in the slice", counted(self.in_slice as usize, "instruction")));
        parts.push(self.problem().unwrap_or_else(|| {
            format!(
                "verified by {}, {} of them by the slice",
                counted(self.asked(), "answer"),
                self.by_slice()
            )
        }));
        if self.not_judging > 0 {
            let answers = counted(self.not_judging, "answer");
            parts.push(format!(
                "{answers} of the second guest not compared, for an interrupt changed what it read"
            ));
        }
        if let Some(searched) = self.search.as_ref().filter(|it| it.left.is_empty()) {
            let counts = &searched.counts;
            parts.push(format!(
                "searched by {}: {} equal, {} stopped, none different",
                counted(counts.cases as usize, "change"),
                counts.equal,
                counts.stopped(),
            ));
        }
        if let Some(learned) = self.search.as_ref().map(|it| it.learned.len()).filter(|&count| count > 0) {
            parts.push(format!("{} learned", counted(learned, "difference")));
        }
        format!("{}: {}", self.name, parts.join(", "))
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
    use crate::search::{Counts, Finding};

    fn row(verdicts: Vec<Verdict>) -> Row {
        Row { recordings: 1, in_slice: 7, verdicts: Ok(verdicts), ..Row::not_built("pslist", String::new()) }
    }

    #[test]
    fn one_wrong_answer_spoils_a_program_and_a_stopped_slice_does_not() {
        let stopped = || Verdict::ByWhole("a path".to_owned());
        let good = row(vec![Verdict::BySlice, stopped()]);
        assert_eq!((good.problem(), good.by_slice()), (None, 1));
        assert!(good.text().contains("verified by 2 answers, 1 of them by the slice"), "{}", good.text());
        assert!(row(vec![stopped(), Verdict::Wrong("no".to_owned())]).problem().is_some());
        assert!(row(Vec::new()).problem().is_some());
    }

    #[test]
    fn what_an_interrupt_spoilt_is_counted() {
        let all = row(vec![Verdict::BySlice]);
        assert!(!all.text().contains("left out") && !all.text().contains("not compared"), "{}", all.text());
        assert_eq!((&all.json()["left_out"], &all.json()["not_judging"]), (&json!([]), &json!(0)));
        let some = Row { left_out: vec!["a.trace: an interrupt".to_owned()], not_judging: 2, ..all };
        let text = some.text();
        assert!(text.contains("1 recording, 1 more left out, 7 instructions"), "{text}");
        assert!(text.contains("2 answers of the second guest not compared"), "{text}");
        assert_eq!(some.json()["left_out"], json!(["a.trace: an interrupt"]));
        assert_eq!(some.json()["not_judging"], 2);
    }

    #[test]
    fn two_answers_are_no_verified_program_and_the_report_says_what_to_do() {
        let counts = Counts { cases: 300, equal: 200, slice_stopped: 99, different: 1, ..Counts::default() };
        let mut searched = Searched { counts, ..Searched::default() };
        searched.counts.different = 0;
        let none = Row { search: Some(searched), ..row(vec![Verdict::BySlice]) };
        assert_eq!(none.problem(), None);
        assert!(none.text().ends_with("searched by 300 changes: 200 equal, 99 stopped, none different"));

        let finding = Finding {
            seed: 0xabc,
            changes: Vec::new(),
            outputs: vec!["path".to_owned()],
            slice: engine::Values::default(),
            whole: engine::Values::default(),
            times: 1,
        };
        let mut searched = none.search.expect("it was searched");
        searched.left.push(("second/pslist-0001.trace".to_owned(), finding));
        let differing = Some(Differing { program: "d/p.prog".into(), recording: "d/p.trace".into() });
        let two = Row { search: Some(searched), differing, ..row(vec![Verdict::BySlice]) };
        let text = two.text();
        for part in
            ["in path about 1 of 300 changes", "exit code 21", "d/p.prog d/p.trace --cases 1 --seed 0xabc"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let object = two.json();
        assert_eq!((&object["verified"], &object["search"]["different"]), (&json!(false), &json!(1)));
        assert_eq!(object["search"]["differences"][0]["seed"], "0xabc");
        assert_eq!(object["differing"]["recording"], "d/p.trace");
    }
}

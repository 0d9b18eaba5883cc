//! Searches the second guest for changes about which slice and whole run of a new program differ,
//! and learns what such a change teaches.
//!
//! A whole run over the second guest cannot be merged with recordings of the first, for its kernel
//! lies elsewhere. So a change of the same words, those that the same instructions read, is looked
//! for in the first guest, and the whole run over that is a recording like any other. Then the
//! second guest is searched again, from the change that differed.

use std::time::{Duration, Instant};

use engine::{Limits, Outcome, Run, SliceProgram};
use serde_json::{Value as Json, json};
use slicer::{Recording, Start};
use trace::Trace;

use crate::recorded;
use crate::search::report::finding_json;
use crate::search::{Counts, Finding, Found, Question, Unchanged};
use crate::training::{Error, Trained, Wishes, learned_name, record_whole, train};
use crate::ways::Verdict;

/// Changes that one program may learn from.
const MOST_LEARNED: usize = 8;
/// The seed that the search of every recording begins with.
const SEED: u64 = 1;
/// Changes of one recording of the first guest in which a difference is looked for again, and how
/// long: of words that the same instructions read few are needed.
const TO_LEARN: Budget = Budget { time: Duration::from_secs(30), cases: 2000 };

/// A recording of a guest as a target: what was where at the begin mark.
///
/// # Errors
/// The program cannot begin there.
pub fn with_question<T>(
    trained: &Trained,
    start: &Start<'_>,
    then: impl FnOnce(&Question<'_>, Unchanged) -> T,
) -> Result<T, Error> {
    let Trained { program, system, .. } = trained;
    let run = recorded::run(start, Limits::default());
    let slice = SliceProgram::new(program).map_err(engine::RunError::from)?;
    let inputs = start.inputs();
    let question = Question { program, system, slice: &slice, run, inputs: &inputs };
    let unchanged = question.unchanged()?;
    Ok(then(&question, unchanged))
}

/// What came of the searches over the second guest with one program.
#[derive(Default)]
pub struct Searched {
    /// How all changed targets ended that were asked, those that were learned from included.
    pub counts: Counts,
    /// The traces of whole runs that were learned from: file name and bytes.
    pub learned: Vec<(String, Vec<u8>)>,
    /// Differences that are left, with the recording of the second guest each was found in.
    pub left: Vec<(String, Finding)>,
    /// Why the last of them could not be learned.
    pub not_learned: Option<String>,
    /// Time spent on the search, without that of learning.
    pub time: Duration,
}

impl Searched {
    /// How many changed targets still have two answers.
    #[must_use]
    pub fn different(&self) -> u64 {
        self.left.iter().map(|(_, finding)| finding.times).sum()
    }

    /// As a JSON object.
    #[must_use]
    pub fn json(&self) -> Json {
        let left = self.left.iter().map(|(recording, finding)| {
            let mut object = finding_json(finding);
            object["recording"] = recording.as_str().into();
            object
        });
        let counts = &self.counts;
        json!({
            "changes": counts.cases,
            "equal": counts.equal,
            "stopped": counts.stopped(),
            "different": self.different(),
            "learned": self.learned.len(),
            "not_learned": self.not_learned,
            "differences": left.collect::<Vec<Json>>(),
            "seconds": (self.time.as_secs_f64() * 1e3).round() / 1e3,
        })
    }

    fn count(&mut self, round: &Counts) {
        let all = &mut self.counts;
        all.cases += round.cases;
        all.equal += round.equal;
        all.equal_and_new += round.equal_and_new;
        all.slice_stopped += round.slice_stopped;
        all.whole_stopped += round.whole_stopped;
        all.both_stopped += round.both_stopped;
        all.refused += round.refused;
        all.changed += round.changed;
        all.different += round.different;
    }
}

/// What a program is made of, and so what is built again when there is more to learn from.
pub struct Made<'m> {
    /// The recordings of the first guest, and what was learned so far.
    pub recordings: &'m mut Vec<Recording>,
    /// With what it was built.
    pub wishes: &'m Wishes<'m>,
    /// How long to search.
    pub budget: Budget,
}

/// The most that searches may take, without learning.
#[derive(Clone, Copy)]
pub struct Budget {
    /// In all.
    pub time: Duration,
    /// Changed targets in each recording of the second guest.
    pub cases: u64,
}

/// Searches the recordings of the second guest until the budget is spent, and learns from what
/// differs; the program, which may be another then. `say` is told what is done.
///
/// # Errors
/// The program cannot begin over one of them.
pub fn search(
    mut trained: Trained,
    made: &mut Made<'_>,
    second: &[Recording],
    say: &mut dyn FnMut(&str),
) -> Result<(Trained, Searched), Error> {
    let mut searched = Searched::default();
    for (at, recording) in second.iter().enumerate() {
        let start = Start::new(recording)?;
        let share = made.budget.time.saturating_sub(searched.time) / (second.len() - at) as u32;
        let (until, most) = (searched.time + share, searched.counts.cases.saturating_add(made.budget.cases));
        let mut seed = SEED;
        loop {
            let may_learn = searched.not_learned.is_none() && searched.learned.len() < MOST_LEARNED;
            let left = Budget {
                time: until.saturating_sub(searched.time),
                cases: most.saturating_sub(searched.counts.cases),
            };
            let found = round(&trained, &start, seed, left, may_learn, &mut searched)?;
            let Some(first) = found.findings.first().filter(|_| may_learn) else {
                let left = found.findings.into_iter().map(|finding| (recording.name.clone(), finding));
                searched.left.extend(left);
                break;
            };
            // The same change is the first that is asked again, whatever comes of this.
            seed = first.seed;
            say("learning from a change about which slice and whole run differ");
            match lesson(&trained, made, first) {
                Ok((name, bytes, better)) => {
                    searched.learned.push((name, bytes));
                    trained = better;
                }
                Err(why) => searched.not_learned = Some(why),
            }
            say("searching on");
        }
    }
    Ok((trained, searched))
}

/// Searches one recording from a seed on, one change at least; to the first difference, or to the
/// end of the budget.
fn round(
    trained: &Trained,
    start: &Start<'_>,
    seed: u64,
    left: Budget,
    to_the_first: bool,
    searched: &mut Searched,
) -> Result<Found, Error> {
    let begin = Instant::now();
    let found = with_question(trained, start, |question, unchanged| {
        // `verify` says what is to be said where the unchanged target has two answers.
        if matches!(unchanged.ways.verdict(), Some(Verdict::Differ { .. }) | None) {
            return Found::default();
        }
        question.search(&unchanged, seed, |counts| {
            begin.elapsed() < left.time
                && counts.cases < left.cases
                && !(to_the_first && counts.different > 0)
        })
    })?;
    searched.time += begin.elapsed();
    searched.count(&found.counts);
    Ok(found)
}

/// A change of the first guest's memory that differs in the same place, learned: the trace's name
/// and bytes, and the program built with it.
fn lesson(
    trained: &Trained,
    made: &mut Made<'_>,
    finding: &Finding,
) -> Result<(String, Vec<u8>, Trained), String> {
    let (name, bytes) = counterexample(trained, made.recordings, &finding.places())
        .map_err(|error| error.to_string())?
        .ok_or("no change of the first guest's memory makes the same difference")?;
    let trace = Trace::from_bytes(bytes.as_slice()).map_err(|error| error.to_string())?;
    made.recordings.push(Recording::load(&name, trace).map_err(|error| error.to_string())?);
    match train(made.recordings, made.wishes) {
        Ok(better) => Ok((name, bytes, better)),
        Err(why) => {
            made.recordings.pop();
            Err(why.to_string())
        }
    }
}

/// The whole run over a change of a first guest's memory that makes a difference, one of words that
/// these instructions read: as a trace, with a name.
fn counterexample(
    trained: &Trained,
    recordings: &[Recording],
    places: &[u64],
) -> Result<Option<(String, Vec<u8>)>, Error> {
    for recording in recordings.iter().filter(|it| !it.trace.header().whole_run) {
        let start = Start::new(recording)?;
        let found = with_question(trained, &start, |question, unchanged| {
            let unchanged = unchanged.read_by(places);
            let begin = Instant::now();
            let found = question.search(&unchanged, SEED, |counts| {
                counts.different == 0 && counts.cases < TO_LEARN.cases && begin.elapsed() < TO_LEARN.time
            });
            let finding = found.findings.into_iter().next()?;
            let memory = finding.target(question.run.memory).ok()?;
            let run = Run { memory: &memory, ..question.run };
            Some(record_whole(
                recording.trace.header(),
                question.program,
                question.system,
                &run,
                question.inputs,
            ))
        })?;
        if let Some((Outcome::Answer(_), bytes)) = found.transpose()? {
            return Ok(Some((learned_name(&trained.program.name, &bytes), bytes)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use machine::VirtAddr;
    use slicer::{BuildOptions, Policy};

    use super::*;
    use crate::allocators::{Convention, of_c};

    type Failure = Box<dyn std::error::Error>;

    /// The recorded case, see `tests/recorded.rs`.
    fn recording() -> Result<Recording, Failure> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/pslist.trace");
        Ok(Recording::load("pslist.trace", Trace::open(path)?)?)
    }

    fn wishes(policy: Policy) -> Result<Wishes<'static>, Failure> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/pslist.json");
        let meta: Json = serde_json::from_slice(&std::fs::read(path)?)?;
        let allocator = |it: &Json| {
            let summary = of_c(it["name"].as_str()?, Convention::SystemV64)?;
            Some((VirtAddr(it["address"].as_u64()?), summary))
        };
        let summaries =
            meta["allocators"].as_array().ok_or("allocators")?.iter().filter_map(allocator).collect();
        let options = BuildOptions { policy, summaries, overrides: Vec::new() };
        Ok(Wishes { options, paused: true, ..Wishes::default() })
    }

    /// Searches the recorded case, as first and as second guest.
    fn searched(policy: Policy, cases: u64) -> Result<(Trained, Searched, usize), Failure> {
        let (mut recordings, second, wishes) = (vec![recording()?], [recording()?], wishes(policy)?);
        let trained = train(&recordings, &wishes)?;
        let budget = Budget { time: Duration::MAX, cases };
        let mut made = Made { recordings: &mut recordings, wishes: &wishes, budget };
        let (trained, searched) = search(trained, &mut made, &second, &mut |_| {})?;
        Ok((trained, searched, recordings.len()))
    }

    #[test]
    fn a_right_program_stays_as_it_is() -> Result<(), Failure> {
        let (trained, searched, recordings) = searched(Policy::Guard, 50)?;
        assert!(searched.left.is_empty(), "{:#}", searched.json());
        assert_eq!((searched.counts.cases, searched.learned.len(), recordings), (50, 0, 1));
        assert_eq!(trained.program, train(&[recording()?], &wishes(Policy::Guard)?)?.program);
        Ok(())
    }

    #[test]
    fn what_a_program_without_guards_gets_wrong_is_learned() -> Result<(), Failure> {
        let (trained, searched, recordings) = searched(Policy::Assume, 300)?;
        assert!(searched.counts.different > 0 && !searched.learned.is_empty(), "{:#}", searched.json());
        assert!(searched.left.is_empty(), "{:#}", searched.json());
        assert_eq!(recordings, 1 + searched.learned.len());
        for (name, _) in &searched.learned {
            let sources = &trained.program.provenance.sources;
            assert!(sources.iter().any(|source| source.trace == *name), "{sources:?}");
        }
        Ok(())
    }
}

//! Differential search: a target's memory is changed where the whole run reads it, a word or two at
//! a time, and slice and whole run are asked about each such target.
//!
//! A changed target need not be one that a system could be in. Still the slice claims to compute
//! what the whole run computes, or to stop: two different answers are a finding. One that stops is
//! none. What the slice alone reads, and page tables, are not changed.

mod changed;
mod mutation;
mod random;
pub mod report;
mod words;

use std::collections::BTreeMap;

use engine::{Inputs, Outcome, Relocation, Run, RunError, SliceProgram, Values, WholeProgram};
use ir::{Program, System};
use machine::GuestMemory;
use rustc_hash::FxHashSet;

use crate::report::outcome;
use crate::ways::{Verdict, Way, Ways};
pub use changed::{ChangeError, Changed};
use mutation::{Change, choose};
use random::Random;
use words::{Reader, Word, Words};

/// A run over a changed target may use so many times what it used over the unchanged one, and
/// [`MORE_FUEL`].
const TIMES_FUEL: u64 = 4;
const MORE_FUEL: u64 = 100_000;
/// Cases in a row that were tried before; then nothing new is expected.
const MOST_REPEATS: usize = 1000;
/// Findings that are kept; more are counted.
const MOST_FINDINGS: usize = 256;

/// A program ready to be asked in both ways.
pub struct Question<'q> {
    /// The program.
    pub program: &'q Program,
    /// Its training system's code.
    pub system: &'q System,
    /// By the slice.
    pub slice: &'q SliceProgram<'q>,
    /// The unchanged target, and the most that a run may use.
    pub run: Run<'q>,
    /// The program's inputs.
    pub inputs: &'q Inputs,
}

/// What both ways came to over the unchanged target, and what may be changed in it.
pub struct Unchanged {
    /// How both ended.
    pub ways: Ways,
    /// The words that the whole run read.
    words: Words,
    /// The most that a run over a changed target may use.
    fuel: u64,
}

impl Question<'_> {
    /// Asks about the unchanged target, and watches the whole run.
    ///
    /// # Errors
    /// A run could not begin.
    pub fn unchanged(&self) -> Result<Unchanged, RunError> {
        let (slice, used) = self.slice.run(&self.run, self.inputs)?;
        let mut reader = Reader::default();
        let mut whole = WholeProgram::new(self.program, self.system);
        let (whole, told) = whole.watched(&self.run, self.inputs, &mut reader)?;
        let mut words = Words::new(reader, self.run.memory);
        let relocation = Relocation::find(self.program, &self.run)?;
        let relocation = relocation.system(self.system);
        words.all.iter_mut().for_each(|word| word.by = relocation.reported(word.by));
        let fuel = used.max(told.used).saturating_mul(TIMES_FUEL).saturating_add(MORE_FUEL);
        let ways = Ways { slice: Some(slice), whole: Some(whole), ..Ways::default() };
        Ok(Unchanged { ways, words, fuel: fuel.min(self.run.limits.fuel) })
    }

    /// Changes the target until `go_on` says no, or nothing new is found to change. The first case
    /// is that of `seed`, and each has a seed of its own.
    pub fn search(&self, unchanged: &Unchanged, seed: u64, mut go_on: impl FnMut(&Counts) -> bool) -> Found {
        let mut whole = WholeProgram::new(self.program, self.system);
        let (mut found, mut tried, mut repeats) = (Found::default(), FxHashSet::default(), 0);
        let mut next = seed;
        while repeats < MOST_REPEATS {
            let (seed, mut random) = (next, Random::new(next));
            next = random.next();
            let changes = choose(&unchanged.words, &mut random);
            if changes.is_empty() || !tried.insert(changes.clone()) {
                repeats += 1;
                continue;
            }
            repeats = 0;
            let ways = self.ask_each(unchanged, &changes, &mut whole);
            let differs = found.count(ways.as_ref(), &unchanged.ways);
            if let Some(ways) = ways.filter(|_| differs) {
                let (changes, ways) = self.least(unchanged, changes, ways, &mut whole);
                found.add(Finding::new(seed, unchanged, &changes, &ways));
            }
            if !go_on(&found.counts) {
                return found;
            }
        }
        found.exhausted = true;
        found
    }

    /// Asks both ways over a changed target; `None` if neither could begin.
    fn ask(&self, unchanged: &Unchanged, changes: &[Change], whole: &mut WholeProgram<'_>) -> Option<Ways> {
        let mut memory = Changed::new(self.run.memory);
        for change in changes {
            let word = &unchanged.words.all[change.word];
            let bytes = change.new.to_le_bytes();
            // It was just read, so it can be written, and two words are on few pages.
            memory.write(word.paddr, &bytes[..usize::from(word.size)]).ok()?;
        }
        let mut run = Run { memory: &memory, ..self.run };
        run.limits.fuel = unchanged.fuel;
        Ways::ask(self.slice, Some(whole), &run, self.inputs).ok()
    }

    /// The same, and each change alone where one of several is of read-only data: that does not
    /// explain what another one does.
    fn ask_each(
        &self,
        unchanged: &Unchanged,
        changes: &[Change],
        whole: &mut WholeProgram<'_>,
    ) -> Option<Ways> {
        let all = self.ask(unchanged, changes, whole);
        let explained = |ways: &Ways| ways.differ() && !differs(ways);
        if changes.len() < 2 || !all.as_ref().is_some_and(explained) {
            return all;
        }
        self.alone(unchanged, changes, whole).map(|(_, ways)| ways).or(all)
    }

    /// The first change that makes the answers differ by itself, and how.
    fn alone(
        &self,
        unchanged: &Unchanged,
        changes: &[Change],
        whole: &mut WholeProgram<'_>,
    ) -> Option<(Change, Ways)> {
        changes.iter().find_map(|change| {
            let ways = self.ask(unchanged, std::slice::from_ref(change), whole)?;
            differs(&ways).then_some((*change, ways))
        })
    }

    /// One change alone, if the answers differ by it.
    fn least(
        &self,
        unchanged: &Unchanged,
        changes: Vec<Change>,
        ways: Ways,
        whole: &mut WholeProgram<'_>,
    ) -> (Vec<Change>, Ways) {
        let alone = if changes.len() > 1 { self.alone(unchanged, &changes, whole) } else { None };
        alone.map_or((changes, ways), |(change, ways)| (vec![change], ways))
    }
}

impl Unchanged {
    /// The same with changes of those words only that these instructions read first.
    #[must_use]
    pub fn read_by(self, places: &[u64]) -> Self {
        Self { words: self.words.read_by(places), ..self }
    }

    /// How many words may be changed.
    pub const fn words(&self) -> usize {
        self.words.all.len()
    }

    /// How many instructions read them.
    pub const fn places(&self) -> usize {
        self.words.places.len()
    }
}

/// Whether there are two answers that nothing in the target explains.
fn differs(ways: &Ways) -> bool {
    matches!(ways.verdict(), Some(Verdict::Differ { changed: [], .. }))
}

impl Counts {
    /// Cases in which at least one way came to no answer.
    pub const fn stopped(&self) -> u64 {
        self.slice_stopped + self.whole_stopped + self.both_stopped + self.refused
    }
}

/// How the cases ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changed targets that were asked.
    pub cases: u64,
    /// Both ways gave the same answer.
    pub equal: u64,
    /// Of these, another answer than over the unchanged target.
    pub equal_and_new: u64,
    /// The slice stopped, the whole run answered.
    pub slice_stopped: u64,
    /// The whole run stopped, the slice answered.
    pub whole_stopped: u64,
    /// Both stopped.
    pub both_stopped: u64,
    /// No run could begin: the target was no longer taken for the training system.
    pub refused: u64,
    /// Two answers, and the change is one of read-only data, which no kernel writes.
    pub changed: u64,
    /// Two answers, and nothing in the target explains them.
    pub different: u64,
    /// How often the slice stopped, by the outcome's name.
    pub slice_stops: BTreeMap<String, u64>,
    /// The same of the whole run.
    pub whole_stops: BTreeMap<String, u64>,
}

/// What a search found.
#[derive(Default)]
pub struct Found {
    /// How the cases ended.
    pub counts: Counts,
    /// The differences, one for each set of instructions and outputs, in the order of discovery.
    pub findings: Vec<Finding>,
    /// Whether nothing was left to change.
    pub exhausted: bool,
}

impl Found {
    /// Counts a case; whether it has two answers.
    fn count(&mut self, ways: Option<&Ways>, unchanged: &Ways) -> bool {
        let counts = &mut self.counts;
        counts.cases += 1;
        let Some(ways) = ways else {
            counts.refused += 1;
            return false;
        };
        let stop = |of: &Option<Outcome>, stops: &mut BTreeMap<String, u64>| {
            if let Some(Outcome::Stopped(_)) = of {
                let name = outcome(of.as_ref()).as_str().unwrap_or_default().to_owned();
                *stops.entry(name).or_default() += 1;
            }
        };
        stop(&ways.slice, &mut counts.slice_stops);
        stop(&ways.whole, &mut counts.whole_stops);
        match ways.verdict() {
            Some(Verdict::Answer { values, verified: true, .. }) => {
                counts.equal += 1;
                let before = unchanged.slice_answer().or(unchanged.whole_answer());
                counts.equal_and_new += u64::from(before != Some(values));
            }
            Some(Verdict::Answer { by: Way::Slice, .. }) => counts.whole_stopped += 1,
            Some(Verdict::Answer { .. }) => counts.slice_stopped += 1,
            Some(Verdict::Differ { changed: [], .. }) => counts.different += 1,
            Some(Verdict::Differ { .. }) => counts.changed += 1,
            Some(Verdict::Stopped { .. }) | None => counts.both_stopped += 1,
        }
        differs(ways)
    }

    /// Adds a finding to those of its sort.
    fn add(&mut self, finding: Finding) {
        match self.findings.iter().position(|other| other.is_like(&finding)) {
            Some(at) => self.findings[at].times += 1,
            None if self.findings.len() < MOST_FINDINGS => self.findings.push(finding),
            None => {}
        }
    }
}

/// Two answers over a changed target.
pub struct Finding {
    /// The seed whose first case this is.
    pub seed: u64,
    /// The words that were changed, how, and to what.
    pub changes: Vec<(Word, &'static str, u64)>,
    /// The outputs that differ.
    pub outputs: Vec<String>,
    /// The slice's answer.
    pub slice: Values,
    /// The whole run's.
    pub whole: Values,
    /// How often words that the same instructions read made the same outputs differ.
    pub times: u64,
}

impl Finding {
    fn new(seed: u64, unchanged: &Unchanged, changes: &[Change], ways: &Ways) -> Self {
        let change = |it: &Change| (unchanged.words.all[it.word], it.kind().name(), it.new);
        Self {
            seed,
            changes: changes.iter().map(change).collect(),
            outputs: ways.differing(),
            slice: ways.slice_answer().cloned().unwrap_or_default(),
            whole: ways.whole_answer().cloned().unwrap_or_default(),
            times: 1,
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.outputs == other.outputs && self.places() == other.places()
    }

    /// The instructions that read the changed words first, where training had them.
    pub fn places(&self) -> Vec<u64> {
        self.changes.iter().map(|(word, ..)| word.by).collect()
    }

    /// The target with these changes.
    ///
    /// # Errors
    /// It is another target, without such memory.
    pub fn target<'t>(&self, unchanged: &'t dyn GuestMemory) -> Result<Changed<'t>, ChangeError> {
        let mut memory = Changed::new(unchanged);
        for (word, _, new) in &self.changes {
            memory.write(word.paddr, &new.to_le_bytes()[..usize::from(word.size)])?;
        }
        Ok(memory)
    }
}

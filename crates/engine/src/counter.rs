//! The time stamp counter as a run sees it.
//!
//! A dump does not hold it. Where neither the user nor a clock cell of the target's tells it, it is
//! unknown, and an answer that depends on it would be a number that nobody knows. Much code reads
//! the counter for something else than the answer (statistics, the scheduler's clock), so reading
//! it does not end a run: the run is made with several values that lie far apart, and an answer
//! that is the same for all of them counts. Any other is the outcome *needs
//! a device*.
//!
//! Why far apart: code compares the counter with a value it read before, and takes neither of two
//! values that lie on the same side for what it is.

use machine::VirtAddr;

use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};

/// Values for an unknown counter: before, among and after all that a kernel may have read, the last
/// one negative where a kernel takes it for signed.
const GUESSES: [u64; 3] = [0, 0x0001_2345_6789_abcd, 0x89ab_cdef_0123_4567];

/// The counter of one run.
pub(crate) struct Counter {
    /// What the code reads.
    value: u64,
    /// Whether that is a guess.
    guessed: bool,
    /// The first place that read a guess.
    read_at: Option<u64>,
}

impl Counter {
    /// A counter whose value is known; without one, a guess.
    pub(crate) fn new(known: Option<u64>) -> Self {
        Self { value: known.unwrap_or(GUESSES[0]), guessed: known.is_none(), read_at: None }
    }

    const fn guess(value: u64) -> Self {
        Self { value, guessed: true, read_at: None }
    }

    /// Changes the place that is reported.
    pub(crate) fn report_at(&mut self, change: impl Fn(u64) -> u64) {
        self.read_at = self.read_at.map(change);
    }

    /// Its value, for code at `at`.
    pub(crate) fn read(&mut self, at: u64) -> u64 {
        if self.guessed {
            self.read_at.get_or_insert(at);
        }
        self.value
    }
}

impl Run<'_> {
    /// The target's time stamp counter, if it is known: as the user says, or one more than the
    /// largest value in the program's clock cells. The cells are read as the target has them,
    /// before a run writes anything, so that both ways to run take the same.
    pub(crate) fn time_stamp(&self, program: &ir::Program, relocation: &Relocation<'_>) -> Option<u64> {
        if self.env.tsc.is_some() {
            return self.env.tsc;
        }
        let (mode, root, heap) = (relocation.mode(), relocation.root(), VirtAddr(program.heap));
        let mut untouched = Overlay::new(self.memory, mode, root, heap, 0);
        let cells = program.clock.iter().map(|&cell| VirtAddr(relocation.to_target(cell)));
        let stored = cells.filter_map(|cell| untouched.load(cell, 8).ok()).max();
        stored.map(|value| value.wrapping_add(1))
    }
}

/// The outcome of a run that began with `counter`. Where it answered and had read a guess, it is
/// made `again` with others.
pub(crate) fn settled(
    outcome: Outcome,
    counter: &Counter,
    mut again: impl FnMut(&mut Counter) -> Result<Outcome, RunError>,
) -> Result<Outcome, RunError> {
    let (Outcome::Answer(_), Some(at)) = (&outcome, counter.read_at) else { return Ok(outcome) };
    for guess in GUESSES.into_iter().filter(|&guess| guess != counter.value) {
        if again(&mut Counter::guess(guess))? != outcome {
            return Ok(Outcome::Stopped(Stopped::UnknownCounter { at }));
        }
    }
    Ok(outcome)
}

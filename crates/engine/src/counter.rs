//! The time stamp counter as a run sees it.
//!
//! A dump does not hold it. Where neither the user nor a clock cell of the target's tells it, it is
//! unknown, and an answer that depends on it would be a number that nobody knows. Much code reads
//! the counter for something else than the answer (statistics, the scheduler's clock), so reading
//! it does not end a run: a run that answers is made again with values that lie far apart, and the
//! answer counts if no other one comes out and at least one more run comes to the same. Else the
//! outcome is *needs a device*. A run that stops for one of the values says nothing: the scheduler
//! may want to run somebody else.
//!
//! Why far apart: code compares the counter with a value it read before, and takes neither of two
//! values that lie on the same side for what it is.

use machine::VirtAddr;

use crate::limits::Limits;
use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};

/// Values for an unknown counter: before all that a kernel may have read, minutes, weeks and years
/// of ticks, the last one negative where a kernel takes it for signed.
const GUESSES: [u64; 4] = [0, 0x0123_4567_89ab, 0x0012_3456_789a_bcde, 0x89ab_cdef_0123_4567];

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
    let mut confirmed = false;
    for guess in GUESSES.into_iter().filter(|&guess| guess != counter.value) {
        match again(&mut Counter::guess(guess))? {
            other if other == outcome => confirmed = true,
            Outcome::Stopped(_) => {}
            Outcome::Answer(_) => return Ok(Outcome::Stopped(Stopped::UnknownCounter { at })),
        }
    }
    if confirmed { Ok(outcome) } else { Ok(Outcome::Stopped(Stopped::UnknownCounter { at })) }
}

/// The limits of a run that is made again: an unlikely counter may keep code busy for long.
pub(crate) fn briefly<'t>(run: &Run<'t>, used: u64) -> Run<'t> {
    let fuel = used.saturating_mul(4).saturating_add(1 << 20).min(run.limits.fuel);
    Run { limits: Limits { fuel, ..run.limits }, ..*run }
}

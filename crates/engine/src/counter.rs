//! The clocks that a run reads and a dump does not hold: the time stamp counter, and the main
//! counter of the high precision event timer (HPET).
//!
//! Where neither the user nor a clock cell of the target's tells what one of them shows, it is
//! unknown, and an answer that depends on it would be a number that nobody knows. Much code reads a
//! clock for something else than the answer (statistics, the scheduler's), so reading it does not
//! end a run: a run that answers is made again with values that lie far apart, and the answer
//! counts if no other one comes out and at least one more run comes to the same. A run that stops
//! for one of the values says nothing: the scheduler may want to run somebody else.
//!
//! Why far apart: code compares the counter with a value it read before, and takes neither of two
//! values that lie on the same side for what it is.
//!
//! If the answer does depend on it, a whole run may have it *as of the last reading* that the
//! system kept: what a system makes of such a counter is how far it has come since, so that it
//! subtracts from it what it read before. A run that watches subtractions finds these earlier
//! readings, and since the counter only grows, it shows at least the largest of them. How long
//! before the pause that was, nothing tells: such an answer says that it is one. Slices do not do
//! that; they stop.

use machine::VirtAddr;

use crate::limits::Limits;
use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};

/// A counter that is a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clock {
    /// The processor's.
    TimeStamp,
    /// The timer's main counter (IA-PC HPET Specification 1.0a, section 2.3.7).
    Hpet,
}

/// Values for unknown counters: before all that a kernel may have read, minutes of ticks, and years
/// of them, with all bits of the first changed. Of the timer most code reads 32 bits, and the
/// distance between two values is what counts of them.
const GUESSES: [[u64; 3]; 2] = [[0, 0x0123_4567_89ab, 0x001f_ffff_ffff_ffff], [0, 0x9234_5678, 0x7fff_ffff]];
/// Values that no code has by itself.
const STRIKING: [u64; 2] = [0x0012_3456_789a_bcde, 0x4567_89ab];

/// The counters of one run.
pub(crate) struct Counter {
    clocks: [Reading; 2],
    /// Whether subtractions are watched.
    seeking: bool,
    /// Whether a run wants to know before it reads a guess.
    announced: bool,
}

/// What is known of each clock.
pub(crate) type Known = [Option<u64>; 2];

/// What one of them shows.
#[derive(Clone, Copy)]
struct Reading {
    /// What the code reads.
    value: u64,
    /// Whether that is a guess.
    guessed: bool,
    /// The first place that read a guess.
    read_at: Option<u64>,
    /// The largest number that was subtracted from it, where that is watched.
    kept: Option<u64>,
    /// The low half of one whose halves are subtracted one after the other.
    low: Option<u64>,
}

impl Counter {
    /// Counters whose value is known; without one, a guess.
    pub(crate) fn new(known: Known) -> Self {
        Self::guess(known, 0)
    }

    /// The same for a run that is told before it reads a guess for the first time: it is refused
    /// once.
    pub(crate) fn announced(known: Known) -> Self {
        Self { announced: true, ..Self::new(known) }
    }

    /// Guesses with this number, but for what is known.
    fn guess([tsc, hpet]: Known, number: usize) -> Self {
        let reading = |value: Option<u64>, guess: u64| Reading {
            value: value.unwrap_or(guess),
            guessed: value.is_none(),
            read_at: None,
            kept: None,
            low: None,
        };
        let guesses = GUESSES.map(|guesses| guesses[number]);
        Self {
            clocks: [reading(tsc, guesses[0]), reading(hpet, guesses[1])],
            seeking: false,
            announced: false,
        }
    }

    /// Guesses that are recognised where something is subtracted from them, but for what is known.
    fn seeking(known: Known) -> Self {
        let mut counter = Self::guess(known, 0);
        let unknown = counter.clocks.iter_mut().zip(STRIKING).filter(|(it, _)| it.guessed);
        unknown.for_each(|(it, value)| it.value = value);
        Self { seeking: true, ..counter }
    }

    /// What is known of the clocks, and where it is not, the last readings that were found.
    fn last_readings(&self) -> Known {
        self.clocks.map(|it| if it.guessed { it.kept } else { Some(it.value) })
    }

    /// The clock of which a guess was read, and where first.
    fn read_at(&self) -> Option<(Clock, u64)> {
        let [tsc, hpet] = self.clocks.map(|it| it.read_at.filter(|_| it.guessed));
        tsc.map(|at| (Clock::TimeStamp, at)).or_else(|| hpet.map(|at| (Clock::Hpet, at)))
    }

    /// Changes the places that are reported.
    pub(crate) fn report_at(&mut self, change: impl Fn(u64) -> u64) {
        for reading in &mut self.clocks {
            reading.read_at = reading.read_at.map(&change);
        }
    }

    /// What a clock shows, for code at `at`.
    ///
    /// # Errors
    /// [`Stopped::UnknownCounter`], once, if that is a guess and it is announced.
    pub(crate) fn read(&mut self, clock: Clock, at: u64) -> Result<u64, Stopped> {
        let reading = &mut self.clocks[clock as usize];
        if reading.guessed {
            if std::mem::take(&mut self.announced) {
                return Err(Stopped::UnknownCounter { at });
            }
            reading.read_at.get_or_insert(at);
        }
        Ok(reading.value)
    }

    /// Whether subtractions are watched.
    #[inline(always)]
    pub(crate) const fn is_seeking(&self) -> bool {
        self.seeking
    }

    /// A number was subtracted from another, both of so many bytes.
    #[cold]
    pub(crate) fn subtracted(&mut self, from: u64, number: u64, bytes: u64) {
        for it in self.clocks.iter_mut().filter(|it| it.guessed && it.read_at.is_some()) {
            let (low, high) = (it.value & u64::from(u32::MAX), it.value >> 32);
            let reading = match bytes {
                8 if from == it.value => number,
                4 if from == low && high == 0 => number,
                4 if from == low => {
                    it.low = Some(number);
                    continue;
                }
                4 if from == high => match it.low.take() {
                    Some(low) => number << 32 | low,
                    None => continue,
                },
                _ => continue,
            };
            // The same clock read twice, or a number below 0.
            if reading != it.value && reading.cast_signed() >= 0 {
                it.kept = it.kept.max(Some(reading));
            }
        }
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

/// An outcome; and where it has a clock as of the last reading, where that was read, and what is
/// known then.
pub(crate) type Settled = (Outcome, Option<(u64, Known)>);

/// The outcome of a run that began with counters of which this was known. Where it answered and had
/// read a guess, it is made `again` with others; and if other answers come out and it `may` have
/// the clock so, as of the last reading.
pub(crate) fn settled(
    outcome: Outcome,
    (counter, known): (&Counter, Known),
    may: bool,
    mut again: impl FnMut(&mut Counter) -> Result<Outcome, RunError>,
) -> Result<Settled, RunError> {
    let (Outcome::Answer(_), Some((clock, at))) = (&outcome, counter.read_at()) else {
        return Ok((outcome, None));
    };
    if is_independent(&outcome, known, &mut again)? {
        return Ok((outcome, None));
    }
    let unknown = Outcome::Stopped(match clock {
        Clock::TimeStamp => Stopped::UnknownCounter { at },
        Clock::Hpet => Stopped::hpet(at),
    });
    if !may {
        return Ok((unknown, None));
    }
    let mut counter = Counter::seeking(known);
    again(&mut counter)?;
    let last = counter.last_readings();
    if last == known {
        return Ok((unknown, None));
    }
    // It may have read another clock too, on which it does not depend.
    let mut counter = Counter::guess(last, 0);
    let outcome = again(&mut counter)?;
    let counts = matches!(outcome, Outcome::Answer(_))
        && (counter.read_at().is_none() || is_independent(&outcome, last, &mut again)?);
    Ok(if counts { (outcome, Some((at, last))) } else { (unknown, None) })
}

/// Whether other guesses at what is not known lead to no other answer than this, and one of them
/// to this.
fn is_independent(
    outcome: &Outcome,
    known: Known,
    again: &mut impl FnMut(&mut Counter) -> Result<Outcome, RunError>,
) -> Result<bool, RunError> {
    let mut confirmed = false;
    for number in 1..GUESSES[0].len() {
        match again(&mut Counter::guess(known, number))? {
            other if other == *outcome => confirmed = true,
            Outcome::Stopped(_) => {}
            Outcome::Answer(_) => return Ok(false),
        }
    }
    Ok(confirmed)
}

/// The limits of a run that is made again: an unlikely counter may keep code busy for long.
pub(crate) fn briefly<'t>(run: &Run<'t>, used: u64) -> Run<'t> {
    let fuel = used.saturating_mul(4).saturating_add(1 << 20).min(run.limits.fuel);
    Run { limits: Limits { fuel, ..run.limits }, ..*run }
}

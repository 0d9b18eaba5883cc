//! The most that a run may use, and the count of it.
//!
//! Fuel is counted in operations and says the same in every repetition; but what one operation
//! costs is up to whoever made program and target, so that a clock stands beside it. Looking at it
//! costs nothing: the inner loops compare what they used with one number, which is the fuel's end
//! or the next look at the clock, whichever comes first.

use std::time::{Duration, Instant};

use crate::outcome::Stopped;

/// The most that a run may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations, and one more for each block.
    pub fuel: u64,
    /// Pages of 4 KiB that are copied or allocated; the training process's own count too.
    pub pages: usize,
    /// Nested calls of a slice. Those of a whole run are on its stack in the overlay.
    pub depth: usize,
    /// Time on the clock, from the beginning of the run on.
    pub time: Duration,
    /// Whether code that whole runs execute often may become machine code of this host. Nothing but
    /// the time that a run takes depends on that.
    pub machine_code: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 400_000_000,
            pages: 65_536,
            depth: 10_000,
            time: Duration::from_secs(60),
            machine_code: true,
        }
    }
}

/// Operations between two looks at the clock: half a millisecond of ordinary ones.
const EVERY: u64 = 1 << 14;

/// When a run has to end; never, if that is past what the clock can tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// So much time from now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now().checked_add(time))
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }
}

/// What a run may still use of fuel and time.
pub(crate) struct Budget {
    fuel: u64,
    time: Duration,
    deadline: Deadline,
    /// Fuel used at which [`Budget::check`] is due.
    next: u64,
}

impl Budget {
    /// The clock runs from here on.
    pub fn new(limits: &Limits) -> Self {
        Self::until(limits, Deadline::after(limits.time))
    }

    /// For a run that has to end when another one, which it continues, would have had to.
    pub const fn until(limits: &Limits, deadline: Deadline) -> Self {
        let Limits { fuel, time, .. } = *limits;
        Self { fuel, time, deadline, next: if fuel < EVERY { fuel } else { EVERY } }
    }

    /// When the run has to end.
    pub const fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Whether a run that used so much fuel has to ask [`Budget::check`].
    #[inline(always)]
    pub const fn is_due(&self, used: u64) -> bool {
        used > self.next
    }

    /// The fuel up to which a run need not ask.
    pub const fn due(&self) -> u64 {
        self.next
    }

    /// Stops a run that used its fuel or its time; `at` is where it is.
    ///
    /// # Errors
    /// [`Stopped::OutOfFuel`], [`Stopped::OutOfTime`].
    #[cold]
    pub fn check(&mut self, at: u64, used: u64) -> Result<(), Stopped> {
        if used > self.fuel {
            return Err(Stopped::OutOfFuel { at, used });
        }
        self.next = self.fuel.min(used.saturating_add(EVERY));
        self.time(at, used)
    }

    /// Stops a run that used its time.
    ///
    /// # Errors
    /// [`Stopped::OutOfTime`].
    pub fn time(&self, at: u64, used: u64) -> Result<(), Stopped> {
        match self.deadline.is_over() {
            true => Err(Stopped::OutOfTime { at, used, milliseconds: self.time.as_millis() as u64 }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuel_is_exact_and_the_clock_is_looked_at_now_and_then() {
        let limits = Limits { fuel: 3 * EVERY, time: Duration::MAX, ..Limits::default() };
        let mut budget = Budget::new(&limits);
        for used in [0, EVERY] {
            assert!(!budget.is_due(used));
        }
        assert!(budget.is_due(EVERY + 1));
        assert_eq!(budget.check(7, EVERY + 1), Ok(()));
        assert!(!budget.is_due(EVERY + 2));
        assert_eq!(budget.check(7, 3 * EVERY), Ok(()));
        assert!(!budget.is_due(3 * EVERY) && budget.is_due(3 * EVERY + 1));
        assert_eq!(budget.check(7, 3 * EVERY + 1), Err(Stopped::OutOfFuel { at: 7, used: 3 * EVERY + 1 }));
        let mut budget = Budget::new(&Limits { time: Duration::ZERO, ..limits });
        let over = Stopped::OutOfTime { at: 7, used: EVERY + 1, milliseconds: 0 };
        assert_eq!(budget.check(7, EVERY + 1), Err(over));
    }
}

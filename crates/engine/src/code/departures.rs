//! Where runs do not follow the target.
//!
//! The code that runs is trusted, and so is what leads to it. Where the target has something else,
//! a run goes its own way, and an answer has to say so.

/// Where runs did not follow the target: addresses of the training system, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Departures {
    /// Pointers of its read-only data that lead to code that is not trusted: runs had training's.
    pub restored: Vec<u64>,
    /// Decisions that its code has otherwise, and neither training's boots nor the system's tables
    /// show so: runs followed training's.
    pub overruled: Vec<u64>,
    /// Code that reads a clock which the target's memory does not hold: an answer depends on it,
    /// and is as of the last reading that the system kept, some time before the pause.
    pub clocks: Vec<u64>,
}

impl Departures {
    /// Adds others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        for (mine, theirs) in [
            (&mut self.restored, others.restored),
            (&mut self.overruled, others.overruled),
            (&mut self.clocks, others.clocks),
        ] {
            mine.extend(theirs);
            mine.sort_unstable();
            mine.dedup();
        }
        self
    }
}

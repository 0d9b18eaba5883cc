//! Where a run was when it was about to read a clock that nobody knows.
//!
//! Such a run is made again with other values of the clock, and up to there it would do the same.
//! Most code reads a clock at the end of what it does, for statistics: what is made again is then a
//! hundredth of the run.

use jit::{Slots, Spare};

use crate::counter::Counter;
use crate::exec::execute;
use crate::outcome::Stopped;
use crate::overlay::Overlay;
use crate::predecode::{FIRST_CONST, Predecoded};

/// All that a run has, before one of its operations; `S` is what it knows of itself, beside slots
/// and memory.
pub(crate) struct Checkpoint<'o, S> {
    /// Those that are no constants.
    slots: Box<[u64]>,
    overlay: Overlay<'o>,
    state: S,
}

impl<'o, S: Clone> Checkpoint<'o, S> {
    /// Keeps where a run is.
    #[cold]
    pub fn keep(slots: &Slots, overlay: &mut Overlay<'o>, state: S) -> Self {
        let overlay = overlay.fork(Spare::default());
        Self { slots: slots[..FIRST_CONST.into()].into(), overlay, state }
    }

    /// Gives another run the slots, but for constants, which stay; the result is its memory, which
    /// has `spare` pages to use, and what it knows.
    pub fn restore(&mut self, slots: &mut Slots, spare: Spare) -> (Overlay<'o>, S) {
        slots[..self.slots.len()].copy_from_slice(&self.slots);
        (self.overlay.fork(spare), self.state.clone())
    }

    /// The pages that it held.
    pub fn into_spare(self) -> Spare {
        self.overlay.into_spare()
    }
}

/// Executes an operation as [`execute`] does; before the first reading of an announced clock,
/// `keep` is told.
#[inline(always)]
pub(crate) fn perform<'o>(
    op: &Predecoded,
    slots: &mut Slots,
    overlay: &mut Overlay<'o>,
    (counter, at): (&mut Counter, u64),
    keep: impl FnOnce(&Slots, &mut Overlay<'o>),
) -> Result<(), Stopped> {
    match execute(op, slots, overlay, counter, at) {
        Err(Stopped::UnknownCounter { .. }) => {
            keep(slots, overlay);
            execute(op, slots, overlay, counter, at)
        }
        done => done,
    }
}

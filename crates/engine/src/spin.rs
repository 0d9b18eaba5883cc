//! Notices a run that waits: the same place again with the same registers and no memory changed in between.
//!
//! Nothing in a run comes from outside, so such a run goes round for ever: a lock held by a processor that stands still, a flag that only an interrupt
//! would set. The state is remembered at ever longer intervals (Brent, "An Improved Monte Carlo Factorization Algorithm", 1980), so that
//! a circle of any length is found at little cost.

use crate::compact::Slots;
use crate::space::Space;

/// Machine registers; temporaries live inside one instruction.
const REGISTERS: usize = 256;

/// The state remembered.
pub(crate) struct Spin {
    place: u64,
    registers: Box<[u64; REGISTERS]>,
    changes: u64,
    seen: u64,
    next: u64,
}

/// What a chain of calls and one more call are together: a name for the call stack, equal where the stacks are.
#[inline]
pub(crate) const fn chained(chain: u64, part: u64) -> u64 {
    (chain.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Spin {
    pub fn new() -> Self {
        Self { place: u64::MAX, registers: Box::new([0; REGISTERS]), changes: 0, seen: 0, next: 64 }
    }

    /// Whether the run was here before in this very state. `place` is any name of the place
    /// and, where the call stack is not in memory, of the calls that led there.
    #[inline]
    pub fn is_waiting(&mut self, place: u64, slots: &Slots, space: &Space<'_>) -> bool {
        self.seen += 1;
        if self.seen >= self.next {
            self.next = self.seen * 2;
            self.place = place;
            self.changes = space.changes();
            self.registers.copy_from_slice(&slots[..REGISTERS]);
            return false;
        }
        place == self.place && self.changes == space.changes() && self.registers[..] == slots[..REGISTERS]
    }
}

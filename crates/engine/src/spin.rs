//! Notices a run that waits: the same place again with the same registers and the same memory,
//! whatever was written and undone in between.
//!
//! Nothing in a run comes from outside, so such a run goes round for ever: a lock held by a
//! processor that stands still, a flag that only an interrupt would set. The state is remembered at
//! ever longer intervals (Brent, "An Improved Monte Carlo Factorization Algorithm", 1980), so that
//! a circle of any length is found at little cost.

use crate::compact::Slots;
use crate::space::Space;

/// Machine registers; temporaries live inside one instruction.
const REGISTERS: usize = 256;

/// The state remembered.
pub(crate) struct Spin {
    place: u64,
    calls: u64,
    registers: Box<[u64; REGISTERS]>,
    memory: u64,
    seen: u64,
    next: u64,
}

/// A name for a call stack with one more call, equal where the stacks are: made from the name
/// without it, where it was made, and what it will restore.
#[inline]
pub(crate) fn called(calls: u64, at: u32, restores: impl Iterator<Item = u64>) -> u64 {
    let mut factor = 0x9e37_79b9_7f4a_7c15u64;
    let mut sum = calls.rotate_left(23) ^ u64::from(at);
    for value in restores {
        factor = factor.wrapping_add(0x6a09_e667_f3bc_c908);
        sum = sum.wrapping_add(value.wrapping_mul(factor));
    }
    sum.wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Spin {
    pub fn new() -> Self {
        Self { place: u64::MAX, calls: 0, registers: Box::new([0; REGISTERS]), memory: 0, seen: 0, next: 64 }
    }

    /// Whether the run was here before in this very state. `place` is any name of the place,
    /// `calls` of the call stack where it is not in memory.
    #[inline]
    pub fn is_waiting(&mut self, place: u64, calls: u64, slots: &Slots, space: &Space<'_>) -> bool {
        self.seen += 1;
        if self.seen >= self.next {
            self.next = self.seen * 2;
            (self.place, self.calls) = (place, calls);
            self.memory = space.state();
            self.registers.copy_from_slice(&slots[..REGISTERS]);
            return false;
        }
        place == self.place
            && calls == self.calls
            && self.memory == space.state()
            && self.registers[..] == slots[..REGISTERS]
    }
}

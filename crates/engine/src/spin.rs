//! Notices a run that waits: it is again at the same place with the same registers, calls and
//! memory, whatever it wrote and undid in between.
//!
//! Nothing in a run comes from outside, so such a run would loop for ever: on a lock held by a
//! processor that stands still, or a flag that only an interrupt would set. The state is remembered
//! at ever longer intervals (Brent, "An Improved Monte Carlo Factorization Algorithm", 1980), so
//! that a cycle of any length is found at little cost.

use jit::Progress;
use jit::progress::COMPARED;

use crate::overlay::Overlay;
use crate::predecode::{REGISTERS, Slots};

/// A state that the run was in. Temporaries are no part of it: they live inside one instruction.
#[derive(Clone)]
pub(crate) struct Spin {
    /// Where it was.
    place: u64,
    /// The name of its call stack.
    calls: u64,
    registers: Box<[u64; REGISTERS]>,
    /// What [`Overlay::state`] said of its memory.
    memory: u64,
    /// States looked at so far.
    seen: u64,
    /// The value of `seen` at which the next state is remembered.
    next: u64,
}

/// The name of a call stack with one more call: `calls` is the name without it, `at` the block that
/// calls, `restores` what the return will give back. Equal stacks have equal names; different ones
/// have different names, but for chance (64 bits).
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
    /// Nothing is remembered yet.
    pub fn new() -> Self {
        Self { place: u64::MAX, calls: 0, registers: Box::new([0; REGISTERS]), memory: 0, seen: 0, next: 64 }
    }

    /// Tells compiled code when to ask.
    pub fn tell(&self, progress: &mut Progress) {
        progress.seen = self.seen;
        if progress.next != self.next {
            (progress.next, progress.place, progress.memory) = (self.next, self.place, self.memory);
            progress.registers.copy_from_slice(&self.registers[..COMPARED]);
        }
    }

    /// Compiled code has seen so many states in all, none of which is the one that is remembered.
    pub const fn passed(&mut self, seen: u64) {
        self.seen = seen;
    }

    /// Whether the run is in the state that is remembered. `place` is any number for the place in
    /// the code; `calls` names the call stack, and is 0 where that is in the run's memory.
    #[inline]
    pub fn is_waiting(&mut self, place: u64, calls: u64, slots: &Slots, overlay: &Overlay<'_>) -> bool {
        self.seen += 1;
        if self.seen >= self.next {
            self.next = self.seen * 2;
            (self.place, self.calls) = (place, calls);
            self.memory = overlay.state();
            self.registers.copy_from_slice(&slots[..REGISTERS]);
            return false;
        }
        place == self.place
            && calls == self.calls
            && self.memory == overlay.state()
            && self.registers[..] == slots[..REGISTERS]
    }
}

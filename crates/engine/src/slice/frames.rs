//! The calls of a slice that have not returned. They are here, not in the target's memory.

use machine::Reg;

use super::block::{Function, Go};
use crate::predecode::Slots;
use crate::spin::called;

/// A call that has not returned.
#[derive(Clone)]
struct Frame {
    /// Where the caller goes on.
    then: Go,
    /// The stack pointer that the caller has again then.
    rsp: u64,
    /// The function that was called.
    func: u32,
    /// Where its callee-saved registers begin in [`Frames::saved`].
    saved: u32,
    /// The name of the calls before this one.
    calls: u64,
}

/// The calls that have not returned.
#[derive(Clone, Default)]
pub(super) struct Frames {
    frames: Vec<Frame>,
    /// Callee-saved registers of all frames.
    saved: Vec<u64>,
    /// The name of these calls ([`called`]).
    pub name: u64,
}

impl Frames {
    /// How many there are.
    pub const fn depth(&self) -> usize {
        self.frames.len()
    }

    /// Block `at` calls a function, and control goes on at `then` when it returns.
    #[inline(always)]
    pub fn push(&mut self, at: u32, (func, function): (u32, &Function), rsp: u64, then: Go, slots: &Slots) {
        let first = self.saved.len();
        self.frames.push(Frame { then, rsp, func, saved: first as u32, calls: self.name });
        self.saved.extend(function.callee_saved.iter().map(|&slot| slots[slot as usize]));
        self.name = called(self.name, at, self.saved[first..].iter().copied().chain([rsp]));
    }

    /// Returns from the last call: restores its callee-saved registers and the stack pointer. The
    /// result is where its caller goes on; `None` if there is no call.
    #[inline(always)]
    pub fn pop(&mut self, functions: &[Function], slots: &mut Slots) -> Option<Go> {
        let frame = self.frames.pop()?;
        let values = &self.saved[frame.saved as usize..];
        for (&slot, &value) in functions[frame.func as usize].callee_saved.iter().zip(values) {
            slots[slot as usize] = value;
        }
        self.saved.truncate(frame.saved as usize);
        slots[Reg::Rsp.index()] = frame.rsp;
        self.name = frame.calls;
        Some(frame.then)
    }
}

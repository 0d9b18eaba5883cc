//! Recognises interrupts and faults in a replay, without knowledge of the system.
//!
//! One begins where an instruction follows that the one before does not lead to, and ends with a return from a handler to the
//! interrupted code with the same stack pointer.

use ir::Kind;

use crate::replay::Ended;

/// An interruption that has not returned yet.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Where the interrupted code goes on.
    pub next: u64,
    /// The instruction that was executing or had just ended.
    pub pc: u64,
    /// The step of that instruction.
    pub step: usize,
    rsp: u64,
    complete: bool,
}

/// An interruption that returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    /// No other one is open.
    pub outermost: bool,
    /// The interrupted instruction did not finish and is executed again.
    pub fault: bool,
}

/// The interruptions open at a point of a replay.
#[derive(Default, Debug)]
pub struct Interruptions {
    open: Vec<Open>,
}

impl Interruptions {
    /// Before the instruction at `pc`, given how step `step` at `last_pc` ended with this stack pointer. Returns whether an interruption begins.
    pub fn before(&mut self, step: usize, last_pc: u64, last: &Ended, pc: u64, rsp: u64) -> bool {
        if last.complete && last.next == pc {
            return false;
        }
        let next = if last.complete { last.next } else { last_pc };
        self.open.push(Open { next, pc: last_pc, step, rsp, complete: last.complete });
        true
    }

    /// After an instruction that ended with this stack pointer.
    pub fn after(&mut self, ended: &Ended, rsp: u64) -> Option<Closed> {
        if ended.control != Some(Kind::SysExit) {
            return None;
        }
        let at =
            self.open.iter().rposition(|open| open.rsp == rsp && (ended.next == open.next || ended.next == open.pc))?;
        let open = self.open[at];
        self.open.truncate(at);
        Some(Closed { outermost: at == 0, fault: !open.complete || ended.next != open.next })
    }

    /// Whether no interruption is open.
    #[must_use]
    pub fn none(&self) -> bool {
        self.open.is_empty()
    }

    /// Those still open, outermost first.
    #[must_use]
    pub fn open(&self) -> &[Open] {
        &self.open
    }
}

//! A shadow stack: the calls that have not returned, keyed by the slot of the return address.
//!
//! A call opens a frame; the return that consumes its slot and goes to its return address closes
//! it. `syscall` .. `sysret` is a frame like any other (`int` and `sysenter` likewise). A return
//! that takes no known slot is a computed jump (retpolines end so), and a call that only pushes and
//! jumps opens no frame. The stack says what a step does to frames. What a frame carries is up to
//! the user of the stack.

use ir::Kind;
use machine::VirtAddr;

use crate::recording::replay::Ended;
use crate::vocabulary::{Code, RetainedId};

/// A call that has not returned.
pub struct Frame<T> {
    /// What the user of the stack keeps in it.
    pub what: T,
    /// The call; `None` for the frame that a recording begins in.
    pub call: Option<Call>,
}

/// How a frame was opened.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The address of the call instruction.
    pub pc: VirtAddr,
    /// Where it leads.
    pub entry: VirtAddr,
    /// Where its return address lies; `None` where the processor keeps it in a register.
    slot: Option<VirtAddr>,
    /// Its return address.
    return_pc: VirtAddr,
    /// The step that opened it.
    pub opened: RetainedId,
}

impl Call {
    /// Whether it enters the system.
    #[must_use]
    pub const fn is_system(&self) -> bool {
        self.slot.is_none()
    }
}

/// What a step does to the frames.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Nothing: control goes on in the same function.
    Stay,
    /// Opens a frame.
    Open(Call),
    /// Leaves the system: closes its frame with this index, and those above it.
    Leave {
        /// The frame's index, from the outermost on.
        at: usize,
    },
    /// Returns by the slot of the frame with this index, which closes it and those above it.
    Close {
        /// The frame's index, from the outermost on.
        at: usize,
        /// Whether the return goes to where the frame's call said.
        matched: bool,
    },
    /// Goes elsewhere in the same frame. `by_return` if by a return that takes no known slot.
    Jump {
        /// Whether it is a return that jumps.
        by_return: bool,
    },
}

/// The open frames, outermost first.
pub struct ShadowStack<T> {
    frames: Vec<Frame<T>>,
}

impl<T> ShadowStack<T> {
    /// The frame that a recording begins in.
    pub fn new(what: T) -> Self {
        Self { frames: vec![Frame { what, call: None }] }
    }

    /// The innermost frame; `None` after the outermost has returned.
    pub fn top(&mut self) -> Option<&mut Frame<T>> {
        self.frames.last_mut()
    }

    /// The open frames, outermost first.
    #[must_use]
    pub fn frames(&self) -> &[Frame<T>] {
        &self.frames
    }

    /// What a step does, given how it ended. `pseudo`: it is a call that only pushes and jumps.
    /// `exits`: it goes back to the process, at whatever address.
    #[must_use]
    pub fn effect(&self, step: RetainedId, code: &Code, ended: &Ended, pseudo: bool, exits: bool) -> Effect {
        let opens = |slot| {
            let (entry, return_pc) = (ended.next, code.fallthrough());
            Effect::Open(Call { pc: code.pc(), entry, slot, return_pc, opened: step })
        };
        match ended.control {
            Some(Kind::Call) if !pseudo => opens(Some(ended.slot)),
            Some(Kind::SysEnter) => opens(None),
            Some(Kind::Ret) => match self.by_slot(ended.slot) {
                Some((at, call)) => Effect::Close { at, matched: call.return_pc == ended.next },
                None => Effect::Jump { by_return: true },
            },
            Some(Kind::SysExit) => match self.system_call() {
                // `sysenter` keeps no return address: the system goes back to a place of its choice
                // in the process.
                Some((at, call)) if call.return_pc == ended.next || exits => Effect::Leave { at },
                _ => Effect::Jump { by_return: false },
            },
            Some(Kind::Jump | Kind::Call) => Effect::Jump { by_return: false },
            Some(Kind::BranchIf) if ended.next != code.fallthrough() => Effect::Jump { by_return: false },
            _ => Effect::Stay,
        }
    }

    /// The innermost frame whose return address lies there, of the running system call or, if there
    /// is none, of the process.
    fn by_slot(&self, slot: VirtAddr) -> Option<(usize, &Call)> {
        let calls = self.frames.iter().enumerate().rev();
        calls
            .map_while(|(at, frame)| match &frame.call {
                Some(call) if call.is_system() => None,
                call => Some((at, call.as_ref())),
            })
            .find_map(|(at, call)| call.filter(|call| call.slot == Some(slot)).map(|call| (at, call)))
    }

    /// The innermost system call.
    fn system_call(&self) -> Option<(usize, &Call)> {
        let mut calls = self.frames.iter().enumerate().rev();
        calls.find_map(|(at, frame)| {
            frame.call.as_ref().filter(|call| call.is_system()).map(|call| (at, call))
        })
    }

    /// Opens a frame.
    pub fn open(&mut self, call: Call, what: T) {
        self.frames.push(Frame { what, call: Some(call) });
    }

    /// Closes a frame and those above it. Returns how many.
    pub fn close(&mut self, at: usize) -> usize {
        let closed = self.frames.len() - at;
        self.frames.truncate(at);
        closed
    }
}

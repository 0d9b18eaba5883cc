//! Follows the trainer's system calls in a whole run, to notice when the system goes on with
//! another task.
//!
//! The target's kernel knows nothing of the trainer. If it switches tasks, control may come back to
//! the trainer's code all the same: another process may be in the same library, on the same
//! instruction. So the place of the return does not tell; calls and returns on the kernel's stack
//! do.

use jit::Calls;
use machine::{PROCESS_REGS, Reg};

use crate::predecode::Slots;

/// Where a run is: in the trainer's code, or in a system call of it.
#[derive(Clone)]
pub(crate) struct SystemCalls {
    /// [`PROCESS_REGS`] when the last system call began.
    process: [u64; PROCESS_REGS.len()],
    inside: Option<Inside>,
}

/// The system call that a run is in.
#[derive(Clone)]
struct Inside {
    /// Where it returns to; `None` after `sysenter`, which does not say.
    back: Option<u64>,
    /// Its calls that have not returned.
    open: Calls,
    /// Whether the last return was from one of them. Another task returns from calls that this run
    /// never made.
    own: bool,
}

impl SystemCalls {
    /// The run is in the trainer's code.
    pub fn new(slots: &Slots) -> Self {
        Self { process: process_registers(slots), inside: None }
    }

    /// Whether the run is in a system call.
    pub fn inside(&self) -> bool {
        self.inside.is_some()
    }

    /// A system call begins. `back` is where the instruction says that it returns to.
    pub fn enter(&mut self, back: u64, slots: &Slots) {
        let sysenter = slots[Reg::Rsp.index()] == slots[Reg::SysenterEsp.index()];
        let back = (!sysenter).then_some(back);
        self.inside = Some(Inside { back, open: Calls::default(), own: true });
        self.process = process_registers(slots);
    }

    /// A call was made, which left the stack pointer at `stack`.
    #[inline(always)]
    pub fn called(&mut self, stack: u64) {
        if let Some(inside) = &mut self.inside {
            inside.open.called(stack);
        }
    }

    /// A return was made, which left the stack pointer at `stack`.
    #[inline(always)]
    pub fn returned(&mut self, stack: u64) {
        if let Some(inside) = &mut self.inside {
            inside.own = inside.open.returned(stack);
        }
    }

    /// The calls of the system call that a run is in, for compiled code.
    pub fn open(&mut self) -> Option<&mut Calls> {
        self.inside.as_mut().map(|inside| &mut inside.open)
    }

    /// The last return was from one of them.
    pub fn was_own(&mut self) {
        if let Some(inside) = &mut self.inside {
            inside.own = true;
        }
    }

    /// The system leaves to `pc`; `trainer`: that is the trainer's code. Returns whether the run
    /// may go on there: in a process only where the trainer's own system call ends. A signal's
    /// handler is at another address, another task at another depth of calls.
    pub fn leave(&mut self, pc: u64, trainer: bool, slots: &mut Slots) -> bool {
        if !trainer && slots[Reg::Cpl.index()] != 3 {
            return true;
        }
        let inside = self.inside.take();
        if !inside.is_some_and(|inside| inside.back.is_none_or(|back| back == pc) && inside.own) {
            return false;
        }
        if trainer {
            // The target's kernel has loaded those of the paused process.
            PROCESS_REGS.iter().zip(self.process).for_each(|(reg, value)| slots[reg.index()] = value);
        }
        true
    }
}

fn process_registers(slots: &Slots) -> [u64; PROCESS_REGS.len()] {
    PROCESS_REGS.map(|reg| slots[reg.index()])
}

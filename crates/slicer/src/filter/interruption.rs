//! Recognises interrupts and faults in a replay, without knowledge of the system.
//!
//! One begins where an instruction follows that the one before does not lead to. It ends with
//! whatever goes back to the interrupted code with the same stack pointer and, in a process, in the
//! same address space: a return from a handler, or in a system that was interrupted itself what it
//! likes better (`popf; ret`, a far return, a jump). The handler's frames lie below the interrupted
//! stack pointer, so nothing else goes to that place with that stack.

use ir::Kind;
use machine::paging::address_space;
use machine::{Reg, VirtAddr};

use crate::recording::replay::Ended;
use crate::vocabulary::{RegisterValues, StepId};

/// An interruption that has not returned yet.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Where the interrupted code goes on.
    pub next: VirtAddr,
    /// The instruction that was executing or had just ended.
    pub pc: VirtAddr,
    /// The step of that instruction.
    pub step: StepId,
    /// The stack pointer of the interrupted code.
    stack: u64,
    /// The address space of the interrupted process; 0 if the system was interrupted.
    space: u64,
    /// Whether the instruction had ended.
    pub complete: bool,
}

/// The address space of the running process; 0 in the system, whose stacks are in all address
/// spaces.
fn process_space(regs: &RegisterValues) -> u64 {
    if regs[Reg::Cpl] == 3 { address_space(regs[Reg::Cr3]) } else { 0 }
}

/// An interruption that returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    /// Whether no other one is open.
    pub outermost: bool,
    /// Whether the interrupted instruction did not finish and is executed again.
    pub fault: bool,
}

/// The interruptions open at a point of a replay.
#[derive(Default, Debug)]
pub struct Interruptions {
    open: Vec<Open>,
}

impl Interruptions {
    /// The instruction at `pc` comes next, after step `step` at `last_pc`, which ended like `last`
    /// and with these registers. Returns whether an interruption begins.
    pub fn before(
        &mut self,
        step: StepId,
        last_pc: VirtAddr,
        last: &Ended,
        pc: VirtAddr,
        regs: &RegisterValues,
    ) -> bool {
        if last.leads_to(pc) {
            return false;
        }
        let next = if last.complete { last.next } else { last_pc };
        let (stack, space) = (regs[Reg::Rsp], process_space(regs));
        self.open.push(Open { next, pc: last_pc, step, stack, space, complete: last.complete });
        true
    }

    /// An instruction ended with these registers. Returns the interruption that it ended, if it
    /// did.
    pub fn after(&mut self, ended: &Ended, regs: &RegisterValues) -> Option<Closed> {
        if !matches!(ended.control, Some(Kind::SysExit | Kind::Ret | Kind::Jump)) {
            return None;
        }
        let (stack, space) = (regs[Reg::Rsp], process_space(regs));
        let at = self.open.iter().rposition(|open| {
            open.stack == stack && open.space == space && (ended.next == open.next || ended.next == open.pc)
        })?;
        let open = self.open[at];
        self.open.truncate(at);
        Some(Closed { outermost: at == 0, fault: !open.complete || ended.next != open.next })
    }

    /// A task is back that had `open` interruptions open when it went away; the others are other
    /// tasks'.
    pub fn back(&mut self, open: usize) {
        self.open.truncate(open);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Id;

    const fn ended(control: Option<Kind>, next: u64, complete: bool) -> Ended {
        Ended { control, next: VirtAddr(next), complete, slot: VirtAddr(0) }
    }

    fn process(rsp: u64, cr3: u64) -> RegisterValues {
        let mut regs = RegisterValues::all(0);
        regs[Reg::Rsp] = rsp;
        regs[Reg::Cpl] = 3;
        regs[Reg::Cr3] = cr3;
        regs
    }

    #[test]
    fn an_interruption_ends_in_the_address_space_it_began_in() {
        let mut it = Interruptions::default();
        let mine = process(0x7000, 0x1000_0000);
        assert!(it.before(StepId::new(0), VirtAddr(10), &ended(None, 11, true), VirtAddr(0x9000), &mine));
        let back = ended(Some(Kind::SysExit), 11, true);
        assert_eq!(it.after(&back, &process(0x7000, 0x2000_0000)), None, "a child goes on at the same place");
        assert_eq!(it.after(&back, &mine), Some(Closed { outermost: true, fault: false }));
        assert!(it.none());
    }

    #[test]
    fn whatever_goes_back_with_the_interrupted_stack_ends_an_interruption() {
        let system = |rsp| {
            let mut regs = RegisterValues::all(0);
            regs[Reg::Rsp] = rsp;
            regs
        };
        for kind in [Kind::SysExit, Kind::Ret, Kind::Jump] {
            let mut it = Interruptions::default();
            let last = ended(None, 11, true);
            assert!(it.before(StepId::new(0), VirtAddr(10), &last, VirtAddr(0x9000), &system(0x7000)));
            let back = ended(Some(kind), 11, true);
            assert_eq!(it.after(&back, &system(0x6fe0)), None, "in the handler");
            let closed = it.after(&back, &system(0x7000));
            assert_eq!(closed, Some(Closed { outermost: true, fault: false }), "{kind:?}");
        }
    }
}

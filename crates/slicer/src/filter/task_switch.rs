//! Recognises in a replay that another task ran, without knowledge of the system.
//!
//! A system switches to another task by an instruction that replaces the stack pointer, and comes
//! back by the same instruction, which then loads the stack pointer that the task had. The function
//! that did it returns to its caller as if nothing had happened; what was executed in between is
//! other tasks' work.

use ir::Kind;
use machine::VirtAddr;
use rustc_hash::FxHashMap;

use crate::recording::replay::Ended;
use crate::vocabulary::{RetainedId, StepId};

/// A call that has not returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its number among the retained steps.
    pub retained: RetainedId,
    /// Its step.
    pub step: StepId,
    /// Where its return address lies.
    slot: VirtAddr,
    /// Its return address.
    back: VirtAddr,
}

/// What matters of a step here.
#[derive(Clone, Copy, Debug)]
pub struct Step<'e> {
    /// Which step it is.
    pub step: StepId,
    /// Its number among the retained steps, if it is one.
    pub retained: Option<RetainedId>,
    /// The address of its instruction.
    pub pc: VirtAddr,
    /// Where the next instruction lies.
    pub fallthrough: VirtAddr,
    /// How it ended.
    pub ended: &'e Ended,
    /// The stack pointer before and after it.
    pub stack: [u64; 2],
    /// Whether the system executes it, before and after.
    pub system: bool,
    /// How many interruptions are open.
    pub open: usize,
}

/// What a step was found to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A task is back that had this many interruptions open when it went away.
    Back(usize),
    /// The return from this call, in which other tasks ran.
    Over(Call),
}

/// Stack pointers that are nearer to each other than this, in bytes, are in the same stack.
const FAR: u64 = 4096;

struct Away {
    /// The task's calls. Other tasks may have calls at the same addresses of their own address
    /// spaces.
    calls: Vec<Call>,
    open: usize,
}

/// The tasks that went away, and the calls of the running one.
#[derive(Default)]
pub struct Switches {
    calls: Vec<Call>,
    /// By the instruction and the stack pointer that was replaced.
    away: FxHashMap<(VirtAddr, u64), Away>,
    leaving: Option<Call>,
}

impl Switches {
    /// Follows a step, and says what it was found to be.
    pub fn after(&mut self, it: &Step<'_>) -> Option<Found> {
        match (it.ended.control, it.retained) {
            (Some(Kind::Call), Some(retained)) => {
                self.calls.push(Call { retained, step: it.step, slot: it.ended.slot, back: it.fallthrough });
            }
            (Some(Kind::Ret), Some(_)) => {
                if let Some(at) = self.calls.iter().rposition(|call| call.slot == it.ended.slot) {
                    let call = self.calls[at];
                    self.calls.truncate(at);
                    if self.leaving == Some(call) && call.back == it.ended.next {
                        self.leaving = None;
                        return Some(Found::Over(call));
                    }
                }
            }
            (None, _) if it.system && it.stack[0].abs_diff(it.stack[1]) >= FAR => {
                let back = self.away.remove(&(it.pc, it.stack[1]));
                self.away.insert((it.pc, it.stack[0]), Away { calls: self.calls.clone(), open: it.open });
                if let Some(away) = back {
                    self.calls = away.calls;
                    if away.open == 0 {
                        self.leaving = self.calls.last().copied();
                    }
                    return Some(Found::Back(away.open));
                }
            }
            _ => {}
        }
        None
    }

    /// Whether a task is back, and the call in which it switched has not returned yet.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Id;

    fn step(
        switches: &mut Switches,
        number: usize,
        pc: u64,
        ended: Ended,
        stack: [u64; 2],
        open: usize,
    ) -> Option<Found> {
        let retained = (open == 0).then_some(RetainedId::new(number));
        switches.after(&Step {
            step: StepId::new(number),
            retained,
            pc: VirtAddr(pc),
            fallthrough: VirtAddr(pc + 1),
            ended: &ended,
            stack,
            system: true,
            open,
        })
    }

    const fn ended(control: Option<Kind>, next: u64, slot: u64) -> Ended {
        Ended { control, next: VirtAddr(next), complete: true, slot: VirtAddr(slot) }
    }

    #[test]
    fn a_task_that_comes_back_by_the_instruction_it_left_by_is_recognised() {
        let mut it = Switches::default();
        let call = ended(Some(Kind::Call), 100, 0x8ff8);
        assert_eq!(step(&mut it, 0, 10, call, [0x9000, 0x8ff8], 0), None);
        assert_eq!(step(&mut it, 1, 100, ended(None, 101, 0), [0x8ff8, 0x2_0000], 0), None);
        // Another task calls, is interrupted, and goes away meanwhile.
        assert_eq!(
            step(&mut it, 2, 50, ended(Some(Kind::Call), 100, 0x1_fff8), [0x2_0000, 0x1_fff8], 0),
            None
        );
        assert_eq!(step(&mut it, 3, 100, ended(None, 101, 0), [0x1_fff8, 0x8ff8], 1), Some(Found::Back(0)));
        let back = step(&mut it, 4, 101, ended(Some(Kind::Ret), 11, 0x8ff8), [0x8ff8, 0x9000], 0);
        let Some(Found::Over(call)) = back else { panic!("{back:?}") };
        assert_eq!((call.retained, call.step), (RetainedId::new(0), StepId::new(0)));
        assert!(!it.is_leaving());
    }

    #[test]
    fn another_stack_of_the_same_task_is_no_other_task() {
        let mut it = Switches::default();
        let switch = |to| [0x8ff8, to];
        assert_eq!(step(&mut it, 0, 100, ended(None, 101, 0), switch(0x2_0000), 0), None);
        assert_eq!(step(&mut it, 1, 110, ended(None, 111, 0), [0x2_0000, 0x8ff8], 0), None);
        assert_eq!(step(&mut it, 2, 100, ended(None, 101, 0), switch(0x2_0000), 0), None);
    }
}

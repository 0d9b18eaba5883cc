//! Where control goes after an instruction, read off its operations.
//!
//! For walks over code that was never executed. It does not resolve computed targets, and does not
//! know whether what is called comes back.

use ir::{Arg, Kind};

use crate::Insn;

/// All ways on from an instruction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Control {
    /// Constant addresses that its branches lead to, and its jump after them, each once. A branch
    /// that is never taken is left out. A repeated string instruction leads to itself.
    pub targets: Vec<u64>,
    /// What it does where no branch is taken.
    pub end: End,
    /// The address behind it.
    pub next: u64,
}

/// What an instruction does where no branch is taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// Goes on to the next instruction.
    Next,
    /// Goes to a constant address, which is also the last of the targets.
    Jump(u64),
    /// Goes to a computed address.
    Computed,
    /// Calls a constant or, if there is none, a computed address. May come back.
    Call(Option<u64>),
    /// Returns to a caller.
    Return,
    /// Enters the system, by an instruction or through a gate. May come back.
    Enter,
    /// Leaves the system, or a handler of it.
    Leave,
    /// Waits for an interrupt, and goes on after it.
    Halt,
    /// Traps with this vector; where the handler returns to, it decides. 6 is an instruction that
    /// is none, which systems use for assertions.
    Trap(u64),
    /// Nothing is known: it is not modelled.
    Unknown,
}

impl Control {
    /// Whether the next instruction may follow at once.
    #[must_use]
    pub const fn falls(&self) -> bool {
        matches!(self.end, End::Next)
    }

    /// Whether the next instruction may follow after something else was executed: a callee, the
    /// system, a handler.
    #[must_use]
    pub const fn resumes(&self) -> bool {
        matches!(self.end, End::Call(_) | End::Enter | End::Halt | End::Trap(_))
    }

    /// Every address that may follow at once and is known: the targets, then the next instruction.
    pub fn successors(&self) -> impl Iterator<Item = u64> + '_ {
        let next = Some(self.next).filter(|next| self.falls() && !self.targets.contains(next));
        self.targets.iter().copied().chain(next)
    }

    /// Whether what may follow within its function is known from it alone: it goes on, jumps to
    /// constant addresses, or returns.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(self.end, End::Next | End::Jump(_) | End::Return)
    }
}

/// All ways on from `insn`.
#[must_use]
pub fn control(insn: &Insn) -> Control {
    let (mut targets, mut end) = (Vec::new(), End::Next);
    let mut target = |to| {
        if !targets.contains(&to) {
            targets.push(to);
        }
    };
    for op in &insn.ops {
        end = match (op.kind, op.args[0], op.args[1]) {
            (Kind::BranchIf, Arg::Const(0), _) => continue,
            (Kind::BranchIf, _, Arg::Const(to)) => {
                target(to);
                continue;
            }
            (Kind::Jump, Arg::Const(to), _) => {
                target(to);
                End::Jump(to)
            }
            (Kind::Jump, ..) => End::Computed,
            (Kind::Call, Arg::Const(to), _) => End::Call(Some(to)),
            (Kind::Call, ..) => End::Call(None),
            (Kind::Ret, ..) => End::Return,
            (Kind::SysEnter, ..) => End::Enter,
            (Kind::SysExit, ..) => End::Leave,
            (Kind::Halt, ..) => End::Halt,
            (Kind::Trap, Arg::Const(vector), _) => End::Trap(vector),
            // Where a branch or a trap goes is a constant in what this crate lifts.
            (Kind::Unsupported | Kind::BranchIf | Kind::Trap, ..) => End::Unknown,
            _ => continue,
        };
    }
    Control { targets, end, next: insn.pc.wrapping_add(u64::from(insn.len)) }
}

/// How an instruction ends, as one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flow {
    /// Goes on to the next instruction (also `hlt`, which does so after an interrupt).
    Next,
    /// Goes to a constant address.
    Jump(u64),
    /// Goes to `taken` or on to the next instruction.
    Branch {
        /// Where the branch goes when its condition holds.
        taken: u64,
    },
    /// Goes to a computed address.
    IndirectJump,
    /// Calls a constant address.
    Call(u64),
    /// Calls a computed address.
    IndirectCall,
    /// Returns to a caller.
    Return,
    /// Enters the system (`syscall`, `sysenter`, `int n`); execution may resume at the next
    /// instruction.
    Enter,
    /// Leaves the system (`sysret`, `sysexit`, `iret`).
    Exit,
    /// Nothing is known to follow: `ud2` or an instruction that is not modelled.
    Stop,
}

/// How `insn` ends. Of several branches it has the last one; [`control`] has all.
#[must_use]
pub fn flow(insn: &Insn) -> Flow {
    match control(insn).end {
        End::Next => match insn.ops.last().map(|op| (op.kind, op.args[1])) {
            Some((Kind::BranchIf, Arg::Const(taken))) => Flow::Branch { taken },
            _ => Flow::Next,
        },
        End::Halt => Flow::Next,
        End::Jump(to) => Flow::Jump(to),
        End::Computed => Flow::IndirectJump,
        End::Call(Some(to)) => Flow::Call(to),
        End::Call(None) => Flow::IndirectCall,
        End::Return => Flow::Return,
        End::Trap(6) | End::Unknown => Flow::Stop,
        End::Enter | End::Trap(_) => Flow::Enter,
        End::Leave => Flow::Exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, lift};
    use ir::{Op, Var, Width};

    fn of(bytes: &[u8]) -> Control {
        control(&lift(Mode::Bits64, 0x1000, bytes).unwrap())
    }

    #[test]
    fn ends_are_told_apart() {
        let cases: [(&[u8], End); 13] = [
            (&[0x90], End::Next),
            (&[0xeb, 0x10], End::Jump(0x1012)),
            (&[0xff, 0xe0], End::Computed),
            (&[0xe8, 0, 1, 0, 0], End::Call(Some(0x1105))),
            (&[0xff, 0xd0], End::Call(None)),
            (&[0xc3], End::Return),
            (&[0x0f, 0x05], End::Enter),
            (&[0x48, 0x0f, 0x07], End::Leave),
            (&[0x48, 0xcf], End::Leave),
            (&[0xf4], End::Halt),
            (&[0xcc], End::Trap(3)),
            (&[0x0f, 0x0b], End::Trap(6)),
            (&[0xd9, 0xfe], End::Unknown),
        ];
        for (bytes, end) in cases {
            let found = of(bytes);
            assert_eq!((found.end, found.next), (end, 0x1000 + bytes.len() as u64), "{bytes:02x?}");
        }
    }

    #[test]
    fn successors_are_the_targets_and_what_follows() {
        let successors = |bytes: &[u8]| of(bytes).successors().collect::<Vec<_>>();
        // je; jmp; rep movsb; call; ret; je to what follows
        assert_eq!(successors(&[0x74, 0x10]), [0x1012, 0x1002]);
        assert_eq!(successors(&[0xeb, 0x10]), [0x1012]);
        // With a count of 0 it does nothing.
        assert_eq!(successors(&[0xf3, 0xa4]), [0x1002, 0x1000]);
        assert_eq!(successors(&[0xe8, 0, 1, 0, 0]), [0; 0]);
        assert_eq!(successors(&[0xc3]), [0; 0]);
        assert_eq!(successors(&[0x74, 0x00]), [0x1002]);
        let (call, jump) = (of(&[0xe8, 0, 1, 0, 0]), of(&[0xff, 0xe0]));
        assert!(call.resumes() && !call.falls() && !call.is_plain());
        assert!(!jump.resumes() && !jump.falls() && !jump.is_plain());
        assert!(of(&[0x74, 0x10]).is_plain() && of(&[0xc3]).is_plain());
    }

    #[test]
    fn a_branch_that_is_never_taken_leads_nowhere() {
        let branch = |condition| {
            Op::new(Kind::BranchIf, Width::B64, Var::NONE, &[Arg::Const(condition), Arg::Const(0x2000)])
        };
        let insn = |ops| Insn { pc: 0x1000, len: 2, ops };
        assert_eq!(control(&insn(vec![branch(0)])).targets, [0; 0]);
        assert_eq!(control(&insn(vec![branch(1), branch(1)])).targets, [0x2000]);
    }
}

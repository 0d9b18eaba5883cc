//! Where control goes after an instruction, read off its operations.
//!
//! For walks over code that was never executed. It does not resolve computed targets.

use ir::{Arg, Kind};

use crate::Insn;

/// How an instruction ends.
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

/// How `insn` ends.
#[must_use]
pub fn flow(insn: &Insn) -> Flow {
    let Some(op) = insn.ops.last() else { return Flow::Next };
    match (op.kind, op.args[0], op.args[1]) {
        (Kind::Jump, Arg::Const(target), _) => Flow::Jump(target),
        (Kind::Jump, Arg::Var(_), _) => Flow::IndirectJump,
        (Kind::BranchIf, _, Arg::Const(taken)) => Flow::Branch { taken },
        (Kind::Call, Arg::Const(target), _) => Flow::Call(target),
        (Kind::Call, Arg::Var(_), _) => Flow::IndirectCall,
        (Kind::Ret, ..) => Flow::Return,
        (Kind::SysEnter, ..) => Flow::Enter,
        (Kind::SysExit, ..) => Flow::Exit,
        (Kind::Trap, Arg::Const(6), _) | (Kind::Unsupported, ..) => Flow::Stop,
        (Kind::Trap, ..) => Flow::Enter,
        _ => Flow::Next,
    }
}

//! The blocks of a slice with slots for operands.

use ir::program::{Callee, Target, Terminator};

use crate::predecode::{Pool, TooLarge};

/// Where control goes; the blocks of all functions are numbered consecutively.
#[derive(Clone, Copy, Debug)]
pub(super) enum Go {
    /// To this block.
    Block(u32),
    /// Back to where the frame says.
    Return,
    /// To this address of the training system, where no training run went.
    Unexplored(u64),
}

/// How a block ends: [`Terminator`] with slots for operands.
pub(super) enum Exit {
    Goto(Go),
    Branch { cond: u16, taken: Go, otherwise: Go },
    Switch { value: u16, arms: Vec<(u64, Go)> },
    Call { func: u32, stack: u16, then: Go },
    CallIndirect { value: u16, arms: Vec<(u64, Option<u32>)>, stack: u16, then: Go },
    Finish,
}

/// Operations that are executed one after the other, and where control goes then.
pub(super) struct Block {
    /// Its operations: the first, and the one behind its last.
    pub first: u32,
    pub last: u32,
    /// Addresses, in the training system, of its beginning and of the instruction that ends it.
    pub pc: u64,
    pub end_pc: u64,
    pub end: Exit,
}

/// What is called.
pub(super) struct Function {
    /// The block it begins with.
    pub entry: u32,
    /// Slots of the registers that a call gives back.
    pub callee_saved: Vec<u16>,
}

/// Predecodes a terminator; `go` numbers blocks.
pub(super) fn exit(term: &Terminator, pool: &mut Pool, go: impl Fn(Target) -> Go) -> Result<Exit, TooLarge> {
    Ok(match term {
        Terminator::Goto(target) => Exit::Goto(go(*target)),
        Terminator::Branch { cond, taken, otherwise } => {
            Exit::Branch { cond: pool.arg(*cond)?, taken: go(*taken), otherwise: go(*otherwise) }
        }
        Terminator::Switch { value, arms } => Exit::Switch {
            value: pool.arg(*value)?,
            arms: arms.iter().map(|arm| (arm.value, go(arm.target))).collect(),
        },
        Terminator::Call { callee: Callee::Direct(func), stack, then } => {
            Exit::Call { func: func.0, stack: Pool::var(*stack)?, then: go(*then) }
        }
        Terminator::Call { callee: Callee::Indirect { value, arms }, stack, then } => Exit::CallIndirect {
            value: pool.arg(*value)?,
            arms: arms.iter().map(|arm| (arm.value, arm.target.map(|func| func.0))).collect(),
            stack: Pool::var(*stack)?,
            then: go(*then),
        },
        Terminator::End => Exit::Finish,
    })
}

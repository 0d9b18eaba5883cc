//! Which stores could write what a load reads, judged by the form of their addresses.
//!
//! Memory is followed by the addresses that recordings saw. A store that no recording joined with a
//! load may still write what it reads in another machine. Compiled code names a field of a
//! structure by a constant distance from a pointer: two accesses may meet if distance and size
//! agree, and if both are no locals of their function. It is a guess, used only to add guards.

use ir::{Arg, Kind, Op, Var};
use rustc_hash::FxHashSet;

use crate::graph::RSP;

/// The form of an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Form {
    /// A constant address.
    Fixed(u64),
    /// A constant distance from a pointer.
    Field(u64),
    /// Relative to the stack pointer: a local.
    Local,
}

/// Forms of accesses with their size in bytes.
pub(crate) type Forms = FxHashSet<(Form, u64)>;

/// The form of a memory operation's address; the operations are its instruction's.
pub(crate) fn form(ops: &[Op], at: usize) -> (Form, u64) {
    let op = &ops[at];
    let (mut distance, mut operand, mut steps) = (0u64, op.args[0], 0);
    let form = loop {
        steps += 1;
        match operand {
            Arg::Const(value) => break Form::Fixed(value.wrapping_add(distance)),
            Arg::Moved(_) => break Form::Field(distance),
            Arg::Var(var) if var == RSP => break Form::Local,
            Arg::Var(var) if var.is_reg() || steps > 8 => break Form::Field(distance),
            Arg::Var(var) => match definition(&ops[..at], var) {
                Some(op) if op.kind == Kind::Add => match (op.args[0], op.args[1]) {
                    (rest, Arg::Const(value)) | (Arg::Const(value), rest) => {
                        distance = distance.wrapping_add(value);
                        operand = rest;
                    }
                    // An element of an array: the pointer may be on either side, the distance is
                    // what matters.
                    (Arg::Var(a), Arg::Var(b)) if a == RSP || b == RSP => break Form::Local,
                    _ => break Form::Field(distance),
                },
                Some(op) if op.kind == Kind::Mov => operand = op.args[0],
                _ => break Form::Field(distance),
            },
        }
    };
    (form, op.width.bytes())
}

fn definition(ops: &[Op], var: Var) -> Option<&Op> {
    ops.iter().rev().find(|op| op.def() == Some(var))
}

/// The forms of the stores of an instruction, locals left out.
pub(crate) fn stores(ops: &[Op]) -> impl Iterator<Item = (Form, u64)> + '_ {
    ops.iter()
        .enumerate()
        .filter(|(_, op)| op.kind == Kind::Store)
        .map(|(at, _)| form(ops, at))
        .filter(|(form, _)| *form != Form::Local)
}

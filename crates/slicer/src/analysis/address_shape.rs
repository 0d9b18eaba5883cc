//! Which stores could write what a load reads, judged by the shape of their addresses.
//!
//! Memory dependences are those that recordings saw. In another machine a store may write what a
//! load reads although no recording joined the two. Compiled code names a member of a structure by
//! a constant distance from a pointer: two accesses may meet if distance and size agree, and if
//! neither is a local of its function. This is a heuristic, used only to add guards.

use ir::{Arg, Kind, Op, Var};
use rustc_hash::FxHashSet;

use crate::vocabulary::STACK_POINTER;

/// Where an access goes, as far as its instruction tells. Addresses and distances are modulo 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum AddressBase {
    /// A constant address.
    Fixed(u64),
    /// A constant distance from a pointer.
    Member(u64),
    /// Relative to the stack pointer.
    Local,
}

/// The shape of an access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AddressShape {
    /// Where it goes.
    pub base: AddressBase,
    /// How many bytes it accesses.
    pub size: u64,
}

/// Shapes of several accesses.
pub type Shapes = FxHashSet<AddressShape>;

/// The most definitions that an address is followed through.
const MAX_STEPS: usize = 8;

/// The shape of a memory operation with this index; the operations are its instruction's.
#[must_use]
pub fn shape(ops: &[Op], at: usize) -> AddressShape {
    AddressShape { base: base(ops, at), size: ops[at].width.bytes() }
}

fn base(ops: &[Op], at: usize) -> AddressBase {
    let (mut distance, mut operand) = (0u64, ops[at].args[0]);
    for step in 1.. {
        let var = match operand {
            Arg::Const(value) => return AddressBase::Fixed(value.wrapping_add(distance)),
            Arg::Relocated(_) => return AddressBase::Member(distance),
            Arg::Var(STACK_POINTER) => return AddressBase::Local,
            Arg::Var(var) => var,
        };
        if var.is_reg() || step > MAX_STEPS {
            break;
        }
        match definition(&ops[..at], var) {
            Some(op) if op.kind == Kind::Add => match (op.args[0], op.args[1]) {
                (rest, Arg::Const(value)) | (Arg::Const(value), rest) => {
                    distance = distance.wrapping_add(value);
                    operand = rest;
                }
                // An element of an array: the pointer may be on either side, the distance is what
                // matters.
                (Arg::Var(a), Arg::Var(b)) if a == STACK_POINTER || b == STACK_POINTER => {
                    return AddressBase::Local;
                }
                _ => break,
            },
            Some(op) if op.kind == Kind::Mov => operand = op.args[0],
            _ => break,
        }
    }
    AddressBase::Member(distance)
}

fn definition(ops: &[Op], var: Var) -> Option<&Op> {
    ops.iter().rev().find(|op| op.def() == Some(var))
}

/// The shapes of the stores of an instruction, locals left out.
pub fn stores(ops: &[Op]) -> impl Iterator<Item = AddressShape> + '_ {
    let stores = ops.iter().enumerate().filter(|(_, op)| op.kind == Kind::Store);
    stores.map(|(at, _)| shape(ops, at)).filter(|shape| shape.base != AddressBase::Local)
}

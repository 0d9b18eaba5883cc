//! Which stores could write what a load reads, judged by the shape of their addresses.
//!
//! Memory dependences are those that recordings saw. In another machine a store may write what a
//! load reads although no recording joined the two. Compiled code names a member of a structure by
//! a constant distance from a pointer: two accesses may meet if distance and size agree. A local is
//! named by its distance from the stack pointer, which compiled code leaves alone between a
//! function's prologue and epilogue: two accesses of one function may meet if they overlap. This
//! is a heuristic, used only to add guards.

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
    /// A constant distance from the stack pointer before the instruction; `None` if the distance is
    /// computed.
    Local(Option<i64>),
}

/// The shape of an access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AddressShape {
    /// Where it goes.
    pub base: AddressBase,
    /// How many bytes it accesses.
    pub size: u64,
}

impl AddressShape {
    /// Whether it is a local of its function.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self.base, AddressBase::Local(_))
    }

    /// Whether two locals of one function may overlap.
    #[must_use]
    pub fn meets_local(&self, other: &Self) -> bool {
        match (self.base, other.base) {
            (AddressBase::Local(Some(a)), AddressBase::Local(Some(b))) => {
                let (a, b) = (i128::from(a), i128::from(b));
                a < b + i128::from(other.size) && b < a + i128::from(self.size)
            }
            (AddressBase::Local(_), AddressBase::Local(_)) => true,
            _ => false,
        }
    }

    /// Whether this local covers all of another one of the same function.
    #[must_use]
    pub fn covers_local(&self, other: &Self) -> bool {
        match (self.base, other.base) {
            (AddressBase::Local(Some(a)), AddressBase::Local(Some(b))) => {
                let (a, b) = (i128::from(a), i128::from(b));
                a <= b && b + i128::from(other.size) <= a + i128::from(self.size)
            }
            _ => false,
        }
    }
}

/// Shapes of several accesses.
pub type Shapes = FxHashSet<AddressShape>;

/// The most definitions that an address is followed through.
const MAX_STEPS: usize = 8;

/// The shape of a memory operation with this index; the operations are its instruction's.
#[must_use]
pub fn shape(ops: &[Op], at: usize) -> AddressShape {
    AddressShape { base: base(ops, at).0, size: ops[at].width.bytes() }
}

/// The register that a memory operation goes through, if its address is a constant distance from
/// what the register holds before the instruction.
#[must_use]
pub fn register(ops: &[Op], at: usize) -> Option<Var> {
    let register = base(ops, at).1?;
    definition(&ops[..at], register).is_none().then_some(register)
}

/// The base of an address, and the register that the distance is from.
fn base(ops: &[Op], at: usize) -> (AddressBase, Option<Var>) {
    let (mut distance, mut operand) = (0u64, ops[at].args[0]);
    for step in 1.. {
        let var = match operand {
            Arg::Const(value) => return (AddressBase::Fixed(value.wrapping_add(distance)), None),
            Arg::Relocated(_) => return (AddressBase::Member(distance), None),
            Arg::Var(STACK_POINTER) => {
                let place = moved(&ops[..at]).map(|by| by.wrapping_add(distance).cast_signed());
                return (AddressBase::Local(place), None);
            }
            Arg::Var(var) => var,
        };
        if var.is_reg() {
            return (AddressBase::Member(distance), Some(var));
        }
        if step > MAX_STEPS {
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
                    return (AddressBase::Local(None), None);
                }
                _ => break,
            },
            Some(op) if op.kind == Kind::Mov => operand = op.args[0],
            _ => break,
        }
    }
    (AddressBase::Member(distance), None)
}

fn definition(ops: &[Op], var: Var) -> Option<&Op> {
    ops.iter().rev().find(|op| op.def() == Some(var))
}

/// How far these operations, the first of an instruction, have moved the stack pointer; `None` if
/// that is computed.
#[must_use]
pub fn moved(ops: &[Op]) -> Option<u64> {
    let definitions = ops.iter().filter(|op| op.def() == Some(STACK_POINTER));
    definitions
        .map(|op| match (op.kind, op.args[0], op.args[1]) {
            (Kind::Add, Arg::Var(STACK_POINTER), Arg::Const(by)) => Some(by),
            (Kind::Sub, Arg::Var(STACK_POINTER), Arg::Const(by)) => Some(by.wrapping_neg()),
            _ => None,
        })
        .try_fold(0u64, |sum, by| Some(sum.wrapping_add(by?)))
}

/// The shapes of the stores of an instruction that go through a register, with it.
pub fn stores_through(ops: &[Op]) -> impl Iterator<Item = (Var, AddressShape)> + '_ {
    let stores = ops.iter().enumerate().filter(|(_, op)| op.kind == Kind::Store);
    stores.filter_map(|(at, _)| Some((register(ops, at)?, shape(ops, at))))
}

/// The shapes of the stores of an instruction.
pub fn stores(ops: &[Op]) -> impl Iterator<Item = AddressShape> + '_ {
    let stores = ops.iter().enumerate().filter(|(_, op)| op.kind == Kind::Store);
    stores.map(|(at, _)| shape(ops, at))
}

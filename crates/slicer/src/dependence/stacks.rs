//! Which operations give the code a new stack, and how far down the code goes on it.
//!
//! A system that is called takes its stack from memory or from a register of its own: from the
//! target, in a run. All that the code pushes and keeps there then lies where the target says. A
//! slice has few of these stores, and what the others overwrite is gone all the same; so from such
//! an operation on, the slice may read of the stack's memory only what it has stored there itself
//! ([`ir::Kind::Undefine`]). Recordings show how much that is.
//!
//! An operation's result *comes from* the stack if sums, masks and copies lead from the stack
//! pointer to it. The stack pointer is on a new stack if what it is set to does not come from the
//! one before, nor lies on it, as the saved one of a caller does. What gave the new stack is the
//! first operation that such steps lead back to: a load, or the copy of a register.
//!
//! Where a branch decides whether the code goes on to another stack, a target may have it stay:
//! then what recordings saw on the other is below the place where the first was left.
//!
//! A process's own stacks are no such memory. Stacks in a segment whose base is not 0 are left out.

use ir::{Arg, Kind, Op};
use machine::{Reg, VirtAddr};
use rustc_hash::FxHashMap;

use crate::recording::UserMemory;
use crate::vocabulary::{OpId, RegisterValues, STACK_POINTER};

/// Two addresses as far apart are not of one stack: what was added is a pointer by itself.
const FARTHEST: u64 = 1 << 16;

/// How many changes of the stack in a row may not be made.
const MAX_CHANGES: u32 = 3;

/// The first operation of those that lead to a value, and its result.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Root {
    op: OpId,
    value: u64,
}

/// How far down the code goes on a stack.
#[derive(Clone, Default, Debug)]
pub struct Depth {
    /// How many bytes below the address that the operation gave.
    own: u64,
    /// By operation that gave another stack while the code was on this one: how many bytes further
    /// down than there the code reaches if it stays.
    staying: FxHashMap<OpId, i64>,
}

/// How many bytes below the address that an operation gives are the code's: as recordings saw it,
/// or as it would be without the changes of the stack that are decided by a branch.
#[must_use]
pub fn depth(stacks: &FxHashMap<OpId, Depth>, op: OpId, is_decided: &dyn Fn(OpId) -> bool) -> u64 {
    deepest(stacks, op, is_decided, MAX_CHANGES)
}

fn deepest(
    stacks: &FxHashMap<OpId, Depth>,
    op: OpId,
    is_decided: &dyn Fn(OpId) -> bool,
    changes: u32,
) -> u64 {
    let Some(depth) = stacks.get(&op) else { return 0 };
    let others = depth.staying.iter().filter(|&(&other, _)| changes > 0 && is_decided(other));
    let staying = others.map(|(&other, &further)| {
        deepest(stacks, other, is_decided, changes - 1).saturating_add_signed(further)
    });
    staying.fold(depth.own, u64::max)
}

/// The stack that the code is on.
#[derive(Clone, Copy)]
struct Stack {
    /// What gave it; `None` for the one at the begin mark.
    root: Option<Root>,
    /// The lowest address that the stack pointer had.
    lowest: u64,
    /// The highest.
    top: u64,
    /// It is memory of the system, whose depth is noted.
    noted: bool,
}

/// Follows the stack pointer through a recording.
pub struct Stacks {
    /// By register and temporary, where its value comes from.
    roots: Vec<Option<Root>>,
    stack: Stack,
    /// The stack pointer before the running instruction.
    pointer: u64,
    /// The stack that this instruction left, if it left one, and how many bytes further down the
    /// code reaches there.
    left: Option<(OpId, i64)>,
}

impl Stacks {
    /// At a begin mark with this stack pointer.
    #[must_use]
    pub const fn new(stack: VirtAddr) -> Self {
        let stack = Stack { root: None, lowest: stack.0, top: stack.0, noted: false };
        Self { roots: Vec::new(), stack, pointer: stack.lowest, left: None }
    }

    fn root(&self, arg: Arg) -> Option<Root> {
        match arg {
            Arg::Var(var) => self.roots.get(var.0 as usize).copied().flatten(),
            Arg::Const(_) | Arg::Relocated(_) => None,
        }
    }

    /// An operation was executed; `value` is its result.
    pub fn op(&mut self, number: OpId, op: &Op, value: u64) {
        let Some(var) = op.def() else { return };
        let is_step = matches!(op.kind, Kind::Mov | Kind::Add | Kind::Sub | Kind::And);
        let steps = if is_step { op.args() } else { &[] };
        let of_stack = |root: Option<Root>| root.is_some() && root == self.stack.root;
        let from_stack = steps.iter().any(|&arg| arg == Arg::Var(STACK_POINTER) || of_stack(self.root(arg)));
        let is_near = |root: &Root| root.value.wrapping_sub(value).cast_signed().unsigned_abs() < FARTHEST;
        let root = match from_stack {
            true => self.stack.root,
            false => steps
                .iter()
                .filter_map(|&arg| self.root(arg))
                .find(is_near)
                .or(Some(Root { op: number, value })),
        };
        if var == STACK_POINTER && !from_stack {
            self.moved(root, value);
        }
        let at = var.0 as usize;
        if self.roots.len() <= at {
            self.roots.resize(at + 1, None);
        }
        self.roots[at] = root;
    }

    /// The stack pointer is set to something that does not come from it.
    fn moved(&mut self, root: Option<Root>, value: u64) {
        if !(self.stack.lowest..=self.stack.top).contains(&value) {
            let (given, top) = root.map_or((value, value), |root| (root.value, root.value.max(value)));
            let before = self.stack.root.filter(|_| self.stack.noted);
            self.left = before.map(|before| {
                let further = before.value.wrapping_sub(self.pointer).wrapping_sub(given.wrapping_sub(value));
                (before.op, further.cast_signed())
            });
            self.stack = Stack { root, lowest: value, top, noted: true };
        }
    }

    /// A step is over: notes how far the stack reached, by the operation that gave it.
    pub fn settle(
        &mut self,
        regs: &RegisterValues,
        user: &dyn UserMemory,
        depths: &mut FxHashMap<OpId, Depth>,
    ) {
        self.pointer = regs[Reg::Rsp];
        let (now, stack) = (self.pointer, &mut self.stack);
        stack.lowest = stack.lowest.min(now);
        stack.top = stack.top.max(now);
        stack.noted &= regs[Reg::SsBase] == 0 && !user.is_user(VirtAddr(now).page());
        let left = self.left.take();
        if let (true, Some(root)) = (stack.noted, stack.root) {
            let depth = depths.entry(root.op).or_default();
            depth.own = depth.own.max(root.value.saturating_sub(stack.lowest));
            if let Some((before, further)) = left {
                let known = depths.entry(before).or_default().staying.entry(root.op).or_insert(further);
                *known = further.max(*known);
            }
        }
    }
}

//! Code that no recording executed, as far as an analysis needs it: what it may define, store and
//! call.
//!
//! The start snapshot holds all of the kernel's code, so the side that a branch did not take can be
//! disassembled. Of a function that it calls only the first instructions are looked at, and only
//! for registers that it saves and gives back.

use ir::{Arg, Kind, Var};
use machine::{Reg, VirtAddr};
use rustc_hash::FxHashSet;

use super::address_shape::{self, AddressShape};
use crate::vocabulary::{CodeSource, RegisterSet, STACK_POINTER};

/// What an unseen instruction does.
#[derive(Clone, Default, Debug)]
pub struct Unseen {
    /// Registers that it (or the function it calls) may define.
    pub defines: RegisterSet,
    /// Shapes of its stores.
    pub stores: Vec<AddressShape>,
    /// Those of them that go through a register, with it.
    pub through: Vec<(Var, AddressShape)>,
    /// The function it calls, where that is known.
    pub calls: Option<VirtAddr>,
}

/// The most instructions of a called function that are looked at.
const MAX_CALLEE: usize = 64;

/// The registers in which a called function may leave something that its caller uses: its results.
/// A compiler keeps nothing else that it needs in registers that a call may change.
fn call_results() -> RegisterSet {
    [Reg::Rax, Reg::Rdx].into_iter().map(|reg| Var(reg as u16)).collect()
}

impl Unseen {
    /// What an instruction does.
    #[must_use]
    pub fn of(insn: &lift::Insn, source: &dyn CodeSource, mode: lift::Mode) -> Self {
        let mut defines: RegisterSet = insn.ops.iter().filter_map(ir::Op::def).collect();
        for op in insn.ops.iter().filter(|op| matches!(op.kind, Kind::Call | Kind::SysEnter)) {
            defines = match op.args[0] {
                Arg::Const(callee) => callee_defines(source, mode, VirtAddr(callee)),
                Arg::Var(_) | Arg::Relocated(_) => call_results(),
            };
        }
        // Where paths of compiled code join, they have the same stack pointer.
        defines.remove(STACK_POINTER);
        let calls = insn.ops.iter().find_map(|op| match (op.kind, op.args[0]) {
            (Kind::Call, Arg::Const(callee)) => Some(VirtAddr(callee)),
            _ => None,
        });
        // A call's own store is its return address.
        let own: &[ir::Op] = if calls.is_some() { &[] } else { &insn.ops };
        let (stores, through) =
            (address_shape::stores(own).collect(), address_shape::stores_through(own).collect());
        Self { defines, stores, through, calls }
    }
}

/// The results that a called function may leave in registers. Those that it saves on entry and
/// gives back are none: assembly stubs around slow paths do so with all registers.
fn callee_defines(source: &dyn CodeSource, mode: lift::Mode, entry: VirtAddr) -> RegisterSet {
    let (mut saved, mut restored) = (RegisterSet::default(), RegisterSet::default());
    let (mut stack, mut seen) = (vec![entry], FxHashSet::default());
    while let Some(pc) = stack.pop() {
        if seen.len() >= MAX_CALLEE || !seen.insert(pc) {
            continue;
        }
        let Some(insn) = source.insn(mode, pc) else { return call_results() };
        let moves_stack = insn.ops.iter().any(|op| op.def() == Some(STACK_POINTER));
        let loads = insn.ops.iter().any(|op| op.kind == Kind::Load);
        for op in insn.ops.iter().filter(|_| moves_stack) {
            match (op.kind, op.args[1]) {
                (Kind::Store, Arg::Var(var)) if var.is_reg() => saved.insert(var),
                _ => {}
            }
            if let Some(var) = op.def().filter(|var| var.is_reg() && loads) {
                restored.insert(var);
            }
        }
        let fallthrough = pc.add(u64::from(insn.len));
        match lift::flow(&insn) {
            lift::Flow::Jump(target) => stack.push(VirtAddr(target)),
            lift::Flow::Branch { taken } => stack.extend([VirtAddr(taken), fallthrough]),
            lift::Flow::Return | lift::Flow::IndirectJump | lift::Flow::Exit | lift::Flow::Stop => {}
            _ => stack.push(fallthrough),
        }
    }
    call_results().without(&saved.intersection(&restored))
}

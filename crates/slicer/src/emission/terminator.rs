//! The terminators of blocks whose instruction calls, returns or jumps.

use ir::program::{Arm, Callee, FuncId, Target, Terminator};
use ir::{Arg, Kind, Op, Var, Width};
use machine::VirtAddr;

use super::body::Body;
use crate::vocabulary::{ContextId, STACK_POINTER, SiteId};

/// Holds the stack pointer across a call instruction's own push.
const SAVED_STACK: Var = Var::temp(1000);

impl Body<'_> {
    /// The terminator for an instruction's final control operation; `end` is the address of the end
    /// mark if it comes next.
    pub(super) fn control(
        &mut self,
        site: SiteId,
        op: &Op,
        included: bool,
        ops: &mut Vec<Op>,
        end: Option<VirtAddr>,
    ) -> Terminator {
        let flow = self.flow(site);
        match op.kind {
            Kind::Call | Kind::SysEnter if !flow.calls.is_empty() => {
                let then = match end {
                    Some(end) => self.ending(end),
                    None => self.after_call(site),
                };
                if included { self.call(site, op, ops, then) } else { Terminator::Goto(then) }
            }
            Kind::Ret | Kind::SysExit if flow.returns && flow.next.is_empty() && flow.tails.is_empty() => {
                Terminator::Goto(Target::Return)
            }
            _ if included && matches!(op.args[0], Arg::Var(_)) => {
                let mut arms = self.arms(site);
                if let Some(end) = end {
                    arms.retain(|arm| arm.value != end.0);
                    arms.push(Arm { value: end.0, target: self.ending(end) });
                    arms.sort_unstable_by_key(|arm| arm.value);
                }
                Terminator::Switch { value: op.args[0], arms }
            }
            _ if end.is_some() => Terminator::End,
            _ => Terminator::Goto(self.onward(site)),
        }
    }

    /// A call that is in the slice.
    fn call(&mut self, site: SiteId, op: &Op, ops: &mut Vec<Op>, then: Target) -> Terminator {
        let calls = &self.flow(site).calls;
        let delta = self.stack_delta(calls[0].1);
        let mode = self.code(site).map_or(lift::Mode::Bits64, |code| code.mode);
        // Where a register of the processor's says where the system begins, that is the system's
        // own; a gate in memory is the target's word, like any other pointer to code.
        let by_register = matches!(op.args[0], Arg::Var(var) if var.is_reg()) && op.kind == Kind::SysEnter;
        let direct = matches!(op.args[0], Arg::Const(_)) || by_register;
        let callee = if direct {
            let Some(&function) = self.ids.get(&calls[0].1) else {
                if delta != 0 {
                    ops.insert(0, stack_after(mode, delta));
                    ops.push(Op::new(Kind::Mov, Width::B64, STACK_POINTER, &[SAVED_STACK.into()]));
                }
                return Terminator::Goto(then);
            };
            Callee::Direct(function)
        } else {
            // A call has one stack delta. Callees with another one get no arm, as if no recording
            // had seen them.
            let alike = calls.iter().filter(|call| self.stack_delta(call.1) == delta);
            let arm = |&(pc, context): &(VirtAddr, ContextId)| Arm::<Option<FuncId>> {
                value: pc.0,
                target: self.ids.get(&context).copied(),
            };
            let mut arms: Vec<Arm<Option<FuncId>>> = alike.map(arm).collect();
            arms.sort_by_key(|arm| arm.value);
            Callee::Indirect { value: op.args[0], arms }
        };
        // The return sets the stack pointer to what it was before the call, plus the stack delta,
        // so it is saved before the call's own push.
        if delta != 0 || self.pushes(site) {
            ops.insert(0, stack_after(mode, delta));
            return Terminator::Call { callee, stack: SAVED_STACK, then };
        }
        Terminator::Call { callee, stack: STACK_POINTER, then }
    }

    fn stack_delta(&self, context: ContextId) -> i64 {
        self.emission.graph.contexts[context].convention.stack_delta
    }

    /// Whether the slice has an operation of the site that moves the stack pointer.
    fn pushes(&self, site: SiteId) -> bool {
        let info = self.emission.graph.sites[site];
        let ops = self.code(site).map_or(&[][..], |code| &code.insn.ops);
        let mut moving = ops.iter().enumerate().filter(|(_, op)| op.def() == Some(STACK_POINTER));
        moving.any(|(index, _)| self.emission.slice.ops.contains(info.op(index)))
    }
}

/// Before a call: sets [`SAVED_STACK`] to the stack pointer that it leaves.
fn stack_after(mode: lift::Mode, delta: i64) -> Op {
    let width = if mode == lift::Mode::Bits64 { Width::B64 } else { Width::B32 };
    match delta {
        0 => Op::new(Kind::Mov, Width::B64, SAVED_STACK, &[STACK_POINTER.into()]),
        _ => Op::new(Kind::Add, width, SAVED_STACK, &[STACK_POINTER.into(), delta.cast_unsigned().into()]),
    }
}

//! Finds the callee-saved registers and the stack delta of each context.
//!
//! If a use after a return depended on the pop that restored a register, and so on the push that
//! saved it, slices would take in every function that was ever called. So every value has an
//! *origin*: a new one where it is computed, that of its source where it is only copied (moves,
//! full stores and loads, so pushes and pops too). A register is *callee-saved* in a context when
//! in every instance, in every recording, its origin at the return is that at the call:
//!
//! ```text
//! saved(c) = intersection over all returns r from c of
//!            { v : origin(v, at r) = origin(v, before the call that r returns from) }
//! ```
//!
//! Uses after the return then depend on the definition before the call, and a program's call gives
//! these registers back. The stack pointer is compared by value: a function either leaves it as it
//! was, or, where it takes its arguments off the stack, always by the same *stack delta* above.
//! Observed, not proved: a function that gave a register back in every recorded call is taken to do
//! so always. Cost: one pass over the retained steps, with a copy of all origins for each step.

use ir::{Arg, Kind, Op, Var, Width};
use lift::Mode;
use machine::{PROCESS_REGS, PhysAddr, Reg, hash};

use super::contexts::{Contexts, Transition};
use super::walk::{SummaryCall, Visitor};
use crate::error::Error;
use crate::recording::replay::{Ended, MemRef};
use crate::vocabulary::{ContextId, RESULT, RegisterSet, RegisterValues, STACK_POINTER, Table};

/// How a call of a context leaves its caller's registers.
#[derive(Clone, Copy, Default, Debug)]
pub struct Convention {
    /// Registers that it gives back as they were before the call instruction, whatever that defines
    /// itself. The stack pointer is one even if the stack delta is not 0, for the delta is known.
    pub callee_saved: RegisterSet,
    /// How far above its caller's stack pointer it leaves the stack pointer, in bytes.
    pub stack_delta: i64,
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Origin(u32);

struct Frame {
    context: ContextId,
    /// Origins and values before the call, and the stack pointer.
    origins: Box<RegisterValues<Origin>>,
    values: Box<RegisterValues>,
    stack: u64,
}

/// The visitor that computes callee-saved registers.
pub struct CalleeSaved {
    /// `None` for a context that was never seen to return: it saves nothing.
    saved: Table<ContextId, Option<RegisterSet>>,
    /// The distinct stack deltas with which each context returned, in bytes.
    deltas: Table<ContextId, Vec<i64>>,
    state: State,
}

/// What is known at a point of one recording.
struct State {
    origins: Box<RegisterValues<Origin>>,
    /// Origins before the running instruction.
    before: Box<RegisterValues<Origin>>,
    temps: Vec<Origin>,
    memory: hash::Map<PhysAddr, (Origin, Width)>,
    last: Origin,
    frames: Vec<Frame>,
    stack: u64,
    stack_before: u64,
    /// What registers hold after the last step.
    values: Box<RegisterValues>,
    /// Other tasks ran in the call that this step returns from.
    switched: bool,
    /// Width of the running code's general registers: narrower copies are new values.
    width: Width,
}

impl State {
    fn new(stack: u64) -> Self {
        let mut origins = Box::new(RegisterValues::all(Origin(0)));
        for at in 0..Var::FIRST_TEMP {
            origins[Var(at)] = Origin(u32::from(at));
        }
        Self {
            before: origins.clone(),
            origins,
            temps: Vec::new(),
            memory: hash::Map::default(),
            last: Origin(u32::from(Var::FIRST_TEMP)),
            frames: Vec::new(),
            stack,
            stack_before: 0,
            values: Box::new(RegisterValues::all(0)),
            switched: false,
            width: Width::B64,
        }
    }

    fn fresh(&mut self) -> Origin {
        self.last = Origin(self.last.0.wrapping_add(1));
        self.last
    }

    fn origin(&self, arg: Arg) -> Option<Origin> {
        match arg {
            Arg::Var(var) if var.is_reg() => Some(self.origins[var]),
            Arg::Var(var) => self.temps.get((var.0 - Var::FIRST_TEMP) as usize).copied(),
            Arg::Const(_) | Arg::Relocated(_) => None,
        }
    }

    fn define(&mut self, var: Var, origin: Origin) {
        if var.is_reg() {
            self.origins[var] = origin;
        } else {
            let at = (var.0 - Var::FIRST_TEMP) as usize;
            if self.temps.len() <= at {
                self.temps.resize(at + 1, Origin(0));
            }
            self.temps[at] = origin;
        }
    }

    /// Other tasks ran in a call. What is not as it was before has an unknown origin.
    fn forget_changed(&mut self, frame: &Frame, regs: &RegisterValues) {
        for var in (0..Var::FIRST_TEMP).map(Var).filter(|&var| frame.values[var] != regs[var]) {
            self.origins[var] = self.fresh();
        }
    }

    /// A value of this origin, if it is known, is stored. What the store touches loses its old
    /// origin.
    fn store(&mut self, mem: &MemRef, aligned: bool, origin: Option<Origin>) {
        for at in (mem.paddr.0 & !7..mem.paddr.0 + u64::from(mem.size)).step_by(4) {
            self.memory.remove(&PhysAddr(at));
        }
        if let (true, Some(origin)) = (aligned, origin) {
            self.memory.insert(mem.paddr, (origin, self.width));
        }
    }

    /// The origin of a full load. The first load of a cell gives it an origin, so that a value that
    /// is saved elsewhere and brought back is recognised.
    fn load(&mut self, mem: &MemRef) -> Origin {
        let known = self.memory.get(&mem.paddr).filter(|(_, width)| *width == self.width);
        let origin = match known {
            Some(&(origin, _)) => origin,
            None => self.fresh(),
        };
        self.memory.insert(mem.paddr, (origin, self.width));
        origin
    }
}

impl CalleeSaved {
    /// Nothing is known yet of this many contexts.
    #[must_use]
    pub fn new(contexts: usize) -> Self {
        Self {
            saved: Table::filled(contexts, None),
            deltas: Table::filled(contexts, Vec::new()),
            state: State::new(0),
        }
    }

    /// About to walk a recording that begins with this stack pointer; what is known of contexts
    /// stays.
    pub fn restart(&mut self, stack: u64) {
        self.state = State::new(stack);
    }

    /// How each context leaves its caller's registers.
    ///
    /// # Errors
    /// [`Error::Stack`] where a context did not always have the same stack delta.
    pub fn finish(self, contexts: &Contexts) -> Result<Table<ContextId, Convention>, Error> {
        let conventions = self.saved.iter().map(|(context, saved)| {
            let mut callee_saved = saved.unwrap_or_default();
            match self.deltas[context].as_slice() {
                [] | [0] => Ok(Convention { callee_saved, stack_delta: 0 }),
                &[stack_delta] => {
                    callee_saved.insert(STACK_POINTER);
                    Ok(Convention { callee_saved, stack_delta })
                }
                _ => Err(Error::Stack { pc: contexts.entry(context) }),
            }
        });
        conventions.collect()
    }

    /// Notes the stack delta of a context; `before` is the stack pointer before its call.
    fn note_delta(&mut self, context: ContextId, before: u64) {
        let delta = self.state.stack.wrapping_sub(before).cast_signed();
        let known = &mut self.deltas[context];
        if !known.contains(&delta) {
            known.push(delta);
        }
    }

    /// A frame is closed; `by` is the control operation that did it, if it is the outermost of
    /// those closed together.
    fn returned(&mut self, frame: &Frame, by: Option<Kind>) {
        let mut same: RegisterSet = (0..Var::FIRST_TEMP)
            .map(Var)
            .filter(|&var| self.state.origins[var] == frame.origins[var])
            .collect();
        if self.state.stack == frame.stack {
            same.insert(STACK_POINTER);
        } else {
            same.remove(STACK_POINTER);
        }
        if by == Some(Kind::Ret) {
            self.note_delta(frame.context, frame.stack);
        }
        if by == Some(Kind::SysExit) {
            // A system gives a process its registers back, however it does it.
            PROCESS_REGS.iter().for_each(|&reg| same.insert(Var(reg as u16)));
        }
        let saved = &mut self.saved[frame.context];
        let both = saved.unwrap_or(RegisterSet::ALL).intersection(&same);
        *saved = Some(both);
        // What is saved has the caller's origins again, also where the stack pointer or the
        // process's registers were recomputed.
        for var in both.iter() {
            self.state.origins[var] = frame.origins[var];
        }
    }
}

impl Visitor for CalleeSaved {
    fn begin(&mut self, _: ContextId, _: trace::InsnId, mode: Mode) {
        let state = &mut self.state;
        state.width = if mode == Mode::Bits64 { Width::B64 } else { Width::B32 };
        *state.before = *state.origins;
        state.stack_before = state.stack;
    }

    fn op(&mut self, _: usize, op: &Op, _: u64, mem: Option<MemRef>) {
        let state = &mut self.state;
        let whole = op.width == state.width;
        let aligned = |mem: &MemRef| mem.paddr.0.is_multiple_of(u64::from(mem.size.max(1))) && whole;
        if op.kind == Kind::Store
            && let Some(mem) = &mem
        {
            state.store(mem, aligned(mem), state.origin(op.args[1]));
        }
        let Some(var) = op.def() else { return };
        let copied = match (op.kind, &mem) {
            (Kind::Mov, _) if whole => state.origin(op.args[0]),
            (Kind::Load, Some(mem)) if aligned(mem) => Some(state.load(mem)),
            _ => None,
        };
        let origin = match copied {
            Some(origin) => origin,
            None => state.fresh(),
        };
        state.define(var, origin);
    }

    fn switched(&mut self) {
        self.state.switched = true;
    }

    fn end(&mut self, transition: Transition, ended: &Ended, regs: &RegisterValues) {
        self.state.stack = regs[Reg::Rsp];
        let switched = std::mem::take(&mut self.state.switched);
        match transition {
            Transition::Call(context) => {
                let (origins, stack) = (self.state.before.clone(), self.state.stack_before);
                let values = self.state.values.clone();
                self.state.frames.push(Frame { context, origins, values, stack });
            }
            Transition::Return(count) => {
                for nth in 1..=count {
                    let Some(frame) = self.state.frames.pop() else { return };
                    if switched {
                        self.state.forget_changed(&frame, regs);
                    }
                    self.returned(&frame, ended.control.filter(|_| nth == count));
                }
            }
            Transition::Stay | Transition::Tail(_) => {}
        }
        *self.state.values = *regs;
    }

    fn summary(&mut self, _: ContextId, call: &SummaryCall) {
        if let Some(frame) = self.state.frames.pop() {
            self.state.stack = frame.stack.wrapping_add(call.summary.pops.into());
            self.note_delta(frame.context, frame.stack);
            let mut all = RegisterSet::ALL;
            all.remove(RESULT);
            self.saved[frame.context] = Some(all);
            *self.state.origins = *frame.origins;
        }
        let fresh = self.state.fresh();
        self.state.define(RESULT, fresh);
    }
}

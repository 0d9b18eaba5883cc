//! Walks the retained steps of a recording with their contexts: the common loop of the analyses.
//!
//! Bodies of the trainer's allocator functions are executed silently; the visitor sees one
//! [`Visitor::summary`] instead.

use ir::summary::{ArgumentLocation, Summary};
use ir::{Kind, Op};
use lift::Mode;
use machine::paging::address_space;
use machine::{Reg, VirtAddr, hash};
use rustc_hash::FxHashMap;
use trace::{Access, InsnId};

use super::contexts::{ContextPath, Contexts, Transition};
use crate::error::Error;
use crate::filter::Retained;
use crate::recording::Recording;
use crate::recording::replay::{Blind, Ended, MemRef, Mismatch, Observer, Replay};
use crate::vocabulary::{ContextId, Id, RESULT, RegisterValues, RetainedId, StepId};

/// Sees a walk.
pub trait Visitor {
    /// A step in `context` begins; `insn` is the instruction's number in the trace.
    fn begin(&mut self, context: ContextId, insn: InsnId, mode: Mode);
    /// An operation of the step.
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>);
    /// The step ended; registers are as after it.
    fn end(&mut self, transition: Transition, ended: &Ended, regs: &RegisterValues);
    /// A step passes that was cut; `here` when the processor uses the address space of the recorded
    /// process.
    fn passes(&mut self, _accesses: &[Access], _here: bool) {}
    /// Other tasks ran in the call that the next step returns from.
    fn switched(&mut self) {}
    /// The next step loads what a device wrote.
    fn unexplained(&mut self) {}
    /// A call of an allocator function returned.
    fn summary(&mut self, context: ContextId, call: &SummaryCall);
}

/// A finished call of an allocator function.
#[derive(Clone, Copy, Debug)]
pub struct SummaryCall {
    /// Which function it is.
    pub summary: Summary,
    /// The values of its arguments.
    pub args: [u64; 2],
    /// The stack pointer at its entry.
    pub stack: VirtAddr,
    /// Its result.
    pub result: u64,
}

/// An allocator function whose body is executed silently.
struct Silent {
    context: ContextId,
    call: SummaryCall,
    /// Calls in it that have not returned.
    depth: u32,
}

/// What was stored last, by byte. It is kept only if some allocator function has arguments on the
/// stack, which are read from here.
#[derive(Default)]
struct Stored {
    on: bool,
    bytes: hash::Map<VirtAddr, u8>,
}

impl Stored {
    /// The little-endian word at an address.
    fn word(&self, address: VirtAddr, bytes: u64) -> Option<u64> {
        (0..bytes)
            .rev()
            .try_fold(0, |value, n| Some(value << 8 | u64::from(*self.bytes.get(&address.add(n))?)))
    }
}

struct Forward<'v, V> {
    visitor: &'v mut V,
    silent: bool,
    stored: &'v mut Stored,
}

impl<V: Visitor> Observer for Forward<'_, V> {
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>) {
        if self.stored.on
            && op.kind == Kind::Store
            && let Some(mem) = &mem
        {
            for n in 0..u64::from(mem.size) {
                self.stored.bytes.insert(mem.vaddr.add(n), (value >> (8 * n)) as u8);
            }
        }
        if !self.silent {
            self.visitor.op(index, op, value, mem);
        }
    }
}

/// Walks a recording. `summaries` maps entry addresses to allocator functions.
///
/// # Errors
/// [`Error::Replay`] when a step does not do what was recorded: whatever is concluded from it would
/// be wrong; [`Error::Allocator`] when an allocator's arguments are not in the trace.
pub fn walk<V: Visitor>(
    recording: &Recording,
    retained: &Retained,
    path: &ContextPath,
    contexts: &Contexts,
    summaries: &FxHashMap<VirtAddr, Summary>,
    visitor: &mut V,
) -> Result<(), Error> {
    let on_stack = |summary: &Summary| {
        summary.args().iter().any(|location| matches!(location, ArgumentLocation::Stack(_)))
    };
    let stored = Stored { on: summaries.values().any(on_stack), ..Stored::default() };
    let replay = Replay::new(recording);
    let mut walk = Walk { recording, retained, path, contexts, summaries, replay, silent: None, stored };
    let mut next = StepId::new(0);
    for (at, &step) in retained.steps.iter() {
        walk.pass_over(next, step, visitor);
        walk.step(at, step, visitor)?;
        next = step.next();
    }
    Ok(())
}

struct Walk<'w> {
    recording: &'w Recording,
    retained: &'w Retained,
    path: &'w ContextPath,
    contexts: &'w Contexts,
    summaries: &'w FxHashMap<VirtAddr, Summary>,
    replay: Replay<'w>,
    silent: Option<Silent>,
    stored: Stored,
}

impl Walk<'_> {
    /// Passes over the steps from `from` on that were cut before `step`.
    fn pass_over<V: Visitor>(&mut self, from: StepId, step: StepId, visitor: &mut V) {
        let (recording, replay) = (self.recording, &mut self.replay);
        let own = address_space(recording.begin_regs().get_or_zero(Reg::Cr3));
        let switched = self.retained.switched.contains(&step);
        let mut last: Option<Ended> = None;
        let mut skipped = from;
        while skipped < step {
            if switched {
                // The return needs the registers as the end of the cut call leaves them, so its
                // steps are replayed.
                let pc = recording.pc(skipped);
                if last.is_some_and(|last| !last.leads_to(pc)) {
                    replay.interrupted(pc);
                }
                last = Some(replay.step(skipped, &mut Blind));
            } else {
                replay.skip(skipped);
            }
            let here = replay.last_recorded(Reg::Cr3).is_none_or(|cr3| address_space(cr3) == own);
            visitor.passes(recording.accesses_of(skipped), here);
            skipped = skipped.next();
        }
        if switched {
            visitor.switched();
        }
    }

    /// A retained step.
    fn step<V: Visitor>(&mut self, at: RetainedId, step: StepId, visitor: &mut V) -> Result<(), Error> {
        let recording = self.recording;
        if self.retained.unexplained.contains(&step) {
            visitor.unexplained();
        }
        let silent = self.silent.is_some();
        if !silent {
            let mode = recording.code_of(step).mode;
            visitor.begin(self.path.contexts[at], recording.steps[step].insn, mode);
        }
        self.replay.step(step, &mut Forward { visitor, silent, stored: &mut self.stored });
        let failed = self.replay.mismatches.iter().find(|it| !matches!(it, Mismatch::Unsupported { .. }));
        if let Some(it) = failed {
            let name = recording.name.clone();
            return Err(Error::Replay { name, pc: recording.pc(step), what: format!("{it:x?}") });
        }
        let transition = self.path.transitions[at];
        if silent {
            self.silent_step(transition, visitor);
            return Ok(());
        }
        visitor.end(transition, &self.retained.ended[at], &self.replay.regs);
        // An allocator that is entered by a tail call is executed like other code: its frame
        // belongs to the function that jumped.
        if let Transition::Call(context) = transition
            && let Some(&summary) = self.summaries.get(&self.contexts.entry(context))
        {
            let call = self.allocator_call(context, summary)?;
            self.silent = Some(Silent { context, call, depth: 0 });
        }
        Ok(())
    }

    /// A step of an allocator's body.
    fn silent_step<V: Visitor>(&mut self, transition: Transition, visitor: &mut V) {
        let Some(body) = &mut self.silent else { return };
        match transition {
            Transition::Call(_) => body.depth += 1,
            Transition::Return(n) if n <= body.depth => body.depth -= n,
            Transition::Return(_) => {
                let result = self.replay.regs[RESULT];
                visitor.summary(body.context, &SummaryCall { result, ..body.call });
                self.silent = None;
            }
            Transition::Stay | Transition::Tail(_) => {}
        }
    }

    /// The call of an allocator that the processor is about to begin.
    fn allocator_call(&self, context: ContextId, summary: Summary) -> Result<SummaryCall, Error> {
        let stack = VirtAddr(self.replay.regs[Reg::Rsp]);
        let word = if self.recording.is_wide() { 8 } else { 4 };
        let mut args = [0; 2];
        for (arg, &location) in args.iter_mut().zip(summary.args()) {
            let value = match location {
                ArgumentLocation::Register(var) => Some(self.replay.regs[var]),
                ArgumentLocation::Stack(distance) => self.stored.word(stack.add(distance.into()), word),
            };
            let name = self.recording.name.clone();
            *arg = value.ok_or(Error::Allocator { name, pc: self.contexts.entry(context) })?;
        }
        Ok(SummaryCall { summary, args, stack, result: 0 })
    }
}

//! Walks the kept steps of a recording with frames: the common loop of the analyses.
//!
//! Bodies of the trainer's allocator functions are executed silently; the visitor sees one summary
//! operation instead.

use ir::summary::{Place, Summary};
use ir::{Kind, Op};
use lift::Mode;
use machine::Reg;
use rustc_hash::FxHashMap;
use trace::Access;

use crate::Error;
use crate::frames::{Functions, Move, Path};
use crate::interrupt::address_space;
use crate::preprocess::Kept;
use crate::recording::Recording;
use crate::replay::{Blind, Ended, MemRef, Mismatch, Observer, Replay};
use crate::summary::SUMMARY_RESULT;

/// Sees a walk.
pub trait Visitor {
    /// A step of function `func` begins; `code` is the recording's instruction number.
    fn begin(&mut self, func: u32, code: u32, mode: Mode);
    /// An operation of the step.
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>);
    /// The step ended; registers are as after it.
    fn end(&mut self, step_move: Move, ended: &Ended, regs: &[u64; 256]);
    /// A step that is no work of the recording's own task passes; `here` when the processor uses
    /// the task's address space.
    fn passes(&mut self, _accesses: &[Access], _here: bool) {}
    /// Other tasks ran in the call that the next step returns from.
    fn switched(&mut self) {}
    /// The next step loads what a device wrote.
    fn unexplained(&mut self) {}
    /// A call to a summarised function returned: its number, argument and result values.
    fn summary(&mut self, func: u32, call: &SummaryCall);
}

/// A finished call of an allocator function.
#[derive(Clone, Copy, Debug)]
pub struct SummaryCall {
    /// Which.
    pub summary: Summary,
    /// Its arguments.
    pub args: [u64; 2],
    /// The stack pointer at its entry.
    pub stack: u64,
    /// The result.
    pub result: u64,
}

/// A body that is executed silently.
struct Silent {
    func: u32,
    call: SummaryCall,
    /// Calls in it that have not returned.
    depth: u32,
}

/// What was stored last, byte by byte: arguments on the stack. Kept only where there are such.
#[derive(Default)]
struct Stored {
    on: bool,
    bytes: FxHashMap<u64, u8>,
}

impl Stored {
    fn word(&self, address: u64, bytes: u64) -> Option<u64> {
        (0..bytes)
            .rev()
            .try_fold(0, |value, n| Some(value << 8 | u64::from(*self.bytes.get(&address.wrapping_add(n))?)))
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
                self.stored.bytes.insert(mem.vaddr.wrapping_add(n), (value >> (8 * n)) as u8);
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
/// be wrong; [`Error::Allocator`].
pub fn walk<V: Visitor>(
    recording: &Recording,
    kept: &Kept,
    path: &Path,
    functions: &Functions,
    summaries: &FxHashMap<u64, Summary>,
    visitor: &mut V,
) -> Result<(), Error> {
    let mut replay = Replay::new(recording);
    let own = address_space(recording.begin_regs().get_or_zero(Reg::Cr3));
    let mut silent: Option<Silent> = None;
    let on_stack = |summary: &Summary| summary.args().iter().any(|place| matches!(place, Place::Stack(_)));
    let mut stored = Stored { on: summaries.values().any(on_stack), ..Stored::default() };
    let word = if recording.is_wide() { 8 } else { 4 };
    let mut next = 0;
    for (at, &step) in kept.steps.iter().enumerate() {
        let step = step as usize;
        let switched = kept.switched.contains(&(step as u32));
        let mut last: Option<Ended> = None;
        for skipped in next..step {
            if switched {
                // The registers at the return are what the call's other half leaves.
                if last.is_some_and(|last| !last.complete || last.next != recording.pc(skipped)) {
                    replay.interrupted(recording.pc(skipped));
                }
                last = Some(replay.step(skipped, &mut Blind));
            } else {
                replay.skip(skipped);
            }
            let here = replay.last_recorded(Reg::Cr3).is_none_or(|cr3| address_space(cr3) == own);
            visitor.passes(recording.accesses_of(skipped), here);
        }
        if switched {
            visitor.switched();
        }
        next = step + 1;
        if kept.unexplained.contains(&(step as u32)) {
            visitor.unexplained();
        }
        if silent.is_none() {
            visitor.begin(path.func[at], recording.steps[step].code, recording.code_of(step).mode);
        }
        replay.step(step, &mut Forward { visitor, silent: silent.is_some(), stored: &mut stored });
        if let Some(it) = replay.mismatches.iter().find(|it| !matches!(it, Mismatch::Unsupported { .. })) {
            let name = recording.name.clone();
            return Err(Error::Replay { name, pc: recording.pc(step), what: format!("{it:x?}") });
        }
        let step_move = path.moves[at];
        if let Some(body) = &mut silent {
            match step_move {
                Move::Call(_) => body.depth += 1,
                Move::Return(n) if n <= body.depth => body.depth -= n,
                Move::Return(_) => {
                    let result = replay.regs[SUMMARY_RESULT.0 as usize];
                    visitor.summary(body.func, &SummaryCall { result, ..body.call });
                    silent = None;
                }
                Move::Stay | Move::Tail(_) => {}
            }
            continue;
        }
        visitor.end(step_move, &kept.ended[at], &replay.regs);
        // A tail call of an allocator is simply executed: its frame belongs to the function that
        // jumped.
        if let Move::Call(func) = step_move
            && let Some(&summary) = summaries.get(&functions.keys[func as usize].entry)
        {
            let stack = replay.regs[Reg::Rsp.index()];
            let mut args = [0; 2];
            for (arg, &place) in args.iter_mut().zip(summary.args()) {
                let value = match place {
                    Place::Register(var) => Some(replay.regs[var.0 as usize]),
                    Place::Stack(distance) => stored.word(stack.wrapping_add(distance.into()), word),
                };
                let name = recording.name.clone();
                *arg = value.ok_or(Error::Allocator { name, pc: functions.keys[func as usize].entry })?;
            }
            silent = Some(Silent { func, call: SummaryCall { summary, args, stack, result: 0 }, depth: 0 });
        }
    }
    Ok(())
}

//! Walks the kept steps of a recording with frames: the common loop of the analyses.
//!
//! Bodies of the trainer's allocator functions are executed silently; the visitor sees one summary operation instead.

use ir::program::Summary;
use ir::{Op, Var};
use rustc_hash::FxHashMap;

use crate::Error;
use crate::frames::{Functions, Move, Path};
use crate::preprocess::Kept;
use crate::recording::Recording;
use crate::replay::{Ended, MemRef, Mismatch, Observer, Replay};

/// Sees a walk.
pub trait Visitor {
    /// A step of function `func` begins; `code` is the recording's instruction number.
    fn begin(&mut self, func: u32, code: u32);
    /// An operation of the step.
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>);
    /// The step ended; registers are as after it.
    fn end(&mut self, step_move: Move, ended: &Ended, regs: &[u64; 256]);
    /// A call to a summarised function returned: its number, argument and result values.
    fn summary(&mut self, func: u32, call: &SummaryCall);
}

/// A finished call of an allocator function.
#[derive(Clone, Copy, Debug)]
pub struct SummaryCall {
    /// Which.
    pub summary: Summary,
    /// The first two arguments.
    pub args: [u64; 2],
    /// The result.
    pub result: u64,
}

struct Forward<'v, V> {
    visitor: &'v mut V,
    silent: bool,
}

impl<V: Visitor> Observer for Forward<'_, V> {
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>) {
        if !self.silent {
            self.visitor.op(index, op, value, mem);
        }
    }
}

/// Where a C function's first two integer arguments and its result are (System V AMD64 ABI 3.2.3).
pub const SUMMARY_ARGS: [Var; 2] = [Var(machine::Reg::Rdi as u16), Var(machine::Reg::Rsi as u16)];
/// The result register.
pub const SUMMARY_RESULT: Var = Var(machine::Reg::Rax as u16);

/// Walks a recording. `summaries` maps entry addresses to allocator functions.
///
/// # Errors
/// [`Error::Replay`] when a step does not do what was recorded: whatever is concluded from it would be wrong.
pub fn walk<V: Visitor>(
    recording: &Recording,
    kept: &Kept,
    path: &Path,
    functions: &Functions,
    summaries: &FxHashMap<u64, Summary>,
    visitor: &mut V,
) -> Result<(), Error> {
    let mut replay = Replay::new(recording);
    let mut silent: Option<(u32, Summary, [u64; 2], u32)> = None;
    let mut next = 0;
    for (at, &step) in kept.steps.iter().enumerate() {
        let step = step as usize;
        (next..step).for_each(|skipped| replay.skip(skipped));
        next = step + 1;
        let is_silent = silent.is_some();
        if !is_silent {
            visitor.begin(path.func[at], recording.steps[step].code);
        }
        replay.step(step, &mut Forward { visitor, silent: is_silent });
        if let Some(it) = replay.mismatches.iter().find(|it| !matches!(it, Mismatch::Unsupported { .. })) {
            let name = recording.name.clone();
            return Err(Error::Replay { name, pc: recording.pc(step), what: format!("{it:x?}") });
        }
        let step_move = path.moves[at];
        if let Some((func, summary, args, depth)) = &mut silent {
            match step_move {
                Move::Call(_) => *depth += 1,
                Move::Return(n) if n <= *depth => *depth -= n,
                Move::Return(_) => {
                    let result = replay.regs[SUMMARY_RESULT.0 as usize];
                    let call = SummaryCall { summary: *summary, args: *args, result };
                    visitor.summary(*func, &call);
                    silent = None;
                }
                Move::Stay | Move::Tail(_) => {}
            }
            continue;
        }
        visitor.end(step_move, &kept.ended[at], &replay.regs);
        // A tail call of an allocator is simply executed: its frame belongs to the function that jumped.
        if let Move::Call(func) = step_move
            && let Some(&summary) = summaries.get(&functions.keys[func as usize].entry)
        {
            let args = SUMMARY_ARGS.map(|var| replay.regs[var.0 as usize]);
            silent = Some((func, summary, args, 0));
        }
    }
    Ok(())
}

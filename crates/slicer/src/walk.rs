//! Walks the kept steps of a recording with frames: the common loop of the analyses.
//!
//! Bodies of the trainer's allocator functions are executed silently; the visitor sees one summary operation instead.

use ir::program::Summary;
use ir::{Kind, Op, Var};
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

/// Sees a walk.
pub trait Visitor {
    /// A step of function `func` begins; `code` is the recording's instruction number.
    fn begin(&mut self, func: u32, code: u32, mode: Mode);
    /// An operation of the step.
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>);
    /// The step ended; registers are as after it.
    fn end(&mut self, step_move: Move, ended: &Ended, regs: &[u64; 256]);
    /// A step that is no work of the recording's own task passes; `here` when the processor uses the task's address space.
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
    /// The first two arguments; on the stack those that it read.
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
    /// Which arguments are known.
    known: [bool; 2],
}

struct Forward<'v, V> {
    visitor: &'v mut V,
    silent: Option<&'v mut Silent>,
}

impl<V: Visitor> Observer for Forward<'_, V> {
    fn op(&mut self, index: usize, op: &Op, value: u64, mem: Option<MemRef>) {
        let Some(silent) = &mut self.silent else { return self.visitor.op(index, op, value, mem) };
        let Some(mem) = mem.filter(|_| op.kind == Kind::Load) else { return };
        for n in 0..silent.known.len() {
            if !silent.known[n] && mem.vaddr == silent.call.stack.wrapping_add(argument(n)) {
                (silent.call.args[n], silent.known[n]) = (value, true);
            }
        }
    }
}

/// Where a 64-bit C function's first two integer arguments are (System V AMD64 ABI 3.2.3).
pub const SUMMARY_ARGS: [Var; 2] = [Var(Reg::Rdi as u16), Var(Reg::Rsi as u16)];

/// How far above its stack pointer at the entry a 32-bit C function has an argument (System V i386 ABI 2.2.3).
#[must_use]
pub const fn argument(n: usize) -> u64 {
    4 * (n as u64 + 1)
}

/// The result register.
pub const SUMMARY_RESULT: Var = Var(Reg::Rax as u16);

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
    let own = address_space(recording.begin_regs().get_or_zero(Reg::Cr3));
    let mut silent: Option<Silent> = None;
    let mut next = 0;
    for (at, &step) in kept.steps.iter().enumerate() {
        let step = step as usize;
        let switched = kept.switched.contains(&(step as u32));
        let mut last: Option<Ended> = None;
        for skipped in next..step {
            if switched {
                // The registers at the return are what the call's other half leaves.
                if last.is_some_and(|last| !last.complete || last.next != recording.pc(skipped)) {
                    replay.interrupted();
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
        replay.step(step, &mut Forward { visitor, silent: silent.as_mut() });
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
        // A tail call of an allocator is simply executed: its frame belongs to the function that jumped.
        if let Move::Call(func) = step_move
            && let Some(&summary) = summaries.get(&functions.keys[func as usize].entry)
        {
            let wide = recording.is_wide();
            let args = if wide { SUMMARY_ARGS.map(|var| replay.regs[var.0 as usize]) } else { [0; 2] };
            let call = SummaryCall { summary, args, stack: replay.regs[Reg::Rsp.index()], result: 0 };
            silent = Some(Silent { func, call, depth: 0, known: [wide; 2] });
        }
    }
    Ok(())
}

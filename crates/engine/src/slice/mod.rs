//! Runs a slice: executes a program's blocks, predecoded, over the target's memory.
//!
//! Calls and returns are the program's own ([`frames`]). Where control would leave what training
//! saw, the run stops. What was executed often is machine code from the next run on ([`compiled`]).

mod block;
mod compiled;
mod frames;
mod way;

use std::sync::Arc;

use ir::Program;
use ir::program::Target;
use jit::Spare;
use jit::progress::Exit as Left;
use machine::Reg;

use crate::checkpoint::{Checkpoint, perform};
use crate::code::{Given, restore};
use crate::counter::{Counter, briefly, settled};
use crate::idle::Idle;
use crate::limits::Budget;
use crate::outcome::{Outcome, Stopped};
use crate::predecode::{Pool, Predecoded, Slots, TooLarge, clear, slots};
use crate::process::ProcessPages;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};
use crate::start::{NoAnswer, outcome};
use crate::value::Values;
use crate::variables::{Inputs, collect, prepare};
use block::{Block, Exit, Function, Go, exit};
use compiled::{BY_ITS_END, Compiler, Machine};
use frames::Frames;
use way::{State, Way};

/// A program made ready to run any number of times.
pub struct SliceProgram<'p> {
    program: &'p Program,
    ops: Vec<Predecoded>,
    blocks: Vec<Block>,
    functions: Vec<Function>,
    pool: Pool,
    process: ProcessPages<'p>,
    compiler: Compiler,
    /// Slots of runs that are over, for the next ones.
    idle: Idle<Box<Slots>>,
}

/// What a run is made of, beside the program.
#[derive(Clone, Copy)]
struct Asked<'a, 't> {
    run: &'a Run<'t>,
    relocation: &'a Relocation<'a>,
    given: Given<'a>,
}

impl<'p> SliceProgram<'p> {
    /// Prepares a verified program.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn new(program: &'p Program) -> Result<Self, TooLarge> {
        let mut first_block = Vec::with_capacity(program.functions.len());
        let mut count = 0u32;
        for function in &program.functions {
            first_block.push(count);
            count += function.blocks.len() as u32;
        }
        let mut ready = Self {
            program,
            ops: Vec::new(),
            blocks: Vec::new(),
            functions: Vec::new(),
            pool: Pool::default(),
            process: ProcessPages::new(program),
            compiler: Compiler::new(count as usize),
            idle: Idle::default(),
        };
        for (number, function) in program.functions.iter().enumerate() {
            let base = first_block[number];
            let go = |target: Target| match target {
                Target::Block(id) => Go::Block(base + id.0),
                Target::Tail(func) => Go::Block(first_block[func.0 as usize]),
                Target::Return => Go::Return,
                Target::Unexplored(pc) => Go::Unexplored(pc),
            };
            let callee_saved =
                function.callee_saved.iter().map(|&var| Pool::var(var)).collect::<Result<_, _>>()?;
            ready.functions.push(Function { entry: base, callee_saved });
            for block in &function.blocks {
                let first = ready.ops.len() as u32;
                for op in &block.ops {
                    let op = ready.pool.op(op)?;
                    ready.ops.push(op);
                }
                let end = exit(&block.term, &mut ready.pool, go)?;
                let last = ready.ops.len() as u32;
                ready.blocks.push(Block { first, last, pc: block.pc, end_pc: block.term_pc, end });
            }
        }
        Ok(ready)
    }

    /// Bytes of machine code that runs have been worth so far.
    #[must_use]
    pub fn machine_code(&self) -> usize {
        self.compiler.size()
    }

    /// Runs over a target; `inputs` as [`crate::parse_inputs`] makes them. The results are the
    /// outcome and the fuel used: operations, and one more for each block.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn run(&self, run: &Run<'_>, inputs: &Inputs) -> Result<(Outcome, u64), RunError> {
        let budget = Budget::new(&run.limits);
        let relocation = Relocation::find(self.program, run)?;
        let tsc = run.time_stamp(self.program, &relocation);
        let given = Given { inputs, restored: &[] };
        self.answer(run, &relocation, tsc, (given, budget))
    }

    /// The same where the program was found in the target, and the counter's value, if it is known.
    pub(crate) fn answer(
        &self,
        run: &Run<'_>,
        relocation: &Relocation<'_>,
        tsc: Option<u64>,
        (given, budget): (Given<'_>, Budget),
    ) -> Result<(Outcome, u64), RunError> {
        let known = [tsc, None];
        let mut counter = Counter::announced(known);
        let (mut checkpoint, mut slots) = (None, self.idle.take().unwrap_or_else(slots));
        let asked = Asked { run, relocation, given };
        let (first, used) = self.once(asked, budget, &mut slots, (&mut counter, &mut checkpoint))?;
        let brief = briefly(run, used);
        let asked = Asked { run: &brief, ..asked };
        let again = |counter: &mut Counter| {
            let budget = Budget::new(&brief.limits);
            match &mut checkpoint {
                Some(checkpoint) => {
                    let (overlay, state) = checkpoint.restore(&mut slots, Spare::default());
                    let way = Way { state, slots: &mut slots, overlay, counter, checkpoint: &mut None };
                    outcome(self.end(asked, budget, way).0)
                }
                None => Ok(self.once(asked, budget, &mut slots, (counter, &mut None))?.0),
            }
        };
        let (settled, _) = settled(first, (&counter, known), false, again)?;
        self.idle.give(slots);
        Ok((settled, used))
    }

    /// One run with this counter, and the fuel that it used.
    fn once<'a>(
        &'a self,
        asked: Asked<'a, '_>,
        budget: Budget,
        slots: &mut Slots,
        (counter, checkpoint): (&mut Counter, &mut Option<Checkpoint<'a, State>>),
    ) -> Result<(Outcome, u64), RunError> {
        let Asked { run, relocation, given } = asked;
        let overlay = match run.overlay(self.program, relocation, &self.process) {
            Ok(overlay) => overlay,
            Err(stopped) => return Ok((Outcome::Stopped(stopped), 0)),
        };
        let state = State::new(self.functions[self.program.entry.0 as usize].entry);
        let mut way = Way { state, slots, overlay, counter, checkpoint };
        let (ended, used) = match self.begin(run, relocation, given, &mut way, &budget) {
            Ok(()) => self.end(asked, budget, way),
            Err(error) => (Err(error), 0),
        };
        Ok((outcome(ended)?, used))
    }

    /// Sets registers, constants and memory to what they are at the begin mark, with these inputs.
    fn begin(
        &self,
        run: &Run<'_>,
        relocation: &Relocation<'_>,
        Given { inputs, restored }: Given<'_>,
        Way { slots, overlay, .. }: &mut Way<'_, '_>,
        budget: &Budget,
    ) -> Result<(), NoAnswer> {
        restore(restored, self.program, overlay)?;
        clear(slots);
        self.pool.fill(slots);
        budget.time(self.program.begin_pc, 0)?;
        for (number, slot) in self.pool.relocated() {
            // Each may be looked for in all of the program's code.
            budget.time(self.program.begin_pc, 0)?;
            slots[slot] = relocation.constant(self.program, number, run.memory)?;
        }
        run.registers(self.program, relocation, slots)?;
        run.override_per_cpu(self.program, relocation, overlay)?;
        Ok(prepare(self.program, inputs, overlay)?)
    }

    /// Runs to the end mark: the outputs there, and the fuel used.
    fn end(
        &self,
        asked: Asked<'_, '_>,
        budget: Budget,
        mut way: Way<'_, '_>,
    ) -> (Result<Values, NoAnswer>, u64) {
        let ended = self.execute(asked.run, asked.relocation, budget, &mut way);
        let values = ended.and_then(|end| Ok(collect(self.program, end, &mut way.overlay)?));
        (values, way.state.progress.used)
    }

    /// Runs to the end mark, whose address is the result.
    fn execute(
        &self,
        run: &Run<'_>,
        relocation: &Relocation<'_>,
        mut budget: Budget,
        way: &mut Way<'_, '_>,
    ) -> Result<u64, NoAnswer> {
        let machine = self.machine(run);
        // Before this block somebody has to look, which the interpreter does.
        let mut look = None;
        let mut at = way.state.at;
        loop {
            // The operation of the block that is the interpreter's first.
            let mut first = 0;
            let compiled = machine.as_ref().filter(|_| look != Some(at) && way.state.inside.is_none());
            if let Some(inside) = way.state.inside.take() {
                first = inside;
            } else if let Some((machine, number)) = compiled.and_then(|it| Some((it, it.number(at)?))) {
                let State { progress, spin, .. } = &mut way.state;
                progress.due = budget.due();
                spin.tell(progress);
                let left = self.compiled(machine, number, way);
                way.state.spin.passed(way.state.progress.seen);
                match left? {
                    Left::Begin { block } => {
                        at = machine.block(block);
                        look = Some(at);
                        continue;
                    }
                    Left::Operation { block, at: op, .. } => (at, first) = (machine.block(block), op),
                    Left::Next { block, to: BY_ITS_END } => (at, first) = (machine.block(block), u32::MAX),
                    Left::Next { to, .. } => {
                        at = to as u32;
                        continue;
                    }
                }
            } else {
                look = None;
                self.compiler.count(at);
                let (block, State { progress, spin, frames, .. }) =
                    (&self.blocks[at as usize], &mut way.state);
                progress.used += u64::from(block.last - block.first) + 1;
                if spin.is_waiting(at.into(), frames.name, way.slots, &way.overlay) {
                    return Err(Stopped::Blocked { at: block.pc }.into());
                }
                if budget.is_due(progress.used) {
                    budget.check(block.pc, progress.used)?;
                }
            }
            let block = &self.blocks[at as usize];
            for op in block.first.saturating_add(first).min(block.last)..block.last {
                self.perform(at, op - block.first, way)?;
            }
            match self.next(at, way.slots, &mut way.state.frames, relocation, run.limits.depth)? {
                Some(next) => at = next,
                None => return Ok(block.end_pc),
            }
        }
    }

    /// Executes an operation of a block. Before the first reading of a clock that is not known, it
    /// is kept where the run is.
    #[inline(always)]
    fn perform(&self, at: u32, number: u32, way: &mut Way<'_, '_>) -> Result<(), Stopped> {
        let block = &self.blocks[at as usize];
        let op = &self.ops[(block.first + number) as usize];
        let Way { state, slots, overlay, counter, checkpoint } = way;
        perform(op, slots, overlay, (counter, block.pc), |slots, overlay| {
            let state = State { at, inside: Some(number), ..state.clone() };
            **checkpoint = Some(Checkpoint::keep(slots, overlay, state));
        })
    }

    /// Executes a compiled block and what follows it there, with the interpreter's help where
    /// memory is not at hand.
    #[inline(always)]
    fn compiled(&self, machine: &Machine, number: u32, way: &mut Way<'_, '_>) -> Result<Left, Stopped> {
        let native = &machine.native;
        let mut left = native.run(number, way.slots, &mut way.state.progress, way.overlay.pages(), None).0;
        while let Left::Operation { block, at, resume: Some(resume) } = left {
            self.perform(machine.block(block), at, way)?;
            left = native.resume(resume, way.slots, &mut way.state.progress, way.overlay.pages(), None).0;
        }
        Ok(left)
    }

    /// The machine code for a run.
    fn machine(&self, run: &Run<'_>) -> Option<Arc<Machine>> {
        let wanted = run.limits.machine_code;
        wanted.then(|| self.compiler.machine(&self.blocks, &self.ops, self.pool.values())).flatten()
    }

    /// Ends a block: the one that is executed next, or none where the end mark is.
    #[inline(always)]
    fn next(
        &self,
        at: u32,
        slots: &mut Slots,
        frames: &mut Frames,
        relocation: &Relocation<'_>,
        depth: usize,
    ) -> Result<Option<u32>, Stopped> {
        let block = &self.blocks[at as usize];
        let mut call = None;
        let mut go = match &block.end {
            Exit::Goto(go) => *go,
            Exit::Branch { cond, taken, otherwise } => {
                if slots[*cond as usize] != 0 {
                    *taken
                } else {
                    *otherwise
                }
            }
            Exit::Switch { value, arms } => match arm(arms, slots[*value as usize], relocation) {
                Ok(go) => *go,
                Err(unexplored) => unexplored,
            },
            Exit::Call { func, stack, then } => {
                call = Some((*func, *stack));
                *then
            }
            Exit::CallIndirect { value, arms, stack, then } => {
                match arm(arms, slots[*value as usize], relocation) {
                    Ok(func) => {
                        match func {
                            Some(func) => call = Some((*func, *stack)),
                            // The callee is not in the slice, but it gives the stack pointer back
                            // like any other.
                            None => slots[Reg::Rsp.index()] = slots[*stack as usize],
                        }
                        *then
                    }
                    Err(unexplored) => unexplored,
                }
            }
            Exit::Finish => return Ok(None),
        };
        if let Some((func, stack)) = call {
            if frames.depth() >= depth {
                let what = "nested calls".to_string();
                return Err(Stopped::Limit { at: block.end_pc, what });
            }
            let function = &self.functions[func as usize];
            frames.push(at, (func, function), slots[stack as usize], go, slots);
            return Ok(Some(function.entry));
        }
        while let Go::Return = go {
            let Some(then) = frames.pop(&self.functions, slots) else {
                return Err(Stopped::Unexplored { at: block.end_pc, to: 0 });
            };
            go = then;
        }
        match go {
            Go::Block(next) => Ok(Some(next)),
            Go::Unexplored(to) => Err(Stopped::Unexplored { at: block.end_pc, to }),
            // There is none behind the loop.
            Go::Return => Ok(None),
        }
    }
}

/// What a computed address leads to; the values of arms are addresses of the training system, and
/// ascend.
#[inline(always)]
fn arm<'a, T>(arms: &'a [(u64, T)], value: u64, relocation: &Relocation<'_>) -> Result<&'a T, Go> {
    let trained = relocation.to_training(value);
    let found = trained.and_then(|trained| arms.binary_search_by_key(&trained, |arm| arm.0).ok());
    found.map(|at| &arms[at].1).ok_or_else(|| Go::Unexplored(relocation.reported(value)))
}

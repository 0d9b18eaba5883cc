//! Runs a slice: executes a program's blocks, predecoded, over the target's memory.
//!
//! Calls and returns are the program's own: their stack of frames is here, not in the target's
//! memory. Where control would leave what training saw, the run stops.

use ir::Program;
use ir::program::{Callee, Target, Terminator};
use machine::Reg;

use crate::code::{Given, restore};
use crate::counter::{Counter, briefly, settled};
use crate::exec::execute;
use crate::limits::Budget;
use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::predecode::{Pool, Predecoded, Slots, TooLarge, slots};
use crate::process::ProcessPages;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};
use crate::spin::{Spin, called};
use crate::start::{NoAnswer, outcome};
use crate::variables::{Inputs, collect, prepare};

/// Where control goes; the blocks of all functions are numbered consecutively.
#[derive(Clone, Copy, Debug)]
enum Go {
    /// To this block.
    Block(u32),
    /// Back to where the frame says.
    Return,
    /// To this address of the training system, where no training run went.
    Unexplored(u64),
}

/// How a block ends: [`Terminator`] with slots for operands.
enum Exit {
    Goto(Go),
    Branch { cond: u16, taken: Go, otherwise: Go },
    Switch { value: u16, arms: Vec<(u64, Go)> },
    Call { func: u32, stack: u16, then: Go },
    CallIndirect { value: u16, arms: Vec<(u64, Option<u32>)>, stack: u16, then: Go },
    Finish,
}

struct Block {
    /// Its operations: the first, and the one behind its last.
    first: u32,
    last: u32,
    /// Addresses, in the training system, of its beginning and of the instruction that ends it.
    pc: u64,
    end_pc: u64,
    end: Exit,
}

struct Function {
    /// The block it begins with.
    entry: u32,
    /// Slots of the registers that a call gives back.
    callee_saved: Vec<u16>,
}

/// A program made ready to run any number of times.
pub struct SliceProgram<'p> {
    program: &'p Program,
    ops: Vec<Predecoded>,
    blocks: Vec<Block>,
    functions: Vec<Function>,
    pool: Pool,
    process: ProcessPages<'p>,
}

/// A call that has not returned.
struct Frame {
    /// Where the caller goes on.
    then: Go,
    /// The stack pointer that the caller has again then.
    rsp: u64,
    /// The function that was called.
    func: u32,
    /// Where its callee-saved registers begin in [`Frames::saved`].
    saved: u32,
    /// The name of the calls before this one.
    calls: u64,
}

/// The calls that have not returned.
#[derive(Default)]
struct Frames {
    frames: Vec<Frame>,
    /// Callee-saved registers of all frames.
    saved: Vec<u64>,
    /// The name of these calls ([`called`]).
    name: u64,
}

impl Frames {
    /// Block `at` calls a function, and control goes on at `then` when it returns.
    #[inline(always)]
    fn push(&mut self, at: u32, (func, function): (u32, &Function), rsp: u64, then: Go, slots: &Slots) {
        let first = self.saved.len();
        self.frames.push(Frame { then, rsp, func, saved: first as u32, calls: self.name });
        self.saved.extend(function.callee_saved.iter().map(|&slot| slots[slot as usize]));
        self.name = called(self.name, at, self.saved[first..].iter().copied().chain([rsp]));
    }

    /// Returns from the last call: restores its callee-saved registers and the stack pointer. The
    /// result is where its caller goes on; `None` if there is no call.
    #[inline(always)]
    fn pop(&mut self, functions: &[Function], slots: &mut Slots) -> Option<Go> {
        let frame = self.frames.pop()?;
        let values = &self.saved[frame.saved as usize..];
        for (&slot, &value) in functions[frame.func as usize].callee_saved.iter().zip(values) {
            slots[slot as usize] = value;
        }
        self.saved.truncate(frame.saved as usize);
        slots[Reg::Rsp.index()] = frame.rsp;
        self.name = frame.calls;
        Some(frame.then)
    }
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
        let (mut counter, mut used) = (Counter::new(tsc), 0);
        let outcome = self.once(run, relocation, given, &mut counter, (budget, &mut used))?;
        let brief = briefly(run, used);
        let again = |counter: &mut Counter| {
            self.once(&brief, relocation, given, counter, (Budget::new(&brief.limits), &mut 0))
        };
        Ok((settled(outcome, &counter, again)?, used))
    }

    /// One run with this counter.
    fn once(
        &self,
        run: &Run<'_>,
        relocation: &Relocation<'_>,
        Given { inputs, restored }: Given<'_>,
        counter: &mut Counter,
        used: (Budget, &mut u64),
    ) -> Result<Outcome, RunError> {
        let answer = run.overlay(self.program, relocation, &self.process).map_err(NoAnswer::from).and_then(
            |mut overlay| {
                restore(restored, self.program, &mut overlay)?;
                let end = self.execute(run, relocation, inputs, &mut overlay, (counter, used))?;
                Ok(collect(self.program, end, &mut overlay)?)
            },
        );
        outcome(answer)
    }

    /// Sets registers, constants and memory to what they are at the begin mark, with these inputs.
    fn begin(
        &self,
        run: &Run<'_>,
        relocation: &Relocation<'_>,
        inputs: &Inputs,
        overlay: &mut Overlay<'_>,
        budget: &Budget,
    ) -> Result<Box<Slots>, NoAnswer> {
        let mut slots = slots();
        self.pool.fill(&mut slots);
        budget.time(self.program.begin_pc, 0)?;
        for (number, slot) in self.pool.relocated() {
            // Each may be looked for in all of the program's code.
            budget.time(self.program.begin_pc, 0)?;
            slots[slot] = relocation.constant(self.program, number, run.memory)?;
        }
        run.registers(self.program, relocation, &mut slots)?;
        run.override_per_cpu(self.program, relocation, overlay)?;
        prepare(self.program, inputs, overlay)?;
        Ok(slots)
    }

    /// Runs to the end mark, whose address is the result.
    fn execute(
        &self,
        run: &Run<'_>,
        relocation: &Relocation<'_>,
        inputs: &Inputs,
        overlay: &mut Overlay<'_>,
        (counter, (mut budget, used)): (&mut Counter, (Budget, &mut u64)),
    ) -> Result<u64, NoAnswer> {
        let mut slots = self.begin(run, relocation, inputs, overlay, &budget)?;
        let (mut frames, mut spin) = (Frames::default(), Spin::new());
        let mut at = self.functions[self.program.entry.0 as usize].entry;
        loop {
            let block = &self.blocks[at as usize];
            for op in &self.ops[block.first as usize..block.last as usize] {
                execute(op, &mut slots, overlay, counter, block.pc)?;
            }
            *used += u64::from(block.last - block.first) + 1;
            if spin.is_waiting(at.into(), frames.name, &slots, overlay) {
                return Err(Stopped::Blocked { at: block.pc }.into());
            }
            if budget.is_due(*used) {
                budget.check(block.pc, *used)?;
            }
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
                                // The callee is not in the slice, but it gives the stack pointer
                                // back like any other.
                                None => slots[Reg::Rsp.index()] = slots[*stack as usize],
                            }
                            *then
                        }
                        Err(unexplored) => unexplored,
                    }
                }
                Exit::Finish => return Ok(block.end_pc),
            };
            if let Some((func, stack)) = call {
                if frames.frames.len() >= run.limits.depth {
                    let what = "nested calls".to_string();
                    return Err(Stopped::Limit { at: block.end_pc, what }.into());
                }
                let function = &self.functions[func as usize];
                frames.push(at, (func, function), slots[stack as usize], go, &slots);
                at = function.entry;
                continue;
            }
            while let Go::Return = go {
                let Some(then) = frames.pop(&self.functions, &mut slots) else {
                    return Err(Stopped::Unexplored { at: block.end_pc, to: 0 }.into());
                };
                go = then;
            }
            match go {
                Go::Block(next) => at = next,
                Go::Unexplored(to) => return Err(Stopped::Unexplored { at: block.end_pc, to }.into()),
                Go::Return => {}
            }
        }
    }
}

/// Predecodes a terminator; `go` numbers blocks.
fn exit(term: &Terminator, pool: &mut Pool, go: impl Fn(Target) -> Go) -> Result<Exit, TooLarge> {
    Ok(match term {
        Terminator::Goto(target) => Exit::Goto(go(*target)),
        Terminator::Branch { cond, taken, otherwise } => {
            Exit::Branch { cond: pool.arg(*cond)?, taken: go(*taken), otherwise: go(*otherwise) }
        }
        Terminator::Switch { value, arms } => Exit::Switch {
            value: pool.arg(*value)?,
            arms: arms.iter().map(|arm| (arm.value, go(arm.target))).collect(),
        },
        Terminator::Call { callee: Callee::Direct(func), stack, then } => {
            Exit::Call { func: func.0, stack: Pool::var(*stack)?, then: go(*then) }
        }
        Terminator::Call { callee: Callee::Indirect { value, arms }, stack, then } => Exit::CallIndirect {
            value: pool.arg(*value)?,
            arms: arms.iter().map(|arm| (arm.value, arm.target.map(|func| func.0))).collect(),
            stack: Pool::var(*stack)?,
            then: go(*then),
        },
        Terminator::End => Exit::Finish,
    })
}

/// What a computed address leads to; the values of arms are addresses of the training system, and
/// ascend.
#[inline(always)]
fn arm<'a, T>(arms: &'a [(u64, T)], value: u64, relocation: &Relocation<'_>) -> Result<&'a T, Go> {
    let trained = relocation.to_training(value);
    let found = trained.and_then(|trained| arms.binary_search_by_key(&trained, |arm| arm.0).ok());
    found.map(|at| &arms[at].1).ok_or_else(|| Go::Unexplored(relocation.reported(value)))
}

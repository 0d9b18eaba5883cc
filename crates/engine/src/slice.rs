//! Runs a program: the slice.

use ir::Program;
use ir::program::{Callee, Target, Terminator};
use machine::Reg;

use crate::compact::{Compact, Pool, TooLarge, slots};
use crate::exec::execute;
use crate::fields::{Inputs, collect, prepare};
use crate::outcome::{Outcome, Stopped};
use crate::place::Placed;
use crate::space::Space;
use crate::spin::{Spin, called};
use crate::start::{Run, RunError};

/// Where control goes, with blocks of all functions numbered in one row.
#[derive(Clone, Copy, Debug)]
enum Go {
    Block(u32),
    Return,
    Unexplored(u64),
}

enum Exit {
    Goto(Go),
    Branch { cond: u16, taken: Go, otherwise: Go },
    Switch { value: u16, arms: Vec<(u64, Go)> },
    Call { func: u32, stack: u16, then: Go },
    CallIndirect { value: u16, arms: Vec<(u64, Option<u32>)>, stack: u16, then: Go },
    Finish,
}

struct Block {
    first: u32,
    last: u32,
    pc: u64,
    end_pc: u64,
    end: Exit,
}

struct Function {
    entry: u32,
    preserved: Vec<u16>,
}

/// A program made ready to run any number of times.
pub struct SliceProgram<'p> {
    program: &'p Program,
    ops: Vec<Compact>,
    blocks: Vec<Block>,
    functions: Vec<Function>,
    pool: Pool,
}

struct Frame {
    then: Go,
    rsp: u64,
    func: u32,
    saved: u32,
    /// The name of the calls before this one.
    calls: u64,
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
        };
        for (number, function) in program.functions.iter().enumerate() {
            let base = first_block[number];
            let go = |target: Target| match target {
                Target::Block(id) => Go::Block(base + id.0),
                Target::Tail(func) => Go::Block(first_block[func.0 as usize]),
                Target::Return => Go::Return,
                Target::Unexplored(pc) => Go::Unexplored(pc),
            };
            let preserved = function.preserved.iter().map(|&var| Pool::var(var)).collect::<Result<_, _>>()?;
            ready.functions.push(Function { entry: base, preserved });
            for block in &function.blocks {
                let first = ready.ops.len() as u32;
                for op in &block.ops {
                    let op = ready.pool.op(op)?;
                    ready.ops.push(op);
                }
                let end = match &block.term {
                    Terminator::Goto(target) => Exit::Goto(go(*target)),
                    Terminator::Branch { cond, taken, otherwise } => Exit::Branch {
                        cond: ready.pool.arg(*cond)?,
                        taken: go(*taken),
                        otherwise: go(*otherwise),
                    },
                    Terminator::Switch { value, arms } => Exit::Switch {
                        value: ready.pool.arg(*value)?,
                        arms: arms.iter().map(|arm| (arm.value, go(arm.target))).collect(),
                    },
                    Terminator::Call { callee: Callee::Direct(func), stack, then } => {
                        Exit::Call { func: func.0, stack: Pool::var(*stack)?, then: go(*then) }
                    }
                    Terminator::Call { callee: Callee::Indirect { value, arms }, stack, then } => {
                        Exit::CallIndirect {
                            value: ready.pool.arg(*value)?,
                            arms: arms.iter().map(|arm| (arm.value, arm.target.map(|func| func.0))).collect(),
                            stack: Pool::var(*stack)?,
                            then: go(*then),
                        }
                    }
                    Terminator::End => Exit::Finish,
                };
                let last = ready.ops.len() as u32;
                ready.blocks.push(Block { first, last, pc: block.pc, end_pc: block.term_pc, end });
            }
        }
        Ok(ready)
    }

    /// Runs over a target; `inputs` as [`crate::parse_inputs`] makes them. Returns the outcome and
    /// the operations executed.
    ///
    /// # Errors
    /// [`RunError`] when the run cannot begin.
    pub fn run(&self, run: &Run<'_>, inputs: &Inputs) -> Result<(Outcome, u64), RunError> {
        let placed = Placed::find(self.program, run)?;
        let mut space = Space::new(run.memory, &placed, self.program, run.limits.pages);
        let mut used = 0;
        let outcome = match self.execute(run, &placed, inputs, &mut space, &mut used)? {
            Ok(end) => collect(self.program, end, &mut space).map_or_else(Outcome::Stopped, Outcome::Answer),
            Err(stopped) => Outcome::Stopped(stopped),
        };
        Ok((outcome, used))
    }

    /// Runs to the end mark, whose address is the result.
    fn execute(
        &self,
        run: &Run<'_>,
        placed: &Placed<'_>,
        inputs: &Inputs,
        space: &mut Space<'_>,
        used: &mut u64,
    ) -> Result<Result<u64, Stopped>, RunError> {
        let mut slots = slots();
        self.pool.fill(&mut slots, 0);
        for (number, slot) in self.pool.moved() {
            slots[slot] = placed.constant(self.program, number, run.memory)?;
        }
        run.registers(self.program, placed, &mut slots)?;
        let env = run.environment(self.program, placed, space);
        if let Err(stopped) = run.view(self.program, placed, space)? {
            return Ok(Err(stopped));
        }
        if let Err(stopped) = prepare(self.program, inputs, space) {
            return Ok(Err(stopped));
        }
        let mut frames: Vec<Frame> = Vec::new();
        let (mut spin, mut calls) = (Spin::new(), 0u64);
        let mut saved: Vec<u64> = Vec::new();
        let rsp = Reg::Rsp.index();
        let mut at = self.functions[self.program.entry.0 as usize].entry;
        loop {
            let block = &self.blocks[at as usize];
            for op in &self.ops[block.first as usize..block.last as usize] {
                if let Err(stopped) = execute(op, &mut slots, space, &env, block.pc) {
                    return Ok(Err(stopped));
                }
            }
            *used += u64::from(block.last - block.first) + 1;
            if spin.is_waiting(at.into(), calls, &slots, space) {
                return Ok(Err(Stopped::Blocked { at: block.pc }));
            }
            if *used > run.limits.fuel {
                return Ok(Err(Stopped::OutOfFuel { at: block.pc, used: *used }));
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
                Exit::Switch { value, arms } => {
                    let value = slots[*value as usize];
                    let trained = placed.training(value);
                    arms.iter()
                        .find(|arm| Some(arm.0) == trained)
                        .map_or(Go::Unexplored(placed.reported(value)), |arm| arm.1)
                }
                Exit::Call { func, stack, then } => {
                    call = Some((*func, *stack));
                    *then
                }
                Exit::CallIndirect { value, arms, stack, then } => {
                    let value = slots[*value as usize];
                    let trained = placed.training(value);
                    match arms.iter().find(|arm| Some(arm.0) == trained) {
                        Some((_, func)) => {
                            match func {
                                Some(func) => call = Some((*func, *stack)),
                                // The callee does nothing for the answer, but it gives the stack
                                // pointer back like any other.
                                None => slots[rsp] = slots[*stack as usize],
                            }
                            *then
                        }
                        None => Go::Unexplored(placed.reported(value)),
                    }
                }
                Exit::Finish => return Ok(Ok(block.end_pc)),
            };
            if let Some((func, stack)) = call {
                if frames.len() >= run.limits.depth {
                    return Ok(Err(Stopped::Limit { at: block.end_pc, what: "nested calls".to_string() }));
                }
                let function = &self.functions[func as usize];
                let rsp = slots[stack as usize];
                let first = saved.len();
                frames.push(Frame { then: go, rsp, func, saved: first as u32, calls });
                saved.extend(function.preserved.iter().map(|&slot| slots[slot as usize]));
                calls = called(calls, at, saved[first..].iter().copied().chain([rsp]));
                at = function.entry;
                continue;
            }
            while let Go::Return = go {
                let Some(frame) = frames.pop() else {
                    return Ok(Err(Stopped::Unexplored { at: block.end_pc, to: 0 }));
                };
                let values = &saved[frame.saved as usize..];
                for (&slot, &value) in self.functions[frame.func as usize].preserved.iter().zip(values) {
                    slots[slot as usize] = value;
                }
                saved.truncate(frame.saved as usize);
                slots[rsp] = frame.rsp;
                calls = frame.calls;
                go = frame.then;
            }
            match go {
                Go::Block(next) => at = next,
                Go::Unexplored(to) => return Ok(Err(Stopped::Unexplored { at: block.end_pc, to })),
                Go::Return => {}
            }
        }
    }
}

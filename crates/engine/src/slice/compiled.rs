//! Machine code for the blocks of a slice that were executed often.
//!
//! A slice that is asked once is interpreted: compiling takes longer than that. What many runs over
//! one target or many execute is compiled between two runs, all of it together, and again when
//! there is half as much more. Calls and returns, switches and what leaves training's paths stay
//! the interpreter's, which alone has the frames. What a run does and counts is the same with
//! machine code and without.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jit::{Native, Predecoded, Source};

use super::block::{Block, Exit, Go};

/// Executions of a block by the interpreter after which it is worth compiling.
const OFTEN: u32 = 32;
/// Fewer blocks are not compiled.
const FEW: usize = 16;
/// In place of a block's number: what ends the block decides, and the interpreter executes that.
pub(super) const BY_ITS_END: u64 = 1 << 32;
/// Of a block that is not compiled.
const NONE: u32 = u32::MAX;

/// What was executed how often, and the machine code there is.
pub(super) struct Compiler {
    /// Executions of each block by the interpreter, about.
    times: Box<[AtomicU32]>,
    /// Blocks that were executed often and are not compiled.
    waiting: AtomicUsize,
    machine: RwLock<Option<Arc<Machine>>>,
}

/// Blocks that were compiled together.
pub(super) struct Machine {
    pub native: Native,
    /// The number that each block of the slice has among them.
    numbers: Box<[u32]>,
    /// The block with each number.
    blocks: Vec<u32>,
}

impl Machine {
    /// The number of a block among those that are compiled, if it is.
    #[inline(always)]
    pub fn number(&self, block: u32) -> Option<u32> {
        Some(self.numbers[block as usize]).filter(|number| *number != NONE)
    }

    /// The block with a number.
    pub fn block(&self, number: u32) -> u32 {
        self.blocks[number as usize]
    }
}

impl Compiler {
    /// For so many blocks.
    pub fn new(blocks: usize) -> Self {
        let times = (0..blocks).map(|_| AtomicU32::new(0)).collect();
        Self { times, waiting: AtomicUsize::new(0), machine: RwLock::default() }
    }

    /// Bytes of machine code.
    pub fn size(&self) -> usize {
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        machine.as_ref().map_or(0, |it| it.native.size())
    }

    /// Counts an execution by the interpreter.
    #[inline(always)]
    pub fn count(&self, block: u32) {
        // Two threads may count one: it does not matter.
        let count = &self.times[block as usize];
        let times = count.load(Ordering::Relaxed).wrapping_add(1);
        count.store(times, Ordering::Relaxed);
        if times == OFTEN {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The machine code for a run that begins, made first if that is worth it.
    pub fn machine(&self, blocks: &[Block], ops: &[Predecoded], constants: &[u64]) -> Option<Arc<Machine>> {
        let now = self.machine.read().unwrap_or_else(PoisonError::into_inner).clone();
        let compiled = now.as_ref().map_or(0, |it| it.blocks.len());
        if self.waiting.load(Ordering::Relaxed) < FEW.max(compiled / 2) {
            return now;
        }
        // Who compiles is done soon; meanwhile other threads run with what there is.
        let Ok(mut machine) = self.machine.try_write() else { return now };
        self.waiting.store(0, Ordering::Relaxed);
        let often = |at: &u32| self.times[*at as usize].load(Ordering::Relaxed) >= OFTEN;
        let chosen: Vec<u32> = (0..blocks.len() as u32).filter(often).collect();
        if let Some(made) = compile(chosen, blocks, ops, constants) {
            *machine = Some(Arc::new(made));
        }
        machine.clone()
    }
}

/// Compiles blocks together; `None` where there is no compiler.
fn compile(chosen: Vec<u32>, blocks: &[Block], ops: &[Predecoded], constants: &[u64]) -> Option<Machine> {
    let source = |&number: &u32| {
        let block = &blocks[number as usize];
        let way = |go: Go| if let Go::Block(to) = go { to.into() } else { BY_ITS_END };
        let (branch, next) = match block.end {
            Exit::Goto(go) => (None, way(go)),
            Exit::Branch { cond, taken, otherwise } => (Some((cond, way(taken))), way(otherwise)),
            _ => (None, BY_ITS_END),
        };
        let ops = &ops[block.first as usize..block.last as usize];
        Source {
            start: number.into(),
            next,
            branch,
            ops,
            constants,
            instructions: 0,
            group: 0,
            marked: false,
        }
    };
    let sources: Vec<Source<'_>> = chosen.iter().map(source).collect();
    let native = Native::compile(&sources)?;
    let mut numbers = vec![NONE; blocks.len()].into_boxed_slice();
    for (number, &block) in chosen.iter().enumerate() {
        numbers[block as usize] = number as u32;
    }
    Some(Machine { native, numbers, blocks: chosen })
}

//! A whole run on its way.

use std::sync::Arc;

use jit::Progress;
use machine::hash;

use super::report::WholeReport;
use crate::checkpoint::Checkpoint;
use crate::code::{Block, Translation};
use crate::counter::Counter;
use crate::predecode::Slots;
use crate::spin::Spin;
use crate::syscall::SystemCalls;

/// What a run knows of itself, beside slots and memory.
#[derive(Clone)]
pub(super) struct State {
    pub calls: SystemCalls,
    pub spin: Spin,
    /// Blocks that its own memory decides.
    pub private: hash::Map<u64, Arc<Translation>>,
    pub progress: Progress,
    /// Whether it reached code outside of the kernel's own image.
    pub modules: bool,
}

impl State {
    /// That of a run which begins with these slots.
    pub fn new(slots: &Slots) -> Self {
        Self {
            calls: SystemCalls::new(slots),
            spin: Spin::new(),
            private: hash::Map::default(),
            progress: Progress::default(),
            modules: false,
        }
    }

    /// Counts a block that begins, without its instructions.
    pub fn begin(&mut self, block: &Block) {
        self.modules |= block.modules;
        self.progress.used += block.ops.len() as u64 + 1;
    }
}

/// A whole run on its way.
pub(super) struct Way<'w, 'o> {
    pub state: State,
    pub counter: &'w mut Counter,
    pub report: &'w mut WholeReport,
    /// Where it was before it first read a clock that is not known.
    pub checkpoint: &'w mut Option<Checkpoint<'o, Inside>>,
}

/// Where a run goes on: at the address of a block, which the other one led to.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub pc: u64,
    pub from: u64,
}

/// Where a run is in a block, for a checkpoint.
#[derive(Clone)]
pub(super) struct Inside {
    pub state: State,
    pub block: Arc<Block>,
    /// The number of the operation that comes next.
    pub op: usize,
}

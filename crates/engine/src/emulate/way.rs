//! A whole run on its way, and where it was when it was about to read a clock that nobody knows.
//!
//! Such a run is made again with other values of the clock, and up to there it would do the same.
//! Most code reads a clock at the end of what it does, for statistics: what is made again is then a
//! hundredth of the run.

use std::sync::Arc;

use jit::{Progress, Spare};
use machine::hash;

use super::report::WholeReport;
use crate::code::{Block, Translation};
use crate::counter::Counter;
use crate::overlay::Overlay;
use crate::predecode::{FIRST_CONST, Slots};
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
    pub checkpoint: &'w mut Option<Checkpoint<'o>>,
}

/// Where a run goes on: at the address of a block, which the other one led to.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub pc: u64,
    pub from: u64,
}

/// All that a run has, before one of its operations.
pub(super) struct Checkpoint<'o> {
    /// Those that are no constants of its block.
    pub slots: Box<[u64]>,
    pub overlay: Overlay<'o>,
    pub state: State,
    /// The block that it is in.
    pub block: Arc<Block>,
    /// The number of the operation there that comes next.
    pub op: usize,
}

impl<'o> Checkpoint<'o> {
    /// Keeps where a run is.
    pub fn keep(
        (block, op): (&Arc<Block>, usize),
        slots: &Slots,
        overlay: &mut Overlay<'o>,
        state: &State,
    ) -> Self {
        let overlay = overlay.fork(Spare::default());
        let slots = slots[..FIRST_CONST.into()].into();
        Self { slots, overlay, state: state.clone(), block: Arc::clone(block), op }
    }
}

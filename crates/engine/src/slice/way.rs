//! A slice's run on its way.

use jit::Progress;

use super::frames::Frames;
use crate::checkpoint::Checkpoint;
use crate::counter::Counter;
use crate::overlay::Overlay;
use crate::predecode::Slots;
use crate::spin::Spin;

/// What a run knows of itself, beside slots and memory.
#[derive(Clone)]
pub(super) struct State {
    pub frames: Frames,
    pub spin: Spin,
    pub progress: Progress,
    /// The block that it is in, or comes to.
    pub at: u32,
    /// The number of the operation of that block which comes next, if the run is in it.
    pub inside: Option<u32>,
}

impl State {
    /// That of a run which begins at a block.
    pub fn new(at: u32) -> Self {
        let (frames, spin, progress) = (Frames::default(), Spin::new(), Progress::default());
        Self { frames, spin, progress, at, inside: None }
    }
}

/// A run on its way.
pub(super) struct Way<'w, 'o> {
    pub state: State,
    pub slots: &'w mut Slots,
    pub overlay: Overlay<'o>,
    pub counter: &'w mut Counter,
    /// Where it was before it first read a clock that is not known.
    pub checkpoint: &'w mut Option<Checkpoint<'o, State>>,
}

//! A slice's run on its way, and where it was when it was about to read a clock that nobody knows:
//! from there on it is made again, as whole runs are.

use jit::{Progress, Spare};

use super::frames::Frames;
use crate::counter::Counter;
use crate::overlay::Overlay;
use crate::predecode::{FIRST_CONST, Slots};
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
    pub checkpoint: &'w mut Option<Checkpoint<'o>>,
}

impl Way<'_, '_> {
    /// Keeps where the run is: before an operation of a block.
    #[cold]
    pub fn keep(&mut self, at: u32, op: u32) {
        let state = State { at, inside: Some(op), ..self.state.clone() };
        let slots = self.slots[..FIRST_CONST.into()].into();
        *self.checkpoint = Some(Checkpoint { slots, overlay: self.overlay.fork(Spare::default()), state });
    }
}

/// All that a run has, before one of its operations.
pub(super) struct Checkpoint<'o> {
    /// Those that are no constants.
    slots: Box<[u64]>,
    overlay: Overlay<'o>,
    state: State,
}

impl<'o> Checkpoint<'o> {
    /// A run that goes on from here, with the slots of the run that was here: constants stay.
    pub fn resume<'w>(
        &mut self,
        slots: &'w mut Slots,
        counter: &'w mut Counter,
        checkpoint: &'w mut Option<Self>,
    ) -> Way<'w, 'o> {
        slots[..self.slots.len()].copy_from_slice(&self.slots);
        let (state, overlay) = (self.state.clone(), self.overlay.fork(Spare::default()));
        Way { state, slots, overlay, counter, checkpoint }
    }
}

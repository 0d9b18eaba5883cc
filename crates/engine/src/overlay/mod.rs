//! The memory of a run: the target's, with the run's own changes laid over it.
//!
//! Pages of the training process lie at their addresses and are copied from the program when they
//! are first written; allocations lie above them. Every other address is translated through the
//! target's page tables and read from the target; the first write to a frame of the target copies
//! it. Copies are keyed by frame, so that two mappings of one frame stay one. The target's own user
//! memory is refused: it belongs to the process that was paused, not to the trainer.

mod access;
mod fault;
mod heap;
mod pages;

pub use fault::Fault;
pub use pages::Overlay;
pub(crate) use pages::PROCESS_FRAMES;

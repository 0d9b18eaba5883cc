//! From traces to programs: cut what is not the program's own work, join the dependences of all
//! recordings in one graph, slice it, and write the slice down.
//!
//! The stages are folders in the order of docs/method.md: `recording` (a trace in memory, lifted,
//! and replayed), `filter` (interruptions and task switches), `context` (calls, calling contexts
//! and callee-saved registers), `dependence` (the static dependence graph), `analysis` (control
//! flow, reaching definitions, liveness), `slicing`, `emission`; beside them `training` (what a
//! program has to know of the training system), and below all of them `vocabulary` (ids, sets of
//! registers, options). [`build()`] runs them, [`dump()`] shows what one of them makes of
//! recordings, and [`check()`] replays a trace against the lifter. How programs are run is no
//! concern of this crate.

#![forbid(unsafe_code)]

mod analysis;
mod build;
mod check;
mod context;
mod dependence;
mod dump;
mod emission;
mod error;
#[cfg(test)]
mod filetests;
mod filter;
mod recording;
mod slicing;
mod training;
mod vocabulary;

pub use build::{build, build_each};
pub use check::{CheckReport, Disagreement, check};
pub use dump::{Form, Stage, dump};
pub use error::Error;
pub use recording::Recording;
pub use recording::replay::{Blind, Ended, MemRef, Mismatch, Observer, Replay};
pub use training::context_cells::ContextCells;
pub use training::process_word::process_word;
pub use training::start::{Start, outputs_of_run};
pub use vocabulary::{BuildOptions, Id, Policy, StepId};

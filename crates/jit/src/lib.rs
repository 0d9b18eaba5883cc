//! Machine code for blocks of operations that runs execute often.
//!
//! A template compiler: each operation becomes the few instructions of the host that do the same,
//! with all values in the array that the interpreter uses ([`Slots`]). So the two may take turns at
//! any operation, and whatever is not plain (a page that is not in the TLB, a device, a return)
//! leaves compiled code for the interpreter, which alone knows what to do. Nothing of the engine is
//! called from here, and nothing decides here what an operation means: `ir::eval` does, to which
//! tests hold the templates.
//!
//! Why a template compiler and not Cranelift: a block is executed some thousands of times at most,
//! so that the time to compile it counts (`docs/design/compiler.md` has the figures).
//!
//! This is one of the few crates with `unsafe` code. What it relies on: an entry of the TLB points
//! to a page that lives as long as the [`Memory`] that has it ([`memory`]), and compiled code
//! touches nothing but slots, [`Progress`] and what such entries point to ([`native`]).
//!
//! Hosts other than x86-64 have no compiler; [`Native::compile`] says so.

pub mod calls;
pub mod memory;
pub mod native;
pub mod operation;
pub mod progress;
#[cfg(target_arch = "x86_64")]
mod template;
mod ways;

pub use calls::Calls;
pub use memory::{Held, Memory, Spare};
pub use native::Native;
pub use operation::{Predecoded, Slots};
pub use progress::{Exit, Progress, Resume, Source};

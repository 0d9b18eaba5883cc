//! Runs programs and machine code over a guest's memory, copy-on-write.
//!
//! Two ways share one memory, one set of operations and one kind of outcome: a *slice* runs a
//! [`ir::Program`], a *whole run* lifts the trainer's and the kernel's trusted code as it is
//! reached. Neither ever writes to the target or takes code from it. What happens to the guest's
//! code is an [`Outcome`], not an error.

#![forbid(unsafe_code)]

mod code;
mod emulate;
mod exec;
mod fields;
pub mod locate;
mod outcome;
mod overlay;
mod predecode;
mod relocate;
mod run;
mod segment;
mod show;
mod slice;
mod spin;
mod start;
mod summary;
mod syscall;
pub mod tampering;
mod value;
mod watch;

pub use emulate::{WholeProgram, WholeReport};
pub use fields::{InputError, Inputs, parse_inputs};
pub use outcome::{Outcome, Stopped};
pub use overlay::{Fault, Overlay};
pub use predecode::TooLarge;
pub use relocate::Relocation;
pub use run::{Environment, Limits, Run, RunError};
pub use slice::SliceProgram;
pub use value::{Value, Values};
pub use watch::{Seen, Unwatched, Watch};

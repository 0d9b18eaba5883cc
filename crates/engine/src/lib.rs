//! Runs programs and machine code over a guest's memory, copy-on-write.
//!
//! Two ways share one memory, one set of operations and one kind of outcome: a *slice* runs a
//! [`ir::Program`], a *whole run* lifts the trainer's and the kernel's trusted code as it is
//! reached. Neither ever writes to the target or takes code from it. What happens to the guest's
//! code is an [`Outcome`], not an error.

#![forbid(unsafe_code)]

mod compact;
mod exec;
mod fields;
pub mod locate;
mod outcome;
pub mod place;
mod segment;
mod slice;
mod space;
mod spin;
mod start;
mod summary;
pub mod tampering;
mod watch;
mod whole;

pub use compact::TooLarge;
pub use fields::{InputError, Inputs, Value, Values, parse_inputs};
pub use outcome::{Outcome, Stopped};
pub use place::Placed;
pub use slice::SliceProgram;
pub use space::{Fault, Space};
pub use start::{Environment, Limits, Run, RunError};
pub use watch::{Seen, Unwatched, Watch};
pub use whole::{WholeProgram, WholeReport};

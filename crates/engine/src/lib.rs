//! Runs programs and machine code over a guest's memory, copy-on-write.
//!
//! There are two ways to run, which share the [`Overlay`] over the target's memory, the predecoded
//! operations and the outcomes. A [`SliceProgram`] executes an [`ir::Program`]. A [`WholeProgram`]
//! emulates machine code: it lifts the trainer's and the kernel's trusted code as it is reached. A
//! [`Session`] is many of the latter over one target.
//! Neither writes to the target or takes code from it. What happens to the guest's code is an
//! [`Outcome`]; a [`RunError`] says that a run could not begin.
//!
//! [`Relocation`] finds in a target what training knew at other addresses, [`locate`] finds the
//! state of processors in memory alone, and [`tampering`] compares code.

#![forbid(unsafe_code)]

mod apic;
mod checkpoint;
mod code;
mod counter;
mod emulate;
mod exec;
mod hpet;
mod idle;
mod limits;
mod loaded;
pub mod locate;
#[cfg(test)]
mod mapped;

mod outcome;
mod overlay;
mod per_cpu;
mod predecode;
mod process;
mod relocate;
mod run;
mod segment;
mod session;
mod show;
mod slice;
mod spin;
mod start;
mod summary;
mod syscall;
pub mod tampering;
mod text;
mod undefined;
mod value;
mod variables;
mod watch;
mod whole;

pub use apic::ApicId;
pub use code::Departures;
pub use emulate::WholeReport;
pub use limits::Limits;
pub use outcome::{Outcome, Stopped};
pub use overlay::{Fault, Overlay};
pub use predecode::TooLarge;
pub use process::ProcessPages;
pub use relocate::Relocation;
pub use run::{Environment, Run, RunError};
pub use session::{Session, SessionProgram};
pub use slice::SliceProgram;
pub use text::Text;
pub use value::{Value, Values};
pub use variables::{InputError, Inputs, outputs_of, parse_inputs};
pub use watch::{Seen, Unwatched, Watch};
pub use whole::WholeProgram;

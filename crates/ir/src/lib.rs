//! The intermediate representation: operations on 64-bit values, programs made of them, their text
//! form, their verifier and their meaning.
//!
//! An operation is defined once, in [`op`]: its operands, what it defines and uses, and how it is
//! evaluated. The dependence analysis, the verifier, the interpreter and the printer all read that
//! definition. This crate knows no instruction set and no trace format: registers are numbers whose
//! names the caller supplies.

mod budget;
mod container;
pub mod eval;
pub mod file;
mod fixups;
mod index;
pub mod integrity;
mod lanes;
pub mod op;
mod packed;
pub mod program;
pub mod relocatable;
pub mod relocation;
pub mod summary;
pub mod system;
pub mod text;
mod varint;
pub mod verify;

pub use eval::{EvalError, eval};
pub use file::FileError;
pub use integrity::Integrity;
pub use op::{Arg, Class, Kind, Op, Var, Width};
pub use program::Program;
pub use relocatable::Objects;
pub use relocation::RelocationTable;
pub use summary::Summary;
pub use system::System;

//! The text form of operations and programs: what people read, what tests are written in.
//!
//! One operation per line, the width as a suffix of its name: `t0 = add.64 rax, 0x10`. Printing and
//! parsing are exact inverses: any program printed and parsed again is equal to itself, whether or
//! not the verifier accepts it. Parsing therefore does not verify; call [`crate::verify::verify`]
//! on what comes out. Registers are named by a table that the caller supplies; one without a usable
//! name is `%` and its number. The grammar is written down in `docs/format-program.md`.

mod cursor;
mod error;
mod names;
mod parse;
mod parse_header;
mod parse_op;
mod print;
mod print_program;

pub use error::{ParseError, Problem};
pub use parse::parse_program;
pub use parse_op::parse_op;
pub use print::{print_op, print_terminator};
pub use print_program::{print_function, print_program};

/// Bytes of a page or of code in one line.
const ROW: usize = 32;

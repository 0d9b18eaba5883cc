//! x86 machine code to IR, one instruction at a time.
//!
//! [`lift()`] is a pure function of mode, address and bytes, so its result can be cached by them.
//! What is not modelled (x87 and MMX arithmetic, floating point, AVX) becomes an `Unsupported`
//! operation that names the instruction; nothing is ever silently skipped.
//!
//! Conventions every user may rely on:
//!
//! * Addresses of code are **linear**: `pc`, jump targets and `Ret` targets include the CS base,
//!   which is added to (and taken from) values that the machine keeps as offsets. In 64-bit mode
//!   that base is 0.
//! * Each instruction is a *body* (address arithmetic, loads, computation, stores, port accesses)
//!   that reads the state before the instruction, then assignments of flags, then of registers,
//!   then at most one control operation. So a fault leaves registers as they were. The assignments
//!   are written such that none sees another's effect.
//! * A repeated string instruction is one iteration; it branches to its own address while there is
//!   more to do.
//! * The stack is as wide as the mode (SS.B is not part of the state), and privilege checks, call
//!   gates, tasks, the stack switch of 32-bit `retf` and alignment faults are not modelled: a trace
//!   of correct code has none, and an engine that needs them has to act on the `Trap`, `SysEnter`
//!   and `SysExit` operations. `int N` is a `Trap`; [`lift_process()`] follows it through its gate.
//! * `Ftw` is the abridged tag byte of FXSAVE (1 = valid).

#![forbid(unsafe_code)]

mod alu;
mod bits;
mod builder;
mod compare;
mod control;
mod decode;
mod filling;
mod flags;
mod flow;
mod fpu;
mod gate;
mod linear;
mod mode;
mod multiply;
mod names;
mod operands;
mod rebase;
mod segment;
mod shift;
mod sse;
mod sse_lanes;
mod sse_move;
mod stack;
mod string;
mod system;
mod xmm;

pub use compare::{is_nop, is_padding, same_form};
pub use decode::{Insn, LiftError, disassemble, lift, lift_process, mnemonic_name};
pub use filling::{decision, does_nothing, is_filling, is_form};
pub use flow::{Control, End, Flow, control, flow};
pub use gate::is_call_gate;
pub use mode::Mode;
pub use names::{absolutes, constants, layout, length, names, operands};
pub use rebase::rebase;

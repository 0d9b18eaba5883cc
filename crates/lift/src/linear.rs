//! Between linear addresses of code and offsets in the code segment.
//!
//! In 64-bit mode they are the same; else the CS base is added or taken off.

use ir::{Arg, Width};
use machine::reg::Reg;

use crate::Mode;
use crate::builder::{Builder, arg};

/// The linear address of an offset in the code segment.
pub(crate) fn code_address(b: &mut Builder, width: Width, offset: Arg) -> Arg {
    if b.mode == Mode::Bits64 {
        return if width == Width::B64 { offset } else { b.narrow(width, offset) };
    }
    let offset = if width < Width::B32 { b.narrow(width, offset) } else { offset };
    b.add(Width::B32, offset, arg(Reg::CsBase))
}

/// The offset of the next instruction in the code segment.
pub(crate) fn next_offset(b: &mut Builder) -> Arg {
    let next = Arg::Const(b.next);
    if b.mode == Mode::Bits64 { next } else { b.sub(Width::B32, next, arg(Reg::CsBase)) }
}

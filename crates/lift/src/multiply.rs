//! Multiplication and division.
//!
//! Flags of `mul` and `imul` other than CF and OF come from the low half as in QEMU; division
//! leaves all flags alone (the manual: undefined). A division fault is the division operation's.

use iced_x86::Mnemonic;
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Mul => wide(b, false),
        M::Imul if b.insn.op_count() == 1 => wide(b, true),
        M::Imul => narrow(b),
        M::Mulx => mulx(b),
        M::Div => divide(b, Kind::DivU, Kind::RemU),
        M::Idiv => divide(b, Kind::DivS, Kind::RemS),
        _ => return None,
    })
}

/// Both halves of a product and whether the high one matters.
fn product(b: &mut Builder, width: Width, signed: bool, x: Arg, y: Arg) -> (Arg, Arg, Arg) {
    let low = b.mul(width, x, y);
    let high = b.op(if signed { Kind::MulHiS } else { Kind::MulHiU }, width, &[x, y]);
    let significant = if signed {
        let sign = b.sar(width, low, u64::from(width.bits() - 1));
        let fits = b.eq(width, high, sign);
        b.not(Width::B1, fits)
    } else {
        b.nonzero(width, high)
    };
    (low, high, significant)
}

fn flags(b: &mut Builder, width: Width, low: Arg, significant: Arg) {
    b.flags_of_result(width, low);
    b.set_flag(Reg::Af, 0);
    b.set_flag(Reg::Of, significant);
    b.set_flag(Reg::Cf, significant);
}

/// The one-operand forms: the accumulator times the operand into data register and accumulator.
fn wide(b: &mut Builder, signed: bool) -> Lifted {
    let width = b.width(0)?;
    let y = b.read(0, width)?;
    let (low, high, significant) = product(b, width, signed, arg(Reg::Rax), y);
    if width == Width::B8 {
        let both = b.insert(Width::B8, low, high, 8);
        b.set_part(Reg::Rax, Width::B16, both, 0);
    } else {
        b.write_reg(Reg::Rax, width, low);
        b.write_reg(Reg::Rdx, width, high);
    }
    flags(b, width, low, significant);
    Some(())
}

/// The two- and three-operand `imul`.
fn narrow(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let (first, second) = if b.insn.op_count() == 3 { (1, 2) } else { (0, 1) };
    let x = b.read(first, width)?;
    let y = b.read(second, width)?;
    let (low, _, significant) = product(b, width, true, x, y);
    b.write(0, width, low)?;
    flags(b, width, low, significant);
    Some(())
}

fn mulx(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let y = b.read(2, width)?;
    let low = b.mul(width, arg(Reg::Rdx), y);
    let high = b.op(Kind::MulHiU, width, &[arg(Reg::Rdx), y]);
    // With the same destination twice the high half is what stays.
    b.write(1, width, low)?;
    b.write(0, width, high)
}

fn divide(b: &mut Builder, quotient: Kind, remainder: Kind) -> Lifted {
    let width = b.width(0)?;
    let divisor = b.read(0, width)?;
    let (high, low) = if width == Width::B8 {
        (b.extract(Width::B8, arg(Reg::Rax), 8), arg(Reg::Rax))
    } else {
        (arg(Reg::Rdx), arg(Reg::Rax))
    };
    let quotient = b.op(quotient, width, &[high, low, divisor]);
    let remainder = b.op(remainder, width, &[high, low, divisor]);
    if width == Width::B8 {
        let both = b.insert(Width::B8, quotient, remainder, 8);
        b.set_part(Reg::Rax, Width::B16, both, 0);
    } else {
        b.write_reg(Reg::Rax, width, quotient);
        b.write_reg(Reg::Rdx, width, remainder);
    }
    Some(())
}

//! Shifts and rotates.
//!
//! A count of 0 changes no flag, which with a count in `cl` is a selection at run time (SDM vol. 2,
//! SAL/SAR/SHL/SHR). OF of counts other than 1 follows the formula for 1, AF is 0: both undefined
//! in the manual, both as in QEMU.

use iced_x86::Mnemonic;
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Shl | M::Sal => shift(b, Kind::Shl),
        M::Shr => shift(b, Kind::Shr),
        M::Sar => shift(b, Kind::Sar),
        M::Rol => rotate(b, Kind::Rol),
        M::Ror => rotate(b, Kind::Ror),
        M::Rcl => rotate_carry(b, true),
        M::Rcr => rotate_carry(b, false),
        M::Shld => double(b, true),
        M::Shrd => double(b, false),
        M::Shlx => flagless(b, Kind::Shl),
        M::Shrx => flagless(b, Kind::Shr),
        M::Sarx => flagless(b, Kind::Sar),
        M::Rorx => flagless(b, Kind::Ror),
        _ => return None,
    })
}

/// The count operand, masked to 5 or 6 bits.
fn count(b: &mut Builder, operand: u32, width: Width) -> Lifted<Arg> {
    let mask = if width == Width::B64 { 63 } else { 31 };
    let count = b.read(operand, Width::B8)?;
    Some(b.and(Width::B8, count, mask))
}

/// The new values of the flags that a shift by `count` changes.
struct NewFlags {
    cf: Arg,
    of: Arg,
    result: Option<(Width, Arg)>,
}

/// Assigns them unless the count is 0.
fn assign(b: &mut Builder, count: Arg, new: &NewFlags) {
    if let Arg::Const(0) = count {
        return;
    }
    let mut values = vec![(Reg::Cf, new.cf), (Reg::Of, new.of)];
    if let Some((width, result)) = new.result {
        if let Arg::Const(_) = count {
            b.flags_of_result(width, result);
            b.set_flag(Reg::Af, 0);
        } else {
            values.push((Reg::Sf, b.extract(Width::B1, result, u64::from(width.bits() - 1))));
            values.push((Reg::Zf, b.eq(width, result, 0)));
            values.push((Reg::Pf, b.op(Kind::Parity, Width::B8, &[result])));
            values.push((Reg::Af, Arg::Const(0)));
        }
    }
    for (flag, value) in values {
        match count {
            Arg::Const(_) | Arg::Relocated(_) => b.set_flag(flag, value),
            Arg::Var(_) => b.flag(flag, Kind::Select, Width::B1, &[count, value, arg(flag)]),
        }
    }
}

fn sign(b: &mut Builder, width: Width, value: Arg) -> Arg {
    b.extract(Width::B1, value, u64::from(width.bits() - 1))
}

/// OF as QEMU computes it for shifts: whether the last single step changed the sign.
fn sign_changed(b: &mut Builder, width: Width, before: Arg, after: Arg) -> Arg {
    let changed = b.xor(width, before, after);
    sign(b, width, changed)
}

fn shift(b: &mut Builder, kind: Kind) -> Lifted {
    let width = b.width(0)?;
    let count = count(b, 1, width)?;
    let x = b.read(0, width)?;
    if count == Arg::Const(0) {
        return b.write(0, width, x);
    }
    let result = b.op(kind, width, &[x, count]);
    // One step before the end; a count of 0 makes this 255, whose value is not used.
    let before = b.sub(Width::B8, count, 1);
    let before = b.op(kind, width, &[x, before]);
    b.write(0, width, result)?;
    let cf = if kind == Kind::Shl { sign(b, width, before) } else { b.extract(Width::B1, before, 0) };
    let of = sign_changed(b, width, before, result);
    assign(b, count, &NewFlags { cf, of, result: Some((width, result)) });
    Some(())
}

fn rotate(b: &mut Builder, kind: Kind) -> Lifted {
    let width = b.width(0)?;
    let count = count(b, 1, width)?;
    let x = b.read(0, width)?;
    let result = b.op(kind, width, &[x, count]);
    b.write(0, width, result)?;
    let top = sign(b, width, result);
    let (cf, other) = if kind == Kind::Rol {
        (b.extract(Width::B1, result, 0), top)
    } else {
        (top, b.extract(Width::B1, result, u64::from(width.bits() - 2)))
    };
    let of = b.xor(Width::B1, cf, other);
    assign(b, count, &NewFlags { cf, of, result: None });
    Some(())
}

/// `rcl` and `rcr`: a rotation of width + 1 bits, the carry being the top one.
fn rotate_carry(b: &mut Builder, left: bool) -> Lifted {
    let width = b.width(0)?;
    let bits = u64::from(width.bits());
    let mut count = count(b, 1, width)?;
    if width < Width::B32 {
        count = b.op(Kind::RemU, Width::B8, &[Arg::Const(0), count, Arg::Const(bits + 1)]);
    }
    let x = b.read(0, width)?;
    if count == Arg::Const(0) {
        return b.write(0, width, x);
    }
    let less = b.sub(Width::B8, count, 1);
    let rest = b.sub(Width::B8, bits, count);
    let rest_and_one = b.sub(Width::B8, bits + 1, count);
    let cf = arg(Reg::Cf);
    let (own, wrapped, carried, out) = if left {
        let out = b.shr(width, x, rest);
        (b.shl(width, x, count), b.shr(width, x, rest_and_one), b.shl(width, cf, less), out)
    } else {
        let out = b.shr(width, x, less);
        (b.shr(width, x, count), b.shl(width, x, rest_and_one), b.shl(width, cf, rest), out)
    };
    let result = b.or(width, own, wrapped);
    let result = b.or(width, result, carried);
    b.write(0, width, result)?;
    let cf = b.extract(Width::B1, out, 0);
    let of = sign_changed(b, width, x, result);
    assign(b, count, &NewFlags { cf, of, result: None });
    Some(())
}

/// `shld` and `shrd`. Counts above 16 of the 16-bit form shift the first operand in again, as
/// Intel's processors do.
fn double(b: &mut Builder, left: bool) -> Lifted {
    let width = b.width(0)?;
    let bits = u64::from(width.bits());
    let count = count(b, 2, width)?;
    let x = b.read_exact(0, width)?;
    let y = b.read_exact(1, width)?;
    let less = b.sub(Width::B8, count, 1);
    let rest = b.sub(Width::B8, bits, count);
    let (result, before) = if width == Width::B16 {
        let wide = b.insert(Width::B16, x, y, 16);
        let wide = b.insert(Width::B16, wide, x, 32);
        if left {
            let down = b.sub(Width::B8, 32, count);
            let down_less = b.sub(Width::B8, 33, count);
            (b.shr(Width::B64, wide, down), b.shr(Width::B64, wide, down_less))
        } else {
            (b.shr(Width::B64, wide, count), b.shr(Width::B64, wide, less))
        }
    } else if left {
        let (high, low) = (b.shl(width, x, count), b.shr(width, y, rest));
        (b.or(width, high, low), b.shl(width, x, less))
    } else {
        let (low, high) = (b.shr(width, x, count), b.shl(width, y, rest));
        (b.or(width, low, high), b.shr(width, x, less))
    };
    b.write(0, width, result)?;
    let cf = if left { sign(b, width, before) } else { b.extract(Width::B1, before, 0) };
    let of = sign_changed(b, width, before, result);
    assign(b, count, &NewFlags { cf, of, result: Some((width, result)) });
    Some(())
}

/// BMI2 shifts: no flags, three operands.
fn flagless(b: &mut Builder, kind: Kind) -> Lifted {
    let width = b.width(0)?;
    let count = count(b, 2, width)?;
    let x = b.read(1, width)?;
    let result = b.op(kind, width, &[x, count]);
    b.write(0, width, result)
}

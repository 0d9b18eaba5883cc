//! Bit tests, bit scans, BMI, CRC.
//!
//! Bit tests change CF only. `bsf` and `bsr` of 0 keep the destination, which the manual calls
//! undefined and every processor does (Linux relies on it); its upper half is cleared as in QEMU,
//! which some processors keep. Undefined flags are QEMU's: bit scans like a logical operation on
//! the source, `lzcnt`, `tzcnt` and BMI with AF = PF = 0. `pdep` and `pext` are not modelled.

use iced_x86::Mnemonic;
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Bt => test(b, None),
        M::Bts => test(b, Some(Kind::Or)),
        M::Btr => test(b, Some(Kind::And)),
        M::Btc => test(b, Some(Kind::Xor)),
        M::Bsf => scan(b, Kind::Ctz),
        M::Bsr => scan(b, Kind::Clz),
        M::Tzcnt => count(b, Kind::Ctz),
        M::Lzcnt => count(b, Kind::Clz),
        M::Popcnt => popcnt(b),
        M::Blsi => lowest(b, M::Blsi),
        M::Blsr => lowest(b, M::Blsr),
        M::Blsmsk => lowest(b, M::Blsmsk),
        M::Bextr => bextr(b),
        M::Bzhi => bzhi(b),
        M::Crc32 => crc(b),
        _ => return None,
    })
}

/// `bt` and its changing forms. A bit offset in a register reaches beyond a memory operand (SDM
/// vol. 2, BT).
fn test(b: &mut Builder, change: Option<Kind>) -> Lifted {
    let width = b.width(0)?;
    let bits = u64::from(width.bits());
    let offset = b.read(1, width)?;
    if b.is_memory(0) && b.register(1).is_some() {
        let signed = b.sext(Width::B64, offset, bits);
        let units = b.sar(Width::B64, signed, u64::from(bits.trailing_zeros()));
        let bytes = b.shl(Width::B64, units, u64::from((bits / 8).trailing_zeros()));
        let start = b.offset()?;
        let address_width = b.address_width();
        let start = b.add(address_width, start, bytes);
        let address = b.linear(b.insn.memory_segment(), start)?;
        b.address = Some(address);
    }
    let bit = b.and(Width::B8, offset, bits - 1);
    let value = b.read(0, width)?;
    let moved = b.shr(width, value, bit);
    if let Some(kind) = change {
        let mut mask = b.shl(width, 1, bit);
        if kind == Kind::And {
            mask = b.not(width, mask);
        }
        let changed = b.op(kind, width, &[value, mask]);
        b.write(0, width, changed)?;
    }
    b.flag(Reg::Cf, Kind::Extract, Width::B1, &[moved, Arg::Const(0)]);
    Some(())
}

fn scan(b: &mut Builder, kind: Kind) -> Lifted {
    let width = b.width(0)?;
    let source = b.read(1, width)?;
    let some = b.nonzero(width, source);
    let mut index = b.op(kind, width, &[source]);
    if kind == Kind::Clz {
        index = b.sub(width, u64::from(width.bits() - 1), index);
    }
    let old = b.read(0, width)?;
    let value = b.select(width, some, index, old);
    b.write(0, width, value)?;
    b.flags_of_logic(width, source);
    Some(())
}

fn count(b: &mut Builder, kind: Kind) -> Lifted {
    let width = b.width(0)?;
    let source = b.read(1, width)?;
    let result = b.op(kind, width, &[source]);
    b.write(0, width, result)?;
    b.flag(Reg::Cf, Kind::Eq, width, &[source, Arg::Const(0)]);
    bmi_flags(b, width, result);
    Some(())
}

/// ZF and SF of the result, OF, AF and PF 0.
fn bmi_flags(b: &mut Builder, width: Width, result: Arg) {
    b.flag(Reg::Zf, Kind::Eq, width, &[result, Arg::Const(0)]);
    b.flag(Reg::Sf, Kind::Extract, Width::B1, &[result, Arg::Const(u64::from(width.bits() - 1))]);
    for flag in [Reg::Of, Reg::Af, Reg::Pf] {
        b.set_flag(flag, 0);
    }
}

fn popcnt(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let source = b.read(1, width)?;
    let result = b.op(Kind::Popcnt, width, &[source]);
    b.write(0, width, result)?;
    b.flag(Reg::Zf, Kind::Eq, width, &[source, Arg::Const(0)]);
    for flag in [Reg::Cf, Reg::Of, Reg::Sf, Reg::Af, Reg::Pf] {
        b.set_flag(flag, 0);
    }
    Some(())
}

fn lowest(b: &mut Builder, which: Mnemonic) -> Lifted {
    let width = b.width(0)?;
    let source = b.read(1, width)?;
    let result = match which {
        Mnemonic::Blsi => {
            let negated = b.op(Kind::Neg, width, &[source]);
            b.and(width, source, negated)
        }
        other => {
            let less = b.sub(width, source, 1);
            b.op(if other == Mnemonic::Blsr { Kind::And } else { Kind::Xor }, width, &[source, less])
        }
    };
    b.write(0, width, result)?;
    match which {
        Mnemonic::Blsi => b.flag(Reg::Cf, Kind::LtU, width, &[Arg::Const(0), source]),
        _ => b.flag(Reg::Cf, Kind::Eq, width, &[source, Arg::Const(0)]),
    }
    bmi_flags(b, width, result);
    Some(())
}

fn bextr(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let source = b.read(1, width)?;
    let control = b.read(2, width)?;
    let start = b.narrow(Width::B8, control);
    let length = b.extract(Width::B8, control, 8);
    let moved = b.shr(width, source, start);
    let mask = b.shl(width, 1, length);
    let mask = b.sub(width, mask, 1);
    let result = b.and(width, moved, mask);
    b.write(0, width, result)?;
    b.flags_of_logic(width, result);
    Some(())
}

fn bzhi(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let source = b.read(1, width)?;
    let control = b.read(2, width)?;
    let length = b.narrow(Width::B8, control);
    let mask = b.shl(width, 1, length);
    let mask = b.sub(width, mask, 1);
    let result = b.and(width, source, mask);
    b.write(0, width, result)?;
    b.flag(Reg::Cf, Kind::LtU, Width::B8, &[Arg::Const(u64::from(width.bits() - 1)), length]);
    bmi_flags(b, width, result);
    Some(())
}

fn crc(b: &mut Builder) -> Lifted {
    let (to, from) = (b.width(0)?, b.width(1)?);
    let accumulator = b.read(0, to)?;
    let data = b.read(1, from)?;
    let result = b.op(Kind::Crc32c, from, &[accumulator, data]);
    b.write(0, to, result)
}

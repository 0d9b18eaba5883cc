//! Moves to, from and between XMM registers, whole, in parts, and widened.
//!
//! Alignment and the non-temporal hint make no difference here. `maskmovdqu` is not modelled.

use iced_x86::Mnemonic;
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};
use crate::operands::{gpr, xmm};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Movups
        | M::Movaps
        | M::Movupd
        | M::Movapd
        | M::Movdqu
        | M::Movdqa
        | M::Lddqu
        | M::Movntdq
        | M::Movntdqa
        | M::Movntps
        | M::Movntpd => {
            let value = b.read_halves(1);
            value.and_then(|value| b.write_halves(0, value))
        }
        M::Movd => whole(b, Width::B32),
        M::Movq => whole(b, Width::B64),
        M::Movss => scalar(b, Width::B32),
        M::Movsd if !b.insn.is_string_instruction() => scalar(b, Width::B64),
        M::Movlps | M::Movlpd => half(b, false),
        M::Movhps | M::Movhpd => half(b, true),
        M::Movhlps => {
            let value = b.read_halves(1);
            value.and_then(|[_, high]| b.write_low(0, high))
        }
        M::Movlhps => {
            let value = b.read_halves(1);
            value.and_then(|[low, _]| b.write_high(0, low))
        }
        M::Movddup => {
            let value = b.read_scalar(1, Width::B64);
            value.and_then(|low| b.write_halves(0, [low, low]))
        }
        M::Movsldup => duplicate(b, 0),
        M::Movshdup => duplicate(b, 32),
        M::Pinsrb => insert(b, Width::B8),
        M::Pinsrw => insert(b, Width::B16),
        M::Pinsrd => insert(b, Width::B32),
        M::Pinsrq => insert(b, Width::B64),
        M::Pextrb => extract(b, Width::B8),
        M::Pextrw => extract(b, Width::B16),
        M::Pextrd | M::Extractps => extract(b, Width::B32),
        M::Pextrq => extract(b, Width::B64),
        M::Pmovzxbw => widen(b, Width::B8, Width::B16, false),
        M::Pmovzxbd => widen(b, Width::B8, Width::B32, false),
        M::Pmovzxbq => widen(b, Width::B8, Width::B64, false),
        M::Pmovzxwd => widen(b, Width::B16, Width::B32, false),
        M::Pmovzxwq => widen(b, Width::B16, Width::B64, false),
        M::Pmovzxdq => widen(b, Width::B32, Width::B64, false),
        M::Pmovsxbw => widen(b, Width::B8, Width::B16, true),
        M::Pmovsxbd => widen(b, Width::B8, Width::B32, true),
        M::Pmovsxbq => widen(b, Width::B8, Width::B64, true),
        M::Pmovsxwd => widen(b, Width::B16, Width::B32, true),
        M::Pmovsxwq => widen(b, Width::B16, Width::B64, true),
        M::Pmovsxdq => widen(b, Width::B32, Width::B64, true),
        _ => return None,
    })
}

/// `movd` and `movq`: the rest of a destination register is cleared.
fn whole(b: &mut Builder, width: Width) -> Lifted {
    if b.register(0).is_some_and(|register| register.is_xmm()) {
        let value = match b.register(1) {
            Some(register) if register.is_gpr() => b.read_exact(1, width)?,
            _ => b.read_scalar(1, width)?,
        };
        return b.write_halves(0, [value, Arg::Const(0)]);
    }
    let value = arg(Reg::xmm_lo(xmm(b.register(1)?)?));
    b.write(0, width, value)
}

/// `movss` and `movsd`: a load clears the rest of the register, a register move keeps it.
fn scalar(b: &mut Builder, width: Width) -> Lifted {
    if b.is_memory(0) {
        let value = arg(Reg::xmm_lo(xmm(b.register(1)?)?));
        return b.write(0, width, value);
    }
    if b.is_memory(1) {
        let value = b.read_scalar(1, width)?;
        return b.write_halves(0, [value, Arg::Const(0)]);
    }
    let value = b.read_halves(1)?[0];
    if width == Width::B64 {
        return b.write_low(0, value);
    }
    let low = Reg::xmm_lo(xmm(b.register(0)?)?);
    b.set_part(low, width, value, 0);
    Some(())
}

/// `movlps` and `movhps`: one half of a register from or to memory.
fn half(b: &mut Builder, high: bool) -> Lifted {
    if b.is_memory(0) {
        let value = b.read_halves(1)?[usize::from(high)];
        return b.write(0, Width::B64, value);
    }
    let value = b.read_scalar(1, Width::B64)?;
    if high { b.write_high(0, value) } else { b.write_low(0, value) }
}

fn duplicate(b: &mut Builder, at: u64) -> Lifted {
    let halves = b.read_halves(1)?;
    let doubled = halves.map(|half| {
        let lane = b.extract(Width::B32, half, at);
        b.insert(Width::B32, lane, lane, 32)
    });
    b.write_halves(0, doubled)
}

/// Which half the lane number of an immediate is in, and from which bit of it on.
fn lane(number: u64, width: Width) -> (usize, u64) {
    let bit = (number * u64::from(width.bits())) & 127;
    ((bit >> 6) as usize, bit & 63)
}

fn insert(b: &mut Builder, width: Width) -> Lifted {
    let (half, at) = lane(b.immediate(2)?, width);
    let register = xmm(b.register(0)?)?;
    let value = match b.register(1) {
        Some(register) => b.read_gpr(gpr(register)?)?,
        None => b.read(1, width)?,
    };
    let reg = if half == 0 { Reg::xmm_lo(register) } else { Reg::xmm_hi(register) };
    match width {
        Width::B64 => b.set(reg, width, value),
        _ => b.set_part(reg, width, value, at),
    }
    Some(())
}

fn extract(b: &mut Builder, width: Width) -> Lifted {
    let (half, at) = lane(b.immediate(2)?, width);
    let halves = b.read_halves(1)?;
    let value = b.extract(width, halves[half], at);
    // A register destination is cleared above the lane.
    let to = if b.is_memory(0) { width } else { b.width(0)? };
    b.write(0, to, value)
}

/// `pmovzx` and `pmovsx`: only as much of the source is read as the destination has lanes.
fn widen(b: &mut Builder, from: Width, to: Width, signed: bool) -> Lifted {
    let (from_bytes, to_bytes) = (from.bytes(), to.bytes());
    let source = b.read_scalar(1, Width::from_bits(128 / (to.bits() / from.bits()))?)?;
    let halves = [0, 8 / to_bytes].map(|first| {
        // Signed lanes go to the top of the wider lane and are shifted down.
        let place = if signed { to_bytes - from_bytes } else { 0 };
        let mut selector = 0x8080_8080_8080_8080u64;
        for lane in 0..8 / to_bytes {
            for byte in 0..from_bytes {
                let at = 8 * (lane * to_bytes + place + byte);
                selector = selector & !(0xff << at) | ((first + lane) * from_bytes + byte) << at;
            }
        }
        let spread = b.op(Kind::VShuffle, Width::B8, &[source, Arg::Const(0), Arg::Const(selector)]);
        if signed {
            b.op(Kind::VSar, to, &[spread, Arg::Const(u64::from(to.bits() - from.bits()))])
        } else {
            spread
        }
    });
    b.write_halves(0, halves)
}

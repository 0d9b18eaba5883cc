//! SSE to SSE4.2 integer and bitwise instructions: those that go half by half, and which file has
//! the others.
//!
//! Alignment faults are not modelled. MMX forms, floating point, string comparison and AES are not
//! modelled, nor is AVX. Instructions whose result does not depend on a register's value (`pxor
//! x,x`, `pcmpeqd x,x`) do not read it.

use iced_x86::Mnemonic;
use ir::{Arg, Kind, Width};

use crate::builder::{Builder, Lifted};
use crate::{sse_lanes, sse_move};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    if let Some((kind, lane)) = lane_wise(b.insn.mnemonic()) {
        return Some(binary(b, kind, lane));
    }
    if let Some((kind, lane)) = lane_shift(b.insn.mnemonic()) {
        return Some(shift(b, kind, lane));
    }
    sse_move::lift(b).or_else(|| sse_lanes::lift(b))
}

/// Operations that compute each half of the result from the same halves of two operands.
fn lane_wise(mnemonic: Mnemonic) -> Option<(Kind, Width)> {
    use Mnemonic as M;
    let (b8, b16, b32, b64) = (Width::B8, Width::B16, Width::B32, Width::B64);
    Some(match mnemonic {
        M::Pand | M::Andps | M::Andpd => (Kind::And, b64),
        M::Por | M::Orps | M::Orpd => (Kind::Or, b64),
        M::Pxor | M::Xorps | M::Xorpd => (Kind::Xor, b64),
        M::Paddb => (Kind::VAdd, b8),
        M::Paddw => (Kind::VAdd, b16),
        M::Paddd => (Kind::VAdd, b32),
        M::Paddq => (Kind::VAdd, b64),
        M::Psubb => (Kind::VSub, b8),
        M::Psubw => (Kind::VSub, b16),
        M::Psubd => (Kind::VSub, b32),
        M::Psubq => (Kind::VSub, b64),
        M::Paddusb => (Kind::VAddSatU, b8),
        M::Paddusw => (Kind::VAddSatU, b16),
        M::Paddsb => (Kind::VAddSatS, b8),
        M::Paddsw => (Kind::VAddSatS, b16),
        M::Psubusb => (Kind::VSubSatU, b8),
        M::Psubusw => (Kind::VSubSatU, b16),
        M::Psubsb => (Kind::VSubSatS, b8),
        M::Psubsw => (Kind::VSubSatS, b16),
        M::Pcmpeqb => (Kind::VCmpEq, b8),
        M::Pcmpeqw => (Kind::VCmpEq, b16),
        M::Pcmpeqd => (Kind::VCmpEq, b32),
        M::Pcmpeqq => (Kind::VCmpEq, b64),
        M::Pcmpgtb => (Kind::VCmpGtS, b8),
        M::Pcmpgtw => (Kind::VCmpGtS, b16),
        M::Pcmpgtd => (Kind::VCmpGtS, b32),
        M::Pcmpgtq => (Kind::VCmpGtS, b64),
        M::Pminub => (Kind::VMinU, b8),
        M::Pminuw => (Kind::VMinU, b16),
        M::Pminud => (Kind::VMinU, b32),
        M::Pminsb => (Kind::VMinS, b8),
        M::Pminsw => (Kind::VMinS, b16),
        M::Pminsd => (Kind::VMinS, b32),
        M::Pmaxub => (Kind::VMaxU, b8),
        M::Pmaxuw => (Kind::VMaxU, b16),
        M::Pmaxud => (Kind::VMaxU, b32),
        M::Pmaxsb => (Kind::VMaxS, b8),
        M::Pmaxsw => (Kind::VMaxS, b16),
        M::Pmaxsd => (Kind::VMaxS, b32),
        M::Pmullw => (Kind::VMul, b16),
        M::Pmulld => (Kind::VMul, b32),
        M::Pmulhw => (Kind::VMulHiS, b16),
        M::Pmulhuw => (Kind::VMulHiU, b16),
        M::Pavgb => (Kind::VAvgU, b8),
        M::Pavgw => (Kind::VAvgU, b16),
        M::Pmaddwd => (Kind::VMaddS16, b16),
        M::Psadbw => (Kind::VSad, b8),
        _ => return None,
    })
}

fn binary(b: &mut Builder, kind: Kind, lane: Width) -> Lifted {
    let constant = match kind {
        Kind::Xor | Kind::VSub | Kind::VSubSatU | Kind::VSubSatS | Kind::VCmpGtS => Some(0),
        Kind::VCmpEq => Some(u64::MAX),
        _ => None,
    };
    if let Some(value) = constant.filter(|_| b.same_register(0, 1)) {
        return b.write_halves(0, [Arg::Const(value); 2]);
    }
    let [x_low, x_high] = b.read_halves(0)?;
    let [y_low, y_high] = b.read_halves(1)?;
    let low = b.op(kind, lane, &[x_low, y_low]);
    let high = b.op(kind, lane, &[x_high, y_high]);
    b.write_halves(0, [low, high])
}

fn lane_shift(mnemonic: Mnemonic) -> Option<(Kind, Width)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Psllw => (Kind::VShl, Width::B16),
        M::Pslld => (Kind::VShl, Width::B32),
        M::Psllq => (Kind::VShl, Width::B64),
        M::Psrlw => (Kind::VShr, Width::B16),
        M::Psrld => (Kind::VShr, Width::B32),
        M::Psrlq => (Kind::VShr, Width::B64),
        M::Psraw => (Kind::VSar, Width::B16),
        M::Psrad => (Kind::VSar, Width::B32),
        _ => return None,
    })
}

/// All lanes by one count: an immediate or the low half of the source, of whose 16 bytes in memory
/// both halves are read.
fn shift(b: &mut Builder, kind: Kind, lane: Width) -> Lifted {
    let [low, high] = b.read_halves(0)?;
    let count = match b.immediate(1) {
        Some(count) => Arg::Const(count),
        None => b.read_halves(1)?[0],
    };
    let low = b.op(kind, lane, &[low, count]);
    let high = b.op(kind, lane, &[high, count]);
    b.write_halves(0, [low, high])
}

//! XMM instructions that move lanes between halves, and those made of several lane operations.
//!
//! Constant byte selections are one `vshuffle` for each half, which reads only the half it takes
//! bytes from.

use iced_x86::Mnemonic;
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};
use crate::xmm::Halves;

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    let (b8, b16, b32, b64) = (Width::B8, Width::B16, Width::B32, Width::B64);
    Some(match b.insn.mnemonic() {
        M::Pandn | M::Andnps | M::Andnpd => and_not(b),
        M::Punpcklbw => zip(b, b8, 0),
        M::Punpcklwd => zip(b, b16, 0),
        M::Punpckldq | M::Unpcklps => zip(b, b32, 0),
        M::Punpcklqdq | M::Unpcklpd => zip(b, b64, 0),
        M::Punpckhbw => zip(b, b8, 1),
        M::Punpckhwd => zip(b, b16, 1),
        M::Punpckhdq | M::Unpckhps => zip(b, b32, 1),
        M::Punpckhqdq | M::Unpckhpd => zip(b, b64, 1),
        M::Packsswb => pack(b, Kind::VPackS, b16),
        M::Packssdw => pack(b, Kind::VPackS, b32),
        M::Packuswb => pack(b, Kind::VPackU, b16),
        M::Packusdw => pack(b, Kind::VPackU, b32),
        M::Pshufd => shuffle_doublewords(b),
        M::Pshuflw => shuffle_words(b, 0),
        M::Pshufhw => shuffle_words(b, 1),
        M::Shufps => shuffle_two(b, b32),
        M::Shufpd => shuffle_two(b, b64),
        M::Pshufb => shuffle_bytes(b),
        M::Palignr => align(b),
        M::Pslldq => shift_bytes(b, true),
        M::Psrldq => shift_bytes(b, false),
        M::Pmovmskb => mask(b, b8),
        M::Movmskps => mask(b, b32),
        M::Movmskpd => mask(b, b64),
        M::Pmuludq => multiply_even(b, false),
        M::Pmuldq => multiply_even(b, true),
        M::Pmulhrsw => halfwise(b, multiply_round),
        M::Pmaddubsw => halfwise(b, multiply_add_bytes),
        M::Pabsb => absolute(b, b8),
        M::Pabsw => absolute(b, b16),
        M::Pabsd => absolute(b, b32),
        M::Psignb => halfwise(b, |b, x, y| sign(b, b8, x, y)),
        M::Psignw => halfwise(b, |b, x, y| sign(b, b16, x, y)),
        M::Psignd => halfwise(b, |b, x, y| sign(b, b32, x, y)),
        M::Phaddw => horizontal(b, Kind::VAdd, b16),
        M::Phaddd => horizontal(b, Kind::VAdd, b32),
        M::Phaddsw => horizontal(b, Kind::VAddSatS, b16),
        M::Phsubw => horizontal(b, Kind::VSub, b16),
        M::Phsubd => horizontal(b, Kind::VSub, b32),
        M::Phsubsw => horizontal(b, Kind::VSubSatS, b16),
        M::Pblendvb => blend_by_sign(b, b8),
        M::Blendvps => blend_by_sign(b, b32),
        M::Blendvpd => blend_by_sign(b, b64),
        M::Pblendw => blend_constant(b, b16),
        M::Blendps => blend_constant(b, b32),
        M::Blendpd => blend_constant(b, b64),
        M::Ptest => test(b),
        M::Pclmulqdq => carryless(b),
        _ => return None,
    })
}

fn and_not(b: &mut Builder) -> Lifted {
    if b.same_register(0, 1) {
        return b.write_halves(0, [Arg::Const(0); 2]);
    }
    halfwise(b, |b, x, y| {
        let x = b.not(Width::B64, x);
        b.and(Width::B64, x, y)
    })
}

/// Both halves by a function of the operands' same halves.
fn halfwise(b: &mut Builder, f: impl Fn(&mut Builder, Arg, Arg) -> Arg) -> Lifted {
    let x = b.read_halves(0)?;
    let y = b.read_halves(1)?;
    let halves = [f(b, x[0], y[0]), f(b, x[1], y[1])];
    b.write_halves(0, halves)
}

/// `punpckl*` (half 0) and `punpckh*` (half 1).
fn zip(b: &mut Builder, lane: Width, half: usize) -> Lifted {
    let x = b.read_halves(0)?[half];
    let y = b.read_halves(1)?[half];
    if lane == Width::B64 {
        return b.write_halves(0, [x, y]);
    }
    let low = b.op(Kind::VZipLo, lane, &[x, y]);
    let high = b.op(Kind::VZipHi, lane, &[x, y]);
    b.write_halves(0, [low, high])
}

fn pack(b: &mut Builder, kind: Kind, lane: Width) -> Lifted {
    let x = b.read_halves(0)?;
    let y = b.read_halves(1)?;
    let packed = [x, y].map(|halves| {
        let [low, high] = halves.map(|half| b.op(kind, lane, &[half]));
        b.insert(Width::B32, low, high, 32)
    });
    b.write_halves(0, packed)
}

/// Eight chosen bytes of 16. Only halves that bytes come from are used.
fn choose(b: &mut Builder, halves: Halves, bytes: [u8; 8]) -> Arg {
    let straight = |first: u8| (first..first + 8).eq(bytes);
    if straight(0) || straight(8) {
        return halves[usize::from(bytes[0] / 8)];
    }
    let low = if bytes.iter().any(|&byte| byte < 8) { halves[0] } else { Arg::Const(0) };
    let high = if bytes.iter().any(|&byte| byte >= 8) { halves[1] } else { Arg::Const(0) };
    b.op(Kind::VShuffle, Width::B8, &[low, high, Arg::Const(u64::from_le_bytes(bytes))])
}

/// The bytes of the chosen lanes.
fn lanes(lane: Width, chosen: impl Fn(u8) -> u8) -> [u8; 8] {
    let size = lane.bytes() as u8;
    let mut bytes = [0; 8];
    for (byte, at) in bytes.iter_mut().zip(0u8..) {
        *byte = chosen(at / size) * size + at % size;
    }
    bytes
}

fn shuffle_doublewords(b: &mut Builder) -> Lifted {
    let control = b.immediate(2)?;
    let source = b.read_halves(1)?;
    let halves =
        [0, 4].map(|at| choose(b, source, lanes(Width::B32, |lane| (control >> (at + 2 * lane) & 3) as u8)));
    b.write_halves(0, halves)
}

fn shuffle_words(b: &mut Builder, half: usize) -> Lifted {
    let control = b.immediate(2)?;
    let mut halves = b.read_halves(1)?;
    let bytes = lanes(Width::B16, |lane| (control >> (2 * lane) & 3) as u8);
    halves[half] = choose(b, [halves[half], Arg::Const(0)], bytes);
    b.write_halves(0, halves)
}

/// `shufps` and `shufpd`: the low half from the destination, the high half from the source.
fn shuffle_two(b: &mut Builder, lane: Width) -> Lifted {
    let control = b.immediate(2)?;
    let x = b.read_halves(0)?;
    let y = b.read_halves(1)?;
    let halves = if lane == Width::B64 {
        [x[(control & 1) as usize], y[(control >> 1 & 1) as usize]]
    } else {
        [(x, 0), (y, 4)]
            .map(|(from, at)| choose(b, from, lanes(lane, |lane| (control >> (at + 2 * lane) & 3) as u8)))
    };
    b.write_halves(0, halves)
}

fn shuffle_bytes(b: &mut Builder) -> Lifted {
    let [low, high] = b.read_halves(0)?;
    let selectors = b.read_halves(1)?;
    let halves = selectors.map(|selector| b.op(Kind::VShuffle, Width::B8, &[low, high, selector]));
    b.write_halves(0, halves)
}

/// The 16 bytes from byte `first` on of a row of halves; beyond it are zeros.
fn window(b: &mut Builder, row: &[Arg], first: u64) -> Halves {
    let at = |n: u64| usize::try_from(n).ok().and_then(|n| row.get(n)).copied().unwrap_or(Arg::Const(0));
    let (start, bits) = (first / 8, first % 8 * 8);
    [0, 1].map(|half| {
        let low = at(start + half);
        if bits == 0 {
            return low;
        }
        let high = at(start + half + 1);
        let low = b.shr(Width::B64, low, bits);
        let high = b.shl(Width::B64, high, 64 - bits);
        match (low, high) {
            (Arg::Const(0), one) | (one, Arg::Const(0)) => one,
            _ => b.or(Width::B64, low, high),
        }
    })
}

fn align(b: &mut Builder) -> Lifted {
    let first = b.immediate(2)?;
    let [high_low, high_high] = b.read_halves(0)?;
    let [low_low, low_high] = b.read_halves(1)?;
    let halves = window(b, &[low_low, low_high, high_low, high_high], first);
    b.write_halves(0, halves)
}

fn shift_bytes(b: &mut Builder, left: bool) -> Lifted {
    let count = b.immediate(1)?.min(16);
    let [low, high] = b.read_halves(0)?;
    let zero = Arg::Const(0);
    let halves =
        if left { window(b, &[zero, zero, low, high], 16 - count) } else { window(b, &[low, high], count) };
    b.write_halves(0, halves)
}

fn mask(b: &mut Builder, lane: Width) -> Lifted {
    let [low, high] = b.read_halves(1)?.map(|half| b.op(Kind::VMovMask, lane, &[half]));
    let high = b.shl(Width::B32, high, u64::from(64 / lane.bits()));
    let both = b.or(Width::B32, low, high);
    let width = b.width(0)?;
    b.write(0, width, both)
}

/// 64-bit products of the even doublewords.
fn multiply_even(b: &mut Builder, signed: bool) -> Lifted {
    halfwise(b, |b, x, y| {
        let [x, y] = [x, y]
            .map(|value| if signed { b.sext(Width::B64, value, 32) } else { b.narrow(Width::B32, value) });
        b.mul(Width::B64, x, y)
    })
}

/// `pmulhrsw`: bits 15 to 30 of the product, rounded by bit 14.
fn multiply_round(b: &mut Builder, x: Arg, y: Arg) -> Arg {
    let lane = Width::B16;
    let low = b.op(Kind::VMul, lane, &[x, y]);
    let high = b.op(Kind::VMulHiS, lane, &[x, y]);
    let high = b.op(Kind::VShl, lane, &[high, Arg::Const(1)]);
    let top = b.op(Kind::VShr, lane, &[low, Arg::Const(15)]);
    let sum = b.or(Width::B64, high, top);
    let round = b.op(Kind::VShr, lane, &[low, Arg::Const(14)]);
    let round = b.and(Width::B64, round, 0x0001_0001_0001_0001);
    b.op(Kind::VAdd, lane, &[sum, round])
}

/// `pmaddubsw`: unsigned bytes of the first times signed bytes of the second operand, neighbours
/// added with saturation.
fn multiply_add_bytes(b: &mut Builder, x: Arg, y: Arg) -> Arg {
    let lane = Width::B16;
    let eight = Arg::Const(8);
    let even_x = b.and(Width::B64, x, 0x00ff_00ff_00ff_00ff);
    let odd_x = b.op(Kind::VShr, lane, &[x, eight]);
    let even_y = b.op(Kind::VShl, lane, &[y, eight]);
    let even_y = b.op(Kind::VSar, lane, &[even_y, eight]);
    let odd_y = b.op(Kind::VSar, lane, &[y, eight]);
    let even = b.op(Kind::VMul, lane, &[even_x, even_y]);
    let odd = b.op(Kind::VMul, lane, &[odd_x, odd_y]);
    b.op(Kind::VAddSatS, lane, &[even, odd])
}

fn absolute(b: &mut Builder, lane: Width) -> Lifted {
    let halves = b.read_halves(1)?.map(|half| {
        let negated = b.op(Kind::VSub, lane, &[Arg::Const(0), half]);
        // The smallest number is its own negation.
        b.op(Kind::VMaxS, lane, &[half, negated])
    });
    b.write_halves(0, halves)
}

/// `psign*`: x negated where y is negative, 0 where y is 0.
fn sign(b: &mut Builder, lane: Width, x: Arg, y: Arg) -> Arg {
    let negative = b.op(Kind::VCmpGtS, lane, &[Arg::Const(0), y]);
    let zero = b.op(Kind::VCmpEq, lane, &[y, Arg::Const(0)]);
    let inverted = b.xor(Width::B64, x, negative);
    let signed = b.op(Kind::VSub, lane, &[inverted, negative]);
    let keep = b.not(Width::B64, zero);
    b.and(Width::B64, signed, keep)
}

/// `phadd*` and `phsub*`: even lanes with odd lanes.
fn horizontal(b: &mut Builder, kind: Kind, lane: Width) -> Lifted {
    let x = b.read_halves(0)?;
    let y = b.read_halves(1)?;
    let halves = [x, y].map(|halves| {
        let even = choose(b, halves, lanes(lane, |n| 2 * n));
        let odd = choose(b, halves, lanes(lane, |n| 2 * n + 1));
        b.op(kind, lane, &[even, odd])
    });
    b.write_halves(0, halves)
}

/// Takes the lanes of y where the mask is set.
fn merge(b: &mut Builder, x: Arg, y: Arg, mask: Arg) -> Arg {
    let taken = b.and(Width::B64, y, mask);
    let kept = b.not(Width::B64, mask);
    let kept = b.and(Width::B64, x, kept);
    b.or(Width::B64, taken, kept)
}

/// Blends by the sign bits of the lanes of xmm0.
fn blend_by_sign(b: &mut Builder, lane: Width) -> Lifted {
    let x = b.read_halves(0)?;
    let y = b.read_halves(1)?;
    let halves = [(0, Reg::Xmm0Lo), (1, Reg::Xmm0Hi)].map(|(half, control)| {
        let mask = b.op(Kind::VCmpGtS, lane, &[Arg::Const(0), arg(control)]);
        merge(b, x[half], y[half], mask)
    });
    b.write_halves(0, halves)
}

fn blend_constant(b: &mut Builder, lane: Width) -> Lifted {
    let control = b.immediate(2)?;
    let x = b.read_halves(0)?;
    let y = b.read_halves(1)?;
    let count = u64::from(64 / lane.bits());
    let halves = [0, 1].map(|half: usize| {
        let mut mask = 0;
        for n in 0..count {
            if control >> (half as u64 * count + n) & 1 == 1 {
                mask |= lane.mask() << (n * u64::from(lane.bits()));
            }
        }
        match mask {
            0 => x[half],
            u64::MAX => y[half],
            _ => merge(b, x[half], y[half], Arg::Const(mask)),
        }
    });
    b.write_halves(0, halves)
}

/// `ptest`: ZF of `y & x`, CF of `y & !x`.
fn test(b: &mut Builder) -> Lifted {
    let x = b.read_halves(0)?;
    let y = b.read_halves(1)?;
    for (flag, inverted) in [(Reg::Zf, false), (Reg::Cf, true)] {
        let both = [0, 1].map(|half: usize| {
            let x = if inverted { b.not(Width::B64, x[half]) } else { x[half] };
            b.and(Width::B64, x, y[half])
        });
        let any = b.or(Width::B64, both[0], both[1]);
        b.flag(flag, Kind::Eq, Width::B64, &[any, Arg::Const(0)]);
    }
    for flag in [Reg::Of, Reg::Sf, Reg::Af, Reg::Pf] {
        b.set_flag(flag, 0);
    }
    Some(())
}

fn carryless(b: &mut Builder) -> Lifted {
    let control = b.immediate(2)?;
    let x = b.read_halves(0)?[(control & 1) as usize];
    let y = b.read_halves(1)?[(control >> 4 & 1) as usize];
    let low = b.op(Kind::ClmulLo, Width::B64, &[x, y]);
    let high = b.op(Kind::ClmulHi, Width::B64, &[x, y]);
    b.write_halves(0, [low, high])
}

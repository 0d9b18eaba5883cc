//! The meaning of the lane-wise (`v*`) operations: 64-bit values seen as lanes of `w` bits.

use crate::op::Kind;

/// The low `bits` of `value` as a signed number.
pub(crate) const fn signed(value: u64, bits: u32) -> i64 {
    let shift = 64 - bits;
    (value << shift).cast_signed() >> shift
}

/// Evaluates a lane-wise operation; `bits` is the lane.
pub(crate) fn eval_lanes(kind: Kind, bits: u32, a: u64, b: u64, c: u64) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    let limit = 1i128 << (bits - 1);
    let each = |f: &dyn Fn(u64, u64) -> u64| {
        (0..64 / bits).fold(0, |all, lane| {
            let at = lane * bits;
            all | (f(a >> at & mask, b >> at & mask) & mask) << at
        })
    };
    let s = |value: u64| signed(value, bits);
    let wide = |value: u64| i128::from(signed(value, bits));
    let saturate = |value: i128| value.clamp(-limit, limit - 1) as u64;
    match kind {
        Kind::VAdd => each(&|x, y| x.wrapping_add(y)),
        Kind::VSub => each(&|x, y| x.wrapping_sub(y)),
        Kind::VAddSatU => each(&|x, y| x.saturating_add(y).min(mask)),
        Kind::VSubSatU => each(&|x, y| x.saturating_sub(y)),
        Kind::VAddSatS => each(&|x, y| saturate(wide(x) + wide(y))),
        Kind::VSubSatS => each(&|x, y| saturate(wide(x) - wide(y))),
        Kind::VCmpEq => each(&|x, y| if x == y { mask } else { 0 }),
        Kind::VCmpGtS => each(&|x, y| if s(x) > s(y) { mask } else { 0 }),
        Kind::VMinU => each(&|x, y| x.min(y)),
        Kind::VMaxU => each(&|x, y| x.max(y)),
        Kind::VMinS => each(&|x, y| s(x).min(s(y)).cast_unsigned()),
        Kind::VMaxS => each(&|x, y| s(x).max(s(y)).cast_unsigned()),
        Kind::VShl if b >= u64::from(bits) => 0,
        Kind::VShl => each(&|x, _| x << b),
        Kind::VShr if b >= u64::from(bits) => 0,
        Kind::VShr => each(&|x, _| x >> b),
        Kind::VSar => each(&|x, _| (s(x) >> b.min(63)).cast_unsigned()),
        Kind::VMul => each(&|x, y| x.wrapping_mul(y)),
        Kind::VMulHiU => each(&|x, y| ((u128::from(x) * u128::from(y)) >> bits) as u64),
        Kind::VMulHiS => each(&|x, y| ((i128::from(s(x)) * i128::from(s(y))) >> bits) as u64),
        Kind::VAvgU => each(&|x, y| (u128::from(x) + u128::from(y)).div_ceil(2) as u64),
        Kind::VMaddS16 => (0..2).fold(0, |all, lane| {
            let product = |at: u32| signed(a >> at, 16) * signed(b >> at, 16);
            let sum = (product(lane * 32) + product(lane * 32 + 16)).cast_unsigned() & 0xffff_ffff;
            all | sum << (lane * 32)
        }),
        Kind::VSad => {
            a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(x, y)| u64::from(x.abs_diff(y))).sum()
        }
        Kind::VZipLo | Kind::VZipHi => {
            let from = if kind == Kind::VZipHi { 32 } else { 0 };
            (0..32 / bits.min(32)).fold(0, |all, lane| {
                let at = lane * bits;
                let pair =
                    (a >> (from + at) & mask) | (b >> (from + at) & mask).checked_shl(bits).unwrap_or(0);
                all | pair << (2 * at)
            })
        }
        // The verifier refuses these; they must not panic before it does.
        Kind::VPackS | Kind::VPackU if bits < 8 => 0,
        Kind::VPackS | Kind::VPackU => {
            let half = bits / 2;
            let (low, high) = if kind == Kind::VPackS {
                (-(1i64 << (half - 1)), (1i64 << (half - 1)) - 1)
            } else {
                (0, (1i64 << half) - 1)
            };
            (0..64 / bits).fold(0, |all, lane| {
                let value = s(a >> (lane * bits)).clamp(low, high).cast_unsigned() & (mask >> half);
                all | value << (lane * half)
            })
        }
        Kind::VMovMask => {
            (0..64 / bits).fold(0, |all, lane| all | (a >> (lane * bits + bits - 1) & 1) << lane)
        }
        Kind::VShuffle => c.to_le_bytes().iter().enumerate().fold(0, |all, (at, &index)| {
            let table = u128::from(a) | u128::from(b) << 64;
            let byte = if index & 0x80 != 0 { 0 } else { (table >> (8 * (index & 15))) as u64 & 0xff };
            all | byte << (8 * at)
        }),
        // The caller passes lane-wise kinds only.
        _ => 0,
    }
}

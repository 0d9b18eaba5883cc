//! The meaning of the pure operations.
//!
//! Memory, environment and control belong to whoever runs the operations; everything that is a
//! function of its operands is here and nowhere else.

use crate::lanes::{eval_lanes, signed};
use crate::op::{Kind, Width};

/// A pure operation that has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EvalError {
    /// Division by zero, or a quotient that does not fit.
    #[error("divide error")]
    Divide,
    /// The operation is not pure; the caller must handle it.
    #[error("not a pure operation")]
    NotPure,
}

/// Evaluates a pure operation on its operands (those past its arity are ignored).
///
/// # Errors
/// [`EvalError::Divide`] as on the machine; [`EvalError::NotPure`] for every other class.
#[inline]
pub fn eval(kind: Kind, width: Width, a: u64, b: u64, c: u64) -> Result<u64, EvalError> {
    let mask = width.mask();
    let bits = width.bits();
    let (x, y) = (a & mask, b & mask);
    let result = match kind {
        Kind::Mov => x,
        Kind::Add => a.wrapping_add(b),
        Kind::Sub => a.wrapping_sub(b),
        Kind::And => a & b,
        Kind::Or => a | b,
        Kind::Xor => a ^ b,
        Kind::Not => !a,
        Kind::Neg => a.wrapping_neg(),
        Kind::Shl => {
            if b >= u64::from(bits) {
                0
            } else {
                x << b
            }
        }
        Kind::Shr => {
            if b >= u64::from(bits) {
                0
            } else {
                x >> b
            }
        }
        Kind::Sar => (signed(x, bits) >> b.min(63)) as u64,
        Kind::Rol => rotate_left(x, b, bits),
        Kind::Ror => rotate_left(x, u64::from(bits) - b % u64::from(bits), bits),
        Kind::Mul => a.wrapping_mul(b),
        Kind::MulHiU => ((u128::from(x) * u128::from(y)) >> bits) as u64,
        Kind::MulHiS => ((i128::from(signed(x, bits)) * i128::from(signed(y, bits))) >> bits) as u64,
        Kind::DivU => divide_unsigned(x, y, c & mask, bits)?.0,
        Kind::RemU => divide_unsigned(x, y, c & mask, bits)?.1,
        Kind::DivS => divide_signed(x, y, c & mask, bits)?.0,
        Kind::RemS => divide_signed(x, y, c & mask, bits)?.1,
        Kind::Sext => sign_extend(a, b as u32),
        Kind::Insert => {
            let lsb = c & 63;
            return Ok(a & !(mask << lsb) | y << lsb);
        }
        Kind::Extract => a >> (b & 63),
        Kind::Eq => return Ok(u64::from(x == y)),
        Kind::LtU => return Ok(u64::from(x < y)),
        Kind::LtS => return Ok(u64::from(signed(x, bits) < signed(y, bits))),
        Kind::CarryAdd => return Ok(((u128::from(x) + u128::from(y) + u128::from(c & 1)) >> bits) as u64),
        Kind::OverflowAdd => {
            let sum = x.wrapping_add(y).wrapping_add(c & 1);
            return Ok(u64::from((x ^ sum) & (y ^ sum) & width.sign_bit() != 0));
        }
        Kind::CarrySub => return Ok(u64::from(u128::from(x) < u128::from(y) + u128::from(c & 1))),
        Kind::OverflowSub => {
            let difference = x.wrapping_sub(y).wrapping_sub(c & 1);
            return Ok(u64::from((x ^ y) & (x ^ difference) & width.sign_bit() != 0));
        }
        Kind::Parity => return Ok(u64::from((a as u8).count_ones().is_multiple_of(2))),
        Kind::Select => {
            if a != 0 {
                b
            } else {
                c
            }
        }
        Kind::Clz => u64::from(x.leading_zeros() - (64 - bits)),
        Kind::Ctz => u64::from(x.trailing_zeros().min(bits)),
        Kind::Popcnt => u64::from(x.count_ones()),
        Kind::Bswap => x.swap_bytes() >> (64 - bits),
        Kind::Crc32c => return Ok(u64::from(crc32c(a as u32, y, bits))),
        Kind::ClmulLo => return Ok(carryless(a, b) as u64),
        Kind::ClmulHi => return Ok((carryless(a, b) >> 64) as u64),
        Kind::VAdd
        | Kind::VSub
        | Kind::VAddSatU
        | Kind::VSubSatU
        | Kind::VAddSatS
        | Kind::VSubSatS
        | Kind::VCmpEq
        | Kind::VCmpGtS
        | Kind::VMinU
        | Kind::VMaxU
        | Kind::VMinS
        | Kind::VMaxS
        | Kind::VShl
        | Kind::VShr
        | Kind::VSar
        | Kind::VMul
        | Kind::VMulHiU
        | Kind::VMulHiS
        | Kind::VAvgU
        | Kind::VMaddS16
        | Kind::VSad
        | Kind::VZipLo
        | Kind::VZipHi
        | Kind::VPackS
        | Kind::VPackU
        | Kind::VMovMask
        | Kind::VShuffle => {
            return Ok(eval_lanes(kind, bits, a, b, c));
        }
        Kind::Load
        | Kind::Store
        | Kind::Tsc
        | Kind::Rand
        | Kind::CpuidA
        | Kind::CpuidB
        | Kind::CpuidC
        | Kind::CpuidD
        | Kind::Rdmsr
        | Kind::Rdpmc
        | Kind::In
        | Kind::ReadDr
        | Kind::ReadKeys
        | Kind::WriteKeys
        | Kind::Alloc
        | Kind::Realloc
        | Kind::Free
        | Kind::Out
        | Kind::Wrmsr
        | Kind::WriteDr
        | Kind::TlbFlush
        | Kind::Undefine
        | Kind::Jump
        | Kind::BranchIf
        | Kind::Call
        | Kind::Ret
        | Kind::SysEnter
        | Kind::SysExit
        | Kind::Trap
        | Kind::Halt
        | Kind::Unsupported => return Err(EvalError::NotPure),
    };
    Ok(result & mask)
}

/// Sign-extends the low `bits` (clamped to 1..=64) of `value` to 64 bits.
const fn sign_extend(value: u64, bits: u32) -> u64 {
    let bits = if bits == 0 || bits > 64 { 64 } else { bits };
    signed(value, bits).cast_unsigned()
}

const fn rotate_left(value: u64, count: u64, bits: u32) -> u64 {
    let count = (count % bits as u64) as u32;
    if count == 0 { value } else { value << count | value >> (bits - count) }
}

fn divide_unsigned(high: u64, low: u64, divisor: u64, bits: u32) -> Result<(u64, u64), EvalError> {
    if divisor == 0 || high >= divisor {
        return Err(EvalError::Divide);
    }
    if high == 0 {
        return Ok((low / divisor, low % divisor));
    }
    let (dividend, divisor) = (u128::from(high) << bits | u128::from(low), u128::from(divisor));
    Ok(((dividend / divisor) as u64, (dividend % divisor) as u64))
}

fn divide_signed(high: u64, low: u64, divisor: u64, bits: u32) -> Result<(u64, u64), EvalError> {
    let divisor = i128::from(signed(divisor, bits));
    let shift = 128 - 2 * bits;
    let dividend = ((u128::from(high) << bits | u128::from(low)) << shift).cast_signed() >> shift;
    let quotient = dividend.checked_div(divisor).ok_or(EvalError::Divide)?;
    let limit = 1i128 << (bits - 1);
    if quotient < -limit || quotient >= limit {
        return Err(EvalError::Divide);
    }
    Ok((quotient as u64, (dividend % divisor) as u64))
}

fn crc32c(accumulator: u32, data: u64, bits: u32) -> u32 {
    let mut crc = accumulator;
    for byte in &data.to_le_bytes()[..(bits / 8).max(1) as usize] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    crc
}

fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|bit| b >> bit & 1 == 1).fold(0, |product, bit| product ^ u128::from(a) << bit)
}

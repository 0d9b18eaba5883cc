//! The pure operations against formulations of their own: Rust's operators on types of that width,
//! 128-bit arithmetic, loops over bits.

use ir::op::{Class, Kind, Width};
use ir::{EvalError, eval};
use proptest::prelude::*;

/// Numbers with a liking for edges and for small values.
pub fn number() -> impl Strategy<Value = u64> {
    let edge = prop::sample::select(vec![
        0,
        1,
        2,
        7,
        8,
        15,
        16,
        31,
        32,
        63,
        64,
        65,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
        u64::MAX - 1,
    ]);
    prop_oneof![
        edge,
        0u64..300,
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
        any::<i8>().prop_map(|n| n as u64)
    ]
}

fn bit(value: u64, at: u64) -> bool {
    at < 64 && value >> at & 1 == 1
}

/// The remainder of a polynomial division, bit by bit, in the notation of the polynomial
/// 0x11EDC6F41.
fn crc(accumulator: u32, bytes: &[u8]) -> u32 {
    let mut register = accumulator.reverse_bits();
    for byte in bytes {
        for at in 0..8 {
            let top = register >> 31 == 1;
            register <<= 1;
            if top != (byte >> at & 1 == 1) {
                register ^= 0x1edc_6f41;
            }
        }
    }
    register.reverse_bits()
}

fn carryless(a: u64, b: u64) -> u128 {
    let mut product = 0u128;
    for i in 0..64 {
        for j in 0..64 {
            product ^= u128::from(bit(a, i) && bit(b, j)) << (i + j);
        }
    }
    product
}

macro_rules! native {
    ($name:ident, $u:ty, $i:ty) => {
        /// What the operation gives at this width; `None` for kinds that are not defined by
        /// width-wide arithmetic.
        fn $name(kind: Kind, a: u64, b: u64, c: u64) -> Option<Result<u64, EvalError>> {
            const BITS: u32 = <$u>::BITS;
            let (x, y, z) = (a as $u, b as $u, c as $u);
            let (s, t, v) = (x as $i, y as $i, z as $i);
            let carry = c & 1;
            let count = u32::try_from(b).unwrap_or(u32::MAX);
            let (wide, narrow) = ((x as u128) << BITS | y as u128, z as u128);
            let (wide_s, narrow_s) = ((s as i128) << BITS | y as i128, v as i128);
            let flag = |value: bool| value as $u;
            let fits = |sum: i128| flag(<$i>::try_from(sum).is_err());
            let quotient = wide.checked_div(narrow).and_then(|value| <$u>::try_from(value).ok());
            let quotient_s = wide_s.checked_div(narrow_s).and_then(|value| <$i>::try_from(value).ok());
            Some(Ok(match kind {
                Kind::Mov => x,
                Kind::Add => x.wrapping_add(y),
                Kind::Sub => x.wrapping_sub(y),
                Kind::And => x & y,
                Kind::Or => x | y,
                Kind::Xor => x ^ y,
                Kind::Not => !x,
                Kind::Neg => x.wrapping_neg(),
                Kind::Shl => x.checked_shl(count).unwrap_or(0),
                Kind::Shr => x.checked_shr(count).unwrap_or(0),
                Kind::Sar => s.checked_shr(count).unwrap_or(if s < 0 { -1 } else { 0 }) as $u,
                Kind::Rol => x.rotate_left((b % u64::from(BITS)) as u32),
                Kind::Ror => x.rotate_right((b % u64::from(BITS)) as u32),
                Kind::Mul => x.wrapping_mul(y),
                Kind::MulHiU => ((x as u128 * y as u128) >> BITS) as $u,
                Kind::MulHiS => ((s as i128 * t as i128) >> BITS) as $u,
                Kind::DivU | Kind::RemU => match quotient {
                    None => return Some(Err(EvalError::Divide)),
                    Some(quotient) if kind == Kind::DivU => quotient,
                    Some(_) => (wide % narrow) as $u,
                },
                Kind::DivS | Kind::RemS => match quotient_s {
                    None => return Some(Err(EvalError::Divide)),
                    Some(quotient) if kind == Kind::DivS => quotient as $u,
                    Some(_) => (wide_s % narrow_s) as $u,
                },
                Kind::Sext if !(1..=64).contains(&b) => return None,
                Kind::Sext => (((a as i128) << (128 - b)) >> (128 - b)) as $u,
                Kind::Insert => {
                    let lsb = c % 64;
                    let inside = |at: u64| at >= lsb && at < lsb + u64::from(BITS);
                    let source = |at: u64| if inside(at) { bit(b, at - lsb) } else { bit(a, at) };
                    return Some(Ok((0..64).map(|at| u64::from(source(at)) << at).sum()));
                }
                Kind::Extract => (u128::from(a) >> (b % 64)) as $u,
                Kind::Eq => flag(x == y),
                Kind::LtU => flag(x < y),
                Kind::LtS => flag(s < t),
                Kind::CarryAdd => flag(x as u128 + y as u128 + u128::from(carry) > <$u>::MAX as u128),
                Kind::OverflowAdd => fits(s as i128 + t as i128 + i128::from(carry)),
                Kind::CarrySub => flag((x as i128) - (y as i128) - i128::from(carry) < 0),
                Kind::OverflowSub => fits(s as i128 - t as i128 - i128::from(carry)),
                Kind::Parity => flag((0..8).filter(|&at| bit(a, at)).count() % 2 == 0),
                Kind::Select => {
                    if a == 0 {
                        z
                    } else {
                        y
                    }
                }
                Kind::Clz => return Some(Ok(u64::from(x.leading_zeros()))),
                Kind::Ctz => return Some(Ok(u64::from(x.trailing_zeros()))),
                Kind::Popcnt => (0..u64::from(BITS)).filter(|&at| bit(a, at)).count() as $u,
                Kind::Bswap => {
                    let mut bytes = x.to_le_bytes();
                    bytes.reverse();
                    <$u>::from_le_bytes(bytes)
                }
                Kind::Crc32c => return Some(Ok(u64::from(crc(a as u32, &y.to_le_bytes())))),
                Kind::ClmulLo => return Some(Ok(carryless(a, b) as u64)),
                Kind::ClmulHi => return Some(Ok((carryless(a, b) >> 64) as u64)),
                _ => return None,
            } as u64))
        }
    };
}

native!(native8, u8, i8);
native!(native16, u16, i16);
native!(native32, u32, i32);
native!(native64, u64, i64);

fn check(kind: Kind, a: u64, b: u64, c: u64) -> Result<usize, TestCaseError> {
    let all = [
        (Width::B8, native8(kind, a, b, c)),
        (Width::B16, native16(kind, a, b, c)),
        (Width::B32, native32(kind, a, b, c)),
        (Width::B64, native64(kind, a, b, c)),
    ];
    let mut checked = 0;
    for (width, expected) in all {
        if let Some(expected) = expected {
            let name = kind.name();
            prop_assert_eq!(
                eval(kind, width, a, b, c),
                expected,
                "{}.{} {:#x} {:#x} {:#x}",
                name,
                width.bits(),
                a,
                b,
                c
            );
            checked += 1;
        }
    }
    Ok(checked)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn operations_agree_with_native_arithmetic(a in number(), b in number(), c in number()) {
        for &kind in Kind::ALL {
            check(kind, a, b, c)?;
        }
    }

    #[test]
    fn divisions_that_fit_agree(quotient in number(), divisor in number(), rest in number()) {
        for (bits, width) in [(8, Width::B8), (16, Width::B16), (32, Width::B32), (64, Width::B64)] {
            let mask = u128::from(width.mask());
            let (q, d) = (u128::from(quotient) & mask, (u128::from(divisor) & mask).max(1));
            let r = u128::from(rest) % d;
            let n = q * d + r;
            let (high, low) = ((n >> bits) as u64, n as u64);
            prop_assert_eq!(eval(Kind::DivU, width, high, low, d as u64), Ok(q as u64));
            prop_assert_eq!(eval(Kind::RemU, width, high, low, d as u64), Ok(r as u64));
            let sign = |value: u128| ((value << (128 - bits)) as i128) >> (128 - bits);
            let (q, d) = (sign(q), sign(d));
            let n = q * d;
            let (high, low) = ((n >> bits) as u64, n as u64);
            prop_assert_eq!(eval(Kind::DivS, width, high, low, d as u64), Ok(q as u64 & width.mask()));
            prop_assert_eq!(eval(Kind::RemS, width, high, low, d as u64), Ok(0));
        }
    }

    #[test]
    fn nothing_panics_and_results_stay_in_their_width(a in number(), b in number(), c in number()) {
        for &kind in Kind::ALL {
            for width in [Width::B1, Width::B8, Width::B16, Width::B32, Width::B64] {
                let result = eval(kind, width, a, b, c);
                prop_assert_eq!(result == Err(EvalError::NotPure), kind.class() != Class::Pure, "{}",
                    kind.name());
                let whole = kind.name().starts_with('v')
                    || matches!(kind, Kind::Insert | Kind::Crc32c | Kind::ClmulLo | Kind::ClmulHi);
                let counts = matches!(kind, Kind::Clz | Kind::Ctz | Kind::Popcnt);
                if let (Ok(value), false, false) = (result, whole, counts) {
                    prop_assert!(value <= width.mask(), "{}.{} {:#x}", kind.name(), width.bits(), value);
                }
            }
        }
    }

    #[test]
    fn one_bit(a: bool, b: bool, c: bool) {
        let (x, y, z) = (u64::from(a), u64::from(b), u64::from(c));
        // What lies above the bit must not matter.
        let one = |kind| eval(kind, Width::B1, x | 0xf0, y | 0x0e, z).map(|value| value == 1);
        prop_assert_eq!(one(Kind::Mov), Ok(a));
        prop_assert_eq!(one(Kind::And), Ok(a && b));
        prop_assert_eq!(one(Kind::Or), Ok(a || b));
        prop_assert_eq!(one(Kind::Xor), Ok(a != b));
        prop_assert_eq!(one(Kind::Not), Ok(!a));
        prop_assert_eq!(one(Kind::Eq), Ok(a == b));
        prop_assert_eq!(one(Kind::LtU), Ok(!a && b));
        prop_assert_eq!(one(Kind::CarryAdd), Ok(x + y + z > 1));
        prop_assert_eq!(one(Kind::CarrySub), Ok(x < y + z));
    }
}

#[test]
fn every_pure_scalar_operation_is_checked() {
    for &kind in Kind::ALL {
        let scalar = kind.class() == Class::Pure && !kind.name().starts_with('v');
        assert_eq!(check(kind, 0, 1, 1).unwrap() == 4, scalar, "{}", kind.name());
    }
}

#[test]
fn division_faults() {
    for width in [Width::B8, Width::B16, Width::B32, Width::B64] {
        let (max, sign) = (width.mask(), width.sign_bit());
        for (kind, rest) in [(Kind::DivU, Kind::RemU), (Kind::DivS, Kind::RemS)] {
            for (a, b, c) in [(0, 1, 0), (1, 0, 1), (max - 1, 0, 1)] {
                assert_eq!(eval(kind, width, a, b, c), Err(EvalError::Divide));
                assert_eq!(eval(rest, width, a, b, c), Err(EvalError::Divide));
            }
        }
        // The smallest number by -1, and the largest quotients that still fit.
        assert_eq!(eval(Kind::DivS, width, max, sign, max), Err(EvalError::Divide));
        assert_eq!(eval(Kind::DivS, width, max, sign, 1), Ok(sign));
        assert_eq!(eval(Kind::DivS, width, 0, sign - 1, max), Ok((sign + 1) & max));
        assert_eq!(eval(Kind::DivS, width, sign, 0, max), Err(EvalError::Divide));
    }
}

#[test]
fn crc32c_check_value() {
    // The check value of CRC-32C (RFC 3720 appendix B.4 uses the same code): "123456789".
    let crc = b"123456789"
        .iter()
        .fold(0xffff_ffff, |crc, &byte| eval(Kind::Crc32c, Width::B8, crc, byte.into(), 0).unwrap());
    assert_eq!(crc ^ 0xffff_ffff, 0xe306_9283);
}

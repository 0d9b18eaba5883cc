//! The lane-wise operations against lists of numbers.

use crate::eval::number;
use ir::eval;
use ir::op::{Kind, Width};
use proptest::prelude::*;

fn unsigned(value: u64, bits: u32) -> Vec<i128> {
    (0..64 / bits).map(|lane| i128::from(value >> (lane * bits)) & ((1 << bits) - 1)).collect()
}

fn signed(value: u64, bits: u32) -> Vec<i128> {
    unsigned(value, bits)
        .into_iter()
        .map(|lane| if lane >> (bits - 1) == 1 { lane - (1 << bits) } else { lane })
        .collect()
}

fn join(lanes: &[i128], bits: u32) -> u64 {
    lanes
        .iter()
        .enumerate()
        .fold(0u128, |all, (at, lane)| all | ((lane & ((1 << bits) - 1)) as u128) << (at as u32 * bits))
        as u64
}

fn reference(kind: Kind, bits: u32, a: u64, b: u64, c: u64) -> Option<u64> {
    let (ua, ub, sa, sb) = (unsigned(a, bits), unsigned(b, bits), signed(a, bits), signed(b, bits));
    let top = 1i128 << bits;
    let half = top / 2;
    let u = |f: &dyn Fn(i128, i128) -> i128| {
        join(&ua.iter().zip(&ub).map(|(&x, &y)| f(x, y)).collect::<Vec<_>>(), bits)
    };
    let s = |f: &dyn Fn(i128, i128) -> i128| {
        join(&sa.iter().zip(&sb).map(|(&x, &y)| f(x, y)).collect::<Vec<_>>(), bits)
    };
    let all = |yes: bool| if yes { -1 } else { 0 };
    let count = b.min(64);
    Some(match kind {
        Kind::VAdd => u(&|x, y| x + y),
        Kind::VSub => u(&|x, y| x - y),
        Kind::VAddSatU => u(&|x, y| (x + y).min(top - 1)),
        Kind::VSubSatU => u(&|x, y| (x - y).max(0)),
        Kind::VAddSatS => s(&|x, y| (x + y).clamp(-half, half - 1)),
        Kind::VSubSatS => s(&|x, y| (x - y).clamp(-half, half - 1)),
        Kind::VCmpEq => u(&|x, y| all(x == y)),
        Kind::VCmpGtS => s(&|x, y| all(x > y)),
        Kind::VMinU => u(&|x, y| if x < y { x } else { y }),
        Kind::VMaxU => u(&|x, y| if x > y { x } else { y }),
        Kind::VMinS => s(&|x, y| if x < y { x } else { y }),
        Kind::VMaxS => s(&|x, y| if x > y { x } else { y }),
        Kind::VShl => u(&|x, _| if count < u64::from(bits) { x << count } else { 0 }),
        Kind::VShr => u(&|x, _| x >> count),
        Kind::VSar => s(&|x, _| x >> count),
        Kind::VMul => u(&|x, y| (x as u128).wrapping_mul(y as u128) as i128),
        Kind::VMulHiU => u(&|x, y| ((x as u128 * y as u128) >> bits) as i128),
        Kind::VMulHiS => s(&|x, y| (x * y) >> bits),
        Kind::VAvgU => u(&|x, y| (x + y + 1) / 2),
        Kind::VMaddS16 => {
            let products: Vec<i128> = signed(a, 16).iter().zip(signed(b, 16)).map(|(x, y)| x * y).collect();
            join(&[products[0] + products[1], products[2] + products[3]], 32)
        }
        Kind::VSad => {
            unsigned(a, 8).iter().zip(unsigned(b, 8)).map(|(x, y)| (x - y).unsigned_abs() as u64).sum()
        }
        Kind::VZipLo | Kind::VZipHi if bits == 64 => return None,
        Kind::VZipLo | Kind::VZipHi => {
            let lanes = ua.len() / 2;
            let from = if kind == Kind::VZipLo { 0 } else { lanes };
            let mixed: Vec<i128> = (from..from + lanes).flat_map(|at| [ua[at], ub[at]]).collect();
            join(&mixed, bits)
        }
        Kind::VPackS => {
            let quarter = 1i128 << (bits / 2 - 1);
            join(&sa.iter().map(|&x| x.clamp(-quarter, quarter - 1)).collect::<Vec<_>>(), bits / 2)
        }
        Kind::VPackU => {
            join(&sa.iter().map(|&x| x.clamp(0, (1 << (bits / 2)) - 1)).collect::<Vec<_>>(), bits / 2)
        }
        Kind::VMovMask => join(&sa.iter().map(|&x| i128::from(x < 0)).collect::<Vec<_>>(), 1),
        Kind::VShuffle => {
            let table: Vec<i128> = [unsigned(a, 8), unsigned(b, 8)].concat();
            let byte = |&index: &i128| if index >= 0x80 { 0 } else { table[index as usize % 16] };
            join(&unsigned(c, 8).iter().map(byte).collect::<Vec<_>>(), 8)
        }
        _ => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn lanes_agree_with_lists(a in lanes(), b in lanes(), c in any::<u64>()) {
        for &kind in Kind::ALL {
            for width in [Width::B8, Width::B16, Width::B32, Width::B64] {
                if let Some(expected) = reference(kind, width.bits(), a, b, c) {
                    let (name, bits) = (kind.name(), width.bits());
                    prop_assert_eq!(eval(kind, width, a, b, c), Ok(expected), "{}.{} {:#x} {:#x} {:#x}",
                        name, bits, a, b, c);
                }
            }
        }
    }
}

/// Numbers whose lanes are edges, too.
fn lanes() -> impl Strategy<Value = u64> {
    let edge = || prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xff]);
    prop_oneof![number(), prop::array::uniform8(edge()).prop_map(u64::from_le_bytes)]
}

#[test]
fn every_lane_operation_is_checked() {
    for &kind in Kind::ALL {
        assert_eq!(reference(kind, 16, 1, 2, 3).is_some(), kind.name().starts_with('v'), "{}", kind.name());
    }
}

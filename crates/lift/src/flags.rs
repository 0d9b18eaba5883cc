//! How the arithmetic flags come out of an operation, and conditions made of them.
//!
//! Where the manual leaves a flag undefined, it gets what QEMU's TCG computes
//! (`target/i386/tcg/cc_helper_template.h`), so that replaying a QEMU trace agrees. Only changed
//! flags are assigned.

use iced_x86::ConditionCode;
use ir::{Arg, Kind, Width};
use machine::reg::{RFLAGS_FIELDS, Reg};

use crate::builder::{Builder, arg};

impl Builder<'_> {
    /// SF, ZF and PF of a result.
    pub(crate) fn flags_of_result(&mut self, width: Width, result: Arg) {
        self.flag(Reg::Sf, Kind::Extract, Width::B1, &[result, Arg::Const(u64::from(width.bits() - 1))]);
        self.flag(Reg::Zf, Kind::Eq, width, &[result, Arg::Const(0)]);
        self.flag(Reg::Pf, Kind::Parity, Width::B8, &[result]);
    }

    /// The flags of `and`, `or`, `xor`, `test`.
    pub(crate) fn flags_of_logic(&mut self, width: Width, result: Arg) {
        self.flags_of_result(width, result);
        for flag in [Reg::Cf, Reg::Of, Reg::Af] {
            self.set_flag(flag, 0);
        }
    }

    /// AF of a sum or difference: the carry into bit 4.
    pub(crate) fn flag_af(&mut self, a: Arg, b: Arg, result: Arg) {
        let carries = self.xor(Width::B8, a, b);
        let carries = self.xor(Width::B8, carries, result);
        self.flag(Reg::Af, Kind::Extract, Width::B1, &[carries, Arg::Const(4)]);
    }

    /// All flags of `a + b + carry`.
    pub(crate) fn flags_of_add(&mut self, width: Width, a: Arg, b: Arg, carry: Arg, result: Arg) {
        self.flag(Reg::Of, Kind::OverflowAdd, width, &[a, b, carry]);
        self.flags_of_result(width, result);
        self.flag_af(a, b, result);
        self.flag(Reg::Cf, Kind::CarryAdd, width, &[a, b, carry]);
    }

    /// All flags of `a - b - borrow`.
    pub(crate) fn flags_of_sub(&mut self, width: Width, a: Arg, b: Arg, borrow: Arg, result: Arg) {
        self.flag(Reg::Of, Kind::OverflowSub, width, &[a, b, borrow]);
        self.flags_of_result(width, result);
        self.flag_af(a, b, result);
        self.flag(Reg::Cf, Kind::CarrySub, width, &[a, b, borrow]);
    }

    /// All flags of comparing `a` with `b`.
    pub(crate) fn flags_of_compare(&mut self, width: Width, a: Arg, b: Arg) {
        let result = self.sub(width, a, b);
        self.flags_of_sub(width, a, b, Arg::Const(0), result);
    }

    /// The condition of a `jcc`, `setcc` or `cmovcc` (SDM vol. 1 appendix B).
    pub(crate) fn condition(&mut self, code: ConditionCode) -> Option<Arg> {
        let b1 = Width::B1;
        let (cf, zf, sf, of, pf) = (arg(Reg::Cf), arg(Reg::Zf), arg(Reg::Sf), arg(Reg::Of), arg(Reg::Pf));
        Some(match code {
            ConditionCode::None => return None,
            ConditionCode::o => of,
            ConditionCode::no => self.not(b1, of),
            ConditionCode::b => cf,
            ConditionCode::ae => self.not(b1, cf),
            ConditionCode::e => zf,
            ConditionCode::ne => self.not(b1, zf),
            ConditionCode::be => self.or(b1, cf, zf),
            ConditionCode::a => {
                let below = self.or(b1, cf, zf);
                self.not(b1, below)
            }
            ConditionCode::s => sf,
            ConditionCode::ns => self.not(b1, sf),
            ConditionCode::p => pf,
            ConditionCode::np => self.not(b1, pf),
            ConditionCode::l => self.xor(b1, sf, of),
            ConditionCode::ge => self.eq(b1, sf, of),
            ConditionCode::le => {
                let less = self.xor(b1, sf, of);
                self.or(b1, less, zf)
            }
            ConditionCode::g => {
                let less = self.xor(b1, sf, of);
                let not_greater = self.or(b1, less, zf);
                self.not(b1, not_greater)
            }
        })
    }

    /// The RFLAGS image of the flag registers (SDM vol. 1 section 3.4.3).
    pub(crate) fn rflags(&mut self) -> Arg {
        let mut image = Arg::Const(2);
        for &(flag, bit, _) in RFLAGS_FIELDS {
            let at = self.shl(Width::B64, arg(flag), u64::from(bit));
            image = self.or(Width::B64, image, at);
        }
        image
    }

    /// Assigns the flags below `bits` from an image, as `popf` and `iret` do: IOPL only at CPL 0,
    /// IF only if CPL <= IOPL.
    pub(crate) fn set_rflags(&mut self, image: Arg, bits: u32) {
        let supervisor = self.eq(Width::B8, arg(Reg::Cpl), 0);
        let too_low = self.less(Width::B8, arg(Reg::Iopl), arg(Reg::Cpl));
        for &(flag, bit, size) in RFLAGS_FIELDS {
            if bit >= bits {
                continue;
            }
            let at = Arg::Const(u64::from(bit));
            match flag {
                Reg::Iopl => {
                    let field = self.extract_field(image, bit, size);
                    self.flag(flag, Kind::Select, Width::B8, &[supervisor, field, arg(flag)]);
                }
                Reg::If => {
                    let field = self.extract(Width::B1, image, at);
                    self.flag(flag, Kind::Select, Width::B1, &[too_low, arg(flag), field]);
                }
                _ => self.flag(flag, Kind::Extract, Width::B1, &[image, at]),
            }
        }
    }

    /// A field of one or two bits.
    pub(crate) fn extract_field(&mut self, image: Arg, bit: u32, size: u32) -> Arg {
        if size == 1 {
            return self.extract(Width::B1, image, u64::from(bit));
        }
        let shifted = self.extract(Width::B8, image, u64::from(bit));
        self.and(Width::B8, shifted, (1u64 << size) - 1)
    }

    /// Assigns a flag of any size.
    pub(crate) fn set_field(&mut self, flag: Reg, size: u32, value: Arg) {
        let width = if size == 1 { Width::B1 } else { Width::B8 };
        self.flag(flag, Kind::Mov, width, &[value]);
    }
}

//! Moves and the two-operand arithmetic of the general registers.
//!
//! `xor r,r`, `sub r,r`, `cmp r,r` and `sbb r,r` do not read the register: its value does not
//! matter, and a dependence analysis must not think it does. Neither must it think that memory is
//! written where it stays as it is: `lock orl $0,(%rsp)` and its like order memory accesses, touch
//! a page, or compare.

use iced_x86::Mnemonic;
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};
use crate::operands::gpr;

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Mov => mov(b),
        M::Lea => lea(b),
        M::Movzx => extend(b, false),
        M::Movsx | M::Movsxd => extend(b, true),
        M::Movbe => reverse(b),
        M::Movnti => mov(b),
        M::Add => add(b, Arg::Const(0)),
        M::Adc => add(b, arg(Reg::Cf)),
        M::Sub => sub(b, Arg::Const(0), true),
        M::Sbb => sub(b, arg(Reg::Cf), true),
        M::Cmp => sub(b, Arg::Const(0), false),
        M::Adcx => add_one_flag(b, Reg::Cf),
        M::Adox => add_one_flag(b, Reg::Of),
        M::And => logic(b, Kind::And, true),
        M::Or => logic(b, Kind::Or, true),
        M::Xor => logic(b, Kind::Xor, true),
        M::Test => logic(b, Kind::And, false),
        M::Andn => andn(b),
        M::Inc => step(b, Kind::Add),
        M::Dec => step(b, Kind::Sub),
        M::Neg => neg(b),
        M::Not => not(b),
        M::Xchg => exchange(b),
        M::Xadd => exchange_add(b),
        M::Cmpxchg => compare_exchange(b),
        M::Cmpxchg8b => compare_exchange_pair(b, Width::B32),
        M::Cmpxchg16b => compare_exchange_pair(b, Width::B64),
        M::Bswap => byte_swap(b),
        M::Cbw => widen(b, Width::B8),
        M::Cwde => widen(b, Width::B16),
        M::Cdqe => widen(b, Width::B32),
        M::Cwd => spread(b, Width::B16),
        M::Cdq => spread(b, Width::B32),
        M::Cqo => spread(b, Width::B64),
        _ => {
            if b.insn.is_jcc_short_or_near() {
                return None;
            }
            return condition_user(b);
        }
    })
}

/// `mov` of general registers, memory and immediates; segment, control and debug registers are
/// elsewhere.
fn mov(b: &mut Builder) -> Lifted {
    if (0..2).any(|n| b.register(n).is_some_and(|register| !register.is_gpr())) {
        return crate::system::mov_special(b);
    }
    let width = b.width(0)?;
    let value = b.read(1, width)?;
    b.write(0, width, value)
}

fn lea(b: &mut Builder) -> Lifted {
    let offset = b.offset()?;
    let width = b.width(0)?;
    b.write(0, width, offset)
}

fn extend(b: &mut Builder, signed: bool) -> Lifted {
    let (to, from) = (b.width(0)?, b.width(1)?);
    let from = from.min(to);
    let value = b.read(1, from)?;
    let value = if signed { b.sext(to, value, u64::from(from.bits())) } else { b.narrow(from, value) };
    b.write(0, to, value)
}

fn reverse(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let value = b.read(1, width)?;
    let value = b.op(Kind::Bswap, width, &[value]);
    b.write(0, width, value)
}

fn byte_swap(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let value = b.read(0, width)?;
    // The manual leaves the 16-bit form undefined; QEMU swaps the lower 32 bits and writes 16 of
    // them.
    let value = b.op(Kind::Bswap, width.max(Width::B32), &[value]);
    b.write(0, width, value)
}

fn add(b: &mut Builder, carry: Arg) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(0, width)?;
    let y = b.read(1, width)?;
    let mut sum = b.add(width, x, y);
    if carry != Arg::Const(0) {
        sum = b.add(width, sum, carry);
    }
    if carry != Arg::Const(0) || !stays(b, y, 0) {
        b.write(0, width, sum)?;
    }
    b.flags_of_add(width, x, y, carry, sum);
    Some(())
}

fn sub(b: &mut Builder, borrow: Arg, keep: bool) -> Lifted {
    let width = b.width(0)?;
    let (x, y) = if b.same_register(0, 1) {
        (Arg::Const(0), Arg::Const(0))
    } else {
        (b.read(0, width)?, b.read(1, width)?)
    };
    let mut difference = b.sub(width, x, y);
    if borrow != Arg::Const(0) {
        difference = b.sub(width, difference, borrow);
    }
    if keep && (borrow != Arg::Const(0) || !stays(b, y, 0)) {
        b.write(0, width, difference)?;
    }
    b.flags_of_sub(width, x, y, borrow, difference);
    Some(())
}

/// Whether the first operand is memory that stays as it is, the second being this constant.
fn stays(b: &Builder, y: Arg, neutral: u64) -> bool {
    b.is_memory(0) && y == Arg::Const(neutral)
}

fn add_one_flag(b: &mut Builder, flag: Reg) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(0, width)?;
    let y = b.read(1, width)?;
    let sum = b.add(width, x, y);
    let sum = b.add(width, sum, arg(flag));
    b.write(0, width, sum)?;
    b.flag(flag, Kind::CarryAdd, width, &[x, y, arg(flag)]);
    Some(())
}

fn logic(b: &mut Builder, kind: Kind, keep: bool) -> Lifted {
    let width = b.width(0)?;
    let (mut result, mut keep) = (Arg::Const(0), keep);
    if kind != Kind::Xor || !b.same_register(0, 1) {
        let x = b.read(0, width)?;
        let y = b.read(1, width)?;
        keep &= !stays(b, y, if kind == Kind::And { width.mask() } else { 0 });
        result = b.op(kind, width, &[x, y]);
    }
    if keep {
        b.write(0, width, result)?;
    }
    b.flags_of_logic(width, result);
    Some(())
}

fn andn(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(1, width)?;
    let y = b.read(2, width)?;
    let x = b.not(width, x);
    let result = b.and(width, x, y);
    b.write(0, width, result)?;
    b.flags_of_logic(width, result);
    Some(())
}

/// `inc` and `dec`: CF stays.
fn step(b: &mut Builder, kind: Kind) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(0, width)?;
    let (one, zero) = (Arg::Const(1), Arg::Const(0));
    let result = b.op(kind, width, &[x, one]);
    b.write(0, width, result)?;
    let overflow = if kind == Kind::Add { Kind::OverflowAdd } else { Kind::OverflowSub };
    b.flag(Reg::Of, overflow, width, &[x, one, zero]);
    b.flags_of_result(width, result);
    b.flag_af(x, one, result);
    Some(())
}

fn neg(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(0, width)?;
    let result = b.op(Kind::Neg, width, &[x]);
    b.write(0, width, result)?;
    b.flags_of_sub(width, Arg::Const(0), x, Arg::Const(0), result);
    Some(())
}

fn not(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(0, width)?;
    let result = b.not(width, x);
    b.write(0, width, result)
}

fn exchange(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(0, width)?;
    let y = b.read(1, width)?;
    b.write(0, width, y)?;
    b.write(1, width, x)
}

fn exchange_add(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let x = b.read(0, width)?;
    let y = b.read(1, width)?;
    let sum = b.add(width, x, y);
    // With the same register twice the sum is what stays.
    b.write(1, width, x)?;
    b.write(0, width, sum)?;
    b.flags_of_add(width, x, y, Arg::Const(0), sum);
    Some(())
}

/// The destination is written in either case (SDM vol. 2, CMPXCHG); the accumulator only on
/// failure. A 32-bit register destination is zero-extended even then, as in QEMU; some processors
/// keep its upper half.
fn compare_exchange(b: &mut Builder) -> Lifted {
    let width = b.width(0)?;
    let old = b.read_exact(0, width)?;
    let new = b.read(1, width)?;
    let accumulator = arg(Reg::Rax);
    let equal = b.eq(width, accumulator, old);
    let stored = b.select(width, equal, new, old);
    let failed = b.insert_low(width, Reg::Rax, old);
    let kept = b.select(Width::B64, equal, accumulator, failed);
    // With rax as the destination the exchange always succeeds and wins.
    b.set(Reg::Rax, Width::B64, kept);
    b.write(0, width, stored)?;
    b.flags_of_compare(width, accumulator, old);
    Some(())
}

fn compare_exchange_pair(b: &mut Builder, half: Width) -> Lifted {
    let address = b.memory()?;
    let (low, high) = if half == Width::B64 {
        let low = b.load(Width::B64, address);
        let second = b.advance(address, 8);
        (low, b.load(Width::B64, second))
    } else {
        let whole = b.load(Width::B64, address);
        let low = b.narrow(Width::B32, whole);
        (low, b.shr(Width::B64, whole, 32))
    };
    let same_low = b.eq(half, arg(Reg::Rax), low);
    let same_high = b.eq(half, arg(Reg::Rdx), high);
    let equal = b.and(Width::B1, same_low, same_high);
    let new_low = b.select(half, equal, arg(Reg::Rbx), low);
    let new_high = b.select(half, equal, arg(Reg::Rcx), high);
    if half == Width::B64 {
        b.store(Width::B64, address, new_low);
        let second = b.advance(address, 8);
        b.store(Width::B64, second, new_high);
    } else {
        let whole = b.insert(Width::B32, new_low, new_high, 32);
        b.store(Width::B64, address, whole);
    }
    let rax = b.select(Width::B64, equal, arg(Reg::Rax), low);
    let rdx = b.select(Width::B64, equal, arg(Reg::Rdx), high);
    b.set_flag(Reg::Zf, equal);
    b.set(Reg::Rax, Width::B64, rax);
    b.set(Reg::Rdx, Width::B64, rdx);
    Some(())
}

/// `cbw`, `cwde`, `cdqe`: the accumulator's lower part to twice its width.
fn widen(b: &mut Builder, from: Width) -> Lifted {
    let to = Width::from_bits(2 * from.bits())?;
    let value = b.sext(to, arg(Reg::Rax), u64::from(from.bits()));
    b.write_reg(Reg::Rax, to, value);
    Some(())
}

/// `cwd`, `cdq`, `cqo`: the accumulator's sign into the data register.
fn spread(b: &mut Builder, width: Width) -> Lifted {
    let sign = b.sar(width, arg(Reg::Rax), u64::from(width.bits() - 1));
    b.write_reg(Reg::Rdx, width, sign);
    Some(())
}

/// `setcc` and `cmovcc`.
fn condition_user(b: &mut Builder) -> Option<Lifted> {
    let code = b.insn.condition_code();
    let name = b.insn.mnemonic();
    let first = b.insn.op_count();
    let set = first == 1 && b.width(0) == Some(Width::B8);
    let cmov = first == 2 && b.register(0).is_some_and(|register| gpr(register).is_some());
    // Only jumps (handled elsewhere), `loope` and the string prefixes have condition codes besides
    // these.
    if name == Mnemonic::INVALID || !(set || cmov) {
        return None;
    }
    let condition = b.condition(code)?;
    Some(if set { b.write(0, Width::B8, condition) } else { conditional_move(b, condition) })
}

/// The source is read, and the upper half cleared, whether or not the condition holds (SDM vol. 2,
/// CMOVcc).
fn conditional_move(b: &mut Builder, condition: Arg) -> Lifted {
    let width = b.width(0)?;
    let source = b.read(1, width)?;
    let old = b.read(0, width)?;
    let value = b.select(width, condition, source, old);
    b.write(0, width, value)
}

impl Builder<'_> {
    /// What the register would hold after a write of `width` bits.
    pub(crate) fn insert_low(&mut self, width: Width, reg: Reg, value: Arg) -> Arg {
        match width {
            Width::B32 | Width::B64 => self.narrow(width, value),
            _ => self.insert(width, arg(reg), value, 0),
        }
    }
}

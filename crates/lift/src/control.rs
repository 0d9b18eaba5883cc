//! Near jumps, calls and returns, loops, traps.
//!
//! Targets are linear: outside 64-bit mode computed targets get the CS base added and pushed return
//! addresses have it taken off. A relative branch that wraps around a 16-bit segment is taken to
//! wrap in the instruction pointer.

use iced_x86::{Mnemonic, OpKind, Register};
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};
use crate::linear::{code_address, next_offset};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    if b.insn.is_jcc_short_or_near() {
        return Some(jcc(b));
    }
    if is_far(b) {
        return None;
    }
    Some(match b.insn.mnemonic() {
        M::Jmp => jmp(b),
        M::Call => call(b),
        M::Ret => ret(b),
        M::Jcxz => count_jump(b, Width::B16),
        M::Jecxz => count_jump(b, Width::B32),
        M::Jrcxz => count_jump(b, Width::B64),
        M::Loop => looping(b, None),
        M::Loope => looping(b, Some(true)),
        M::Loopne => looping(b, Some(false)),
        M::Ud0 | M::Ud1 | M::Ud2 => trap(b, 6),
        M::Int1 => trap(b, 1),
        M::Int3 => trap(b, 3),
        M::Int => {
            let vector = b.immediate(0);
            vector.and_then(|vector| trap(b, vector))
        }
        M::Hlt => {
            b.end(Kind::Halt, &[]);
            Some(())
        }
        _ => return None,
    })
}

/// Far jumps and calls load a segment: that is another family.
fn is_far(b: &Builder) -> bool {
    let insn = b.insn;
    insn.is_jmp_far() || insn.is_jmp_far_indirect() || insn.is_call_far() || insn.is_call_far_indirect()
}

fn trap(b: &mut Builder, vector: u64) -> Lifted {
    let next = b.next;
    b.end(Kind::Trap, &[Arg::Const(vector), Arg::Const(next)]);
    Some(())
}

/// The linear target of a relative branch.
fn relative(b: &Builder) -> Lifted<u64> {
    let target = b.insn.near_branch_target();
    Some(match b.insn.op0_kind() {
        OpKind::NearBranch64 => target,
        OpKind::NearBranch32 => target & 0xffff_ffff,
        OpKind::NearBranch16 => {
            let distance = (target as u16).wrapping_sub(b.next as u16) as i16;
            b.next.wrapping_add_signed(i64::from(distance)) & 0xffff_ffff
        }
        _ => return None,
    })
}

fn jcc(b: &mut Builder) -> Lifted {
    let condition = b.condition(b.insn.condition_code())?;
    let target = relative(b)?;
    b.end(Kind::BranchIf, &[condition, Arg::Const(target)]);
    Some(())
}

fn jmp(b: &mut Builder) -> Lifted {
    if let Some(target) = relative(b) {
        b.end(Kind::Jump, &[Arg::Const(target)]);
        return Some(());
    }
    let width = b.width(0)?;
    let offset = b.read(0, width)?;
    let target = code_address(b, width, offset);
    b.end(Kind::Jump, &[target]);
    Some(())
}

fn call(b: &mut Builder) -> Lifted {
    let (width, target) = match relative(b) {
        Some(target) => (b.stack_operand_width()?, Arg::Const(target)),
        None => {
            let width = b.width(0)?;
            let offset = b.read(0, width)?;
            (width, code_address(b, width, offset))
        }
    };
    let back = next_offset(b);
    b.push(width, back);
    let next = b.next;
    b.end(Kind::Call, &[target, Arg::Const(next)]);
    Some(())
}

fn ret(b: &mut Builder) -> Lifted {
    let extra = if b.insn.op_count() == 1 { b.immediate(0)? } else { 0 };
    // iced's increment includes the immediate.
    let width = Width::from_bits(8 * u32::try_from(b.insn.stack_pointer_increment() - extra as i32).ok()?)?;
    let offset = b.pop(width, extra);
    let target = code_address(b, width, offset);
    b.end(Kind::Ret, &[target]);
    Some(())
}

fn count_jump(b: &mut Builder, width: Width) -> Lifted {
    let empty = b.eq(width, arg(Reg::Rcx), 0);
    let target = relative(b)?;
    b.end(Kind::BranchIf, &[empty, Arg::Const(target)]);
    Some(())
}

/// `loop`, `loope` and `loopne`; the counter's width is the address size.
fn looping(b: &mut Builder, zero: Option<bool>) -> Lifted {
    let mut factory = iced_x86::InstructionInfoFactory::new();
    let used = factory.info(b.insn).used_registers().iter().map(iced_x86::UsedRegister::register);
    let width = used.filter_map(|register| match register {
        Register::CX => Some(Width::B16),
        Register::ECX => Some(Width::B32),
        Register::RCX => Some(Width::B64),
        _ => None,
    });
    // A 32-bit counter also appears as the 64-bit register it clears the upper half of.
    let width = width.min()?;
    let left = b.bump(Reg::Rcx, width, width.mask());
    let mut again = b.nonzero(width, left);
    if let Some(zero) = zero {
        let matches = if zero { arg(Reg::Zf) } else { b.not(Width::B1, arg(Reg::Zf)) };
        again = b.and(Width::B1, again, matches);
    }
    let target = relative(b)?;
    b.end(Kind::BranchIf, &[again, Arg::Const(target)]);
    Some(())
}

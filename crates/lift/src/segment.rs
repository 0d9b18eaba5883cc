//! Segment registers, descriptor loads, far transfers, interrupt returns.
//!
//! Outside 64-bit mode a segment load reads the descriptor and keeps its base; in 64-bit mode only
//! FS and GS have one (SDM vol. 3 section 3.4.4). A null selector gives base 0; its table entry is
//! loaded all the same because an instruction cannot load conditionally. 16-bit code computes real
//! mode's `selector << 4` unless CR0.PE is set. Types, limits, presence, the accessed bit, task
//! switches and the stack switch of an inter-privilege far return in 64-bit mode are not modelled;
//! call gates are, for processes ([`crate::gate`]).

use iced_x86::{Code, Mnemonic, OpKind, Register};
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::Mode;
use crate::builder::{Builder, Lifted, arg};
use crate::linear::{code_address, next_offset};
use crate::operands::segment;

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Lds => load_pointer(b, Register::DS),
        M::Les => load_pointer(b, Register::ES),
        M::Lfs => load_pointer(b, Register::FS),
        M::Lgs => load_pointer(b, Register::GS),
        M::Lss => load_pointer(b, Register::SS),
        // Near ones are taken before.
        M::Jmp => far_jump(b),
        M::Call => far_call(b),
        M::Retf => far_return(b),
        M::Iret => interrupt_return(b, Width::B16),
        M::Iretd => interrupt_return(b, Width::B32),
        M::Iretq => interrupt_return(b, Width::B64),
        M::Lldt => load_system(b, Reg::Ldtr, Reg::LdtrBase),
        M::Ltr => load_system(b, Reg::Tr, Reg::TrBase),
        M::Sldt => store_selector(b, Reg::Ldtr),
        M::Str => store_selector(b, Reg::Tr),
        M::Verr | M::Verw => verify(b),
        _ => return None,
    })
}

/// The descriptor's address and its two words.
fn descriptor(b: &mut Builder, selector: Arg, local: bool) -> (Arg, Arg, Arg) {
    let width = b.linear_width();
    let index = b.and(Width::B16, selector, 0xfff8);
    let table = if local {
        let ti = b.and(Width::B16, selector, 4);
        b.select(width, ti, arg(Reg::LdtrBase), arg(Reg::GdtrBase))
    } else {
        arg(Reg::GdtrBase)
    };
    let address = b.add(width, table, index);
    let low = b.load(Width::B32, address);
    let second = b.advance(address, 4);
    let high = b.load(Width::B32, second);
    (address, low, high)
}

/// The two words of the descriptor of a selector in the global table.
pub(crate) fn base_at(b: &mut Builder, selector: Arg) -> (Arg, Arg) {
    let index = b.and(Width::B16, selector, 0xfff8);
    let address = b.add(Width::B32, arg(Reg::GdtrBase), index);
    let low = b.load(Width::B32, address);
    let second = b.add(Width::B32, address, 4);
    let high = b.load(Width::B32, second);
    (low, high)
}

/// The base in a descriptor (SDM vol. 3 figure 3-8).
pub(crate) fn descriptor_base(b: &mut Builder, low: Arg, high: Arg) -> Arg {
    let base = b.shr(Width::B32, low, 16);
    let base = b.insert(Width::B8, base, high, 16);
    let top = b.and(Width::B32, high, 0xff00_0000);
    b.or(Width::B32, base, top)
}

/// 1 in protected mode, which only 16-bit code has to ask.
fn protected(b: &mut Builder) -> Arg {
    if b.mode == Mode::Bits16 { b.extract(Width::B1, arg(Reg::Cr0), 0) } else { Arg::Const(1) }
}

/// `a` in protected, `c` in real mode.
fn by_mode(b: &mut Builder, width: Width, protected_value: Arg, real_value: Arg) -> Arg {
    match protected(b) {
        Arg::Const(_) => protected_value,
        protected => b.select(width, protected, protected_value, real_value),
    }
}

/// The base that a selector stands for.
fn base_of(b: &mut Builder, selector: Arg) -> Arg {
    let (_, low, high) = descriptor(b, selector, true);
    let base = descriptor_base(b, low, high);
    let index = b.and(Width::B16, selector, 0xfffc);
    let base = b.select(Width::B32, index, base, 0);
    if b.mode != Mode::Bits16 {
        return base;
    }
    let selector = b.narrow(Width::B16, selector);
    let real = b.shl(Width::B32, selector, 4);
    by_mode(b, Width::B32, base, real)
}

/// Assigns a segment register other than CS.
pub(crate) fn load_segment(b: &mut Builder, register: Register, selector: Arg) -> Lifted {
    let (reg, base_reg) = segment(register).filter(|&(reg, _)| reg != Reg::Cs)?;
    if b.mode != Mode::Bits64 || matches!(reg, Reg::Fs | Reg::Gs) {
        let base = base_of(b, selector);
        b.set(base_reg, Width::B64, base);
    }
    b.set(reg, Width::B16, selector);
    Some(())
}

/// Assigns CS and gives the linear target of an offset in it.
fn load_code_segment(b: &mut Builder, selector: Arg, width: Width, offset: Arg) -> Arg {
    if b.mode == Mode::Bits64 {
        b.set(Reg::Cs, Width::B16, selector);
        return code_address(b, width, offset);
    }
    let base = base_of(b, selector);
    b.set(Reg::Cs, Width::B16, selector);
    b.set(Reg::CsBase, Width::B64, base);
    let offset = if width < Width::B32 { b.narrow(width, offset) } else { offset };
    b.add(Width::B32, offset, base)
}

/// The selector a far jump or call leaves in CS: its RPL is the CPL.
fn with_cpl(b: &mut Builder, selector: Arg) -> Arg {
    let index = b.and(Width::B16, selector, 0xfffc);
    let here = b.or(Width::B16, index, arg(Reg::Cpl));
    by_mode(b, Width::B16, here, selector)
}

/// CPL after a return to `selector`.
fn set_cpl(b: &mut Builder, selector: Arg) {
    let rpl = b.and(Width::B8, selector, 3);
    let cpl = by_mode(b, Width::B8, rpl, Arg::Const(0));
    b.set(Reg::Cpl, Width::B8, cpl);
}

/// Offset, its width and selector of a far pointer operand.
fn far_pointer(b: &mut Builder, operand: u32) -> Lifted<(Width, Arg, Arg)> {
    let insn = b.insn;
    match insn.op_kind(operand) {
        OpKind::FarBranch16 => Some((
            Width::B16,
            u64::from(insn.far_branch16()).into(),
            u64::from(insn.far_branch_selector()).into(),
        )),
        OpKind::FarBranch32 => Some((
            Width::B32,
            u64::from(insn.far_branch32()).into(),
            u64::from(insn.far_branch_selector()).into(),
        )),
        OpKind::Memory => {
            let width = Width::from_bits(8 * (insn.memory_size().size() as u32).checked_sub(2)?)?;
            let address = b.memory()?;
            let offset = b.load(width, address);
            let second = b.advance(address, width.bytes());
            let selector = b.load(Width::B16, second);
            Some((width, offset, selector))
        }
        _ => None,
    }
}

/// A far jump, `ljmp`.
fn far_jump(b: &mut Builder) -> Lifted {
    let (width, offset, selector) = far_pointer(b, 0)?;
    let selector = with_cpl(b, selector);
    let target = load_code_segment(b, selector, width, offset);
    b.end(Kind::Jump, &[target]);
    Some(())
}

/// A far call, `lcall`.
fn far_call(b: &mut Builder) -> Lifted {
    let (width, offset, selector) = far_pointer(b, 0)?;
    let selector = with_cpl(b, selector);
    let target = load_code_segment(b, selector, width, offset);
    let back = next_offset(b);
    b.push_many(width, &[arg(Reg::Cs), back]);
    let next = b.next;
    b.end(Kind::Call, &[target, Arg::Const(next)]);
    Some(())
}

fn far_return(b: &mut Builder) -> Lifted {
    let extra = if b.insn.op_count() == 1 { b.immediate(0)? } else { 0 };
    let width = match b.insn.code() {
        Code::Retfw | Code::Retfw_imm16 => Width::B16,
        Code::Retfd | Code::Retfd_imm16 => Width::B32,
        Code::Retfq | Code::Retfq_imm16 => Width::B64,
        _ => return None,
    };
    let offset = b.peek(width, 0);
    let selector = b.peek(width, width.bytes());
    if b.mode == Mode::Bits64 {
        b.bump(Reg::Rsp, b.mode_width(), 2 * width.bytes() + extra);
    } else {
        // A return from a call gate finds the caller's stack behind the parameters, which lie on
        // both stacks.
        return_stack(b, width, selector, 2 * width.bytes() + extra, extra);
    }
    let target = load_code_segment(b, selector, width, offset);
    set_cpl(b, selector);
    b.end(Kind::Ret, &[target]);
    Some(())
}

/// The stack after a return outside 64-bit mode that popped so many bytes: to the same privilege it
/// is the same one, else stack pointer and SS follow, and `extra` bytes of parameters on that stack
/// are left.
fn return_stack(b: &mut Builder, width: Width, selector: Arg, popped: u64, extra: u64) {
    let pointer = b.peek(width, popped);
    let stack = b.peek(width, popped + width.bytes());
    let rpl = b.and(Width::B8, selector, 3);
    let outward = b.less(Width::B8, arg(Reg::Cpl), rpl);
    let outward = match protected(b) {
        Arg::Const(_) => outward,
        protected => b.and(Width::B1, outward, protected),
    };
    let same = b.add(b.mode_width(), arg(Reg::Rsp), popped);
    let pointer = if extra == 0 { pointer } else { b.add(Width::B32, pointer, extra) };
    let pointer = b.select(Width::B32, outward, pointer, same);
    b.write_reg(Reg::Rsp, b.mode_width(), pointer);
    let chosen = b.select(Width::B16, outward, stack, 0);
    let base = base_of(b, chosen);
    let base = b.select(Width::B64, outward, base, arg(Reg::SsBase));
    let stack = b.select(Width::B16, outward, stack, arg(Reg::Ss));
    b.set(Reg::Ss, Width::B16, stack);
    b.set(Reg::SsBase, Width::B64, base);
}

/// In 64-bit mode all five values are popped whatever the privileges are (SDM vol. 3 section
/// 6.14.3); else the last two only if the privilege changes. They are loaded in any case, because
/// an instruction cannot load conditionally.
fn interrupt_return(b: &mut Builder, width: Width) -> Lifted {
    let offset = b.peek(width, 0);
    let selector = b.peek(width, width.bytes());
    let image = b.peek(width, 2 * width.bytes());
    if b.mode == Mode::Bits64 {
        let pointer = b.peek(width, 3 * width.bytes());
        let stack = b.peek(width, 4 * width.bytes());
        b.set(Reg::Rsp, Width::B64, pointer);
        b.set(Reg::Ss, Width::B16, stack);
    } else {
        return_stack(b, width, selector, 3 * width.bytes(), 0);
    }
    let target = load_code_segment(b, selector, width, offset);
    set_cpl(b, selector);
    b.set_rflags(image, width.bits());
    b.end(Kind::SysExit, &[target]);
    Some(())
}

fn load_pointer(b: &mut Builder, register: Register) -> Lifted {
    let (width, offset, selector) = far_pointer(b, 1)?;
    load_segment(b, register, selector)?;
    b.write(0, width, offset)
}

/// `lldt` and `ltr`: descriptors of 16 bytes in 64-bit mode (SDM vol. 3 figure 7-4). `ltr` marks
/// the task busy.
fn load_system(b: &mut Builder, reg: Reg, base_reg: Reg) -> Lifted {
    let selector = b.read(0, Width::B16)?;
    let (address, low, high) = descriptor(b, selector, false);
    let mut base = descriptor_base(b, low, high);
    if b.mode == Mode::Bits64 {
        let third = b.advance(address, 8);
        let top = b.load(Width::B32, third);
        base = b.insert(Width::B32, base, top, 32);
    }
    let index = b.and(Width::B16, selector, 0xfffc);
    let base = b.select(Width::B64, index, base, 0);
    if reg == Reg::Tr {
        let busy = b.or(Width::B32, high, 0x200);
        let second = b.advance(address, 4);
        b.store(Width::B32, second, busy);
    }
    b.set(reg, Width::B16, selector);
    b.set(base_reg, Width::B64, base);
    Some(())
}

/// Stores a selector: 16 bits in memory, zero-extended in a register.
pub(crate) fn store_selector(b: &mut Builder, reg: Reg) -> Lifted {
    let width = if b.is_memory(0) { Width::B16 } else { b.width(0)? };
    b.write(0, width, arg(reg))
}

/// `verr` and `verw` succeed: they are executed for their side effect on processor buffers.
fn verify(b: &mut Builder) -> Lifted {
    b.read(0, Width::B16)?;
    b.set_flag(Reg::Zf, 1);
    Some(())
}

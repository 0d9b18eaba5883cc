//! Push, pop, frames, and the flags image on the stack.
//!
//! The stack pointer is as wide as the mode: the B bit of SS is not part of the state. `enter` with
//! nesting is not modelled.

use iced_x86::{Mnemonic, Register};
use ir::{Arg, Width};
use machine::reg::Reg;

use crate::Mode;
use crate::builder::{Builder, Lifted, arg};
use crate::operands::segment;

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Push => push(b),
        M::Pop => pop(b),
        M::Pusha | M::Pushad => push_all(b),
        M::Popa | M::Popad => pop_all(b),
        M::Pushf | M::Pushfd | M::Pushfq => push_flags(b),
        M::Popf | M::Popfd | M::Popfq => pop_flags(b),
        M::Enter => enter(b),
        M::Leave => leave(b),
        _ => return None,
    })
}

impl Builder<'_> {
    /// The width of the one item the instruction pushes or pops.
    pub(crate) fn stack_operand_width(&self) -> Lifted<Width> {
        Width::from_bits(8 * self.insn.stack_pointer_increment().unsigned_abs())
    }

    /// Pushes one item.
    pub(crate) fn push(&mut self, width: Width, value: Arg) {
        self.push_many(width, &[value]);
    }

    /// Pushes items, the first one first.
    pub(crate) fn push_many(&mut self, width: Width, values: &[Arg]) {
        let pointer_width = self.mode_width();
        let mut pointer = arg(Reg::Rsp);
        for &value in values {
            pointer = self.sub(pointer_width, pointer, width.bytes());
            let address = self.stack_address(pointer);
            self.store(width, address, value);
        }
        self.write_reg(Reg::Rsp, pointer_width, pointer);
    }

    /// Pops one item and drops `extra` bytes.
    pub(crate) fn pop(&mut self, width: Width, extra: u64) -> Arg {
        let value = self.peek(width, 0);
        self.bump(Reg::Rsp, self.mode_width(), width.bytes() + extra);
        value
    }

    /// Loads from `at` bytes above the stack pointer.
    pub(crate) fn peek(&mut self, width: Width, at: u64) -> Arg {
        let pointer_width = self.mode_width();
        let pointer = match (at, pointer_width) {
            (0, Width::B16) => self.narrow(pointer_width, arg(Reg::Rsp)),
            (0, _) => arg(Reg::Rsp),
            _ => self.add(pointer_width, arg(Reg::Rsp), at),
        };
        let address = self.stack_address(pointer);
        self.load(width, address)
    }

    fn stack_address(&mut self, pointer: Arg) -> Arg {
        if self.mode == Mode::Bits64 { pointer } else { self.add(Width::B32, arg(Reg::SsBase), pointer) }
    }
}

fn push(b: &mut Builder) -> Lifted {
    let width = b.stack_operand_width()?;
    let value = match b.register(0).and_then(segment) {
        Some((selector, _)) => arg(selector),
        None => b.read(0, width)?,
    };
    b.push(width, value);
    Some(())
}

fn pop(b: &mut Builder) -> Lifted {
    let width = b.stack_operand_width()?;
    let value = b.pop(width, 0);
    match b.register(0).filter(|register| register.is_segment_register()) {
        Some(register) => crate::segment::load_segment(b, register, value),
        None => {
            // An address with the stack pointer uses its new value (SDM vol. 2, POP).
            b.stack_bias = width.bytes();
            b.write(0, width, value)
        }
    }
}

const ALL: [Reg; 8] = [Reg::Rax, Reg::Rcx, Reg::Rdx, Reg::Rbx, Reg::Rsp, Reg::Rbp, Reg::Rsi, Reg::Rdi];

fn all_width(b: &Builder) -> Width {
    let narrow = matches!(b.insn.mnemonic(), Mnemonic::Pusha | Mnemonic::Popa);
    if narrow { Width::B16 } else { Width::B32 }
}

fn push_all(b: &mut Builder) -> Lifted {
    let width = all_width(b);
    b.push_many(width, &ALL.map(arg));
    Some(())
}

fn pop_all(b: &mut Builder) -> Lifted {
    let width = all_width(b);
    for (slot, reg) in (0..).zip(ALL.into_iter().rev()) {
        if reg != Reg::Rsp {
            let value = b.peek(width, slot * width.bytes());
            b.write_reg(reg, width, value);
        }
    }
    b.bump(Reg::Rsp, b.mode_width(), 8 * width.bytes());
    Some(())
}

fn push_flags(b: &mut Builder) -> Lifted {
    let width = b.stack_operand_width()?;
    let image = b.rflags();
    b.push(width, image);
    Some(())
}

fn pop_flags(b: &mut Builder) -> Lifted {
    let width = b.stack_operand_width()?;
    let image = b.pop(width, 0);
    b.set_rflags(image, width.bits());
    Some(())
}

fn enter(b: &mut Builder) -> Lifted {
    let (size, level) = (b.immediate(0)?, b.immediate(1)? & 31);
    if level != 0 {
        return None;
    }
    let width = match b.insn.mnemonic() {
        Mnemonic::Enter => enter_width(b)?,
        _ => return None,
    };
    b.push(width, arg(Reg::Rbp));
    let pointer_width = b.mode_width();
    let frame = b.sub(pointer_width, arg(Reg::Rsp), width.bytes());
    b.write_reg(Reg::Rbp, pointer_width.min(width), frame);
    let top = b.sub(pointer_width, frame, size & 0xffff);
    b.write_reg(Reg::Rsp, pointer_width, top);
    Some(())
}

fn enter_width(b: &Builder) -> Lifted<Width> {
    use iced_x86::Code as C;
    Some(match b.insn.code() {
        C::Enterw_imm16_imm8 => Width::B16,
        C::Enterd_imm16_imm8 => Width::B32,
        C::Enterq_imm16_imm8 => Width::B64,
        _ => return None,
    })
}

fn leave(b: &mut Builder) -> Lifted {
    use iced_x86::Code as C;
    let width = match b.insn.code() {
        C::Leavew => Width::B16,
        C::Leaved => Width::B32,
        C::Leaveq => Width::B64,
        _ => return None,
    };
    let pointer_width = b.mode_width();
    let mut frame = arg(Reg::Rbp);
    if pointer_width == Width::B16 {
        frame = b.narrow(Width::B16, frame);
    }
    let address = b.linear(Register::SS, frame)?;
    let value = b.load(width, address);
    let top = b.add(pointer_width, frame, width.bytes());
    b.write_reg(Reg::Rsp, pointer_width, top);
    b.write_reg(Reg::Rbp, width, value);
    Some(())
}

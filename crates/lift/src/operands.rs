//! Explicit operands: registers, immediates, effective and linear addresses.
//!
//! An address is computed once per instruction, however often the operand is read and written.
//! Segment limits are not checked. 16- and 32-bit addresses wrap at their size, linear addresses at
//! 32 bits outside 64-bit mode (SDM vol. 1 section 3.3.7).

use iced_x86::{OpKind, Register};
use ir::{Arg, Kind, Width};
use machine::reg::Reg;

use crate::Mode;
use crate::builder::{Builder, Lifted, arg};

/// A general register or a part of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gpr {
    /// The whole register.
    pub reg: Reg,
    /// How much of it.
    pub width: Width,
    /// From which bit on: 8 for ah, ch, dh, bh, else 0.
    pub at: u64,
}

/// The general register iced names.
pub(crate) fn gpr(register: Register) -> Lifted<Gpr> {
    if !register.is_gpr() {
        return None;
    }
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    let width = Width::from_bits(8 * register.size() as u32)?;
    Some(Gpr { reg: Reg::gpr(register.full_register().number()), width, at: if high { 8 } else { 0 } })
}

/// The number of an XMM register below 16.
pub(crate) fn xmm(register: Register) -> Lifted<usize> {
    (register.is_xmm() && register.number() < 16).then(|| register.number())
}

/// The selector and base registers of a segment register.
pub(crate) fn segment(register: Register) -> Lifted<(Reg, Reg)> {
    Some(match register {
        Register::ES => (Reg::Es, Reg::EsBase),
        Register::CS => (Reg::Cs, Reg::CsBase),
        Register::SS => (Reg::Ss, Reg::SsBase),
        Register::DS => (Reg::Ds, Reg::DsBase),
        Register::FS => (Reg::Fs, Reg::FsBase),
        Register::GS => (Reg::Gs, Reg::GsBase),
        _ => return None,
    })
}

impl Builder<'_> {
    /// The width of linear addresses.
    pub(crate) fn linear_width(&self) -> Width {
        if self.mode == Mode::Bits64 { Width::B64 } else { Width::B32 }
    }

    /// The width of the mode: of the stack pointer and of default addresses.
    pub(crate) fn mode_width(&self) -> Width {
        match self.mode {
            Mode::Bits16 => Width::B16,
            Mode::Bits32 => Width::B32,
            Mode::Bits64 => Width::B64,
        }
    }

    /// The linear address of an offset in a segment.
    pub(crate) fn linear(&mut self, segment_register: Register, offset: Arg) -> Lifted<Arg> {
        let (_, base) = segment(segment_register)?;
        if self.mode != Mode::Bits64 {
            return Some(self.add(Width::B32, arg(base), offset));
        }
        Some(match base {
            Reg::FsBase | Reg::GsBase => self.add(Width::B64, arg(base), offset),
            _ => offset,
        })
    }

    /// `address + bytes`, for the later parts of an operand.
    pub(crate) fn advance(&mut self, address: Arg, bytes: u64) -> Arg {
        if bytes == 0 {
            return address;
        }
        let width = self.linear_width();
        self.add(width, address, bytes)
    }

    /// The width of the memory operand's address.
    pub(crate) fn address_width(&self) -> Width {
        let insn = self.insn;
        for register in [insn.memory_base(), insn.memory_index()] {
            match register {
                Register::RIP => return Width::B64,
                Register::EIP => return Width::B32,
                _ => {}
            }
            if let Some(found) = gpr(register).filter(|found| found.width != Width::B8) {
                return found.width;
            }
        }
        match insn.memory_displ_size() {
            2 => Width::B16,
            4 => Width::B32,
            8 => Width::B64,
            _ => self.mode_width(),
        }
    }

    /// The offset of the memory operand in its segment.
    pub(crate) fn offset(&mut self) -> Lifted<Arg> {
        let insn = self.insn;
        let width = self.address_width();
        let displacement = insn.memory_displacement64();
        let base = insn.memory_base();
        if matches!(base, Register::RIP | Register::EIP) {
            return Some(Arg::Const(displacement & width.mask()));
        }
        let mut constant = displacement;
        let mut sum: Option<Arg> = None;
        if base != Register::None {
            let base = gpr(base)?;
            if base.reg == Reg::Rsp {
                constant = constant.wrapping_add(self.stack_bias);
            }
            sum = Some(arg(base.reg));
        }
        if insn.memory_index() != Register::None {
            let index = gpr(insn.memory_index())?;
            let mut value = arg(index.reg);
            if index.width == Width::B8 {
                value = self.narrow(Width::B8, value);
            }
            let scale = insn.memory_index_scale().trailing_zeros();
            if scale != 0 {
                value = self.shl(width, value, u64::from(scale));
            }
            sum = Some(match sum {
                Some(base) => self.add(width, base, value),
                None => value,
            });
        }
        let constant = constant & width.mask();
        Some(match sum {
            None => Arg::Const(constant),
            // Reduces a bare register to the address width, unless the linear addition will.
            Some(sum) if constant == 0 && width < self.linear_width() => self.narrow(width, sum),
            Some(sum) => self.add(width, sum, constant),
        })
    }

    /// The linear address of the memory operand.
    pub(crate) fn memory(&mut self) -> Lifted<Arg> {
        if let Some(address) = self.address {
            return Some(address);
        }
        if self.insn.is_vsib() {
            return None;
        }
        let offset = self.offset()?;
        let address = self.linear(self.insn.memory_segment(), offset)?;
        self.address = Some(address);
        Some(address)
    }

    /// Whether operand `n` is in memory.
    pub(crate) fn is_memory(&self, n: u32) -> bool {
        n < self.insn.op_count() && self.insn.op_kind(n) == OpKind::Memory
    }

    /// The register operand `n` is, if it is one.
    pub(crate) fn register(&self, n: u32) -> Lifted<Register> {
        (n < self.insn.op_count() && self.insn.op_kind(n) == OpKind::Register)
            .then(|| self.insn.op_register(n))
    }

    /// Whether operands `a` and `b` are the same register.
    pub(crate) fn same_register(&self, a: u32, b: u32) -> bool {
        self.register(a).is_some_and(|register| self.register(b) == Some(register))
    }

    /// The width of a register or memory operand.
    pub(crate) fn width(&self, n: u32) -> Lifted<Width> {
        if let Some(register) = self.register(n) {
            return Width::from_bits(8 * register.size() as u32);
        }
        if self.is_memory(n) {
            return Width::from_bits(8 * self.insn.memory_size().size() as u32)
                .filter(|&width| width != Width::B1);
        }
        None
    }

    /// The immediate operand `n`, sign-extended as the instruction says.
    pub(crate) fn immediate(&self, n: u32) -> Lifted<u64> {
        self.insn.try_immediate(n).ok()
    }

    /// The value of operand `n`. Its bits above the operand's width are not defined, except that a
    /// load has none and a high byte register none either.
    pub(crate) fn read(&mut self, n: u32, width: Width) -> Lifted<Arg> {
        if let Some(register) = self.register(n) {
            return self.read_gpr(gpr(register)?);
        }
        if self.is_memory(n) {
            let address = self.memory()?;
            return Some(self.load(width, address));
        }
        Some(Arg::Const(self.immediate(n)? & width.mask()))
    }

    /// The value of a general register or of its part (bits above not defined).
    pub(crate) fn read_gpr(&mut self, from: Gpr) -> Lifted<Arg> {
        Some(if from.at == 0 { arg(from.reg) } else { self.extract(Width::B8, arg(from.reg), from.at) })
    }

    /// Like [`Builder::read`], with zeros above the operand's width.
    pub(crate) fn read_exact(&mut self, n: u32, width: Width) -> Lifted<Arg> {
        let value = self.read(n, width)?;
        Some(match value {
            Arg::Var(found) if found.is_reg() && width != Width::B64 => self.narrow(width, value),
            _ => value,
        })
    }

    /// Writes operand `n`.
    pub(crate) fn write(&mut self, n: u32, width: Width, value: impl Into<Arg>) -> Lifted {
        if let Some(register) = self.register(n) {
            self.write_gpr(gpr(register)?, value);
            return Some(());
        }
        if !self.is_memory(n) {
            return None;
        }
        let address = self.memory()?;
        self.store(width, address, value);
        Some(())
    }

    /// Writes a general register or its part; 32-bit writes clear the upper half (SDM vol. 1
    /// section 3.4.1.1).
    pub(crate) fn write_gpr(&mut self, to: Gpr, value: impl Into<Arg>) {
        match to.width {
            Width::B32 | Width::B64 => self.set(to.reg, to.width, value),
            _ => self.set_part(to.reg, to.width, value, to.at),
        }
    }

    /// Writes the low `width` bits of a general register.
    pub(crate) fn write_reg(&mut self, reg: Reg, width: Width, value: impl Into<Arg>) {
        self.write_gpr(Gpr { reg, width, at: 0 }, value);
    }

    /// The sum of an operand and a constant at a given width, kept in the register's part.
    pub(crate) fn bump(&mut self, reg: Reg, width: Width, by: impl Into<Arg>) -> Arg {
        let value = self.op(Kind::Add, width, &[arg(reg), by.into()]);
        self.write_reg(reg, width, value);
        value
    }
}

//! XMM operands: an XMM register is two 64-bit halves, and a 16-byte memory operand two 8-byte
//! accesses, low half first.

use ir::{Arg, Width};
use machine::reg::Reg;

use crate::builder::{Builder, Lifted, arg};
use crate::operands::xmm;

/// Low and high half of a 128-bit value.
pub(crate) type Halves = [Arg; 2];

impl Builder<'_> {
    /// The 16 bytes of operand `n`.
    pub(crate) fn read_halves(&mut self, n: u32) -> Lifted<Halves> {
        if let Some(register) = self.register(n) {
            let n = xmm(register)?;
            return Some([arg(Reg::xmm_lo(n)), arg(Reg::xmm_hi(n))]);
        }
        if !self.is_memory(n) || self.insn.memory_size().size() != 16 {
            return None;
        }
        let address = self.memory()?;
        let low = self.load(Width::B64, address);
        let second = self.advance(address, 8);
        Some([low, self.load(Width::B64, second)])
    }

    /// The low `width` bits of operand `n`, which is an XMM register or memory.
    pub(crate) fn read_scalar(&mut self, n: u32, width: Width) -> Lifted<Arg> {
        if let Some(register) = self.register(n) {
            let low = arg(Reg::xmm_lo(xmm(register)?));
            return Some(if width == Width::B64 { low } else { self.narrow(width, low) });
        }
        if !self.is_memory(n) {
            return None;
        }
        let address = self.memory()?;
        Some(self.load(width, address))
    }

    /// Writes the 16 bytes of operand `n`.
    pub(crate) fn write_halves(&mut self, n: u32, [low, high]: Halves) -> Lifted {
        if self.is_memory(n) {
            let address = self.memory()?;
            self.store(Width::B64, address, low);
            let second = self.advance(address, 8);
            self.store(Width::B64, second, high);
            return Some(());
        }
        self.write_low(n, low)?;
        self.write_high(n, high)
    }

    /// Writes the low half of XMM operand `n`.
    pub(crate) fn write_low(&mut self, n: u32, low: Arg) -> Lifted {
        let register = xmm(self.register(n)?)?;
        self.set(Reg::xmm_lo(register), Width::B64, low);
        Some(())
    }

    /// Writes the high half of XMM operand `n`.
    pub(crate) fn write_high(&mut self, n: u32, high: Arg) -> Lifted {
        let register = xmm(self.register(n)?)?;
        self.set(Reg::xmm_hi(register), Width::B64, high);
        Some(())
    }
}

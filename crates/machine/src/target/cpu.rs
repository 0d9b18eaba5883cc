//! One captured processor.
//!
//! Captures differ in what they hold; the register file says what is known. What follows from known
//! state by a rule of the architecture (CPL, the width of code) is derived here, once, for all
//! formats.

use crate::paging::PagingMode;
use crate::reg::{Reg, RegFile};

/// Processors a capture may hold: QEMU's largest x86 machine has 4096.
pub const MAX_CPUS: usize = 4096;

const CR0_PE: u64 = 1;
const RFLAGS_VM: u64 = 1 << 17;
/// D/B and L bits of a segment's flags, which are the upper half of its descriptor.
const FLAGS_DB: u64 = 1 << 22;
const FLAGS_L: u64 = 1 << 21;

/// One captured processor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cpu {
    /// What is known of its registers.
    pub regs: RegFile,
}

impl Cpu {
    /// Width of the code it executes in bits: 16, 32 or 64; `None` if the capture does not tell.
    ///
    /// SDM vol. 3 section 5.2.1 (L and D of the code segment); real mode is 16 bit.
    #[must_use]
    pub fn code_bits(&self) -> Option<u32> {
        if self.regs.get(Reg::Cr0)? & CR0_PE == 0 {
            return Some(16);
        }
        let flags = self.regs.get(Reg::CsFlags)?;
        let mode = PagingMode::from_regs(&self.regs).ok()?;
        let long = matches!(mode, PagingMode::Level4 | PagingMode::Level5);
        Some(match flags {
            _ if long && flags & FLAGS_L != 0 => 64,
            _ if flags & FLAGS_DB != 0 => 32,
            _ => 16,
        })
    }

    /// Sets the flags and, where CR0 and CS are known, CPL (SDM vol. 3 section 5.5: the low two
    /// bits of CS; 0 in real mode, 3 in virtual-8086 mode). Of the image only what
    /// [`RegFile::set_rflags`] keeps survives.
    pub(super) fn set_rflags(&mut self, rflags: u64) {
        self.regs.set_rflags(rflags);
        if let (Some(cr0), Some(cs)) = (self.regs.get(Reg::Cr0), self.regs.get(Reg::Cs)) {
            let cpl = match () {
                () if cr0 & CR0_PE == 0 => 0,
                () if rflags & RFLAGS_VM != 0 => 3,
                () => cs & 3,
            };
            self.regs.set(Reg::Cpl, cpl);
        }
    }
}

/// The registers that together are a segment register or a descriptor-table register.
#[derive(Clone, Copy)]
pub(super) struct SegmentRegs {
    /// Its name in side files.
    pub(super) name: &'static str,
    /// Another name that is understood.
    pub(super) alias: &'static str,
    pub(super) selector: Option<Reg>,
    pub(super) limit: Reg,
    pub(super) flags: Option<Reg>,
    pub(super) base: Reg,
}

/// Segments in the order of QEMU's note.
pub(super) const SEGMENTS: [SegmentRegs; 10] = {
    const fn segment(name: &'static str, alias: &'static str, regs: [Reg; 4]) -> SegmentRegs {
        let [selector, limit, flags, base] = regs;
        SegmentRegs { name, alias, selector: Some(selector), limit, flags: Some(flags), base }
    }
    const fn table(name: &'static str, alias: &'static str, limit: Reg, base: Reg) -> SegmentRegs {
        SegmentRegs { name, alias, selector: None, limit, flags: None, base }
    }
    [
        segment("cs", "cs", [Reg::Cs, Reg::CsLimit, Reg::CsFlags, Reg::CsBase]),
        segment("ds", "ds", [Reg::Ds, Reg::DsLimit, Reg::DsFlags, Reg::DsBase]),
        segment("es", "es", [Reg::Es, Reg::EsLimit, Reg::EsFlags, Reg::EsBase]),
        segment("fs", "fs", [Reg::Fs, Reg::FsLimit, Reg::FsFlags, Reg::FsBase]),
        segment("gs", "gs", [Reg::Gs, Reg::GsLimit, Reg::GsFlags, Reg::GsBase]),
        segment("ss", "ss", [Reg::Ss, Reg::SsLimit, Reg::SsFlags, Reg::SsBase]),
        segment("ldt", "ldtr", [Reg::Ldtr, Reg::LdtrLimit, Reg::LdtrFlags, Reg::LdtrBase]),
        segment("tr", "tr", [Reg::Tr, Reg::TrLimit, Reg::TrFlags, Reg::TrBase]),
        table("gdt", "gdtr", Reg::GdtrLimit, Reg::GdtrBase),
        table("idt", "idtr", Reg::IdtrLimit, Reg::IdtrBase),
    ]
};

//! The processor state in the notes of QEMU's ELF cores.
//!
//! The layout is `QEMUCPUState` of QEMU's `target/i386/arch_dump.c`, little-endian, version 1 from
//! 2012 until today; the kernel GS base was appended later, so its presence follows from the size
//! and not from the version. The same structure is used for 32- and 64-bit guests. It holds no MSR
//! (no EFER, no LSTAR) and no vector registers: those stay unknown.

use super::cpu::{Cpu, SEGMENTS};
use crate::reg::Reg;

/// Bytes without the kernel GS base.
const SIZE: usize = 432;
/// Bytes with it.
const SIZE_GS: usize = 440;

/// General registers in the note's order.
const GENERAL: [Reg; 17] = [
    Reg::Rax,
    Reg::Rbx,
    Reg::Rcx,
    Reg::Rdx,
    Reg::Rsi,
    Reg::Rdi,
    Reg::Rsp,
    Reg::Rbp,
    Reg::R8,
    Reg::R9,
    Reg::R10,
    Reg::R11,
    Reg::R12,
    Reg::R13,
    Reg::R14,
    Reg::R15,
    Reg::Rip,
];

/// Why a note is not a processor's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoteError {
    /// Fewer bytes than version 1 has.
    #[error("the note has {0} bytes, too few for a processor's state ({SIZE})")]
    Short(usize),
    /// A layout that is not known.
    #[error("the note has version {0}; version 1 is understood")]
    Version(u32),
    /// The size it states is not the size it has.
    #[error("the note states a size of {stated} bytes and has {len}")]
    Size {
        /// What it states.
        stated: u32,
        /// What it has.
        len: usize,
    },
}

/// Reads the fields in order; the caller has checked that there are enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> u32 {
        self.0.split_first_chunk().map_or(0, |(bytes, rest)| {
            self.0 = rest;
            u32::from_le_bytes(*bytes)
        })
    }

    fn u64(&mut self) -> u64 {
        self.0.split_first_chunk().map_or(0, |(bytes, rest)| {
            self.0 = rest;
            u64::from_le_bytes(*bytes)
        })
    }
}

/// The processor that a note's descriptor describes.
pub(super) fn parse(desc: &[u8]) -> Result<Cpu, NoteError> {
    if desc.len() < SIZE {
        return Err(NoteError::Short(desc.len()));
    }
    let mut fields = Fields(desc);
    let version = fields.u32();
    if version != 1 {
        return Err(NoteError::Version(version));
    }
    let stated = fields.u32();
    let size = stated as usize;
    if size < SIZE || size > desc.len() {
        return Err(NoteError::Size { stated, len: desc.len() });
    }
    let mut cpu = Cpu::default();
    for reg in GENERAL {
        cpu.regs.set(reg, fields.u64());
    }
    let rflags = fields.u64();
    for segment in SEGMENTS {
        let [selector, limit, flags, _pad] = [(); 4].map(|()| u64::from(fields.u32()));
        cpu.regs.set(segment.limit, limit);
        cpu.regs.set(segment.base, fields.u64());
        for (reg, value) in [(segment.selector, selector), (segment.flags, flags)] {
            if let Some(reg) = reg {
                cpu.regs.set(reg, value);
            }
        }
    }
    for reg in [Some(Reg::Cr0), None, Some(Reg::Cr2), Some(Reg::Cr3), Some(Reg::Cr4)] {
        let value = fields.u64();
        if let Some(reg) = reg {
            cpu.regs.set(reg, value);
        }
    }
    if size >= SIZE_GS {
        cpu.regs.set(Reg::KernelGsBase, fields.u64());
    }
    cpu.set_rflags(rflags);
    Ok(cpu)
}

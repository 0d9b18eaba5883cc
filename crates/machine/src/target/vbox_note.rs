//! The processor state in the notes of VirtualBox's cores (`VBoxManage debugvm ... dumpvmcore`).
//!
//! A note "VBCORE" states the version of the format; each note "VBCPU" is a `DBGFCORECPU`,
//! little-endian. Source: VirtualBox's `include/VBox/vmm/dbgfcorefmt.h`, whose versions 0x10005 and
//! 0x10006 differ behind what is read here. Older versions wrote the hypervisor's own structures
//! and are refused. Implemented from that file; no core of VirtualBox itself was at hand to compare
//! with.

use super::cpu::{Cpu, SEGMENTS, SegmentRegs};
use crate::reg::Reg;

/// Type of the note "VBCORE".
pub(super) const CORE: u32 = 0xb00;
/// Type of the note "VBCPU".
pub(super) const CPU: u32 = 0xb01;

const MAGIC: u32 = 0xc01a_c0de;
const VERSIONS: [u32; 2] = [0x1_0005, 0x1_0006];
/// Bytes up to and with the kernel GS base.
const SIZE: usize = 544;

/// Why notes of VirtualBox give no processors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VboxError {
    /// A layout that is not known.
    #[error("the notes of VirtualBox have format {0:#x}; 0x10005 and 0x10006 are understood")]
    Version(u32),
    /// Too few bytes.
    #[error("a note of VirtualBox has {0} bytes, too few")]
    Short(usize),
}

/// Checks the note "VBCORE".
pub(super) fn check(desc: &[u8]) -> Result<(), VboxError> {
    let (Some(magic), Some(version)) = (number(desc, 0, 4), number(desc, 4, 4)) else {
        return Err(VboxError::Short(desc.len()));
    };
    let version = version as u32;
    if magic != u64::from(MAGIC) || !VERSIONS.contains(&version) {
        return Err(VboxError::Version(version));
    }
    Ok(())
}

fn number(desc: &[u8], at: usize, size: usize) -> Option<u64> {
    Some(desc.get(at..at + size)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}

/// General registers in the note's order.
const GENERAL: [Reg; 17] = [
    Reg::Rax,
    Reg::Rbx,
    Reg::Rcx,
    Reg::Rdx,
    Reg::Rsi,
    Reg::Rdi,
    Reg::R8,
    Reg::R9,
    Reg::R10,
    Reg::R11,
    Reg::R12,
    Reg::R13,
    Reg::R14,
    Reg::R15,
    Reg::Rip,
    Reg::Rsp,
    Reg::Rbp,
];
const RFLAGS: usize = 136;
/// Where the segments of [`SEGMENTS`] lie; the last two are the tables.
const PLACES: [usize; 10] = [144, 168, 192, 216, 240, 264, 416, 440, 384, 400];
/// Registers of eight bytes, with their places.
const PLAIN: [(Reg, usize); 13] = [
    (Reg::Cr0, 288),
    (Reg::Cr2, 296),
    (Reg::Cr3, 304),
    (Reg::Cr4, 312),
    (Reg::SysenterCs, 464),
    (Reg::SysenterEip, 472),
    (Reg::SysenterEsp, 480),
    (Reg::Efer, 488),
    (Reg::Star, 496),
    (Reg::Lstar, 512),
    (Reg::Cstar, 520),
    (Reg::Sfmask, 528),
    (Reg::KernelGsBase, 536),
];

/// The processor of a note "VBCPU".
pub(super) fn parse(desc: &[u8]) -> Result<Cpu, VboxError> {
    let desc = desc.first_chunk::<SIZE>().ok_or(VboxError::Short(desc.len()))?;
    let get = |at: usize, size: usize| number(desc, at, size).unwrap_or(0);
    let mut cpu = Cpu::default();
    GENERAL.into_iter().enumerate().for_each(|(i, reg)| cpu.regs.set(reg, get(8 * i, 8)));
    PLAIN.into_iter().for_each(|(reg, at)| cpu.regs.set(reg, get(at, 8)));
    for (SegmentRegs { selector, limit, flags, base, .. }, at) in SEGMENTS.into_iter().zip(PLACES) {
        cpu.regs.set(base, get(at, 8));
        cpu.regs.set(limit, get(at + 8, 4));
        // Attributes are those of a descriptor from its type on, which is bit 8 of its upper half.
        if let (Some(selector), Some(flags)) = (selector, flags) {
            cpu.regs.set(flags, (get(at + 12, 4) & 0xffff) << 8);
            cpu.regs.set(selector, get(at + 16, 2));
        }
    }
    // Bit 1 is always set; VirtualBox 5 left the field empty.
    let rflags = get(RFLAGS, 8);
    if rflags != 0 {
        cpu.set_rflags(rflags);
    }
    Ok(cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_header_says() {
        let mut note = vec![0; 9000];
        let mut put = |at: usize, bytes: &[u8]| note[at..at + bytes.len()].copy_from_slice(bytes);
        put(8, &1u64.to_le_bytes());
        put(128, &2u64.to_le_bytes());
        put(136, &0x246u64.to_le_bytes());
        // CS: base, limit, attributes of 64-bit code, selector.
        put(144 + 12, &0xa09bu32.to_le_bytes());
        put(144 + 16, &0x10u16.to_le_bytes());
        put(240, &0xffff_8880_0000_0000u64.to_le_bytes());
        put(288, &0x8005_0033u64.to_le_bytes());
        put(304, &0x2000u64.to_le_bytes());
        put(312, &0x20u64.to_le_bytes());
        put(400, &0xffff_fe00_0000_0000u64.to_le_bytes());
        put(408, &0xfffu32.to_le_bytes());
        put(440 + 16, &0x40u16.to_le_bytes());
        put(488, &0xd01u64.to_le_bytes());
        put(536, &7u64.to_le_bytes());
        let cpu = parse(&note).unwrap();
        for (reg, value) in [
            (Reg::Rbx, 1),
            (Reg::Rbp, 2),
            (Reg::Zf, 1),
            (Reg::Cpl, 0),
            (Reg::Cs, 0x10),
            (Reg::GsBase, 0xffff_8880_0000_0000),
            (Reg::IdtrBase, 0xffff_fe00_0000_0000),
            (Reg::IdtrLimit, 0xfff),
            (Reg::Tr, 0x40),
            (Reg::Efer, 0xd01),
            (Reg::KernelGsBase, 7),
        ] {
            assert_eq!(cpu.regs.get(reg), Some(value), "{}", reg.name());
        }
        assert_eq!(cpu.code_bits(), Some(64));
        assert_eq!(parse(&note[..SIZE - 1]), Err(VboxError::Short(SIZE - 1)));
        note[136..144].fill(0);
        assert_eq!(parse(&note).unwrap().regs.get(Reg::Zf), None);
    }

    #[test]
    fn other_versions_are_refused() {
        let descriptor = |version: u32| [MAGIC.to_le_bytes(), version.to_le_bytes(), [24, 0, 0, 0]].concat();
        assert_eq!(check(&descriptor(0x1_0006)), Ok(()));
        assert_eq!(check(&descriptor(0x1_0000)), Err(VboxError::Version(0x1_0000)));
        assert_eq!(check(&[0; 7]), Err(VboxError::Short(7)));
    }
}

//! Which paging mode a processor is in, from its control registers.
//!
//! SDM vol. 3 section 4.1.1 defines the mode by CR0.PG, CR4.PAE, EFER.LMA and CR4.LA57. Captures
//! may lack EFER (QEMU's ELF note does), so long mode is then concluded from what only long mode
//! can hold; see [`PagingMode::from_regs`].

use std::fmt;

use crate::addr::{PhysAddr, VirtAddr};
use crate::reg::{EFER_LMA, Reg, RegFile};

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_PCIDE: u64 = 1 << 17;
/// The L bit ("64-bit code segment") in a segment's flags, which are the descriptor's upper half as
/// QEMU stores it.
const FLAGS_L: u64 = 1 << 21;

/// How linear addresses become physical ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PagingMode {
    /// CR0.PG is clear: linear addresses are physical.
    Off,
    /// Two levels of 4-byte entries.
    Bits32 {
        /// CR4.PSE: 4 MiB pages are on.
        pse: bool,
    },
    /// Three levels of 8-byte entries under 32-bit linear addresses.
    Pae,
    /// Long mode with 48-bit linear addresses.
    Level4,
    /// Long mode with 57-bit linear addresses (CR4.LA57).
    Level5,
}

/// A register without which the paging mode is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the capture does not hold {}, without which the paging mode is unknown", .0.name())]
pub struct MissingRegister(pub Reg);

impl PagingMode {
    /// Bytes of an entry of a table.
    #[must_use]
    pub const fn entry_bytes(self) -> u64 {
        if matches!(self, Self::Bits32 { .. }) { 4 } else { 8 }
    }

    /// The mode of these control registers; `long_mode` is EFER.LMA.
    #[must_use]
    pub const fn from_controls(cr0: u64, cr4: u64, long_mode: bool) -> Self {
        if cr0 & CR0_PG == 0 {
            Self::Off
        } else if cr4 & CR4_PAE == 0 {
            Self::Bits32 { pse: cr4 & CR4_PSE != 0 }
        } else if !long_mode {
            Self::Pae
        } else if cr4 & CR4_LA57 == 0 {
            Self::Level4
        } else {
            Self::Level5
        }
    }

    /// The mode of a register file that holds at least CR0 and CR4.
    ///
    /// With EFER unknown it is long mode if paging and PAE are on and there is any state only long
    /// mode can have: CS is a 64-bit segment, CR4.PCIDE or CR4.LA57 is set, or RIP, RSP, CR3 or a
    /// base of IDT, GDT, TSS, FS, GS or the kernel's GS is wider than 32 bits. Every 64-bit kernel
    /// has its IDT above 4 GiB, so also one paused in a 32-bit process is recognised.
    pub fn from_regs(regs: &RegFile) -> Result<Self, MissingRegister> {
        let cr0 = regs.get(Reg::Cr0).ok_or(MissingRegister(Reg::Cr0))?;
        let cr4 = regs.get(Reg::Cr4).ok_or(MissingRegister(Reg::Cr4))?;
        Ok(Self::from_controls(cr0, cr4, long_mode(regs, cr4)))
    }

    /// Levels of tables: 0 with paging off.
    #[must_use]
    pub const fn levels(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Bits32 { .. } => 2,
            Self::Pae => 3,
            Self::Level4 => 4,
            Self::Level5 => 5,
        }
    }

    /// Width of linear addresses in bits: 32, 48 or 57.
    #[must_use]
    pub const fn linear_bits(self) -> u32 {
        match self {
            Self::Off | Self::Bits32 { .. } | Self::Pae => 32,
            Self::Level4 => 48,
            Self::Level5 => 57,
        }
    }

    /// Whether this is an address of the mode: in long mode sign-extended, otherwise below 4 GiB.
    #[must_use]
    pub const fn is_canonical(self, vaddr: VirtAddr) -> bool {
        self.canonical(vaddr.0).0 == vaddr.0
    }

    /// The address whose low [`PagingMode::linear_bits`] bits are those of `low`.
    #[must_use]
    pub const fn canonical(self, low: u64) -> VirtAddr {
        let spare = 64 - self.linear_bits();
        match self {
            Self::Level4 | Self::Level5 => VirtAddr(((low << spare) as i64 >> spare) as u64),
            _ => VirtAddr(low << spare >> spare),
        }
    }

    /// Physical address of the top table, from CR3 (SDM vol. 3 tables 4-3, 4-7 and 4-12).
    #[must_use]
    pub const fn root(self, cr3: u64) -> PhysAddr {
        PhysAddr(match self {
            Self::Off => 0,
            Self::Bits32 { .. } => cr3 & 0xffff_f000,
            Self::Pae => cr3 & 0xffff_ffe0,
            Self::Level4 | Self::Level5 => cr3 & 0x000f_ffff_ffff_f000,
        })
    }
}

impl fmt::Display for PagingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Bits32 { pse: false } => "32-bit",
            Self::Bits32 { pse: true } => "32-bit with 4 MiB pages",
            Self::Pae => "PAE",
            Self::Level4 => "4-level",
            Self::Level5 => "5-level",
        })
    }
}

/// EFER.LMA, or what stands for it where EFER is unknown; `from_controls` asks for PG and PAE
/// itself.
fn long_mode(regs: &RegFile, cr4: u64) -> bool {
    const WIDE: [Reg; 9] = [
        Reg::IdtrBase,
        Reg::GdtrBase,
        Reg::TrBase,
        Reg::FsBase,
        Reg::GsBase,
        Reg::KernelGsBase,
        Reg::Rip,
        Reg::Rsp,
        Reg::Cr3,
    ];
    match regs.get(Reg::Efer) {
        Some(efer) => efer & EFER_LMA != 0,
        None => {
            cr4 & (CR4_LA57 | CR4_PCIDE) != 0
                || regs.get_or_zero(Reg::CsFlags) & FLAGS_L != 0
                || WIDE.iter().any(|&reg| regs.get_or_zero(reg) >> 32 != 0)
        }
    }
}

//! One page-table entry: what it points at and what it allows.
//!
//! Formats are those of SDM vol. 3 section 4.3 (32-bit), 4.4 (PAE) and 4.5 (4- and 5-level). Only
//! bits that are reserved on *every* processor are refused: the width of physical addresses and of
//! PSE-36 is not in a capture, and an address too wide for the machine ends in a hole of its memory
//! anyway. The no-execute bit counts as set even where EFER.NXE, often unknown, would make it
//! reserved.

use super::PagingMode;
use crate::addr::{PhysAddr, VirtAddr};
use crate::memory::{GuestMemory, MemoryError, Page};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const PAGE: u64 = 1 << 7;
const UNCACHED: u64 = 1 << 4;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Address bits of an 8-byte entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits 62:52, free for software in long mode and reserved under PAE.
const PAE_HIGH: u64 = 0x7ff0_0000_0000_0000;

/// What an entry leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// Nothing: the present bit is clear.
    Absent,
    /// Present, with a bit set that must be zero.
    Reserved,
    /// The table of the next lower level.
    Table(PhysAddr),
    /// A page of [`span`] bytes.
    Page(PhysAddr),
}

/// Rights, which every level can take away (SDM vol. 3 section 4.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rights {
    pub(super) writable: bool,
    pub(super) user: bool,
    pub(super) executable: bool,
}

impl Rights {
    pub(super) const ALL: Self = Self { writable: true, user: true, executable: true };

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            writable: self.writable && other.writable,
            user: self.user && other.user,
            executable: self.executable && other.executable,
        }
    }
}

/// Bytes of an entry.
pub(super) const fn size(mode: PagingMode) -> u64 {
    mode.entry_bytes()
}

/// Entries of a table.
pub(super) const fn count(mode: PagingMode, level: u8) -> u64 {
    match (mode, level) {
        (PagingMode::Bits32 { .. }, _) => 1024,
        (PagingMode::Pae, 3) => 4,
        _ => 512,
    }
}

/// Bytes of linear address space an entry of this level stands for.
pub(super) const fn span(mode: PagingMode, level: u8) -> u64 {
    let bits = if matches!(mode, PagingMode::Bits32 { .. }) { 10 } else { 9 };
    1 << (12 + bits * (level as u32 - 1))
}

/// Index of the entry for `vaddr` in a table of this level.
pub(super) const fn index(mode: PagingMode, level: u8, vaddr: VirtAddr) -> u64 {
    vaddr.0 / span(mode, level) % count(mode, level)
}

/// Reads the entry at `addr`; entries are aligned, so none crosses a page.
pub(super) fn read(mem: &dyn GuestMemory, mode: PagingMode, addr: PhysAddr) -> Result<u64, MemoryError> {
    Ok(get(mode, mem.page(addr)?, addr.offset()))
}

/// The entry at `offset` of a page (0 where none fits, which aligned offsets exclude).
pub(super) fn get(mode: PagingMode, page: &Page, offset: u64) -> u64 {
    let bytes = page.get(offset as usize..).unwrap_or_default();
    if size(mode) == 4 {
        bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
    } else {
        bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// What a raw entry of this level leads to; level 1 never leads to a table.
pub(super) const fn decode(mode: PagingMode, level: u8, raw: u64) -> Entry {
    if raw & PRESENT == 0 {
        return Entry::Absent;
    }
    if let PagingMode::Bits32 { pse } = mode {
        return decode32(level, pse, raw);
    }
    let pae = matches!(mode, PagingMode::Pae);
    // Bits 2:1 and 8:5 of a PAE page-directory-pointer entry are reserved (SDM vol. 3 table 4-8),
    // but the processor looks at them when CR3 is loaded, not in a walk, and QEMU marks these
    // entries as accessed like any other.
    if pae && (raw & PAE_HIGH != 0 || level == 3 && raw & NO_EXECUTE != 0) {
        return Entry::Reserved;
    }
    let large = raw & PAGE != 0;
    match level {
        1 => Entry::Page(PhysAddr(raw & ADDRESS)),
        2 | 3 if large => {
            // Between the PAT bit (12) and the address of a large page every bit is reserved.
            let inside = span(mode, level) - 1;
            if raw & inside & ADDRESS & !0x1000 != 0 {
                Entry::Reserved
            } else {
                Entry::Page(PhysAddr(raw & ADDRESS & !inside))
            }
        }
        _ if large => Entry::Reserved,
        _ => Entry::Table(PhysAddr(raw & ADDRESS)),
    }
}

const fn decode32(level: u8, pse: bool, raw: u64) -> Entry {
    if level == 1 {
        Entry::Page(PhysAddr(raw & 0xffff_f000))
    } else if !pse || raw & PAGE == 0 {
        Entry::Table(PhysAddr(raw & 0xffff_f000))
    } else if raw & 1 << 21 != 0 {
        Entry::Reserved
    } else {
        // PSE-36: bits 20:13 are address bits 39:32 (SDM vol. 3 table 4-4).
        Entry::Page(PhysAddr(raw & 0xffc0_0000 | (raw >> 13 & 0xff) << 32))
    }
}

/// What a present entry of this level allows.
pub(super) const fn rights(mode: PagingMode, level: u8, raw: u64) -> Rights {
    if matches!(mode, PagingMode::Pae) && level == 3 {
        // Page-directory-pointer entries of PAE carry no rights.
        return Rights::ALL;
    }
    Rights {
        writable: raw & WRITABLE != 0,
        user: raw & USER != 0,
        // A 4-byte entry has no such bit: it is zero there.
        executable: raw & NO_EXECUTE == 0,
    }
}

/// Whether an entry that maps a page turns caching off.
pub(super) const fn is_uncached(raw: u64) -> bool {
    raw & UNCACHED != 0
}

/// The global bit of an entry that maps a page.
pub(super) const fn is_global(raw: u64) -> bool {
    raw & GLOBAL != 0
}

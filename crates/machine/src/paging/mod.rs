//! From linear to physical addresses: the page tables of every x86 paging mode.
//!
//! It follows Intel SDM vol. 3 chapter 4 ("Paging") for 32-bit, PAE, 4-level and 5-level paging,
//! and trusts nothing: tables come from a captured or hostile guest. It deliberately does not
//! decide whether an access is *allowed* (CR0.WP, SMEP, SMAP, protection keys): it reports rights
//! and leaves the policy to the engine. It knows no nested (EPT) paging.

mod entry;
mod mode;
mod space;
mod walk;

pub use mode::{MissingRegister, PagingMode};
pub use space::{address_space, beside, root_page};
pub use walk::{DEFAULT_WALK_LIMIT, Mapping, WalkEnd, WalkSummary, walk};

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::memory::{GuestMemory, MemoryError};
use entry::{Entry, Rights};

/// Where a linear address lies, and the rights of all levels together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The physical address of the very byte asked for (not of its page).
    pub paddr: PhysAddr,
    /// Every level allows writes.
    pub writable: bool,
    /// Every level allows user-mode access.
    pub user: bool,
    /// No level has the no-execute bit.
    pub executable: bool,
    /// Bytes of the page: 4 KiB, 2 MiB, 4 MiB or 1 GiB.
    pub page_size: u64,
    /// The leaf's global bit (meaningful if CR4.PGE is set).
    pub global: bool,
    /// The leaf turns caching off (PCD): systems map devices so.
    pub uncached: bool,
}

/// Why a linear address has no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TranslateError {
    /// Not an address of this mode: not sign-extended (SDM vol. 1 section 3.3.7.1), or above 4 GiB
    /// outside long mode.
    #[error("linear address {vaddr} is not canonical")]
    NonCanonical {
        /// The address asked for.
        vaddr: VirtAddr,
    },
    /// An entry on the way has its present bit clear.
    #[error(
        "linear address {vaddr} is not mapped (level {level} entry at physical {entry_addr} is not present)"
    )]
    NotPresent {
        /// The address asked for.
        vaddr: VirtAddr,
        /// Level of the entry: 1 is the page table, up to 5 for the PML5.
        level: u8,
        /// Physical address of the entry.
        entry_addr: PhysAddr,
    },
    /// A present entry has a bit set that must be zero: the processor would raise a page fault with
    /// RSVD.
    #[error("the level {level} page-table entry at physical {entry_addr} for {vaddr} has reserved bits set")]
    ReservedBit {
        /// The address asked for.
        vaddr: VirtAddr,
        /// Level of the entry: 1 is the page table, up to 5 for the PML5.
        level: u8,
        /// Physical address of the entry.
        entry_addr: PhysAddr,
    },
    /// A table could not be read.
    #[error("the level {level} page table for {vaddr} cannot be read: {source}")]
    Memory {
        /// The address asked for.
        vaddr: VirtAddr,
        /// Level of the table: 1 is the page table, up to 5 for the PML5.
        level: u8,
        /// What reading said.
        source: MemoryError,
    },
}

/// Translates one linear address.
///
/// `cr3` is the register's image; the bits that are no address (PCID, LAM, PWT, PCD) are ignored.
/// With paging off the result is the address itself.
pub fn translate(
    mem: &dyn GuestMemory,
    mode: PagingMode,
    cr3: u64,
    vaddr: VirtAddr,
) -> Result<Translation, TranslateError> {
    translate_by(mem, mode, cr3, vaddr, &mut |_| ())
}

/// The same; `by` is told where each entry lies that is looked at.
///
/// # Errors
/// As [`translate`].
pub fn translate_by(
    mem: &dyn GuestMemory,
    mode: PagingMode,
    cr3: u64,
    vaddr: VirtAddr,
    by: &mut impl FnMut(PhysAddr),
) -> Result<Translation, TranslateError> {
    if !mode.is_canonical(vaddr) {
        return Err(TranslateError::NonCanonical { vaddr });
    }
    let mut rights = Rights::ALL;
    let mut table = mode.root(cr3);
    for level in (1..=mode.levels()).rev() {
        let entry_addr = table.add(entry::index(mode, level, vaddr) * entry::size(mode));
        by(entry_addr);
        let raw = entry::read(mem, mode, entry_addr).map_err(|source| TranslateError::Memory {
            vaddr,
            level,
            source,
        })?;
        match entry::decode(mode, level, raw) {
            Entry::Absent => return Err(TranslateError::NotPresent { vaddr, level, entry_addr }),
            Entry::Reserved => return Err(TranslateError::ReservedBit { vaddr, level, entry_addr }),
            Entry::Table(next) => {
                rights = rights.and(entry::rights(mode, level, raw));
                table = next;
            }
            Entry::Page(base) => {
                rights = rights.and(entry::rights(mode, level, raw));
                let page_size = entry::span(mode, level);
                return Ok(Translation {
                    paddr: PhysAddr(base.0 | (vaddr.0 & (page_size - 1))),
                    writable: rights.writable,
                    user: rights.user,
                    executable: rights.executable,
                    page_size,
                    global: entry::is_global(raw),
                    uncached: entry::is_uncached(raw),
                });
            }
        }
    }
    // No level decoded to a leaf: only with paging off, which has no levels (level 1 never yields a
    // table).
    Ok(Translation {
        paddr: PhysAddr(vaddr.0),
        writable: true,
        user: true,
        executable: true,
        page_size: PAGE_SIZE,
        global: false,
        uncached: false,
    })
}

/// `count` bytes from a linear address on, each where it is mapped and its frame is in memory.
#[must_use]
pub fn read_mapped(
    mem: &dyn GuestMemory,
    mode: PagingMode,
    cr3: u64,
    address: VirtAddr,
    count: usize,
) -> Vec<Option<u8>> {
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        let here = VirtAddr(address.0.wrapping_add(found.len() as u64));
        let offset = here.0 as usize & 4095;
        let size = (4096 - offset).min(count - found.len());
        let frame = translate(mem, mode, cr3, here).ok();
        match frame.and_then(|frame| mem.page(frame.paddr.page()).ok()) {
            Some(page) => found.extend(page[offset..offset + size].iter().map(|byte| Some(*byte))),
            None => found.resize(found.len() + size, None),
        }
    }
    found
}

#[cfg(test)]
mod tests;

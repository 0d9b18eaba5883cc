//! The small machine's memory: frames, and page tables of four levels that map them.

use machine::memory::Mock;
use machine::{GuestMemory, PAGE_SIZE, PagingMode, PhysAddr, VirtAddr, translate};

use super::Unusable;

/// The lowest address of the system.
pub const SYSTEM: u64 = 0xffff_8000_0000_0000;
/// Bytes of memory.
pub const RAM: u64 = 0x80_0000;
/// Where the system's pages lie.
const SYSTEM_FRAMES: u64 = 0x10_0000;
/// The page tables' root.
pub const ROOT: PhysAddr = PhysAddr(0x40_0000);

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
/// The address in an entry.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// What a page may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    Code,
    Data,
    /// Data that may only be read.
    Reading,
}

/// Physical memory with page tables in it.
pub struct Memory {
    pub physical: Mock,
    next_table: u64,
}

impl Memory {
    pub fn new() -> Self {
        let mut physical = Mock::new();
        physical.page_mut(ROOT);
        Self { physical, next_table: ROOT.0 + PAGE_SIZE }
    }

    fn read(&self, at: PhysAddr) -> u64 {
        self.physical.read_u64(at).unwrap_or(0)
    }

    /// The entry of the lowest table that maps a page; tables on the way are made.
    pub fn entry(&mut self, page: VirtAddr) -> PhysAddr {
        let mut table = ROOT;
        for shift in [39, 30, 21] {
            let at = table.add((page.0 >> shift & 511) * 8);
            if self.read(at) & PRESENT == 0 {
                self.physical.page_mut(PhysAddr(self.next_table));
                self.physical.write_u64(at, self.next_table | PRESENT | WRITABLE | USER);
                self.next_table += PAGE_SIZE;
            }
            table = PhysAddr(self.read(at) & FRAME);
        }
        table.add((page.0 >> 12 & 511) * 8)
    }

    /// Maps a page to a frame.
    pub fn map(&mut self, page: VirtAddr, frame: PhysAddr, used: Use) {
        let user = if page.0 < SYSTEM { USER } else { 0 };
        let rights = match used {
            Use::Code => 0,
            Use::Data => WRITABLE | NO_EXECUTE,
            Use::Reading => NO_EXECUTE,
        };
        let entry = self.entry(page);
        self.physical.page_mut(frame);
        self.physical.write_u64(entry, frame.0 | PRESENT | user | rights);
    }

    /// Maps the page of an address to the frame that such a page has by default.
    pub fn map_default(&mut self, address: VirtAddr, used: Use) {
        let page = address.page();
        if self.translate(page).is_err() {
            let frame = if page.0 < SYSTEM { page.0 } else { SYSTEM_FRAMES + (page.0 & 0xf_ffff) };
            self.map(page, PhysAddr(frame), used);
        }
    }

    pub fn translate(&self, address: VirtAddr) -> Result<PhysAddr, Unusable> {
        let mode = PagingMode::Level4;
        translate(&self.physical, mode, ROOT.0, address)
            .map(|found| found.paddr)
            .map_err(|_| format!("{address:#x} is not mapped"))
    }

    /// Bytes at a linear address.
    pub fn load(&self, address: VirtAddr, count: u64) -> Result<u64, Unusable> {
        let mut value = 0;
        for n in (0..count).rev() {
            let at = self.translate(address.add(n))?;
            value = value << 8 | u64::from(self.physical.read_u8(at).unwrap_or(0));
        }
        Ok(value)
    }

    pub fn store(&mut self, address: VirtAddr, bytes: &[u8]) -> Result<(), Unusable> {
        for (n, byte) in bytes.iter().enumerate() {
            let at = self.translate(address.add(n as u64))?;
            self.physical.write(at, &[*byte]);
        }
        Ok(())
    }

    /// All pages, by address.
    pub fn pages(&self) -> Vec<(PhysAddr, Vec<u8>)> {
        let pages = (0..RAM).step_by(PAGE_SIZE as usize).map(PhysAddr);
        pages.filter_map(|at| Some((at, self.physical.page(at).ok()?.to_vec()))).collect()
    }
}

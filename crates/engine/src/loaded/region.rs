//! The code that a target has mapped for its system.

use std::ops::ControlFlow;

use lift::Mode;
use machine::paging::{self, DEFAULT_WALK_LIMIT};
use machine::{PAGE_SIZE, VirtAddr};

use crate::per_cpu::Tables;

/// The most pages of a region on each side of the address that it was looked up by: far more than
/// any object has.
const MOST_PAGES: u64 = 4096;

/// A target's address space.
#[derive(Clone, Copy)]
pub(crate) struct Space<'m> {
    /// The page tables that map the kernel.
    pub tables: Tables<'m>,
    /// The slide of the kernel's own image.
    pub slide: u64,
}

/// Pages of code without a gap.
pub(crate) struct Region {
    /// The first address.
    pub start: u64,
    pub bytes: Vec<u8>,
}

impl<'m> Space<'m> {
    /// The mode of the kernel's code.
    pub const fn code(&self) -> Mode {
        if self.tables.mode.linear_bits() > 32 { Mode::Bits64 } else { Mode::Bits32 }
    }

    /// Where an address of the training system is that moves with the kernel's own image.
    pub const fn moved(&self, address: u64) -> u64 {
        self.truncated(address.wrapping_add(self.slide))
    }

    /// An address in as many bits as the target's have.
    pub const fn truncated(&self, address: u64) -> u64 {
        match self.code() {
            Mode::Bits64 => address,
            _ => address & u32::MAX as u64,
        }
    }

    /// The page at an address, if it is code of the system.
    fn page(&self, address: u64) -> Option<&'m [u8]> {
        let Tables { memory, mode, root } = self.tables;
        let found = paging::translate(memory, mode, root, VirtAddr(address)).ok()?;
        let is_code = found.executable && !found.user;
        is_code.then(|| memory.page(found.paddr.page()).ok()).flatten().map(|page| &page[..])
    }

    /// All code around an address; `None` if there is none.
    pub fn around(&self, pc: u64) -> Option<Region> {
        let page = VirtAddr(pc).page().0;
        let before = (1..MOST_PAGES).map_while(|at| page.checked_sub(at * PAGE_SIZE));
        let pages = before.take_while(|address| self.page(*address).is_some()).count() as u64;
        let start = page - pages * PAGE_SIZE;
        let all = (0..pages + MOST_PAGES).map_while(|at| self.page(start.checked_add(at * PAGE_SIZE)?));
        let bytes: Vec<u8> = all.flatten().copied().collect();
        (!bytes.is_empty()).then_some(Region { start, bytes })
    }

    /// `count` bytes of code at an address; `None` if some are not there.
    pub fn read(&self, address: u64, count: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let here = address.checked_add(bytes.len() as u64)?;
            let offset = VirtAddr(here).offset() as usize;
            let page = self.page(here)?;
            bytes.extend_from_slice(&page[offset..page.len().min(offset + count - bytes.len())]);
        }
        Some(bytes)
    }

    /// An address in each region of code in the system's half of the address space.
    pub fn regions(&self) -> Vec<u64> {
        let Tables { memory, mode, root } = self.tables;
        let bits = mode.linear_bits();
        let half = VirtAddr(if bits > 32 { u64::MAX << (bits - 1) } else { 1 << (bits - 1) });
        let last = VirtAddr(if bits > 32 { u64::MAX } else { u32::MAX.into() });
        let (mut regions, mut next) = (Vec::new(), None);
        paging::walk(memory, mode, root, half..=last, DEFAULT_WALK_LIMIT, &mut |mapping| {
            if mapping.executable && !mapping.user {
                if next != Some(mapping.vaddr.0) {
                    regions.push(mapping.vaddr.0);
                }
                next = mapping.vaddr.0.checked_add(mapping.size);
            }
            ControlFlow::Continue(())
        });
        regions
    }
}

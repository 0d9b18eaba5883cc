//! A run's pages: the target's as its page tables map them, and the run's copies of those that it
//! wrote.

use std::ops::Range;

use jit::{Held, Memory, Spare};
use machine::paging::{self, PagingMode};
use machine::{GuestMemory, MemoryError, PAGE_SIZE, Page, PhysAddr, VirtAddr, hash};

use super::fault::Fault;
use crate::apic::{ApicId, LocalApic};
use crate::process::ProcessPages;
use crate::undefined::Undefined;

/// The most bytes that [`Overlay::undefine`] works on: no kernel's stack has more.
const MAX_UNDEFINED: u64 = 1 << 16;
/// Where the synthetic frames of the training process's pages begin: processors have at most 52
/// bits of physical address.
pub(crate) const PROCESS_FRAMES: u64 = 1 << 52;

/// The target's frames with the run's copies in place of those it wrote: page tables are read
/// through this, for a system may map memory while it answers.
struct Frames<'s, 't> {
    memory: &'t dyn GuestMemory,
    frames: &'s hash::Map<PhysAddr, u32>,
    copies: &'s Memory<'t>,
}

impl GuestMemory for Frames<'_, '_> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        match self.frames.get(&addr.page()) {
            Some(&copy) => Ok(self.copies.page(copy)),
            None => self.memory.page(addr),
        }
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.memory.ranges()
    }
}

/// The memory of one run.
pub struct Overlay<'t> {
    pub(super) memory: &'t dyn GuestMemory,
    pub(super) mode: PagingMode,
    /// CR3 of the page tables that map the kernel.
    pub(super) root: u64,
    /// Copied pages, those of the training process too, and allocated ones; and the TLB.
    pub(super) pages: Memory<'t>,
    /// The training process's pages.
    pub(super) process: Option<&'t ProcessPages<'t>>,
    /// Copies of these, and the heap's pages: copy by address of the page.
    pub(super) user: hash::Map<VirtAddr, u32>,
    /// Pages that count towards the limit: the process's own, the heap's, copied frames.
    pub(super) counted: usize,
    /// Pages that the kernel shows to processes: the kernel's own address of each.
    pub(super) aliases: hash::Map<VirtAddr, VirtAddr>,
    /// Copied frames of the target: copy by address of the frame.
    pub(super) frames: hash::Map<PhysAddr, u32>,
    /// Frames of kernel pages that [`Overlay::physical`] was asked for, by page.
    pub(super) translated: hash::Map<VirtAddr, PhysAddr>,
    /// Frames of page tables that translations went through.
    pub(super) tables: hash::Set<PhysAddr>,
    /// What may not be read before it is written; the TLB never has such frames.
    pub(super) undefined: Undefined,
    /// The local APIC of the run's processor.
    pub(super) apic: LocalApic,
    /// The next allocation's address.
    pub(super) heap: VirtAddr,
    /// Bytes of each allocation, by address; also of those that were freed.
    pub(super) heap_sizes: hash::Map<VirtAddr, u64>,
    /// The most that `counted` may be.
    pub(super) limit: usize,
}

impl<'t> Overlay<'t> {
    /// The target's memory as page tables of this mode and root (CR3) map it. Allocations begin at
    /// `heap`; at most `limit` pages are copied or allocated.
    #[must_use]
    pub fn new(
        memory: &'t dyn GuestMemory,
        mode: PagingMode,
        root: u64,
        heap: VirtAddr,
        limit: usize,
    ) -> Self {
        Self {
            memory,
            mode,
            root,
            pages: Memory::new(Spare::default()),
            process: None,
            user: hash::Map::default(),
            counted: 0,
            aliases: hash::Map::default(),
            frames: hash::Map::default(),
            translated: hash::Map::default(),
            tables: hash::Set::default(),
            undefined: Undefined::default(),
            apic: LocalApic::default(),
            heap,
            heap_sizes: hash::Map::default(),
            limit,
        }
    }

    /// Gives the run the training process's pages. They count towards the limit, and are there even
    /// past it.
    pub(crate) fn with_process(mut self, process: &'t ProcessPages<'t>) -> Self {
        self.process = Some(process);
        self.counted += process.len();
        self
    }

    /// Says whose local APIC the run's processor has.
    pub(crate) const fn with_apic(mut self, id: ApicId) -> Self {
        self.apic = LocalApic::new(id);
        self
    }

    /// Gives the overlay pages to use, whatever they hold.
    pub(crate) fn with_spare(mut self, spare: Spare) -> Self {
        self.pages.add_spare(spare);
        self
    }

    /// Another one with the same memory: what is stored in one is not in the other. `spare` are
    /// pages to use.
    pub(crate) fn fork(&mut self, spare: Spare) -> Self {
        Self {
            pages: self.pages.fork(spare),
            user: self.user.clone(),
            aliases: self.aliases.clone(),
            frames: self.frames.clone(),
            translated: self.translated.clone(),
            tables: self.tables.clone(),
            undefined: self.undefined.clone(),
            heap_sizes: self.heap_sizes.clone(),
            ..*self
        }
    }

    /// The pages that it used, which it does not need any more.
    pub(crate) fn into_spare(self) -> Spare {
        self.pages.into_spare()
    }

    /// Its pages and the TLB, for compiled code.
    pub(crate) const fn pages(&mut self) -> &mut Memory<'t> {
        &mut self.pages
    }

    /// Whether the training process or its heap has a page at this address.
    pub(super) fn is_own(&self, page: VirtAddr) -> bool {
        self.user.contains_key(&page) || self.process.is_some_and(|process| process.get(page).is_some())
    }

    /// Shows the training process a page of the kernel's, read-only. `kernel` is its address in
    /// the target's kernel.
    pub(crate) fn add_alias(&mut self, page: VirtAddr, kernel: VirtAddr) {
        self.aliases.insert(page, kernel);
    }

    /// A number that stands for all that the run has written. It is the same after changes that
    /// were undone, and differs, but for chance (64 bits), if anything differs.
    #[must_use]
    #[inline]
    pub fn state(&self) -> u64 {
        self.pages.state()
    }

    /// Translates by the target's page tables, as the run may have changed them.
    pub(super) fn translate(&mut self, address: VirtAddr) -> Result<paging::Translation, Fault> {
        let frames = Frames { memory: self.memory, frames: &self.frames, copies: &self.pages };
        let (tables, mut written) = (&mut self.tables, false);
        let translation = paging::translate_by(&frames, self.mode, self.root, address, &mut |entry| {
            written |= tables.insert(entry.page()) && self.frames.contains_key(&entry.page());
        });
        if written {
            // Stores to these frames have to be noticed from now on; those to others are, for what
            // the run has not written yet is nothing that the TLB lets it write.
            self.forget();
        }
        translation.map_err(|error| Fault::Translate(error.to_string()))
    }

    /// Drops all remembered translations.
    pub(super) fn forget(&mut self) {
        self.translated.clear();
        self.undefined.forget();
        self.pages.unmap();
    }

    /// The guest-physical address of a mapped byte. Pages of the training process and allocations
    /// have synthetic ones, past any machine's memory.
    ///
    /// # Errors
    /// [`Fault::Translate`].
    pub fn physical(&mut self, address: VirtAddr) -> Result<PhysAddr, Fault> {
        let (page, offset) = (address.page(), address.offset());
        // Pages of the process have the lowest numbers, whether they were copied or not.
        let (process, own) = (self.process, self.process.map_or(0, ProcessPages::len) as u64);
        let number = match process.and_then(|process| process.get(page)) {
            Some((number, _)) => Some(u64::from(number)),
            None => self.user.get(&page).map(|&copy| own + u64::from(copy)),
        };
        if let Some(number) = number {
            return Ok(PhysAddr(PROCESS_FRAMES | number << 12 | offset));
        }
        if let Some(&frame) = self.translated.get(&page) {
            return Ok(frame.add(offset));
        }
        let kernel = self.aliases.get(&page).copied().unwrap_or(page);
        let frame = self.translate(kernel)?.paddr.page();
        self.translated.insert(page, frame);
        Ok(frame.add(offset))
    }

    /// Changes the system's memory before a run begins, whatever the rights of its pages;
    /// [`Overlay::state`] does not count it.
    ///
    /// # Errors
    /// A [`Fault`]; the bytes before it are changed.
    pub(crate) fn overwrite(&mut self, address: VirtAddr, bytes: &[u8]) -> Result<(), Fault> {
        self.forget();
        for (at, &byte) in bytes.iter().enumerate() {
            let place = self.physical(address.add(at as u64))?;
            let frame = place.page();
            let copy = match self.frames.get(&frame) {
                Some(&copy) => copy,
                None => self.copy_frame(frame, self.memory.page(frame).map_err(Fault::NoFrame)?)?,
            };
            self.pages.page_mut(copy)[place.offset() as usize] = byte;
        }
        Ok(())
    }

    /// The `size` bytes below `top` may not be read any more before they are written, as far as
    /// they are the system's and can be written.
    ///
    /// # Errors
    /// [`Fault::Full`].
    pub(crate) fn undefine(&mut self, top: VirtAddr, size: u64) -> Result<(), Fault> {
        let mut at = VirtAddr(top.0.saturating_sub(size.min(MAX_UNDEFINED)));
        while at < top {
            let here = (PAGE_SIZE - at.offset()).min(top.0 - at.0);
            match self.writable(at) {
                Ok(copy) if !self.is_own(at.page()) => {
                    self.undefined.add(copy, at.offset(), here);
                    self.pages.unmap_copy(copy);
                }
                Err(Fault::Full) => return Err(Fault::Full),
                // The process's own, or nothing that a store could overwrite.
                Ok(_) | Err(_) => {}
            }
            let Some(next) = at.0.checked_add(here) else { break };
            at = VirtAddr(next);
        }
        Ok(())
    }

    /// The copy that a store to an address goes to.
    pub(super) fn writable(&mut self, address: VirtAddr) -> Result<u32, Fault> {
        if let Some(copy) = self.pages.writable(address) {
            return Ok(copy);
        }
        match self.fill(address.page(), true)? {
            Held::Copy(copy) => Ok(copy),
            // Only what is written is copied.
            Held::Target(_) => Err(Fault::ReadOnly),
        }
    }

    /// What is at a page, which goes into the TLB unless bytes of it may not be read; for a store
    /// the copy of its frame.
    #[cold]
    pub(super) fn fill(&mut self, page: VirtAddr, write: bool) -> Result<Held<'t>, Fault> {
        let (mut table, mut writable) = (false, true);
        let held = if let Some(&copy) = self.user.get(&page) {
            Held::Copy(copy)
        } else if let Some((_, content)) = self.process.and_then(|process| process.get(page)) {
            if write {
                let copy = self.pages.copy(content);
                self.user.insert(page, copy);
                Held::Copy(copy)
            } else {
                Held::Target(content)
            }
        } else {
            let alias = self.aliases.get(&page).copied();
            let translation = self.translate(alias.unwrap_or(page))?;
            if translation.user {
                return Err(Fault::User);
            }
            let frame = translation.paddr.page();
            table = self.tables.contains(&frame);
            writable = translation.writable && alias.is_none();
            if write && !writable {
                return Err(Fault::ReadOnly);
            }
            match self.frames.get(&frame) {
                Some(&copy) => Held::Copy(copy),
                None => {
                    let content = self.memory.page(frame).map_err(|error| match translation.uncached {
                        true => Fault::Device(frame),
                        false => Fault::NoFrame(error),
                    })?;
                    if write { Held::Copy(self.copy_frame(frame, content)?) } else { Held::Target(content) }
                }
            }
        };
        if let (Held::Copy(copy), true) = (held, write) {
            self.pages.own(copy);
        }
        let undefined = matches!(held, Held::Copy(copy) if self.undefined.has(copy));
        // Every store to a page table comes here: translations that went through it may not hold
        // any more.
        if write && table {
            self.forget();
        } else if !undefined {
            self.pages.map(page, held, writable && !table);
        }
        Ok(held)
    }

    /// Copies a frame of the target, which holds `content`.
    pub(super) fn copy_frame(&mut self, frame: PhysAddr, content: &'t Page) -> Result<u32, Fault> {
        if self.counted >= self.limit {
            return Err(Fault::Full);
        }
        self.counted += 1;
        let copy = self.pages.copy(content);
        self.frames.insert(frame, copy);
        // Other mappings of the frame must see the copy from now on.
        self.pages.unmap_target(content);
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run may write a frame before translations go through it, and the TLB has it writable then.
    #[test]
    fn a_page_that_becomes_a_page_table_is_watched_from_then_on() {
        // Two levels of 32 bits: 4 MiB at 0x40_0000 by themselves, and 0x80_0000 by a table there.
        let mut memory = machine::memory::Mock::new();
        let entries = [(0x2004, 0x40_0083u32), (0x2008, 0x40_1003)];
        for (at, entry) in entries {
            memory.write(PhysAddr(at), &entry.to_le_bytes());
        }
        memory.write(PhysAddr(0x40_1000), &0x40_2003u32.to_le_bytes());
        memory.write(PhysAddr(0x40_2000), &[1]);
        memory.write(PhysAddr(0x40_3000), &[2]);
        let mode = PagingMode::Bits32 { pse: true };
        let mut overlay = Overlay::new(&memory, mode, 0x2000, VirtAddr(0x1000), 16);
        let (entry, mapped) = (VirtAddr(0x40_1000), VirtAddr(0x80_0000));
        assert_eq!(overlay.store(entry.add(8), 4, 0), Ok(()), "a store to a frame that is no table yet");
        assert_eq!(overlay.load(mapped, 1), Ok(1));
        assert_eq!(overlay.store(entry, 4, 0x40_3003), Ok(()));
        assert_eq!(overlay.load(mapped, 1), Ok(2));
        // Nor is one that was only read.
        let mut overlay = Overlay::new(&memory, mode, 0x2000, VirtAddr(0x1000), 16);
        assert_eq!(overlay.load(entry, 4), Ok(0x40_2003));
        assert_eq!(overlay.load(mapped, 1), Ok(1));
        assert_eq!(overlay.store(entry, 4, 0x40_3003), Ok(()));
        assert_eq!(overlay.load(mapped, 1), Ok(2));
    }
}

//! The memory of a run: the target's, with the run's own changes laid over it.
//!
//! Pages of the training process lie at their addresses and are copied from the program when they
//! are first written; allocations lie above them. Every other address is translated through the
//! target's page tables and read from the target; the first write to a frame of the target copies
//! it. Copies are keyed by frame, so that two mappings of one frame stay one. The target's own user
//! memory is refused: it belongs to the process that was paused, not to the trainer.

use std::ops::Range;

use jit::{Held, Memory, Spare};
use machine::memory::ZERO_PAGE;
use machine::paging::{self, PagingMode};
use machine::{GuestMemory, MemoryError, PAGE_SIZE, Page, PhysAddr, VirtAddr, hash};

use crate::apic::{ApicId, LocalApic, Register};
use crate::process::ProcessPages;
use crate::undefined::Undefined;

/// Why an access failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The target's page tables do not map the address; the text says at which level.
    #[error("{0}")]
    Translate(String),
    /// It is user memory of the target.
    #[error("it is user memory of the paused process")]
    User,
    /// A store to a page that is mapped read-only.
    #[error("it is mapped read-only")]
    ReadOnly,
    /// The target's memory does not have the frame.
    #[error("{0}")]
    NoFrame(MemoryError),
    /// A device's registers: mapped without caching, at a frame that the target's memory does not
    /// have.
    #[error("a device is there, at physical {0:#x}")]
    Device(PhysAddr),
    /// A slice may not read it before it wrote it.
    #[error("code that is not in the slice keeps its stack there")]
    Undefined,
    /// The run has copied or allocated as many pages as it may.
    #[error("the overlay is full")]
    Full,
}

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
    memory: &'t dyn GuestMemory,
    mode: PagingMode,
    /// CR3 of the page tables that map the kernel.
    root: u64,
    /// Copied pages, those of the training process too, and allocated ones; and the TLB.
    pages: Memory<'t>,
    /// The training process's pages.
    process: Option<&'t ProcessPages<'t>>,
    /// Copies of these, and the heap's pages: copy by address of the page.
    user: hash::Map<VirtAddr, u32>,
    /// Pages that count towards the limit: the process's own, the heap's, copied frames.
    counted: usize,
    /// Pages that the kernel shows to processes: the kernel's own address of each.
    aliases: hash::Map<VirtAddr, VirtAddr>,
    /// Copied frames of the target: copy by address of the frame.
    frames: hash::Map<PhysAddr, u32>,
    /// Frames of kernel pages that [`Overlay::physical`] was asked for, by page.
    translated: hash::Map<VirtAddr, PhysAddr>,
    /// Frames of page tables that translations went through.
    tables: hash::Set<PhysAddr>,
    /// What may not be read before it is written; the TLB never has such frames.
    undefined: Undefined,
    /// The local APIC of the run's processor.
    apic: LocalApic,
    /// The next allocation's address.
    heap: VirtAddr,
    /// Bytes of each allocation, by address; also of those that were freed.
    heap_sizes: hash::Map<VirtAddr, u64>,
    /// The most that `counted` may be.
    limit: usize,
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

    /// What a model-specific register of the local APIC holds, if that is known.
    pub(crate) fn load_msr(&mut self, msr: u64) -> Option<u64> {
        self.apic.load(Register::of_msr(msr)?, self.memory)
    }

    /// Takes what is written to a model-specific register of the local APIC; `false` if that would
    /// have an effect, or it is none.
    pub(crate) fn store_msr(&mut self, msr: u64, value: u64) -> bool {
        Register::of_msr(msr).is_some_and(|register| self.store_register(register, value))
    }

    fn store_register(&mut self, register: Register, value: u64) -> bool {
        let change = self.apic.store(register, value);
        // A loop that changes it does not wait.
        self.pages.add_to_state(change.unwrap_or(0));
        change.is_some()
    }

    /// Gives the overlay pages to use, whatever they hold.
    pub(crate) fn with_spare(mut self, spare: Spare) -> Self {
        self.pages.add_spare(spare);
        self
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
    fn is_own(&self, page: VirtAddr) -> bool {
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

    /// Allocates `size` bytes of zeroed memory in the training process's address space. The result
    /// is address 0 when there is no room. Pages that the process has of its own are passed over.
    pub fn allocate(&mut self, size: u64) -> VirtAddr {
        let pages = size.max(1).div_ceil(PAGE_SIZE);
        if pages as usize > self.limit.saturating_sub(self.counted) {
            return VirtAddr(0);
        }
        // Small allocations share a page; 16 bytes is what malloc promises on x86-64.
        let Some((start, end)) =
            size.max(1).checked_next_multiple_of(16).and_then(|size| self.room(self.heap, size))
        else {
            return VirtAddr(0);
        };
        for page in (start.page().0..end).step_by(PAGE_SIZE as usize).map(VirtAddr) {
            if !self.is_own(page) {
                let copy = self.pages.copy(&ZERO_PAGE);
                self.user.insert(page, copy);
                self.counted += 1;
            }
        }
        self.heap = VirtAddr(end);
        // Where the heap ends is part of the state too.
        self.pages.add_to_state(size.max(1));
        self.heap_sizes.insert(start, size);
        start
    }

    /// The next `size` bytes that an allocation can have, and where they end: from `start` on, or
    /// behind the pages of the process's own that are in the way. The page that `start` is in the
    /// middle of is the heap's.
    fn room(&self, mut start: VirtAddr, size: u64) -> Option<(VirtAddr, u64)> {
        loop {
            let end = start.0.checked_add(size)?;
            let first = start.0.checked_next_multiple_of(PAGE_SIZE)?;
            let own = |page: &u64| {
                let page = VirtAddr(*page);
                self.is_own(page) || self.aliases.contains_key(&page)
            };
            match (first..end).step_by(PAGE_SIZE as usize).filter(own).last() {
                None => return Some((start, end)),
                Some(page) => start = VirtAddr(page.checked_add(PAGE_SIZE)?),
            }
        }
    }

    /// Copies an allocation into a new one of `size` bytes, whose address is the result: 0 when
    /// there is no room. The old one stays.
    ///
    /// # Errors
    /// A fault when the old memory cannot be read.
    pub fn reallocate(&mut self, old: VirtAddr, size: u64) -> Result<VirtAddr, Fault> {
        let new = self.allocate(size);
        if new.0 == 0 || old.0 == 0 {
            return Ok(new);
        }
        // The size of memory that was allocated before the begin mark is not known. Copying what
        // lies behind it does no harm.
        let known = self.heap_sizes.get(&old).copied();
        for at in 0..known.unwrap_or(size).min(size) {
            let byte = match self.load(old.add(at), 1) {
                Ok(byte) => byte,
                Err(_) if known.is_none() && at > 0 => break,
                Err(fault) => return Err(fault),
            };
            self.store(new.add(at), 1, byte)?;
        }
        Ok(new)
    }

    /// Translates by the target's page tables, as the run may have changed them.
    fn translate(&mut self, address: VirtAddr) -> Result<paging::Translation, Fault> {
        let frames = Frames { memory: self.memory, frames: &self.frames, copies: &self.pages };
        let (tables, mut new) = (&mut self.tables, false);
        let translation = paging::translate_by(&frames, self.mode, self.root, address, &mut |entry| {
            new |= tables.insert(entry.page());
        });
        if new {
            // Stores to these frames have to be noticed from now on.
            self.forget();
        }
        translation.map_err(|error| Fault::Translate(error.to_string()))
    }

    /// Drops all remembered translations.
    fn forget(&mut self) {
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

    /// What is at a page, which goes into the TLB unless bytes of it may not be read; for a store
    /// the copy of its frame.
    #[cold]
    fn fill(&mut self, page: VirtAddr, write: bool) -> Result<Held<'t>, Fault> {
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
    fn copy_frame(&mut self, frame: PhysAddr, content: &'t Page) -> Result<u32, Fault> {
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

    /// Reads 1, 2, 4 or 8 bytes, little endian.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause.
    #[inline]
    pub fn load(&mut self, address: VirtAddr, size: u64) -> Result<u64, Fault> {
        match self.pages.load(address, size) {
            Some(value) => Ok(value),
            None => self.load_missed(address, size),
        }
    }

    #[cold]
    fn load_missed(&mut self, address: VirtAddr, size: u64) -> Result<u64, Fault> {
        let offset = address.offset() as usize;
        if offset + size as usize > PAGE_SIZE as usize {
            return self.load_bytes(address, size);
        }
        let held = match self.undefined.near(address.page()) {
            Some(copy) => Held::Copy(copy),
            None => match self.fill(address.page(), false) {
                Ok(held) => held,
                Err(fault) => return self.load_apic(address, fault),
            },
        };
        let page = match held {
            Held::Target(page) => page,
            Held::Copy(copy) if self.undefined.any(copy, address.offset(), size) => {
                return Err(Fault::Undefined);
            }
            Held::Copy(copy) => self.pages.page(copy),
        };
        Ok(read(page, offset, size))
    }

    /// Reads what may be a register of the local APIC.
    #[cold]
    fn load_apic(&mut self, address: VirtAddr, fault: Fault) -> Result<u64, Fault> {
        let register = self.apic_register(address, &fault);
        register.and_then(|register| self.apic.load(register, self.memory)).ok_or(fault)
    }

    /// Writes what may be a register of the local APIC.
    #[cold]
    fn store_apic(&mut self, address: VirtAddr, value: u64, fault: Fault) -> Result<(), Fault> {
        match self.apic_register(address, &fault) {
            Some(register) if self.store_register(register, value) => Ok(()),
            _ => Err(fault),
        }
    }

    /// The register of the local APIC at an address, an access to which met `fault`.
    fn apic_register(&mut self, address: VirtAddr, fault: &Fault) -> Option<Register> {
        let absent = matches!(fault, Fault::NoFrame(_) | Fault::Device(_));
        absent.then(|| self.physical(address).ok()).flatten().and_then(Register::at)
    }

    /// Reads across a page boundary.
    #[cold]
    fn load_bytes(&mut self, address: VirtAddr, size: u64) -> Result<u64, Fault> {
        let mut value = 0;
        for at in 0..size {
            value |= self.load(address.add(at), 1)? << (8 * at);
        }
        Ok(value)
    }

    /// Writes the low 1 to 8 bytes of `value`, little endian.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause; nothing is written then.
    #[inline]
    pub fn store(&mut self, address: VirtAddr, size: u64, value: u64) -> Result<(), Fault> {
        match self.pages.store(address, size, value) {
            true => Ok(()),
            false => self.store_missed(address, size, value),
        }
    }

    #[cold]
    fn store_missed(&mut self, address: VirtAddr, size: u64, value: u64) -> Result<(), Fault> {
        let offset = address.offset() as usize;
        if offset + size as usize > PAGE_SIZE as usize {
            return self.store_bytes(address, size, value);
        }
        let near = self.undefined.near(address.page());
        let copy = match near {
            Some(copy) => copy,
            None => match self.writable(address) {
                Ok(copy) => copy,
                Err(fault) => return self.store_apic(address, value, fault),
            },
        };
        self.pages.store_to(copy, offset, size as usize, value);
        if self.undefined.define(copy, address.offset(), size) && near.is_none() {
            self.undefined.remember(address.page(), copy);
        }
        Ok(())
    }

    /// The copy that a store to an address goes to.
    fn writable(&mut self, address: VirtAddr) -> Result<u32, Fault> {
        if let Some(copy) = self.pages.writable(address) {
            return Ok(copy);
        }
        match self.fill(address.page(), true)? {
            Held::Copy(copy) => Ok(copy),
            // Only what is written is copied.
            Held::Target(_) => Err(Fault::ReadOnly),
        }
    }

    /// Stores `size` zeros. A page of the process that holds them already stays as it is.
    ///
    /// # Errors
    /// The address of a word that cannot be written, and why.
    pub(crate) fn clear(&mut self, address: u64, size: u64) -> Result<(), (u64, Fault)> {
        let mut at = 0;
        while at < size {
            let start = VirtAddr(address.wrapping_add(at));
            let here = (PAGE_SIZE - start.offset()).min(size - at);
            let offset = start.offset() as usize;
            let process = self.process.filter(|_| !self.user.contains_key(&start.page()));
            let held = process.and_then(|process| process.get(start.page()));
            // As a comparison of slices it takes all that a vector holds at once: of a buffer of a
            // megabyte this looks at every page before every run.
            let zeros = &ZERO_PAGE[..here as usize];
            if held.is_none_or(|(_, page)| page[offset..offset + here as usize] != *zeros) {
                for word in (0..here).step_by(8) {
                    let to = start.0.wrapping_add(word);
                    self.store(VirtAddr(to), (here - word).min(8), 0).map_err(|fault| (to, fault))?;
                }
            }
            at += here;
        }
        Ok(())
    }

    /// Writes across a page boundary.
    #[cold]
    fn store_bytes(&mut self, address: VirtAddr, size: u64, value: u64) -> Result<(), Fault> {
        // Both pages must be writable before either is written.
        self.writable(address)?;
        self.writable(address.add(size - 1))?;
        for at in 0..size {
            self.store(address.add(at), 1, value >> (8 * at) & 0xff)?;
        }
        Ok(())
    }
}

/// The `size` bytes of a page from an offset on, little endian.
fn read(page: &Page, offset: usize, size: u64) -> u64 {
    let bytes = page[offset..offset + size as usize].iter().rev();
    bytes.fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_pass_over_the_pages_of_the_process() {
        let memory = machine::memory::Mock::new();
        let program = ir::text::parse_program(
            "program \"test\"\npage 0x3000 bytes 1 {\n 0x0: 07\n}\n",
            machine::Reg::NAMES,
        )
        .unwrap();
        let pages = ProcessPages::new(&program);
        let mut overlay =
            Overlay::new(&memory, PagingMode::Off, 0, VirtAddr(0x1000), 16).with_process(&pages);
        assert_eq!(overlay.allocate(16), VirtAddr(0x1000));
        assert_eq!(overlay.allocate(16), VirtAddr(0x1010), "small ones share a page");
        assert_eq!(overlay.allocate(0x2000), VirtAddr(0x4000));
        assert_eq!(overlay.load(VirtAddr(0x3000), 1).ok(), Some(7));
        overlay.store(VirtAddr(0x3001), 1, 9).unwrap();
        assert_eq!(overlay.load(VirtAddr(0x3000), 2).ok(), Some(0x907));
        let spare = overlay.into_spare();
        let mut again = Overlay::new(&memory, PagingMode::Off, 0, VirtAddr(0x1000), 16)
            .with_process(&pages)
            .with_spare(spare);
        assert_eq!(again.load(VirtAddr(0x3000), 2).ok(), Some(7), "the program keeps its page");
        let heap = again.allocate(8);
        assert_eq!(again.load(heap, 8).ok(), Some(0), "whatever the spare page held");
    }

    #[test]
    fn what_is_cleared_is_zero() {
        let memory = machine::memory::Mock::new();
        let mut text = "program \"test\"\npage 0x2000 zero\n".to_owned();
        for page in [0x1000, 0x3000] {
            text += &format!("page {page:#x} bytes 4096 {{\n 0x0: {}\n}}\n", "07".repeat(4096));
        }
        let program = ir::text::parse_program(&text, machine::Reg::NAMES).unwrap();
        let pages = ProcessPages::new(&program);
        let new = || Overlay::new(&memory, PagingMode::Off, 0, VirtAddr(0x9000), 16).with_process(&pages);
        let mut cleared = new();
        assert_eq!(cleared.clear(0x1ffb, 0x1008), Ok(()));
        let bytes: Vec<u64> = [0x1ff9, 0x1ffa, 0x1ffb, 0x1fff, 0x2fff, 0x3002, 0x3003]
            .map(|at| cleared.load(VirtAddr(at), 1).unwrap_or(99))
            .into();
        assert_eq!(bytes, [7, 7, 0, 0, 0, 0, 7]);
        let (at, _) = cleared.clear(0x3ff0, 0x18).expect_err("there is no such page");
        assert_eq!(at, 0x4000);
    }

    #[test]
    fn interrupts_to_other_processors_are_sent_to_nobody() {
        const COMMAND: VirtAddr = VirtAddr(0xfee0_0300);
        // A page of 4 MiB, for the system alone and not cached.
        const ENTRY: u32 = 0xfec0_0000 | 0x93;
        let mut memory = machine::memory::Mock::new();
        memory.write(PhysAddr(0x2000 + (COMMAND.0 >> 22) * 4), &ENTRY.to_le_bytes());
        let mode = PagingMode::Bits32 { pse: true };
        let mut overlay = Overlay::new(&memory, mode, 0x2000, VirtAddr(0x1000), 16);
        let before = overlay.state();
        for (at, value) in [(0x10, 1 << 24), (0, 0x8fd)] {
            assert_eq!(overlay.store(COMMAND.add(at), 4, value), Ok(()));
        }
        assert_eq!(overlay.load(COMMAND, 4), Ok(0), "nothing is still to be sent");
        assert_eq!(overlay.state(), before, "it is no memory: who waits for an effect is found waiting");
        // The timer's initial count, and the register before.
        for at in [0xfee0_0380, 0xfee0_02f0].map(VirtAddr) {
            assert!(overlay.store(at, 4, 1).is_err() && overlay.load(at, 4).is_err(), "{at:?}");
        }
    }
}

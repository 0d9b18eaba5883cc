//! The memory a run sees: the trainer's pages, run-time allocations, and the target, all
//! copy-on-write.
//!
//! Addresses that the training process used are its own pages, copied from the program. Everything
//! else is translated through the target's page tables and read from the target; the first write to
//! a target frame copies it. Copies are keyed by frame, so that two mappings of one frame stay one.
//! User memory of the target is never touched: it belongs to somebody else's address space.

use std::ops::Range;

use ir::program::{PageContent, Program};
use machine::paging::{self, PagingMode};
use machine::{GuestMemory, MemoryError, PhysAddr, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::place::Placed;

/// Why an access failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The target's page tables do not map it.
    #[error("{0}")]
    Translate(String),
    /// It is user memory of the target.
    #[error("it is user memory of the paused process")]
    User,
    /// It is mapped read-only.
    #[error("it is mapped read-only")]
    ReadOnly,
    /// The target's memory does not have the frame.
    #[error("{0}")]
    NoFrame(MemoryError),
    /// It is no memory but a device: not cached, and no frame of the target's memory.
    #[error("a device is there, at physical {0:#x}")]
    Device(u64),
    /// Too many pages were written.
    #[error("the overlay is full")]
    Full,
}

const SLOTS: usize = 1024;
/// "Not copied".
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry<'t> {
    /// Page number plus one; 0 when empty.
    tag: u64,
    target: &'t [u8; 4096],
    /// Index of the copy, or [`NONE`].
    copy: u32,
    /// Whether writes may go to the copy.
    writable: bool,
}

/// Where the made-up frames of the training process's pages begin: processors have at most 52 bits
/// of physical address.
const PROCESS_FRAMES: u64 = 1 << 52;

/// The local APIC's in-service registers, where it lies unless a system moves it (SDM vol. 3
/// sections 11.4.1 and 11.8.4).
const IN_SERVICE: Range<u64> = 0xfee0_0100..0xfee0_0180;

static ZERO: [u8; 4096] = [0; 4096];

/// Frames as the run sees them: its copies before the target's. A system may map memory while it
/// answers.
struct Frames<'s> {
    memory: &'s dyn GuestMemory,
    frames: &'s FxHashMap<u64, u32>,
    copies: &'s [Box<[u8; 4096]>],
}

impl GuestMemory for Frames<'_> {
    fn page(&self, addr: PhysAddr) -> Result<&[u8; 4096], MemoryError> {
        match self.frames.get(&addr.page().0) {
            Some(&copy) => Ok(&self.copies[copy as usize]),
            None => self.memory.page(addr),
        }
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.memory.ranges()
    }
}

/// The memory of one run.
pub struct Space<'t> {
    memory: &'t dyn GuestMemory,
    mode: PagingMode,
    root: u64,
    copies: Vec<Box<[u8; 4096]>>,
    user: FxHashMap<u64, u32>,
    aliases: FxHashMap<u64, u64>,
    frames: FxHashMap<u64, u32>,
    /// Frames of kernel pages that [`Space::physical`] was asked for.
    translated: FxHashMap<u64, u64>,
    /// Frames of page tables that translations went through.
    tables: FxHashSet<u64>,
    tlb: Box<[Entry<'t>; SLOTS]>,
    heap: u64,
    heap_sizes: FxHashMap<u64, u64>,
    limit: usize,
    state: u64,
}

/// An aligned word of a page.
fn word(page: &[u8; 4096], at: usize) -> u64 {
    page[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What an aligned word counts in memory's state: the state is the sum of all words, each
/// multiplied by a number of its own.
const fn key(copy: u32, at: usize) -> u64 {
    let place = ((copy as u64) << 12 | at as u64) + 1;
    place.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
}

impl<'t> Space<'t> {
    /// The memory for a run of `program` over `memory`, where it was found; at most `limit` pages
    /// are copied.
    #[must_use]
    pub fn new(memory: &'t dyn GuestMemory, placed: &Placed<'_>, program: &Program, limit: usize) -> Self {
        let empty = Entry { tag: 0, target: &ZERO, copy: NONE, writable: false };
        let mut space = Self {
            memory,
            mode: placed.mode(),
            root: placed.root(),
            copies: Vec::with_capacity(program.pages.len() + 64),
            user: FxHashMap::default(),
            aliases: FxHashMap::default(),
            frames: FxHashMap::default(),
            translated: FxHashMap::default(),
            tables: FxHashSet::default(),
            tlb: Box::new([empty; SLOTS]),
            heap: program.heap,
            heap_sizes: FxHashMap::default(),
            limit,
            state: 0,
        };
        for page in &program.pages {
            match &page.content {
                PageContent::Bytes(bytes) => {
                    let mut copy = Box::new([0; 4096]);
                    let length = bytes.len().min(4096);
                    copy[..length].copy_from_slice(&bytes[..length]);
                    space.user.insert(page.addr, space.copies.len() as u32);
                    space.copies.push(copy);
                }
                PageContent::Zero => {
                    space.user.insert(page.addr, space.copies.len() as u32);
                    space.copies.push(Box::new([0; 4096]));
                }
                PageContent::Kernel(alias) => {
                    space.aliases.insert(page.addr, placed.place(*alias));
                }
            }
        }
        space
    }

    /// A number for what memory holds: equal after changes that were undone, whatever was written
    /// in between, and else as good as never.
    #[must_use]
    pub const fn state(&self) -> u64 {
        self.state
    }

    /// How many pages were copied or made.
    #[must_use]
    pub fn copied(&self) -> usize {
        self.copies.len()
    }

    /// Allocates zeroed memory in the training process's address space; 0 when the overlay is full.
    pub fn allocate(&mut self, size: u64) -> u64 {
        let start = self.heap;
        let pages = size.max(1).div_ceil(4096);
        if pages as usize > self.limit.saturating_sub(self.copies.len()) {
            return 0;
        }
        // Small allocations share a page; 16 bytes is what malloc promises on x86-64.
        let Some(end) = size.max(1).checked_next_multiple_of(16).and_then(|size| start.checked_add(size))
        else {
            return 0;
        };
        let mut page = start & !4095;
        while page < end {
            if !self.user.contains_key(&page) {
                self.user.insert(page, self.copies.len() as u32);
                self.copies.push(Box::new([0; 4096]));
            }
            page += 4096;
        }
        self.heap = end;
        // What is left of the heap is a part of memory's state too.
        self.state = self.state.wrapping_add(size.max(1).wrapping_mul(key(NONE, 0)));
        self.heap_sizes.insert(start, size);
        start
    }

    /// Moves an allocation to a larger one.
    ///
    /// # Errors
    /// A fault when the old memory cannot be read.
    pub fn reallocate(&mut self, old: u64, size: u64) -> Result<u64, Fault> {
        let new = self.allocate(size);
        if new == 0 || old == 0 {
            return Ok(new);
        }
        // How large memory from before the begin mark is nobody knows: what lies behind it does no
        // harm.
        let known = self.heap_sizes.get(&old).copied();
        for at in 0..known.unwrap_or(size).min(size) {
            let byte = match self.load(old.wrapping_add(at), 1) {
                Ok(byte) => byte,
                Err(_) if known.is_none() && at > 0 => break,
                Err(fault) => return Err(fault),
            };
            self.store(new + at, 1, byte)?;
        }
        Ok(new)
    }

    /// Whether the address belongs to the training process.
    #[must_use]
    pub fn is_user(&self, address: u64) -> bool {
        self.user.contains_key(&(address & !4095))
    }

    fn translate(&mut self, address: u64) -> Result<paging::Translation, Fault> {
        let frames = Frames { memory: self.memory, frames: &self.frames, copies: &self.copies };
        let (tables, mut new) = (&mut self.tables, false);
        let translation =
            paging::translate_by(&frames, self.mode, self.root, VirtAddr(address), &mut |entry| {
                new |= tables.insert(entry.page().0);
            });
        if new {
            // Stores to these frames have to be noticed from now on.
            self.forget();
        }
        translation.map_err(|error| Fault::Translate(error.to_string()))
    }

    fn forget(&mut self) {
        self.translated.clear();
        self.tlb.iter_mut().for_each(|entry| entry.tag = 0);
    }

    /// The guest-physical address of a mapped byte. Pages of the training process and run-time
    /// allocations have made-up ones past any machine's memory.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause.
    pub fn physical(&mut self, address: u64) -> Result<u64, Fault> {
        let (page, offset) = (address & !4095, address & 4095);
        if let Some(&copy) = self.user.get(&page) {
            return Ok(PROCESS_FRAMES | u64::from(copy) << 12 | offset);
        }
        if let Some(&frame) = self.translated.get(&page) {
            return Ok(frame | offset);
        }
        let kernel = self.aliases.get(&page).copied().unwrap_or(page);
        let translation = self.translate(kernel)?;
        let frame = translation.paddr.page().0;
        self.translated.insert(page, frame);
        Ok(frame | offset)
    }

    /// Changes the system's memory before a run begins, whatever the rights of its pages.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause; the bytes before it are changed.
    pub(crate) fn overwrite(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.forget();
        for (at, &byte) in bytes.iter().enumerate() {
            let place = PhysAddr(self.physical(address.wrapping_add(at as u64))?);
            let frame = place.page();
            let copy = match self.frames.get(&frame.0) {
                Some(&copy) => copy,
                None if self.copies.len() >= self.limit => return Err(Fault::Full),
                None => {
                    let copy = self.copies.len() as u32;
                    self.copies.push(Box::new(*self.memory.page(frame).map_err(Fault::NoFrame)?));
                    self.frames.insert(frame.0, copy);
                    copy
                }
            };
            self.copies[copy as usize][(place.0 & 4095) as usize] = byte;
        }
        Ok(())
    }

    #[cold]
    fn fill(&mut self, page: u64, write: bool) -> Result<Entry<'t>, Fault> {
        let mut entry = Entry { tag: (page >> 12) + 1, target: &ZERO, copy: NONE, writable: true };
        let mut table = false;
        if let Some(&copy) = self.user.get(&page) {
            entry.copy = copy;
        } else {
            let alias = self.aliases.get(&page).copied();
            let address = alias.unwrap_or(page);
            let translation = self.translate(address)?;
            if translation.user {
                return Err(Fault::User);
            }
            let frame = translation.paddr.page();
            table = self.tables.contains(&frame.0);
            entry.writable = translation.writable && alias.is_none();
            if write && !entry.writable {
                return Err(Fault::ReadOnly);
            }
            let copied = self.frames.get(&frame.0).copied();
            if let Some(copy) = copied {
                entry.copy = copy;
            } else {
                entry.target = self.memory.page(frame).map_err(|error| match translation.uncached {
                    true => Fault::Device(frame.0),
                    false => Fault::NoFrame(error),
                })?;
                if write {
                    if self.copies.len() >= self.limit {
                        return Err(Fault::Full);
                    }
                    entry.copy = self.copies.len() as u32;
                    self.copies.push(Box::new(*entry.target));
                    self.frames.insert(frame.0, entry.copy);
                    // Other mappings of the frame must see the copy from now on.
                    for other in self.tlb.iter_mut() {
                        if other.copy == NONE && std::ptr::eq(other.target, entry.target) {
                            other.tag = 0;
                        }
                    }
                }
            }
        }
        // Every store to a page table comes here: what was translated by it may not hold any more.
        entry.writable &= !table;
        if write && table {
            self.forget();
        } else {
            self.tlb[(page >> 12) as usize % SLOTS] = entry;
        }
        Ok(entry)
    }

    #[inline]
    fn entry(&mut self, address: u64, write: bool) -> Result<Entry<'t>, Fault> {
        let number = address >> 12;
        let entry = self.tlb[number as usize % SLOTS];
        if entry.tag == number + 1 && !(write && (entry.copy == NONE || !entry.writable)) {
            return Ok(entry);
        }
        self.fill(address & !4095, write)
    }

    /// Reads 1 to 8 bytes, little endian.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause.
    #[inline]
    pub fn load(&mut self, address: u64, size: u64) -> Result<u64, Fault> {
        let offset = (address & 4095) as usize;
        if offset + size as usize > 4096 {
            return self.load_bytes(address, size);
        }
        let entry = match self.entry(address, false) {
            Ok(entry) => entry,
            Err(fault) => return self.no_interrupt(address, fault),
        };
        let page = if entry.copy == NONE { entry.target } else { &self.copies[entry.copy as usize] };
        Ok(match size {
            8 => u64::from_le_bytes(std::array::from_fn(|at| page[offset + at])),
            4 => u64::from(u32::from_le_bytes(std::array::from_fn(|at| page[offset + at]))),
            2 => u64::from(u16::from_le_bytes(std::array::from_fn(|at| page[offset + at]))),
            _ => u64::from(page[offset]),
        })
    }

    /// The one thing a device can say that a run knows: it begins in a process, so the local APIC
    /// has no interrupt in service.
    #[cold]
    fn no_interrupt(&mut self, address: u64, fault: Fault) -> Result<u64, Fault> {
        match self.physical(address) {
            Ok(at) if matches!(fault, Fault::NoFrame(_) | Fault::Device(_)) && IN_SERVICE.contains(&at) => {
                Ok(0)
            }
            _ => Err(fault),
        }
    }

    #[cold]
    fn load_bytes(&mut self, address: u64, size: u64) -> Result<u64, Fault> {
        let mut value = 0;
        for at in 0..size {
            value |= self.load(address.wrapping_add(at), 1)? << (8 * at);
        }
        Ok(value)
    }

    /// Writes 1 to 8 bytes, little endian, into the overlay.
    ///
    /// # Errors
    /// A [`Fault`] naming the cause.
    #[inline]
    pub fn store(&mut self, address: u64, size: u64, value: u64) -> Result<(), Fault> {
        let offset = (address & 4095) as usize;
        if offset + size as usize > 4096 {
            return self.store_bytes(address, size, value);
        }
        let entry = self.entry(address, true)?;
        let page = &mut self.copies[entry.copy as usize];
        let (first, inside) = (offset & !7, offset & 7);
        if inside + size as usize > 8 {
            // Into the next word: in two parts.
            let low = 8 - inside as u64;
            self.store(address, low, value)?;
            return self.store(address.wrapping_add(low), size - low, value >> (8 * low));
        }
        let mask = (u64::MAX >> (64 - 8 * size)) << (8 * inside);
        let before = word(page, first);
        let after = before & !mask | value << (8 * inside) & mask;
        if after != before {
            page[first..first + 8].copy_from_slice(&after.to_le_bytes());
            let change = after.wrapping_sub(before).wrapping_mul(key(entry.copy, first));
            self.state = self.state.wrapping_add(change);
        }
        Ok(())
    }

    #[cold]
    fn store_bytes(&mut self, address: u64, size: u64, value: u64) -> Result<(), Fault> {
        // Both pages must be writable before either is written.
        self.entry(address, true)?;
        self.entry(address.wrapping_add(size - 1), true)?;
        for at in 0..size {
            self.store(address.wrapping_add(at), 1, value >> (8 * at) & 0xff)?;
        }
        Ok(())
    }
}

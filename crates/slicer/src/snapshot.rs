//! The training system at the begin mark: its memory, its address space, its code.

use std::cell::{OnceCell, RefCell};
use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;

use ir::System;
use machine::paging::{self, DEFAULT_WALK_LIMIT, Mapping, PagingMode};
use machine::{GuestMemory, MemoryError, Page, PhysAddr, Reg, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Error;
use crate::cfg::CodeSource;
use crate::recording::Recording;

/// A start snapshot as guest memory; pages are decompressed when first read.
pub(crate) struct SnapshotMemory<'t> {
    snapshot: &'t trace::Snapshot,
    ranges: Vec<Range<PhysAddr>>,
    pages: FxHashMap<u64, OnceLock<Option<Box<Page>>>>,
}

impl<'t> SnapshotMemory<'t> {
    /// The snapshot of a recording.
    pub fn new(recording: &'t Recording) -> Self {
        let ranges: Vec<Range<PhysAddr>> =
            recording.trace.header().ram_ranges.iter().map(|range| range.start..range.start.add(range.size)).collect();
        let addresses = ranges.iter().flat_map(|range| (range.start.0..range.end.0).step_by(4096));
        let pages = addresses.map(|addr| (addr, OnceLock::new())).collect();
        Self { snapshot: recording.trace.snapshot(), ranges, pages }
    }
}

impl GuestMemory for SnapshotMemory<'_> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let page = addr.page();
        let cell = self.pages.get(&page.0).ok_or(MemoryError::Hole(addr))?;
        let load = || self.snapshot.page(page).ok().flatten().map(Box::new);
        cell.get_or_init(load).as_deref().ok_or(MemoryError::Absent(addr))
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.ranges.clone()
    }
}

/// A word of the process at the begin mark; `None` where it is not in memory.
///
/// # Errors
/// [`Error::Paging`] when the snapshot's page tables cannot be used.
pub fn process_word(recording: &Recording, address: u64, bytes: usize) -> Result<Option<u64>, Error> {
    let regs = recording.begin_regs();
    let mode = PagingMode::from_regs(regs).map_err(|error| Error::Paging(error.to_string()))?;
    let memory = SnapshotMemory::new(recording);
    let read = paging::read_mapped(&memory, mode, regs.get_or_zero(Reg::Cr3), VirtAddr(address), bytes);
    Ok(read.into_iter().rev().try_fold(0, |value, byte| Some(value << 8 | u64::from(byte?))))
}

/// The address space at the begin mark.
pub(crate) struct AddressSpace<'t> {
    pub memory: SnapshotMemory<'t>,
    mode: PagingMode,
    user_root: u64,
    kernel_root: u64,
    /// User pages by address: their frames.
    pub user: FxHashMap<u64, u64>,
    /// User pages that the kernel shares with its processes: their kernel addresses.
    pub shared: FxHashMap<u64, u64>,
    begin_regs: &'t machine::RegFile,
    user_half: u64,
    /// Supervisor mappings: physical address, size, linear address.
    supervisor: Vec<(u64, u64, u64)>,
    kernel_code: u64,
    /// Made when first asked for.
    named: OnceCell<FxHashSet<u64>>,
    /// Lifted instructions that no run executed, by address.
    unseen: RefCell<FxHashMap<u64, Option<lift::Insn>>>,
}

impl<'t> AddressSpace<'t> {
    /// Reads the page tables of a recording's start snapshot.
    pub fn new(recording: &'t Recording) -> Result<Self, Error> {
        let memory = SnapshotMemory::new(recording);
        let regs = recording.begin_regs();
        let mode = PagingMode::from_regs(regs).map_err(|error| Error::Paging(error.to_string()))?;
        let user_root = regs.get_or_zero(Reg::Cr3);
        let begin = recording.steps.first().map_or(0, |_| recording.pc(0));
        let entry = (0..recording.steps.len())
            .map(|step| recording.pc(step))
            .find(|pc| (pc ^ begin) >> (mode_bits(mode) - 1) & 1 == 1);
        // With page-table isolation the process's own tables lack the kernel: its other tables are loaded at the entry.
        let maps = |root: u64| {
            entry.is_none_or(|pc| paging::translate(&memory, mode, root, VirtAddr(pc)).is_ok_and(|found| !found.user))
        };
        let roots = recording.regs.iter().filter(|(reg, _)| *reg == Reg::Cr3).map(|&(_, value)| value);
        let mut kernel_root = user_root;
        for root in std::iter::once(user_root).chain(roots) {
            if maps(root) {
                kernel_root = root;
                break;
            }
        }
        let mut space = Self {
            memory,
            mode,
            user_root,
            kernel_root,
            user: FxHashMap::default(),
            shared: FxHashMap::default(),
            begin_regs: regs,
            user_half: begin >> (mode_bits(mode) - 1) & 1,
            supervisor: Vec::new(),
            kernel_code: entry.unwrap_or(u64::MAX),
            named: OnceCell::new(),
            unseen: RefCell::default(),
        };
        space.collect();
        Ok(space)
    }

    fn walk(&self, root: u64, visit: &mut dyn FnMut(&Mapping)) {
        let all = VirtAddr(0)..=VirtAddr(u64::MAX);
        paging::walk(&self.memory, self.mode, root, all, DEFAULT_WALK_LIMIT, &mut |mapping| {
            visit(mapping);
            ControlFlow::Continue(())
        });
    }

    /// Collects user pages and supervisor mappings, and finds windows onto kernel data.
    fn collect(&mut self) {
        let (mut user, mut windows, mut supervisor) = (FxHashMap::default(), Vec::new(), Vec::new());
        self.walk(self.user_root, &mut |mapping| {
            if !mapping.user {
                return;
            }
            for at in (0..mapping.size).step_by(4096) {
                user.insert(mapping.vaddr.0 + at, mapping.paddr.0 + at);
                if !mapping.writable && !mapping.executable {
                    windows.push((mapping.vaddr.0 + at, mapping.paddr.0 + at));
                }
            }
        });
        self.walk(self.kernel_root, &mut |mapping| {
            if !mapping.user {
                supervisor.push((mapping.paddr.0, mapping.size, mapping.vaddr.0));
            }
        });
        self.user = user;
        self.supervisor = supervisor;
        for (page, frame) in windows {
            if let Some(alias) = self.kernel_alias(frame) {
                self.shared.insert(page, alias);
            }
        }
    }

    /// The kernel's own address of a frame that it shows to processes, where there is one: the frame is mapped for the kernel in two ways at
    /// least (every frame has one in a kernel that maps all memory). Of these the nearest to the kernel's code is its own, if that code names it: memory
    /// behind the image may have such an address too, and hold anything, the process's program among it.
    pub fn kernel_alias(&self, frame: u64) -> Option<u64> {
        let aliases: Vec<u64> = self
            .supervisor
            .iter()
            .filter(|(paddr, size, _)| frame.wrapping_sub(*paddr) < *size)
            .map(|(paddr, _, vaddr)| vaddr + (frame - paddr))
            .collect();
        if aliases.len() < 2 {
            return None;
        }
        let own = aliases.into_iter().min_by_key(|alias| alias.abs_diff(self.kernel_code))?;
        self.named.get_or_init(|| self.named_pages()).contains(&(own & !4095)).then_some(own)
    }

    /// The pages near the kernel's code of which its instructions name an address.
    fn named_pages(&self) -> FxHashSet<u64> {
        let mode = self.lift_mode();
        let mut named = FxHashSet::default();
        self.walk(self.kernel_root, &mut |mapping| {
            if mapping.user || !mapping.executable || mapping.size > 64 << 20 {
                return;
            }
            let mut code = Vec::new();
            for at in (0..mapping.size).step_by(4096) {
                match self.memory.page(mapping.paddr.add(at)) {
                    Ok(page) if *page != [0; 4096] => code.extend_from_slice(page),
                    _ => code.resize(code.len() + 4096, 0xcc),
                }
            }
            lift::names(mode, mapping.vaddr.0, &code, &mut |address| {
                if self.is_near_code(address) {
                    named.insert(address & !4095);
                }
            });
        });
        named
    }

    /// How addresses are translated.
    pub const fn mode(&self) -> PagingMode {
        self.mode
    }

    /// The page tables that map the kernel.
    pub const fn kernel_root(&self) -> u64 {
        self.kernel_root
    }

    /// The registers at the begin mark.
    pub const fn begin_regs(&self) -> &machine::RegFile {
        self.begin_regs
    }

    /// The mode of the kernel's code.
    pub fn lift_mode(&self) -> lift::Mode {
        if mode_bits(self.mode) == 64 { lift::Mode::Bits64 } else { lift::Mode::Bits32 }
    }

    /// Bytes at a linear address of the kernel, each where it is mapped.
    pub fn read_mapped(&self, address: u64, count: usize) -> Vec<Option<u8>> {
        paging::read_mapped(&self.memory, self.mode, self.kernel_root, VirtAddr(address), count)
    }

    /// The pages that are executable for the supervisor, ascending.
    pub fn code_pages(&self) -> Vec<(u64, Page)> {
        let mut pages = Vec::new();
        self.walk(self.kernel_root, &mut |mapping| {
            if mapping.user || !mapping.executable || mapping.size > 64 << 20 {
                return;
            }
            for at in (0..mapping.size).step_by(4096) {
                if let Ok(page) = self.memory.page(mapping.paddr.add(at))
                    && *page != [0; 4096]
                {
                    pages.push((mapping.vaddr.0 + at, *page));
                }
            }
        });
        pages
    }

    /// Whether an address lies where the kernel's image does, so that it means the same in every boot.
    pub fn is_near_code(&self, addr: u64) -> bool {
        addr.abs_diff(self.kernel_code) < 1 << 30
    }

    /// Whether an address belongs to the process: mapped for it, or else in its half of the address space.
    pub fn is_user(&self, page: u64) -> bool {
        self.user.contains_key(&page) || page >> (mode_bits(self.mode) - 1) & 1 == self.user_half
    }

    /// The user pages present at the begin mark.
    pub fn begin_pages(&self) -> FxHashSet<u64> {
        self.user.keys().copied().collect()
    }

    /// Bytes at a linear address, as far as they are mapped.
    pub fn read(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        for at in 0..count as u64 {
            let address = VirtAddr(address.wrapping_add(at));
            let found = paging::translate(&self.memory, self.mode, self.user_root, address)
                .or_else(|_| paging::translate(&self.memory, self.mode, self.kernel_root, address));
            match found.ok().and_then(|found| self.memory.read_u8(found.paddr).ok()) {
                Some(byte) => bytes.push(byte),
                None => break,
            }
        }
        bytes
    }

    /// The trusted code of the system: pages executable for the supervisor.
    pub fn system(&self) -> System {
        let mut system = System::default();
        self.code_pages().iter().for_each(|(addr, page)| system.insert(*addr, page));
        system
    }
}

impl CodeSource for AddressSpace<'_> {
    fn insn(&self, mode: lift::Mode, pc: u64) -> Option<lift::Insn> {
        let lifted = || lift::lift(mode, pc, &self.read(pc, 15)).ok();
        self.unseen.borrow_mut().entry(pc).or_insert_with(lifted).clone()
    }

    fn bytes(&self, pc: u64, count: usize) -> Option<Vec<u8>> {
        Some(self.read(pc, count)).filter(|bytes| bytes.len() == count)
    }
}

/// Bits of a linear address.
fn mode_bits(mode: PagingMode) -> u32 {
    if mode.linear_bits() > 32 { 64 } else { 32 }
}

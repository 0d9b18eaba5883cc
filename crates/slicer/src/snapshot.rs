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
        let ranges: Vec<Range<PhysAddr>> = recording
            .trace
            .header()
            .ram_ranges
            .iter()
            .map(|range| range.start..range.start.add(range.size))
            .collect();
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

/// Pages that the kernel's code names.
#[derive(Default)]
struct Named {
    /// Those near it.
    near: FxHashSet<u64>,
    /// Others in the kernel's half, by constants that can only be addresses.
    far: FxHashSet<u64>,
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
    /// The system's lowest page in the upper half; 0 if there is none.
    system_start: u64,
    /// Supervisor mappings: physical address, size, linear address.
    supervisor: Vec<(u64, u64, u64)>,
    kernel_code: u64,
    /// Made when first asked for.
    named: OnceCell<Named>,
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
        // With page-table isolation the process's own tables lack the kernel: its other tables are
        // loaded at the entry.
        let maps = |root: u64| {
            entry.is_none_or(|pc| {
                paging::translate(&memory, mode, root, VirtAddr(pc)).is_ok_and(|found| !found.user)
            })
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
            system_start: 0,
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
        let upper = supervisor
            .iter()
            .map(|it: &(u64, u64, u64)| it.2)
            .filter(|at| at >> (mode_bits(self.mode) - 1) & 1 == 1);
        self.system_start = upper.min().unwrap_or(0);
        self.supervisor = supervisor;
        for (page, frame) in windows {
            if let Some(alias) = self.kernel_alias(frame) {
                self.shared.insert(page, alias);
            }
        }
    }

    /// The kernel's own address of a frame that it shows to processes, where there is one.
    ///
    /// Near the kernel's code: the frame is mapped for the kernel in two ways at least (every frame
    /// has one in a kernel that maps all memory). Of these the nearest to the kernel's code is its
    /// own, if that code names it: memory behind the image may have such an address too, and hold
    /// anything, the process's program among it. Elsewhere: the one address that the code uses as
    /// such.
    pub fn kernel_alias(&self, frame: u64) -> Option<u64> {
        let aliases: Vec<u64> = self
            .supervisor
            .iter()
            .filter(|(paddr, size, _)| frame.wrapping_sub(*paddr) < *size)
            .map(|(paddr, _, vaddr)| vaddr + (frame - paddr))
            .collect();
        let nearest = aliases.iter().copied().min_by_key(|alias| alias.abs_diff(self.kernel_code))?;
        let named = self.named.get_or_init(|| self.named_pages());
        if aliases.len() > 1 && named.near.contains(&(nearest & !4095)) {
            return Some(nearest);
        }
        let mut far = aliases.into_iter().filter(|alias| named.far.contains(&(alias & !4095)));
        far.next().filter(|_| far.next().is_none())
    }

    /// Whether the kernel's code names an address on this page near itself.
    pub fn is_named(&self, addr: u64) -> bool {
        self.named.get_or_init(|| self.named_pages()).near.contains(&(addr & !4095))
    }

    /// The pages of which the kernel's instructions name an address.
    fn named_pages(&self) -> Named {
        let mode = self.lift_mode();
        let mut named = Named::default();
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
                    named.near.insert(address & !4095);
                }
            });
            lift::absolutes(mode, mapping.vaddr.0, &code, &mut |address| {
                if !self.is_near_code(address) && address >> (mode_bits(self.mode) - 1) & 1 != self.user_half
                {
                    named.far.insert(address & !4095);
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

    /// Whether an address lies where the kernel's image may be. In 32-bit systems much else is
    /// there.
    pub fn is_near_code(&self, addr: u64) -> bool {
        addr.abs_diff(self.kernel_code) < 1 << 30
    }

    /// Whether an address belongs to the process: mapped for it, in its half of the address space,
    /// or below the system's lowest page in the other half, for 32-bit systems mostly leave their
    /// processes three quarters.
    pub fn is_user(&self, page: u64) -> bool {
        self.user.contains_key(&page)
            || page >> (mode_bits(self.mode) - 1) & 1 == self.user_half
            || self.user_half == 0 && page < self.system_start
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

#[cfg(test)]
mod tests {
    use trace::{Header, RamRange, Trace, TraceWriter};

    use super::*;

    const KERNEL: u64 = 0xffff_8000_0000_0000;
    const FAR: u64 = 0xffff_f780_0000_0000;
    const WINDOW: u64 = 0x7000;
    const NX: u64 = 1 << 63;

    /// A process that enters a kernel whose code is `code`, and sees a frame at [`WINDOW`] that the
    /// kernel has at [`FAR`].
    fn recording(code: &[u8]) -> Result<Recording, Box<dyn std::error::Error>> {
        let mut pages: std::collections::BTreeMap<u64, Vec<u8>> = std::collections::BTreeMap::new();
        let mut put = |page: u64, at: usize, bytes: &[u8]| {
            pages.entry(page).or_insert_with(|| vec![0; 4096])[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let tables: [(u64, u64, usize, u64); 3] = [
            (0x1_0000, 0, 1, 0x8000 | 5),
            (0x2_0000, KERNEL, 0, 0xa000 | 1),
            (0x3_0000, FAR, 0, 0x9000 | NX | 3),
        ];
        for (table, linear, page, entry) in tables {
            let root = (linear >> 39 & 511) as usize * 8;
            put(0x1000, root, &(table | 7).to_le_bytes());
            put(table, 0, &((table + 0x1000) | 7).to_le_bytes());
            put(table + 0x1000, 0, &((table + 0x2000) | 7).to_le_bytes());
            put(table + 0x2000, page * 8, &entry.to_le_bytes());
        }
        put(0x1_2000, (WINDOW >> 12) as usize * 8, &(0x9000 | NX | 5).to_le_bytes());
        put(0x8000, 0, &[0x0f, 0x05]);
        put(0xa000, 0, code);
        let ram = RamRange { start: PhysAddr(0), size: 0x4_0000 };
        let header = Header { mode_bits: 64, ram_size: ram.size, ram_ranges: vec![ram], ..Header::default() };
        let mut regs = machine::RegFile::new();
        for (reg, value) in [
            (Reg::Rip, 0x1000),
            (Reg::Cr0, 0x8000_0011),
            (Reg::Cr3, 0x1000),
            (Reg::Cr4, 0x20),
            (Reg::Efer, 0xd00),
        ] {
            regs.set(reg, value);
        }
        let mut writer = TraceWriter::in_memory(header, regs)?;
        for (addr, bytes) in &pages {
            writer.page(PhysAddr(*addr), bytes)?;
        }
        for (pc, bytes) in [(0x1000, &[0x0f, 0x05][..]), (KERNEL, code)] {
            let id = writer.insn_id(VirtAddr(pc), 64, bytes)?;
            writer.insn(id)?;
        }
        Ok(Recording::load("test", Trace::from_bytes(writer.finish_in_memory(None)?)?)?)
    }

    #[test]
    fn a_page_that_the_kernel_has_far_from_its_code_is_shared_if_it_names_it()
    -> Result<(), Box<dyn std::error::Error>> {
        // mov 0xfffff78000000014,%rax
        let names = recording(&[0x48, 0xa1, 0x14, 0, 0, 0, 0x80, 0xf7, 0xff, 0xff])?;
        assert_eq!(AddressSpace::new(&names)?.shared.get(&WINDOW), Some(&FAR));
        let does_not = recording(&[0x90])?;
        assert_eq!(AddressSpace::new(&does_not)?.shared.get(&WINDOW), None);
        assert_eq!(process_word(&does_not, 0x1000, 2)?, Some(0x050f));
        Ok(())
    }
}

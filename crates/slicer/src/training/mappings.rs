//! The training system's page tables at the begin mark, and what they map.
//!
//! With page-table isolation a process's own tables lack the kernel, so there are two roots: the
//! process's and the kernel's.

use std::ops::{ControlFlow, RangeInclusive};

use machine::paging::{self, DEFAULT_WALK_LIMIT, Mapping, PagingMode};
use machine::{GuestMemory, PAGE_SIZE, Page, PhysAddr, Reg, RegFile, VirtAddr};

use crate::error::Error;
use crate::recording::Recording;
use crate::recording::snapshot::SnapshotMemory;

/// The most bytes of an executable mapping that counts as code; a larger one is a mapping of all
/// memory.
pub const MAX_CODE_MAPPING: u64 = 64 << 20;

/// How many vectors' gates are kept: those of the processor's own exceptions.
const VECTORS: u8 = 32;

/// How far from its code a kernel's image may reach, in bytes.
const IMAGE_REACH: u64 = 1 << 30;

/// A mapping for the supervisor.
pub struct SupervisorMapping {
    /// Its first physical address.
    pub frame: PhysAddr,
    /// How many bytes it has.
    pub size: u64,
    /// Its first linear address.
    pub vaddr: VirtAddr,
}

/// Page tables and memory at the begin mark.
pub struct Mappings<'t> {
    /// Physical memory.
    pub memory: SnapshotMemory<'t>,
    /// The registers at the begin mark.
    pub begin_regs: &'t RegFile,
    /// How addresses are translated.
    pub mode: PagingMode,
    /// The page tables of the process: CR3 while it runs.
    pub user_root: u64,
    /// The page tables that map the kernel: CR3 while it does.
    pub kernel_root: u64,
    /// What is mapped for the supervisor only.
    pub supervisor: Vec<SupervisorMapping>,
    /// The highest bit of the process's addresses: 0 or 1.
    user_half: u64,
    /// An address in the kernel's code: where a recorded step was, or else where an interrupt gate
    /// leads; the last address of all if there is neither.
    kernel_code: VirtAddr,
    /// From the lowest to the highest page on which code of the kernel is known to lie.
    code_span: RangeInclusive<VirtAddr>,
    /// Whether the page tables tell code from data.
    tells_code: bool,
}

impl<'t> Mappings<'t> {
    /// Reads the page tables of a recording's start snapshot.
    ///
    /// # Errors
    /// [`Error::Paging`] when the registers do not tell how addresses are translated.
    pub fn new(recording: &'t Recording) -> Result<Self, Error> {
        let memory = SnapshotMemory::new(&recording.trace);
        let begin_regs = recording.begin_regs();
        let mode = PagingMode::from_regs(begin_regs).map_err(|error| Error::Paging(error.to_string()))?;
        let user_root = begin_regs.get_or_zero(Reg::Cr3);
        let begin = recording.steps.ids().next().map_or(VirtAddr(0), |step| recording.pc(step));
        let mut pcs = recording.steps.ids().map(|step| recording.pc(step));
        let entry = pcs.find(|&pc| half(mode, pc) != half(mode, begin));
        // The process's own tables may lack the kernel: then the kernel's are loaded at the entry.
        let maps = |root: u64| {
            entry.is_none_or(|pc| paging::translate(&memory, mode, root, pc).is_ok_and(|found| !found.user))
        };
        let roots = recording.all_regs().iter().filter(|(reg, _)| *reg == Reg::Cr3).map(|&(_, root)| root);
        let kernel_root = std::iter::once(user_root).chain(roots).find(|&root| maps(root));
        let mut mappings = Self {
            memory,
            begin_regs,
            mode,
            user_root,
            kernel_root: kernel_root.unwrap_or(user_root),
            supervisor: Vec::new(),
            user_half: half(mode, begin),
            kernel_code: entry.unwrap_or(VirtAddr(u64::MAX)),
            code_span: VirtAddr(u64::MAX)..=VirtAddr(0),
            tells_code: false,
        };
        let gates = mappings.gates().into_iter().map(|(_, handler)| VirtAddr(handler));
        let handlers: Vec<VirtAddr> = gates.filter(|&at| half(mode, at) != half(mode, begin)).collect();
        if entry.is_none() {
            mappings.kernel_code = handlers.first().copied().unwrap_or(mappings.kernel_code);
        }
        let (mut supervisor, mut tells_code) = (Vec::new(), false);
        mappings.walk(mappings.kernel_root, &mut |mapping| {
            if !mapping.user {
                tells_code |= !mapping.executable;
                let (frame, size, vaddr) = (mapping.paddr, mapping.size, mapping.vaddr);
                supervisor.push(SupervisorMapping { frame, size, vaddr });
            }
        });
        (mappings.supervisor, mappings.tells_code) = (supervisor, tells_code);
        let recorded = recording.code.iter().map(|code| code.pc());
        mappings.code_span = mappings.span(recorded.chain(handlers));
        Ok(mappings)
    }

    /// From the lowest to the highest page of those instructions that are the kernel's, near its
    /// code.
    fn span(&self, code: impl Iterator<Item = VirtAddr>) -> RangeInclusive<VirtAddr> {
        let start = self.system_start();
        let own = code.filter(|&pc| pc >= start && self.is_near_code(pc));
        own.map(VirtAddr::page).fold(VirtAddr(u64::MAX)..=VirtAddr(0), |span, page| {
            page.min(*span.start())..=page.max(*span.end())
        })
    }

    /// The interrupt gates: vector and handler, ascending by vector.
    #[must_use]
    pub fn gates(&self) -> Vec<(u8, u64)> {
        let base = self.begin_regs.get(Reg::IdtrBase);
        let gates = |base| machine::gates(&self.memory, self.mode, self.kernel_root, base, VECTORS);
        base.map_or_else(Vec::new, gates)
    }

    /// Visits everything that the page tables at a root map.
    pub fn walk(&self, root: u64, visit: &mut dyn FnMut(&Mapping)) {
        let all = VirtAddr(0)..=VirtAddr(u64::MAX);
        paging::walk(&self.memory, self.mode, root, all, DEFAULT_WALK_LIMIT, &mut |mapping| {
            visit(mapping);
            ControlFlow::Continue(())
        });
    }

    /// Visits the mappings that are executable for the supervisor, mappings of all memory left out.
    pub fn walk_code(&self, visit: &mut dyn FnMut(&Mapping)) {
        self.walk(self.kernel_root, &mut |mapping| {
            if !mapping.user && mapping.executable && mapping.size <= MAX_CODE_MAPPING {
                visit(mapping);
            }
        });
    }

    /// The pages of the kernel's code that are not all zero, ascending.
    #[must_use]
    pub fn code_pages(&self) -> Vec<(VirtAddr, Page)> {
        let mut pages = Vec::new();
        self.walk_code(&mut |mapping| {
            for at in (0..mapping.size).step_by(PAGE_SIZE as usize) {
                if let Ok(page) = self.memory.page(mapping.paddr.add(at))
                    && *page != [0; PAGE_SIZE as usize]
                {
                    pages.push((mapping.vaddr.add(at), *page));
                }
            }
        });
        pages
    }

    /// Whether an address is in the half of the address space in which the process's code lies.
    #[must_use]
    pub fn is_in_user_half(&self, address: VirtAddr) -> bool {
        half(self.mode, address) == self.user_half
    }

    /// The kernel's lowest page in the upper half, if the process is in the lower one; 0 if there
    /// is none.
    #[must_use]
    pub fn system_start(&self) -> VirtAddr {
        if self.user_half == 1 {
            return VirtAddr(0);
        }
        let upper = self.supervisor.iter().map(|it| it.vaddr).filter(|&at| half(self.mode, at) == 1);
        upper.min().unwrap_or(VirtAddr(0))
    }

    /// The mode of the kernel's code.
    #[must_use]
    pub fn lift_mode(&self) -> lift::Mode {
        if linear_bits(self.mode) == 64 { lift::Mode::Bits64 } else { lift::Mode::Bits32 }
    }

    /// Bytes at a linear address of the kernel, each where it is mapped.
    #[must_use]
    pub fn read_mapped(&self, address: VirtAddr, count: usize) -> Vec<Option<u8>> {
        paging::read_mapped(&self.memory, self.mode, self.kernel_root, address, count)
    }

    /// Whether what the page tables map executable at this page is code. Where they do not tell
    /// code from data, only what lies among known code is.
    #[must_use]
    pub fn is_code(&self, page: VirtAddr) -> bool {
        self.tells_code || self.code_span.contains(&page)
    }

    /// How far an address is from the kernel's code, in bytes.
    #[must_use]
    pub const fn distance_to_code(&self, address: VirtAddr) -> u64 {
        address.0.abs_diff(self.kernel_code.0)
    }

    /// Whether an address lies where the kernel's image may be. In 32-bit systems much else is
    /// there too.
    #[must_use]
    pub const fn is_near_code(&self, address: VirtAddr) -> bool {
        self.distance_to_code(address) < IMAGE_REACH
    }
}

/// The highest bit of a linear address.
fn half(mode: PagingMode, address: VirtAddr) -> u64 {
    address.0 >> (linear_bits(mode) - 1) & 1
}

/// Bits that a linear address has as a number: 64 or 32.
fn linear_bits(mode: PagingMode) -> u32 {
    if mode.linear_bits() > 32 { 64 } else { 32 }
}

//! The training system's address space at the begin mark: what of it is the process's, what the
//! kernel shares with it, and the code that lies there.

use std::cell::{OnceCell, RefCell};

use ir::System;
use machine::paging;
use machine::{GuestMemory, PAGE_SIZE, PhysAddr, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use super::mappings::Mappings;
use super::shared_page::{NamedPages, kernel_alias};
use crate::dependence::foreign::OwnPages;
use crate::error::Error;
use crate::filter::Retained;
use crate::filter::late_page::LatePage;
use crate::recording::{Recording, UserMemory, parts};
use crate::vocabulary::CodeSource;

/// The longest instruction in bytes.
const MAX_INSN: usize = 15;

/// The address space at the begin mark.
pub struct AddressSpace<'t> {
    /// What page tables map.
    pub mappings: Mappings<'t>,
    /// The frames of user pages, by the page's address.
    pub user: FxHashMap<VirtAddr, PhysAddr>,
    /// The kernel addresses of user pages that the kernel shares with its processes, by the page's
    /// address.
    pub shared: FxHashMap<VirtAddr, VirtAddr>,
    /// The system's lowest page in the upper half, if the process is in the lower one; else 0.
    system_start: VirtAddr,
    /// Made when first asked for.
    named: OnceCell<NamedPages>,
    /// The instructions that were asked for, lifted, by address; `None` where there is no code.
    unseen: RefCell<FxHashMap<VirtAddr, Option<lift::Insn>>>,
}

impl<'t> AddressSpace<'t> {
    /// Reads the page tables of a recording's start snapshot, and finds pages that the kernel
    /// shares.
    ///
    /// # Errors
    /// [`Error::Paging`] when the registers do not tell how addresses are translated.
    pub fn new(recording: &'t Recording) -> Result<Self, Error> {
        let mappings = Mappings::new(recording)?;
        let executed: FxHashSet<VirtAddr> = recording.code.iter().map(|code| code.pc().page()).collect();
        let (mut user, mut read_only) = (FxHashMap::default(), Vec::new());
        mappings.walk(mappings.user_root, &mut |mapping| {
            if !mapping.user {
                return;
            }
            for at in (0..mapping.size).step_by(PAGE_SIZE as usize) {
                let (page, frame) = (mapping.vaddr.add(at), mapping.paddr.add(at));
                user.insert(page, frame);
                if !mapping.writable && !executed.contains(&page) {
                    read_only.push((page, frame));
                }
            }
        });
        let mut space = Self {
            system_start: mappings.system_start(),
            mappings,
            user,
            shared: FxHashMap::default(),
            named: OnceCell::new(),
            unseen: RefCell::default(),
        };
        // A page that the process writes is its own, however it was mapped before: one of zeros
        // that it had only read, or one that it shared with a child.
        let written = written(recording);
        for (page, frame) in read_only.into_iter().filter(|(page, _)| !written.contains(page)) {
            if let Some(alias) = space.kernel_alias(frame) {
                space.shared.insert(page, alias);
            }
        }
        Ok(space)
    }

    /// The kernel's own address of a frame that it shows to processes, where there is one.
    #[must_use]
    pub fn kernel_alias(&self, frame: PhysAddr) -> Option<VirtAddr> {
        kernel_alias(&self.mappings, frame, || self.named_pages())
    }

    fn named_pages(&self) -> &NamedPages {
        self.named.get_or_init(|| NamedPages::of(&self.mappings))
    }

    /// Whether the kernel's code names an address on this page near itself.
    #[must_use]
    pub fn is_named(&self, address: VirtAddr) -> bool {
        self.named_pages().near.contains(&address.page())
    }

    /// The pages that the recording's process has to itself.
    #[must_use]
    pub fn own_pages(&self, recording: &Recording, retained: &Retained) -> OwnPages {
        let pages = self.user.iter().filter(|(page, _)| !self.shared.contains_key(page));
        let late = retained.late_pages.iter().filter(|(_, late)| late.foreign);
        OwnPages {
            frames: pages.map(|(&page, &frame)| (frame, page)).collect(),
            filled: late
                .filter(|&(&page, late)| self.shown(recording, page, late).is_none())
                .map(|(&page, _)| page)
                .collect(),
        }
    }

    /// The kernel's own address of a page that appeared after the begin mark, where the kernel
    /// shows it to its processes.
    #[must_use]
    pub fn shown(&self, recording: &Recording, page: VirtAddr, late: &LatePage) -> Option<VirtAddr> {
        let executed = || recording.code.iter().any(|code| code.pc().page() == page);
        if late.written || executed() { None } else { self.kernel_alias(late.frame) }
    }

    /// Bytes at a linear address, as far as they are mapped.
    #[must_use]
    pub fn read(&self, address: VirtAddr, count: usize) -> Vec<u8> {
        let Mappings { memory, mode, user_root, kernel_root, .. } = &self.mappings;
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let address = address.add(bytes.len() as u64);
            let found = paging::translate(memory, *mode, *user_root, address)
                .or_else(|_| paging::translate(memory, *mode, *kernel_root, address));
            let Some(page) = found.ok().and_then(|found| memory.page(found.paddr).ok()) else { break };
            let rest = &page[address.offset() as usize..];
            bytes.extend_from_slice(&rest[..rest.len().min(count - bytes.len())]);
        }
        bytes
    }

    /// The trusted code of the system: the pages of [`Mappings::code_pages`].
    #[must_use]
    pub fn system(&self) -> System {
        let mut system = System::default();
        self.mappings.code_pages().iter().for_each(|(addr, page)| system.insert(addr.0, page));
        system
    }
}

impl UserMemory for AddressSpace<'_> {
    /// A page that is mapped for the process, lies in its half of the address space, or lies below
    /// the system's lowest page in the other half: 32-bit systems mostly leave their processes
    /// three quarters of the address space.
    fn is_user(&self, page: VirtAddr) -> bool {
        self.user.contains_key(&page) || self.mappings.is_in_user_half(page) || page < self.system_start
    }

    fn is_mapped_at_begin(&self, page: VirtAddr) -> bool {
        self.user.contains_key(&page)
    }
}

impl CodeSource for AddressSpace<'_> {
    fn insn(&self, mode: lift::Mode, pc: VirtAddr) -> Option<lift::Insn> {
        let lifted = || lift::lift(mode, pc.0, &self.read(pc, MAX_INSN)).ok();
        self.unseen.borrow_mut().entry(pc).or_insert_with(lifted).clone()
    }

    fn bytes(&self, pc: VirtAddr, count: usize) -> Option<Vec<u8>> {
        Some(self.read(pc, count)).filter(|bytes| bytes.len() == count)
    }
}

/// The pages that the recording stores to.
fn written(recording: &Recording) -> FxHashSet<VirtAddr> {
    let steps = recording.steps.ids().flat_map(|step| recording.accesses_of(step));
    let stores = steps.filter(|access| access.store && !access.io);
    stores.flat_map(|access| parts(access).map(|part| part.vaddr.page())).collect()
}

#[cfg(test)]
mod tests {
    use machine::Reg;
    use trace::{Access, Header, RamRange, Trace, TraceWriter};

    use super::*;
    use crate::training::process_word::process_word;

    const KERNEL: u64 = 0xffff_8000_0000_0000;
    const FAR: u64 = 0xffff_f780_0000_0000;
    const WINDOW: u64 = 0x7000;
    const NX: u64 = 1 << 63;

    /// A process that enters a kernel whose code is `code`, and sees a frame at [`WINDOW`] that the
    /// kernel has at [`FAR`]; the kernel's step has these accesses.
    fn recording(code: &[u8], accesses: &[Access]) -> Result<Recording, Box<dyn std::error::Error>> {
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
        for access in accesses {
            writer.access(access)?;
        }
        Ok(Recording::load("test", Trace::from_bytes(writer.finish_in_memory(None)?)?)?)
    }

    #[test]
    fn a_page_that_the_kernel_has_far_from_its_code_is_shared_if_it_names_it()
    -> Result<(), Box<dyn std::error::Error>> {
        // mov 0xfffff78000000014,%rax
        let code = [0x48, 0xa1, 0x14, 0, 0, 0, 0x80, 0xf7, 0xff, 0xff];
        let names = recording(&code, &[])?;
        assert_eq!(AddressSpace::new(&names)?.shared.get(&VirtAddr(WINDOW)), Some(&VirtAddr(FAR)));
        let does_not = recording(&[0x90], &[])?;
        assert_eq!(AddressSpace::new(&does_not)?.shared.get(&VirtAddr(WINDOW)), None);
        assert_eq!(process_word(&does_not, VirtAddr(0x1000), 2)?, Some(0x050f));

        // One that is read stays so; one that is written, after a fault, is the process's own.
        let access = |store| Access {
            store,
            vaddr: VirtAddr(WINDOW + 0x10),
            paddr: PhysAddr(if store { 0xb010 } else { 0x9010 }),
            next_page: None,
            size: 8,
            value: 0,
            io: false,
        };
        let shown = |store| -> Result<_, Box<dyn std::error::Error>> {
            Ok(AddressSpace::new(&recording(&code, &[access(store)])?)?
                .shared
                .contains_key(&VirtAddr(WINDOW)))
        };
        assert_eq!((shown(false)?, shown(true)?), (true, false));
        Ok(())
    }
}

//! Finds page tables, interrupt table and per-CPU memory in a target of which only the memory was
//! kept, without any processor's registers.
//!
//! Three things are searched for in all of RAM, each by something that training knows and that no
//! reboot changes. *Where the kernel is*: an interrupt table whose handlers all lie equally far
//! from training's. *Page tables*: pages that, read as the top table, map the program's kernel code
//! to pages that hold it. Of several (each process has its own) two thirds must agree on the
//! kernel's half; any of those will do, for only that half is used. *Processors*: addresses at
//! which most words of the per-CPU signature are found ([`ir::program::SignatureWord`]). What a
//! processor executed at the pause is not found: its registers are not in memory. Nothing about an
//! operating system is typed in; 32-bit targets are left out, as are those whose kernel has no GS
//! base.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use ir::Program;
use ir::program::SignatureWord;
use lift::Mode;
use machine::paging::{self, DEFAULT_WALK_LIMIT, PagingMode};
use machine::{GuestMemory, PAGE_SIZE, Page, PhysAddr, Reg, RegFile, VirtAddr, hash};

use crate::run::system_mode;

/// What is known, and need not be searched for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// CR3: the root of page tables that map the kernel.
    pub cr3: Option<u64>,
    /// The kernel's GS base: the address of a processor's per-CPU memory.
    pub gs_base: Option<u64>,
}

/// What was found, and how sure it is.
#[derive(Clone, Debug)]
pub struct Located {
    /// The registers that follow from it, for each processor; by ascending GS base.
    pub cpus: Vec<RegFile>,
    /// How many of the interrupt table's handlers are training's at the slide that was found, and
    /// of how many.
    pub gates: (usize, usize),
    /// How many of the page-table roots found have the same kernel half as the one taken, and how
    /// many were found.
    pub roots: (usize, usize),
    /// How many distinct addresses of the program's signature were found for the least certain
    /// processor, and how many the signature has; `None` if the GS base was given.
    pub signature: Option<(usize, usize)>,
}

/// Why no processor's state was found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocateError {
    /// The program is not of a 64-bit system.
    #[error("the state of processors is found in the memory of 64-bit guests only")]
    Bits,
    /// The program has no kernel code that is the same in every boot, or knows fewer than four
    /// interrupt gates.
    #[error("the program has no kernel code by which memory could be recognised")]
    Nothing,
    /// No interrupt table leads to the kernel that the program was made from.
    #[error(
        "no interrupt table in its memory leads to the kernel that the program was made from: another \
         kernel, or not all of its memory"
    )]
    Gates,
    /// No page tables map the kernel's code at the slide that the interrupt table has.
    #[error(
        "an interrupt table is there, but no page tables that map the kernel's code: another kernel, or not \
         all of its memory"
    )]
    Tables,
    /// More than one such kernel is there, or its page tables do not agree: an earlier boot left
    /// its memory behind.
    #[error(
        "its memory holds more than one such kernel, perhaps of an earlier boot: page tables at {0:#x} and \
         {1:#x} disagree"
    )]
    Ambiguous(u64, u64),
    /// Nothing looks like per-CPU memory.
    #[error("page tables are there, but no per-CPU memory by which a processor could be recognised")]
    Processors,
}

/// How many bytes of code identify a page.
const PROBE: usize = 16;
/// The most pieces of code that are searched for.
const PROBES: usize = 8;
/// Per-CPU memory is searched for by words that point at least this many bytes away; pointers
/// within one object reach less far.
const FAR: u32 = 1024;
/// The most addresses that are compared with the whole signature: a hostile target may hold any
/// number of decoys.
const MOST_PLACES: usize = 1 << 18;
/// Bits in which entries for the same mapping may differ: accessed and dirty (SDM vol. 3 section
/// 4.8).
const NOTED: u64 = 0x60;

/// A piece of the kernel's code that is the same in every boot.
struct Probe {
    /// Its address in the training system.
    addr: VirtAddr,
    bytes: [u8; PROBE],
    /// Pages of the target that hold it at its offset in the page.
    pages: hash::Set<PhysAddr>,
}

/// An interrupt table in the target's memory.
struct Table {
    /// Its handlers' addresses minus training's, modulo 2^64.
    slide: u64,
    at: PhysAddr,
    /// How many of its gates have that slide.
    gates: usize,
}

/// Finds the state of the processors of a target that runs the program's kernel.
///
/// # Errors
/// [`LocateError`].
pub fn locate(program: &Program, memory: &dyn GuestMemory, hints: Hints) -> Result<Located, LocateError> {
    if system_mode(program) != Mode::Bits64 {
        return Err(LocateError::Bits);
    }
    let gates = &program.relocations.gates;
    let mut probes = probes(program);
    if probes.is_empty() || gates.len() < 4 {
        return Err(LocateError::Nothing);
    }
    let mut tables = Vec::new();
    each_page(memory, &mut |addr, page| {
        for probe in &mut probes {
            let offset = probe.addr.offset() as usize;
            if page[offset..offset + PROBE] == probe.bytes {
                probe.pages.insert(addr);
            }
        }
        tables.extend(interrupt_tables(gates, addr, page));
    });
    tables.sort_by_key(|table| std::cmp::Reverse(table.gates));
    probes.retain(|probe| !probe.pages.is_empty());
    if tables.is_empty() || probes.is_empty() {
        return Err(LocateError::Gates);
    }
    let mut found: Option<Located> = None;
    for (at, table) in tables.iter().enumerate() {
        if tables[..at].iter().any(|earlier| earlier.slide == table.slide) {
            continue;
        }
        for mode in [PagingMode::Level5, PagingMode::Level4] {
            let maps = |root: u64| {
                probes.iter().all(|probe| {
                    let found = paging::translate(memory, mode, root, probe.addr.add(table.slide));
                    found.is_ok_and(|found| !found.user && probe.pages.contains(&found.paddr.page()))
                })
            };
            let Some((root, roots)) = root(memory, hints.cr3, maps)? else { continue };
            if let Some(first) = &found {
                let first = first.cpus.first().map_or(0, |regs| regs.get_or_zero(Reg::Cr3));
                return Err(LocateError::Ambiguous(first, root));
            }
            let linear = linear(memory, mode, root, table.at);
            let (bases, signature) = match hints.gs_base {
                Some(base) => (vec![base], None),
                None => {
                    let bases = per_cpu(memory, mode, root, &program.signature);
                    let least = bases.values().min().copied().ok_or(LocateError::Processors)?;
                    (bases.into_keys().collect(), Some((least, aims(&program.signature))))
                }
            };
            let cpus = bases.into_iter().map(|base| registers(program, mode, root, linear, base)).collect();
            found = Some(Located { cpus, gates: (table.gates, gates.len()), roots, signature });
            break;
        }
    }
    found.ok_or(LocateError::Tables)
}

/// Visits all pages that the target's memory has.
fn each_page(memory: &dyn GuestMemory, visit: &mut dyn FnMut(PhysAddr, &Page)) {
    for range in memory.ranges() {
        for addr in (range.start.0..range.end.0).step_by(PAGE_SIZE as usize) {
            if let Ok(page) = memory.page(PhysAddr(addr)) {
                visit(PhysAddr(addr), page);
            }
        }
    }
}

/// Pieces of the program's kernel code without fixups, at most one in a page, spread over all of
/// it.
fn probes(program: &Program) -> Vec<Probe> {
    let relocations = &program.relocations;
    let mut found: Vec<Probe> = Vec::new();
    for range in program.code.iter().filter(|range| relocations.image(range.addr) == Some(0)) {
        for (at, bytes) in range.bytes.chunks_exact(PROBE).enumerate() {
            let addr = VirtAddr(range.addr).add((at * PROBE) as u64);
            let within = addr.offset() + PROBE as u64 <= PAGE_SIZE;
            let fixed = relocations.fixups_in(addr.0, addr.0.saturating_add(PROBE as u64)).is_empty();
            let new = found.last().is_none_or(|last| last.addr.page() != addr.page());
            if let Some(bytes) = bytes.first_chunk().filter(|_| within && fixed && new) {
                found.push(Probe { addr, bytes: *bytes, pages: hash::Set::default() });
            }
        }
    }
    let step = found.len().div_ceil(PROBES).max(1);
    found.into_iter().step_by(step).collect()
}

/// The interrupt tables that begin in a page: at least three quarters of the gates that training
/// knows must have the same slide (SDM vol. 3 section 6.14.1).
fn interrupt_tables(gates: &[(u8, u64)], page_addr: PhysAddr, page: &Page) -> Vec<Table> {
    let handler = |start: usize, vector: u8| {
        machine::handler(page.get(start + usize::from(vector) * 16..)?.first_chunk()?, true)
    };
    let Some(&(first, training)) = gates.first() else { return Vec::new() };
    let starts = (0..page.len()).step_by(16);
    let tables = starts.filter_map(|start| {
        let slide = handler(start, first)?.wrapping_sub(training);
        let same = gates
            .iter()
            .filter(|gate| handler(start, gate.0).is_some_and(|it| it.wrapping_sub(gate.1) == slide))
            .count();
        let enough = slide % PAGE_SIZE == 0 && same * 4 >= gates.len() * 3;
        enough.then_some(Table { slide, at: page_addr.add(start as u64), gates: same })
    });
    tables.collect()
}

/// A page-table root, how many roots agree with it on the kernel's half, and how many there are.
type Root = (u64, (usize, usize));

/// The root to take, among the pages that as roots map the kernel (`maps`): one with which at least
/// two thirds of them agree. A root that is `given` is only checked.
fn root(
    memory: &dyn GuestMemory,
    given: Option<u64>,
    maps: impl Fn(u64) -> bool,
) -> Result<Option<Root>, LocateError> {
    if let Some(root) = given {
        return Ok(maps(root).then_some((root, (1, 1))));
    }
    let mut halves: BTreeMap<Vec<u64>, Vec<u64>> = BTreeMap::new();
    each_page(memory, &mut |addr, page| {
        if maps(addr.0) {
            let words = page[2048..]
                .chunks_exact(8)
                .map(|word| word.try_into().map_or(0, u64::from_le_bytes) & !NOTED);
            halves.entry(words.collect()).or_default().push(addr.0);
        }
    });
    let all: usize = halves.values().map(Vec::len).sum();
    let mut groups: Vec<Vec<u64>> = halves.into_values().collect();
    groups.sort_by_key(|roots| (std::cmp::Reverse(roots.len()), roots[0]));
    let Some(most) = groups.first() else { return Ok(None) };
    match groups.get(1) {
        Some(second) if most.len() * 3 < all * 2 => Err(LocateError::Ambiguous(most[0], second[0])),
        _ => Ok(Some((most[0], (most.len(), all)))),
    }
}

/// A linear address in the kernel's half that is mapped to a physical one.
fn linear(memory: &dyn GuestMemory, mode: PagingMode, root: u64, at: PhysAddr) -> Option<u64> {
    let mut found = None;
    let half = VirtAddr(1 << (mode.linear_bits() - 1));
    paging::walk(memory, mode, root, half..=VirtAddr(u64::MAX), DEFAULT_WALK_LIMIT, &mut |mapping| {
        let offset = at.0.wrapping_sub(mapping.paddr.0);
        if mapping.user || offset >= mapping.size {
            return ControlFlow::Continue(());
        }
        found = Some(mapping.vaddr.0.wrapping_add(offset));
        ControlFlow::Break(())
    });
    found
}

/// How many distinct addresses the words of a signature point to. They are counted instead of the
/// words because leftovers of stacks in per-CPU memory point many times to the same few, and are
/// gone in the next boot.
fn aims(signature: &[SignatureWord]) -> usize {
    signature.iter().map(|it| it.points).collect::<BTreeSet<_>>().len()
}

/// The bases of per-CPU memory, each with how many distinct addresses of the signature are pointed
/// to there: more than half of them, and at least three.
fn per_cpu(
    memory: &dyn GuestMemory,
    mode: PagingMode,
    root: u64,
    signature: &[SignatureWord],
) -> BTreeMap<u64, usize> {
    // An empty list points to itself, and in a table of thousands of them any address has all such
    // words. So the search begins at words that point far.
    let far = |it: &&SignatureWord| it.offset.abs_diff(it.points) >= FAR;
    let seeds: Vec<SignatureWord> = signature.iter().filter(far).copied().collect();
    let by_distance = |it: &SignatureWord| u64::from(it.offset).wrapping_sub(it.points.into()) % PAGE_SIZE;
    let mut wanted = vec![false; PAGE_SIZE as usize];
    seeds.iter().for_each(|seed| wanted[by_distance(seed) as usize] = true);
    let place = |base: u64, it: &SignatureWord| {
        let address = VirtAddr(base.wrapping_add(it.offset.into()));
        paging::translate(memory, mode, root, address).ok().map(|found| found.paddr)
    };
    let has = |base: u64, it: &SignatureWord| {
        let word = place(base, it).and_then(|place| memory.read_u64(place).ok());
        word == Some(base.wrapping_add(it.points.into()))
    };
    let aims = aims(signature);
    let (mut found, mut seen) = (BTreeMap::new(), hash::Set::default());
    each_page(memory, &mut |addr, page| {
        for (at, word) in page.chunks_exact(8).enumerate() {
            let (word, here) = (word.try_into().map_or(0, u64::from_le_bytes), addr.0 + at as u64 * 8);
            let distance = here.wrapping_sub(word) % PAGE_SIZE;
            if word >> 63 == 0 || !wanted[distance as usize] {
                continue;
            }
            for seed in seeds.iter().filter(|seed| by_distance(seed) == distance) {
                let base = word.wrapping_sub(seed.points.into());
                if seen.len() >= MOST_PLACES
                    || seen.contains(&base)
                    || place(base, seed) != Some(PhysAddr(here))
                {
                    continue;
                }
                seen.insert(base);
                let there = signature.iter().filter(|it| has(base, it)).map(|it| it.points);
                let count = there.collect::<BTreeSet<_>>().len();
                if count >= 3 && count * 2 > aims {
                    found.insert(base, count);
                }
            }
        }
    });
    found
}

/// The registers of the processor whose per-CPU memory is at `base`. Control registers are
/// training's, except for the depth of the page tables; `interrupts` is the interrupt table.
fn registers(program: &Program, mode: PagingMode, root: u64, interrupts: Option<u64>, base: u64) -> RegFile {
    const LA57: u64 = 1 << 12;
    let trained = |reg: Reg, otherwise: u64| {
        program.registers.iter().find(|(it, _)| *it == reg as u16).map_or(otherwise, |(_, value)| *value)
    };
    let mut regs = RegFile::default();
    // Protection, paging, write protection; physical address extension; long mode, no-execute pages
    // (SDM vol. 3 section 2.5).
    regs.set(Reg::Cr0, trained(Reg::Cr0, 0x8001_0001));
    let depth = if mode == PagingMode::Level5 { LA57 } else { 0 };
    regs.set(Reg::Cr4, trained(Reg::Cr4, 0x20) & !LA57 | depth);
    regs.set(Reg::Efer, trained(Reg::Efer, 0xd01));
    regs.set(Reg::Cr3, root);
    if let Some(interrupts) = interrupts {
        regs.set(Reg::IdtrBase, interrupts);
    }
    regs.set(Reg::GsBase, base);
    regs.set(Reg::KernelGsBase, base);
    regs
}

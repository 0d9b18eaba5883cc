//! Finds page tables, interrupt table and per-CPU memory in a target of which only the memory was
//! kept, without any processor's registers.
//!
//! Three things are searched for in all of RAM, each by something that training knows and that no
//! reboot changes. *Where the kernel is*: an interrupt table whose handlers all lie equally far
//! from training's. *Page tables*: pages that, read as the top table, map the program's kernel code
//! to pages that hold it. Each process has its own; any will do, for only the kernel's half is
//! used. *Processors*: addresses at which most words of the per-CPU signature are found
//! ([`ir::program::SignatureWord`]).
//!
//! Whoever controls the guest can write all of these any number of times, so numbers decide
//! nothing. Page tables that disagree with others about an address are left out if they do not lead
//! to all of the kernel's code, to the interrupt table and to per-CPU memory that points into that
//! kernel. Where more than one remains, nothing is taken.
//!
//! What a processor executed at the pause is not found: its registers are not in memory. Nothing
//! about an operating system is typed in; 32-bit targets are left out, as are those whose kernel
//! has no GS base.

mod found;
mod kernel;
mod pages;
mod processors;
mod roots;

use ir::Program;
use lift::Mode;
use machine::paging::{self, PagingMode};
use machine::{GuestMemory, PAGE_SIZE, Page, PhysAddr, VirtAddr, hash};

use crate::run::system_mode;
pub use found::{Hints, LocateError, Located};
use kernel::{Candidate, Image, the_kernel};
use pages::each_page;
use roots::halves;

/// How many bytes of code identify a page.
const PROBE: usize = 16;
/// The most pieces of code that are searched for.
const PROBES: usize = 8;
/// The most places that interrupt tables may lead to: each costs a pass over memory. A system that
/// was booted several times may have left some.
const MOST_TABLES: usize = 64;

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
    let mut seen = hash::Set::default();
    tables.retain(|table| seen.insert(table.slide));
    if tables.len() > MOST_TABLES {
        return Err(LocateError::ManyTables(tables.len()));
    }
    let mut candidates = Vec::new();
    for table in &tables {
        let maps = |mode: PagingMode, root: u64| {
            probes.iter().all(|probe| {
                let found = paging::translate(memory, mode, root, probe.addr.add(table.slide));
                found.is_ok_and(|found| {
                    !found.user && found.executable && probe.pages.contains(&found.paddr.page())
                })
            })
        };
        let kernel = probes[0].addr.add(table.slide).0;
        let halves = halves(memory, hints.cr3, kernel, maps).into_iter();
        let image = Image { slide: table.slide, interrupts: table.at };
        candidates.extend(halves.map(|half| Candidate { image, half }));
    }
    let at = |slide: u64| candidates.iter().filter(move |it| it.image.slide == slide);
    let roots = |slide: u64| at(slide).map(|it| it.half.roots.len()).sum::<usize>();
    let all: Vec<(u64, usize)> = tables.iter().map(|it| (it.slide, roots(it.slide))).collect();
    let kernel = the_kernel(program, memory, hints, candidates)?;
    let slide = kernel.image.slide;
    let all = all.iter().find(|it| it.0 == slide).map_or(0, |it| it.1);
    let same = tables.iter().find(|it| it.slide == slide).map_or(0, |it| it.gates);
    Ok(Located {
        cpus: kernel.cpus,
        gates: (same, gates.len()),
        roots: (kernel.half.roots.len(), all),
        signature: kernel.signature,
    })
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
            let fixed = relocations.fixups_in(addr.0, addr.0.saturating_add(PROBE as u64)).next().is_none();
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

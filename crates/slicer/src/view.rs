//! By which cells code finds out in which context it runs, and what they hold in an idle one.
//!
//! All of them are cells of per-CPU memory that the recorded code read before it wrote them. There are two kinds. *Pointers*: cells that
//! hold the same address in the kernel's image at every halt of an idle processor, and another one in the recording (the running task, its stack).
//! *Nesting counters*: many different instructions add a constant to them and take it off again, so that they end as they began (how often
//! preemption is off); code that runs for a process begins with them as the recording did. Nothing about an operating system is typed in.

use ir::program::ViewCell;
use machine::Reg;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::preprocess::Kept;
use crate::recording::Recording;

/// How far above a segment base per-CPU memory is looked for.
const REACH: u64 = 256 << 10;
/// Different instructions that must change a cell before it counts as a nesting counter.
const MIN_SITES: usize = 12;

/// A cell that is changed in place.
struct Counter {
    first: u64,
    last: u64,
    sites: FxHashSet<u32>,
}

/// The cells of a recording, by base and offset.
pub(crate) fn cells(recording: &Recording, kept: &Kept) -> Vec<ViewCell> {
    let header = recording.trace.header();
    let width: u8 = if recording.is_long() { 8 } else { 4 };
    let base = |reg: Reg| {
        // At the begin mark the process runs: the kernel's base waits to be swapped in.
        let kernel = if reg == Reg::GsBase && width == 8 { Reg::KernelGsBase } else { reg };
        recording.begin_regs().get(kernel)
    };
    let mut pointers: FxHashMap<u64, ViewCell> = FxHashMap::default();
    for cell in &header.idle {
        if let Some(base) = base(cell.base) {
            let found = ViewCell { base: cell.base as u16, offset: cell.offset, size: width, value: cell.value };
            pointers.insert(base.wrapping_add(cell.offset.into()), found);
        }
    }
    let Some((reg, start)) = header.idle.first().and_then(|cell| Some((cell.base, base(cell.base)?))) else {
        return Vec::new();
    };
    let mut seen: FxHashSet<u64> = FxHashSet::default();
    let mut counters: FxHashMap<u64, Option<Counter>> = FxHashMap::default();
    let mut found = Vec::new();
    for &step in &kept.steps {
        let accesses = recording.accesses_of(step as usize);
        for (at, access) in accesses.iter().enumerate() {
            let address = access.vaddr.0;
            if address.wrapping_sub(start) >= REACH {
                continue;
            }
            if !access.store
                && access.size == width
                && !seen.contains(&address)
                && let Some(cell) = pointers.get(&address)
                && cell.value != access.value as u64
            {
                found.push(*cell);
            }
            let new = seen.insert(address);
            let in_place = at > 0 && access.store && accesses[at - 1].vaddr == access.vaddr && access.size == 4;
            if access.size == 4 && new && !access.store {
                let counter =
                    Counter { first: access.value as u64, last: access.value as u64, sites: FxHashSet::default() };
                counters.insert(address, Some(counter));
            } else if in_place && let Some(Some(counter)) = counters.get_mut(&address) {
                counter.last = access.value as u64;
                counter.sites.insert(recording.steps[step as usize].code);
            } else if access.store || access.size != 4 {
                counters.insert(address, None);
            }
        }
    }
    for (address, counter) in counters {
        if let Some(counter) = counter
            && counter.first == counter.last
            && counter.sites.len() >= MIN_SITES
        {
            let offset = address.wrapping_sub(start) as u32;
            found.push(ViewCell { base: reg as u16, offset, size: 4, value: counter.first });
        }
    }
    found.sort_unstable();
    found
}

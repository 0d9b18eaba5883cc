//! By which cells code finds out in which context it runs, and what they hold in an idle one.
//!
//! All of them are cells of per-CPU memory that the recorded code read before it wrote them. There
//! are two kinds. *Pointers*: cells that hold the same address in the kernel's image at every halt
//! of an idle processor, and another one in the recording (the running task, its stack). *Nesting
//! counters*: many different instructions add a constant to them and take it off again, so that
//! they end as they began (how often preemption is off); code that runs for a process begins with
//! them as the recording did. Nothing about an operating system is typed in.

use ir::program::ViewCell;
use machine::Reg;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::preprocess::Kept;
use crate::recording::Recording;
use crate::replay::{Blind, Replay};

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

/// Where per-CPU memory lies while the kernel works.
struct Area {
    /// As [`ViewCell::base`].
    base: u16,
    start: u64,
}

/// In 64-bit systems the kernel's base waits at the begin mark to be swapped in. Others load a
/// segment on the way into the kernel: it is the one by which the recorded code first reads one of
/// the idle processor's cells.
fn areas(recording: &Recording) -> Vec<(Reg, Area)> {
    let idle = &recording.trace.header().idle;
    let mut regs: Vec<Reg> = idle.iter().map(|cell| cell.base).collect();
    regs.dedup();
    if recording.is_long() {
        let start =
            |reg| recording.begin_regs().get(if reg == Reg::GsBase { Reg::KernelGsBase } else { reg });
        return regs
            .into_iter()
            .filter_map(|reg| Some((reg, Area { base: reg as u16, start: start(reg)? })))
            .collect();
    }
    let mut found: Vec<(Reg, Area)> = Vec::new();
    let mut replay = Replay::new(recording);
    for step in 0..recording.steps.len() {
        if found.len() == regs.len() {
            break;
        }
        replay.step(step, &mut Blind);
        if replay.regs[Reg::Cs.index()] & 3 != 0 {
            continue;
        }
        for &reg in &regs {
            let selector = replay.regs[if reg == Reg::FsBase { Reg::Fs } else { Reg::Gs }.index()];
            let start = replay.regs[reg.index()];
            let named = |address: u64| {
                let offset = address.wrapping_sub(start) as u32;
                idle.binary_search_by_key(&(reg, offset), |cell| (cell.base, cell.offset)).is_ok()
            };
            // A null selector or one of a local table is not the kernel's.
            let global = selector & 4 == 0 && selector >> 3 != 0;
            if global
                && !found.iter().any(|it| it.0 == reg)
                && recording.accesses_of(step).iter().any(|it| !it.store && named(it.vaddr.0))
            {
                let base = ViewCell::DESCRIPTOR | (selector as u16 >> 3);
                found.push((reg, Area { base, start }));
            }
        }
    }
    found.sort_by_key(|it| it.1.base);
    found
}

/// The cells of a recording, by base and offset.
pub(crate) fn cells(recording: &Recording, kept: &Kept, in_kernel: &dyn Fn(u64) -> bool) -> Vec<ViewCell> {
    let idle = &recording.trace.header().idle;
    let long = recording.is_long();
    let (width, mask) = if long { (8, u64::MAX) } else { (4, u64::from(u32::MAX)) };
    let areas = areas(recording);
    let mut pointers: FxHashMap<u64, ViewCell> = FxHashMap::default();
    // Another boot has what was allocated elsewhere.
    for cell in idle.iter().filter(|cell| in_kernel(cell.value)) {
        if let Some((_, area)) = areas.iter().find(|it| it.0 == cell.base) {
            let found = ViewCell { base: area.base, offset: cell.offset, size: width, value: cell.value };
            pointers.insert(area.start.wrapping_add(cell.offset.into()) & mask, found);
        }
    }
    let Some((reg, area)) = areas.first() else { return Vec::new() };
    // Where the base is only a number to add, the area is where its cells are.
    let offsets = || idle.iter().filter(|cell| cell.base == *reg).map(|cell| cell.offset & !0xfff);
    let (from, to) = match (offsets().min(), offsets().max()) {
        (Some(from), Some(to)) if !long => (u64::from(from), u64::from(to - from) + 0x1000),
        _ => (0, REACH),
    };
    let start = area.start;
    let first = start.wrapping_add(from) & mask;
    let mut seen: FxHashSet<u64> = FxHashSet::default();
    let mut counters: FxHashMap<u64, Option<Counter>> = FxHashMap::default();
    let mut found = Vec::new();
    for &step in &kept.steps {
        let accesses = recording.accesses_of(step as usize);
        for (at, access) in accesses.iter().enumerate() {
            let address = access.vaddr.0;
            if address.wrapping_sub(first) & mask >= to {
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
            let in_place =
                at > 0 && access.store && accesses[at - 1].vaddr == access.vaddr && access.size == 4;
            if access.size == 4 && new && !access.store {
                let counter = Counter {
                    first: access.value as u64,
                    last: access.value as u64,
                    sites: FxHashSet::default(),
                };
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
            found.push(ViewCell { base: area.base, offset, size: 4, value: counter.first });
        }
    }
    found.sort_unstable();
    found
}

//! The execution context: the per-CPU cells by which code finds out in whose context it runs, and
//! what they hold on an idle processor.
//!
//! All of them are cells of per-CPU memory that the recorded code read before it wrote them. There
//! are two kinds. *Pointers*: cells that hold the same address in the kernel's image at every halt
//! of an idle processor, and another one in the recording (the running task, its stack). *Nesting
//! counters*: many different instructions add a constant to them and take it off again, so that
//! they end as they began (how often preemption is off); code that runs for a process begins with
//! them as the recording did. A program that overrides them runs as an idle processor does. Nothing
//! about an operating system is typed in. What several recordings show together is in
//! [`context_cells`](super::context_cells).

use ir::program::PerCpuOverride;
use machine::{Reg, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};
use trace::{Access, InsnId};

use super::whole_context::Pointer;
use crate::filter::Retained;
use crate::recording::Recording;
use crate::recording::replay::{Blind, Replay};

/// How far above a segment base per-CPU memory is looked for, in bytes.
const REACH: u64 = 256 << 10;
/// Different instructions that must change a cell before it counts as a nesting counter.
const MIN_SITES: usize = 12;
/// Bytes of a nesting counter.
const COUNTER_SIZE: u8 = 4;

/// A cell that is changed in place: its first and last value.
struct Counter {
    first: u64,
    last: u64,
    /// The instructions that changed it.
    insns: FxHashSet<InsnId>,
}

/// Where per-CPU memory lies while the kernel works.
struct Area {
    /// As [`PerCpuOverride::base`].
    base: u16,
    start: VirtAddr,
}

/// The per-CPU areas, each with the segment base register to which the idle processor's cells are
/// relative.
///
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
            .filter_map(|reg| Some((reg, Area { base: reg as u16, start: VirtAddr(start(reg)?) })))
            .collect();
    }
    let mut found: Vec<(Reg, Area)> = Vec::new();
    let mut replay = Replay::new(recording);
    for step in recording.steps.ids() {
        if found.len() == regs.len() {
            break;
        }
        replay.step(step, &mut Blind);
        if replay.regs[Reg::Cs] & 3 != 0 {
            continue;
        }
        for &reg in &regs {
            let selector = replay.regs[if reg == Reg::FsBase { Reg::Fs } else { Reg::Gs }];
            let start = VirtAddr(replay.regs[reg]);
            let named = |address: VirtAddr| {
                let offset = address.0.wrapping_sub(start.0) as u32;
                idle.binary_search_by_key(&(reg, offset), |cell| (cell.base, cell.offset)).is_ok()
            };
            // A null selector or one of a local table is not the kernel's.
            let global = selector & 4 == 0 && selector >> 3 != 0;
            if global
                && !found.iter().any(|it| it.0 == reg)
                && recording.accesses_of(step).iter().any(|it| !it.store && named(it.vaddr))
            {
                let base = PerCpuOverride::DESCRIPTOR | (selector as u16 >> 3);
                found.push((reg, Area { base, start }));
            }
        }
    }
    found.sort_by_key(|it| it.1.base);
    found
}

/// The per-CPU memory in which cells are looked for: that of the first area.
pub struct PerCpu {
    area: Area,
    /// The bits of an address: sums wrap around.
    mask: u64,
    /// Where it begins, and how many bytes of it are looked at.
    first: VirtAddr,
    reach: u64,
}

impl PerCpu {
    /// That of a recording; `None` if the recorder saw no idle processor, or the recorded code
    /// reads none of its cells.
    pub fn of(recording: &Recording) -> Option<Self> {
        Some(Self::at(recording, areas(recording).into_iter().next()?))
    }

    fn at(recording: &Recording, (reg, area): (Reg, Area)) -> Self {
        let long = recording.is_long();
        let mask = if long { u64::MAX } else { u64::from(u32::MAX) };
        // In 32-bit systems the base may be only a number to add to addresses: the area is where
        // the idle cells are.
        let idle = recording.trace.header().idle.iter().filter(|cell| cell.base == reg);
        let offsets = idle.map(|cell| cell.offset & !0xfff);
        let (from, reach) = match (offsets.clone().min(), offsets.max()) {
            (Some(from), Some(to)) if !long => (u64::from(from), u64::from(to - from) + 0x1000),
            _ => (0, REACH),
        };
        let first = VirtAddr(area.start.add(from).0 & mask);
        Self { area, mask, first, reach }
    }

    /// Whether an address lies in it.
    pub const fn holds(&self, address: VirtAddr) -> bool {
        address.0.wrapping_sub(self.first.0) & self.mask < self.reach
    }

    /// The override of a cell at an address in it.
    pub const fn cell(&self, address: VirtAddr, size: u8, value: u64) -> PerCpuOverride {
        let offset = address.0.wrapping_sub(self.area.start.0) as u32;
        PerCpuOverride { base: self.area.base, offset, size, value }
    }
}

/// What is looked for in a recording's accesses.
struct Search {
    /// Bytes of a word of the system.
    width: u8,
    /// The idle processor's pointers by address.
    pointers: FxHashMap<VirtAddr, Pointer>,
    /// Addresses that were accessed.
    seen: FxHashSet<VirtAddr>,
    /// Possible nesting counters by address; `None` for what is none.
    counters: FxHashMap<VirtAddr, Option<Counter>>,
    /// The pointers that the recording has others of.
    found: Vec<Pointer>,
}

impl Search {
    /// An access to per-CPU memory; `before` is the one before it in its instruction.
    fn access(&mut self, insn: InsnId, before: Option<&Access>, access: &Access) {
        let address = access.vaddr;
        let new = self.seen.insert(address);
        if new
            && !access.store
            && access.size == self.width
            && let Some(pointer) = self.pointers.get(&address)
            && pointer.cell.value != access.value as u64
        {
            self.found.push(*pointer);
        }
        let counts = access.size == COUNTER_SIZE;
        let in_place = access.store && counts && before.is_some_and(|it| it.vaddr == address);
        if counts && new && !access.store {
            let value = access.value as u64;
            let counter = Counter { first: value, last: value, insns: FxHashSet::default() };
            self.counters.insert(address, Some(counter));
        } else if in_place && let Some(Some(counter)) = self.counters.get_mut(&address) {
            counter.last = access.value as u64;
            counter.insns.insert(insn);
        } else if access.store || !counts {
            self.counters.insert(address, None);
        }
    }
}

/// The idle processor's pointers that the recorded code had others of, and the nesting counters
/// that it shows, each list in no order.
pub fn seen(recording: &Recording, retained: &Retained) -> (Vec<Pointer>, Vec<PerCpuOverride>) {
    let areas = areas(recording);
    let pointers = idle_pointers(recording, &areas);
    let Some(first) = areas.into_iter().next() else { return Default::default() };
    let per_cpu = PerCpu::at(recording, first);
    let mut search = Search {
        width: width(recording),
        pointers,
        seen: FxHashSet::default(),
        counters: FxHashMap::default(),
        found: Vec::new(),
    };
    for &step in retained.steps.values() {
        let accesses = recording.accesses_of(step);
        for (at, access) in accesses.iter().enumerate() {
            if per_cpu.holds(access.vaddr) {
                let before = at.checked_sub(1).map(|at| &accesses[at]);
                search.access(recording.steps[step].insn, before, access);
            }
        }
    }
    let mut counters = Vec::new();
    for (address, counter) in search.counters {
        if let Some(counter) = counter
            && counter.first == counter.last
            && counter.insns.len() >= MIN_SITES
        {
            counters.push(per_cpu.cell(address, COUNTER_SIZE, counter.first));
        }
    }
    (search.found, counters)
}

/// Bytes of a word of the recorded system.
fn width(recording: &Recording) -> u8 {
    if recording.is_long() { 8 } else { 4 }
}

/// What an idle processor has in the cells of these areas, by address.
fn idle_pointers(recording: &Recording, areas: &[(Reg, Area)]) -> FxHashMap<VirtAddr, Pointer> {
    let mask = if recording.is_long() { u64::MAX } else { u64::from(u32::MAX) };
    let mut pointers: FxHashMap<VirtAddr, Pointer> = FxHashMap::default();
    for cell in &recording.trace.header().idle {
        if let Some((reg, area)) = areas.iter().find(|it| it.0 == cell.base) {
            let size = width(recording);
            let found = PerCpuOverride { base: area.base, offset: cell.offset, size, value: cell.value };
            let at = VirtAddr(area.start.add(cell.offset.into()).0 & mask);
            pointers.insert(at, Pointer { reg: *reg, cell: found });
        }
    }
    pointers
}

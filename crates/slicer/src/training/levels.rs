//! Levels: small numbers in per-CPU memory that say what may interrupt the code that runs, and that
//! code raises and puts back as it goes.
//!
//! ```text
//! old = [cell]; [cell] = 2; ...; [cell] = old
//! ```
//!
//! Systems that keep the interrupt level in memory refuse to do at a high level what they do at a
//! low one, so the answer would depend on the moment of the pause: an idle processor waits at one
//! level, the kernel is paused at another. A level is given the value that it had at the begin
//! mark, in the view of an idle processor and in the paused one's alike.
//!
//! ```text
//! a cell is a level if   the recorded code reads it before it writes it
//!                and     all accesses have one size, and all values are below LEVELS
//!                and     it is changed MIN_CHANGES times at least, by two instructions at least,
//!                        once by more than 1, and never in place
//!                and     it ends as it began
//! ```
//!
//! What is changed in place, or by 1 only, counts something: how often preemption is off
//! ([`execution_context`](super::execution_context)), or how many objects lie ready, which must
//! stay the target's.
//!
//! Cost: one pass over the recording's accesses.

use ir::program::PerCpuOverride;
use machine::VirtAddr;
use rustc_hash::{FxHashMap, FxHashSet};
use trace::{Access, InsnId};

use super::execution_context::PerCpu;
use crate::filter::Retained;
use crate::recording::Recording;

/// Changes of a cell before it counts as a level.
const MIN_CHANGES: u32 = 6;

/// A cell that may be a level.
struct Candidate {
    size: u8,
    first: u64,
    now: u64,
    changes: u32,
    /// Whether a change was by more than 1.
    jumps: bool,
    /// The instructions that changed it.
    insns: FxHashSet<InsnId>,
}

impl Candidate {
    /// What an access makes of it; `None`: it is none.
    fn after(mut self, insn: InsnId, in_place: bool, access: &Access) -> Option<Self> {
        let value = access.value as u64;
        if access.size != self.size || value >= PerCpuOverride::LEVELS || access.store && in_place {
            return None;
        }
        if access.store && value != self.now {
            self.changes += 1;
            self.jumps |= value.abs_diff(self.now) > 1;
            self.insns.insert(insn);
        }
        self.now = value;
        Some(self)
    }

    fn is_level(&self) -> bool {
        self.first == self.now && self.changes >= MIN_CHANGES && self.jumps && self.insns.len() > 1
    }
}

/// The levels that a recording shows, by base and offset, with their values at the begin mark.
pub fn levels(recording: &Recording, retained: &Retained) -> Vec<PerCpuOverride> {
    let Some(per_cpu) = PerCpu::of(recording) else { return Vec::new() };
    let mut cells: FxHashMap<VirtAddr, Option<Candidate>> = FxHashMap::default();
    for &step in retained.steps.values() {
        let accesses = recording.accesses_of(step);
        let insn = recording.steps[step].insn;
        for (at, access) in accesses.iter().enumerate().filter(|(_, it)| per_cpu.holds(it.vaddr)) {
            let in_place = at.checked_sub(1).is_some_and(|at| accesses[at].vaddr == access.vaddr);
            cells
                .entry(access.vaddr)
                .and_modify(|cell| *cell = cell.take().and_then(|cell| cell.after(insn, in_place, access)))
                .or_insert_with(|| begin(access));
        }
    }
    let levels = cells.into_iter().filter_map(|(at, cell)| Some((at, cell.filter(Candidate::is_level)?)));
    let mut found: Vec<PerCpuOverride> =
        levels.map(|(at, cell)| per_cpu.cell(at, cell.size, cell.first)).collect();
    found.sort_unstable();
    found
}

/// What the first access of a cell makes of it.
fn begin(access: &Access) -> Option<Candidate> {
    let value = access.value as u64;
    let may = !access.store && access.size <= 4 && value < PerCpuOverride::LEVELS;
    may.then(|| Candidate {
        size: access.size,
        first: value,
        now: value,
        changes: 0,
        jumps: false,
        insns: FxHashSet::default(),
    })
}

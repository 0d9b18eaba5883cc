//! Finds where a kernel keeps the last time stamp it read.
//!
//! Code that measures time subtracts a stored counter value from the counter, or compares the two.
//! A memory dump does not hold the time stamp counter. The stored value is the best substitute in
//! it, and this module finds its address without knowing the kernel.
//!
//! Operations whose value is the counter's are a closure over the dependence graph: forward from
//! where the counter is read, through operations that pass a value on. A clock cell is the memory
//! that the other operand of a subtraction (or comparison) was loaded from.

use ir::{Arg, Class, Kind, Op, Width};
use machine::VirtAddr;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::analysis::solver::closure;
use crate::dependence::Graph;
use crate::dependence::graph::Adjacency;
use crate::vocabulary::{CodeTable, OpId};

/// The most copies that a value is followed back through to its load.
const MAX_COPIES: usize = 8;

struct Clock<'c> {
    graph: &'c Graph,
    code: &'c CodeTable,
    adjacency: Adjacency,
}

/// The addresses of clock cells in the training system, ascending; pages that the process shares
/// with the kernel (`shared`) are given by their kernel address. `in_image` tells addresses in the
/// kernel's image; what was allocated at run time lies elsewhere in another boot.
#[must_use]
pub fn cells(
    graph: &Graph,
    code: &CodeTable,
    shared: &FxHashMap<VirtAddr, VirtAddr>,
    in_image: &dyn Fn(VirtAddr) -> bool,
) -> Vec<VirtAddr> {
    let clock = Clock { graph, code, adjacency: graph.adjacency() };
    let counters = clock.counter_values();
    let mut cells: Vec<(VirtAddr, Width)> = Vec::new();
    for number in graph.op_site.ids() {
        let Some(op) = clock.insn_op(number) else { continue };
        if !matches!(op.kind, Kind::Sub | Kind::CarrySub) {
            continue;
        }
        for (mine, other) in [(0, 1), (1, 0)] {
            if clock.definers(number, op, mine).iter().any(|definer| counters.contains(definer)) {
                let loads = clock.loads_behind(clock.definers(number, op, other));
                for (load, width) in loads {
                    let Some(&addr) = graph.addresses.get(&load) else { continue };
                    let alias = shared.get(&addr.page());
                    let cell = alias.map_or(addr, |alias| alias.add(addr.offset()));
                    if in_image(cell) {
                        cells.push((cell, width));
                    }
                }
            }
        }
    }
    whole_counters(cells)
}

impl Clock<'_> {
    /// An operation of an instruction; `None` for an allocator's.
    fn insn_op(&self, op: OpId) -> Option<&Op> {
        let site = self.graph.op_site[op];
        let code = self.graph.code(self.code, site)?;
        Some(&code.insn.ops[self.graph.sites[site].index_of(op)])
    }

    /// The operations whose value is the counter's, perhaps masked, shifted or joined with others.
    fn counter_values(&self) -> FxHashSet<OpId> {
        let ops = || self.graph.op_site.ids().filter_map(|op| Some((op, self.insn_op(op)?)));
        let mut users: FxHashMap<OpId, Vec<OpId>> = FxHashMap::default();
        for (user, _) in ops().filter(|(_, it)| passes_on(it.kind)) {
            for &definer in self.adjacency.of(user) {
                users.entry(definer).or_default().push(user);
            }
        }
        let reads = ops().filter(|(_, it)| it.kind == Kind::Tsc).map(|(op, _)| op);
        closure(reads, |op: OpId| users.get(&op).cloned().unwrap_or_default())
    }

    /// What defines one operand of an operation.
    fn definers(&self, number: OpId, op: &Op, operand: usize) -> Vec<OpId> {
        let Arg::Var(var) = op.args[operand] else { return Vec::new() };
        let definers = self.adjacency.of(number).iter().copied();
        definers.filter(|&it| self.insn_op(it).is_some_and(|it| it.def() == Some(var))).collect()
    }

    /// The loads that values come from through copies, with their width.
    fn loads_behind(&self, values: Vec<OpId>) -> Vec<(OpId, Width)> {
        let mut values = values;
        for _ in 0..MAX_COPIES {
            let behind = |&op: &OpId| match self.insn_op(op) {
                Some(it) if it.kind == Kind::Mov => self.adjacency.of(op).to_vec(),
                _ => vec![op],
            };
            values = values.iter().flat_map(behind).collect();
        }
        let load = |op: OpId| self.insn_op(op).filter(|it| it.kind == Kind::Load).map(|it| (op, it.width));
        values.into_iter().filter_map(load).collect()
    }
}

/// Whether an operation passes a value on, perhaps masked, shifted or joined with others.
fn passes_on(kind: Kind) -> bool {
    kind.class() == Class::Pure
        && matches!(
            kind,
            Kind::Mov
                | Kind::Or
                | Kind::And
                | Kind::Shl
                | Kind::Shr
                | Kind::Insert
                | Kind::Extract
                | Kind::Sext
        )
}

/// The addresses of whole counters. 32-bit code reads a counter in halves, the upper one right
/// behind the lower; a half without the other does not tell the counter.
fn whole_counters(mut cells: Vec<(VirtAddr, Width)>) -> Vec<VirtAddr> {
    cells.sort_unstable_by_key(|&(addr, width)| (addr, width.bytes()));
    cells.dedup();
    let half = |addr: u64| cells.contains(&(VirtAddr(addr), Width::B32));
    let is_whole = |&(addr, width): &(VirtAddr, Width)| match width {
        Width::B64 => true,
        Width::B32 => half(addr.0 + 4) && !half(addr.0.wrapping_sub(4)),
        _ => false,
    };
    let mut whole: Vec<VirtAddr> =
        cells.iter().filter(|cell| is_whole(cell)).map(|&(addr, _)| addr).collect();
    whole.dedup();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_whole_or_in_two_halves() {
        let (half, all) = (Width::B32, Width::B64);
        let whole = |cells: &[(u64, Width)]| {
            whole_counters(cells.iter().map(|&(addr, width)| (VirtAddr(addr), width)).collect())
        };
        let cells = [(0x1000, all), (0x2004, half), (0x2000, half), (0x2000, half)];
        assert_eq!(whole(&cells), [VirtAddr(0x1000), VirtAddr(0x2000)]);
        assert!(whole(&[(0x3000, half), (0x4008, Width::B16)]).is_empty(), "a half alone is no counter");
    }
}

//! Finds where a kernel keeps the last time stamp it read.
//!
//! Code that measures time subtracts a stored counter value from the counter, or compares the two.
//! A memory dump has no time stamp counter; the stored value is the best answer it holds, and this
//! is how it is found without knowing the kernel.

use ir::{Kind, Op, Width};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::build::{operand_var, passes_on};
use crate::graph::{Adjacency, Graph};
use crate::recording::Code;

/// The cells, by address in the training system; user windows onto kernel data (`shared`) are given
/// by their kernel address.
pub(crate) fn cells(
    graph: &Graph,
    code: &[Code],
    shared: &FxHashMap<u64, u64>,
    in_image: &dyn Fn(u64) -> bool,
) -> Vec<u64> {
    let adjacency = graph.adjacency();
    let op = |number: u32| -> Option<Op> {
        let site = graph.sites[graph.op_site[number as usize] as usize];
        Some(code.get(site.code as usize)?.insn.ops[(number - site.first_op) as usize])
    };
    let mut counter: FxHashSet<u32> = FxHashSet::default();
    loop {
        let before = counter.len();
        for number in 0..graph.op_site.len() as u32 {
            let Some(it) = op(number) else { continue };
            let passed =
                passes_on(it.kind) && adjacency.of(number).iter().any(|definer| counter.contains(definer));
            if it.kind == Kind::Tsc || passed {
                counter.insert(number);
            }
        }
        if before == counter.len() {
            break;
        }
    }
    let mut cells: Vec<(u64, Width)> = Vec::new();
    for number in 0..graph.op_site.len() as u32 {
        let Some(it) = op(number) else { continue };
        if !matches!(it.kind, Kind::Sub | Kind::CarrySub) {
            continue;
        }
        for (mine, other) in [(0, 1), (1, 0)] {
            let is_counter =
                definers(&adjacency, &op, number, it, mine).iter().any(|definer| counter.contains(definer));
            if !is_counter {
                continue;
            }
            let mut stored = definers(&adjacency, &op, number, it, other);
            for _ in 0..8 {
                stored = stored
                    .iter()
                    .flat_map(|&at| match op(at) {
                        Some(it) if it.kind == Kind::Mov => adjacency.of(at).to_vec(),
                        _ => vec![at],
                    })
                    .collect();
            }
            let loads =
                stored.iter().filter_map(|&at| Some((at, op(at).filter(|it| it.kind == Kind::Load)?.width)));
            for (addr, width) in loads.filter_map(|(at, width)| Some((graph.addresses.get(&at)?, width))) {
                let cell = shared.get(&(addr & !4095)).map_or(*addr, |alias| alias | addr & 4095);
                // What was allocated at run time lies elsewhere in another boot.
                if in_image(cell) {
                    cells.push((cell, width));
                }
            }
        }
    }
    whole(cells)
}

/// The addresses of whole counters. 32-bit code reads a counter in halves, the upper one right
/// behind the lower; a half without the other does not tell the counter.
fn whole(mut cells: Vec<(u64, Width)>) -> Vec<u64> {
    cells.sort_unstable_by_key(|&(addr, width)| (addr, width.bytes()));
    cells.dedup();
    let half = |addr: u64| cells.contains(&(addr, Width::B32));
    let is_whole = |&(addr, width): &(u64, Width)| match width {
        Width::B64 => true,
        Width::B32 => half(addr + 4) && !half(addr.wrapping_sub(4)),
        _ => false,
    };
    let mut whole: Vec<u64> = cells.iter().filter(|cell| is_whole(cell)).map(|&(addr, _)| addr).collect();
    whole.dedup();
    whole
}

/// What defines one operand of an operation.
fn definers(
    adjacency: &Adjacency,
    op: &dyn Fn(u32) -> Option<Op>,
    number: u32,
    it: Op,
    operand: usize,
) -> Vec<u32> {
    let Some(var) = operand_var(it.args[operand]) else { return Vec::new() };
    adjacency
        .of(number)
        .iter()
        .copied()
        .filter(|&definer| op(definer).is_some_and(|it| it.def() == Some(var)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_whole_or_in_two_halves() {
        let (half, all) = (Width::B32, Width::B64);
        assert_eq!(
            whole(vec![(0x1000, all), (0x2004, half), (0x2000, half), (0x2000, half)]),
            [0x1000, 0x2000]
        );
        assert_eq!(
            whole(vec![(0x3000, half), (0x4008, Width::B16)]),
            [0u64; 0],
            "a half alone is no counter"
        );
    }
}

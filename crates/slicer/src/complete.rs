//! Adds code that no recording executed where it only goes on between executed code: one more turn
//! of a loop, the other entry of a hash chain.
//!
//! The slice follows registers and locals statically, so a path that training did not take is as
//! good as one it took, as long as its instructions only compute, load and store, and come back to
//! executed code or return. The start snapshot has them. What calls, jumps to computed places or
//! asks the world stays unexplored: those are the slow paths, and a whole run answers for them.

use ir::{Arg, Class, Kind, Op};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::cfg::CodeSource;
use crate::frames::Functions;
use crate::graph::Graph;
use crate::recording::{Code, CodeTable};
use crate::slice::Slice;

/// Instructions on the way from a branch back to executed code, at most.
const MAX_DETOUR: usize = 96;
/// The same where some sides do not come back: a check or two more.
const MAX_CHECK: usize = 16;

/// Adds what the slice's branches may lead to. Returns the functions that changed.
pub(crate) fn complete(
    graph: &mut Graph,
    table: &mut CodeTable,
    functions: &Functions,
    source: &dyn CodeSource,
    slice: &Slice,
) -> Vec<u32> {
    let mut changed = Vec::new();
    for func in (0..graph.functions.len() as u32).filter(|&func| slice.functions[func as usize]) {
        let sites = graph.functions[func as usize].sites.clone();
        let mut by_pc: FxHashMap<u64, u32> = FxHashMap::default();
        for &site in &sites {
            if let Some(code) = table.code.get(graph.sites[site as usize].code as usize) {
                by_pc.insert(code.insn.pc, site);
            }
        }
        let tails: Tails =
            sites.iter().flat_map(|&site| graph.flow[site as usize].tails.iter().copied()).collect();
        let mut any = false;
        for site in sites.into_iter().filter(|&site| slice.sites[site as usize]) {
            let info = graph.sites[site as usize];
            let Some(code) = table.code.get(info.code as usize).cloned() else { continue };
            let last = (info.first_op + info.ops.max(1) - 1) as usize;
            let decides = code.insn.ops.last().is_some_and(|op| op.kind == Kind::BranchIf);
            if !decides || !slice.ops.get(last).is_some_and(|included| *included) {
                continue;
            }
            for target in targets(&code.insn) {
                if graph.flow[site as usize].tails.iter().any(|tail| tail.0 == target) {
                    continue;
                }
                let known = Known { functions, source, tails: &tails };
                let detour = Detour::find(&by_pc, &known, code.mode, target);
                any |= detour
                    .is_some_and(|detour| detour.add(graph, table, &mut by_pc, &tails, func, (site, target)));
            }
        }
        if any {
            changed.push(func);
        }
    }
    changed
}

/// Plain code between a branch and executed code, or the function's end.
struct Detour {
    insns: Vec<(lift::Insn, Vec<u8>)>,
    mode: lift::Mode,
}

/// How frames that began in a function go on as others, by address.
type Tails = FxHashMap<u64, u32>;

impl Detour {
    /// What lies at an address, if all ways on from there come back to executed code of the
    /// function or end it in a way that was seen. A few instructions that store nothing are taken
    /// also if they have sides that do not: these stay unexplored.
    fn find(by_pc: &FxHashMap<u64, u32>, known: &Known<'_>, mode: lift::Mode, start: u64) -> Option<Self> {
        let mut seen: Vec<(lift::Insn, Vec<u8>)> = Vec::new();
        let mut next: FxHashMap<u64, Vec<u64>> = FxHashMap::default();
        let (mut work, mut back) = (vec![start], Vec::new());
        while let Some(pc) = work.pop() {
            if by_pc.contains_key(&pc) || next.contains_key(&pc) || known.functions.is_entry(pc) {
                continue;
            }
            if seen.len() >= MAX_DETOUR {
                return None;
            }
            let Some(insn) = known.source.insn(mode, pc).filter(|insn| is_plain(&insn.ops)) else { continue };
            let bytes = known.source.bytes(pc, usize::from(insn.len))?;
            // Only a jump of its own can end the function: a branch to another one stays what it
            // is.
            let ends = jump(&insn).is_some_and(|target| known.tails.contains_key(&target));
            let returns = insn.ops.last().is_some_and(|op| op.kind == Kind::Ret);
            let ways = if ends { Vec::new() } else { targets(&insn) };
            if ends || returns || ways.iter().any(|way| by_pc.contains_key(way)) {
                back.push(pc);
            }
            work.extend(&ways);
            next.insert(pc, ways);
            seen.push((insn, bytes));
        }
        let mut comes_back: FxHashSet<u64> = back.into_iter().collect();
        loop {
            let before = comes_back.len();
            for (pc, ways) in &next {
                if ways.iter().any(|way| comes_back.contains(way)) {
                    comes_back.insert(*pc);
                }
            }
            if before == comes_back.len() {
                break;
            }
        }
        let open = next.iter().any(|(pc, ways)| {
            let known = |way: &u64| by_pc.contains_key(way) || comes_back.contains(way);
            !comes_back.contains(pc) || !ways.iter().all(known)
        });
        seen.retain(|(insn, _)| comes_back.contains(&insn.pc));
        let stores = seen.iter().any(|(insn, _)| insn.ops.iter().any(|op| op.kind == Kind::Store));
        let fits = !open || seen.len() <= MAX_CHECK && !stores;
        (fits && (by_pc.contains_key(&start) || comes_back.contains(&start)))
            .then_some(Self { insns: seen, mode })
    }

    /// Makes it a part of the function, entered from `site`. Returns whether that is new.
    fn add(
        self,
        graph: &mut Graph,
        table: &mut CodeTable,
        by_pc: &mut FxHashMap<u64, u32>,
        tails: &Tails,
        func: u32,
        (site, start): (u32, u64),
    ) -> bool {
        let mut new = Vec::new();
        for (insn, bytes) in self.insns {
            let (pc, ops, next) = (insn.pc, insn.ops.len(), targets(&insn));
            let tail = jump(&insn).and_then(|target| Some((target, *tails.get(&target)?)));
            let returns = insn.ops.last().is_some_and(|op| op.kind == Kind::Ret);
            let stores: Vec<usize> = (0..ops).filter(|&at| insn.ops[at].kind == Kind::Store).collect();
            let number = table.add(Code { insn, bytes, mode: self.mode });
            let added = graph.site(func, number, ops);
            graph.mark_executed(added);
            by_pc.insert(pc, added);
            let first = graph.sites[added as usize].first_op;
            // Whoever reads what it stores reads memory: the store only has to be there.
            graph.forced.extend(stores.into_iter().map(|at| first + at as u32));
            graph.flow[added as usize].returns = returns;
            match tail {
                Some(tail) => {
                    graph.flow[added as usize].tails.push(tail);
                    graph.functions[tail.1 as usize].creators.insert(first + ops as u32 - 1);
                }
                None => new.push((added, next)),
            }
        }
        for (from, next) in &new {
            for pc in next {
                if let Some(&to) = by_pc.get(pc) {
                    join(graph, *from, to);
                }
            }
        }
        join(graph, site, by_pc[&start])
    }
}

/// What is known of the code around.
struct Known<'k> {
    functions: &'k Functions,
    source: &'k dyn CodeSource,
    tails: &'k Tails,
}

/// Where an instruction that is nothing but a jump leads.
fn jump(insn: &lift::Insn) -> Option<u64> {
    match insn.ops.as_slice() {
        [op] if op.kind == Kind::Jump => match op.args[0] {
            Arg::Const(target) => Some(target),
            Arg::Var(_) | Arg::Moved(_) => None,
        },
        _ => None,
    }
}

/// Notes that one site may follow another. Returns whether that is new.
fn join(graph: &mut Graph, from: u32, to: u32) -> bool {
    let next = &mut graph.flow[from as usize].next;
    let new = !next.contains(&to);
    if new {
        next.push(to);
    }
    new
}

/// Where an instruction leads within its function.
fn targets(insn: &lift::Insn) -> Vec<u64> {
    let next = insn.pc.wrapping_add(u64::from(insn.len));
    let mut targets = Vec::new();
    let mut falls = true;
    for op in insn.ops.iter().filter(|op| op.class() == Class::Control) {
        match (op.kind, op.args[0], op.args[1]) {
            (Kind::BranchIf, _, Arg::Const(target)) => targets.push(target),
            (Kind::Jump, Arg::Const(target), _) => {
                targets.push(target);
                falls = false;
            }
            _ => falls = false,
        }
    }
    if falls {
        targets.push(next);
    }
    targets
}

/// Whether all that an instruction does is known from its operations.
fn is_plain(ops: &[Op]) -> bool {
    ops.iter().all(|op| match op.class() {
        Class::Pure | Class::Load | Class::Store => true,
        Class::Control => match op.kind {
            Kind::BranchIf => matches!(op.args[1], Arg::Const(_)),
            Kind::Jump => matches!(op.args[0], Arg::Const(_)),
            kind => kind == Kind::Ret,
        },
        Class::Effect | Class::Nondet => false,
    })
}

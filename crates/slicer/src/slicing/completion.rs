//! Static path completion: code that no recording executed becomes part of its function where it
//! only goes on between executed code.
//!
//! Examples are one more iteration of a loop or another entry of a hash chain: the slice follows
//! registers and locals statically, so a path that training did not take can be treated like one
//! that it took, as long as its instructions only compute, load and store, and come back to
//! executed code or return. The start snapshot has them. A side that calls, jumps to a computed
//! address or asks the environment stays unexplored: such sides are slow paths, and a whole run
//! answers for them.

use ir::{Arg, Class, Kind, Op};
use machine::VirtAddr;
use rustc_hash::{FxHashMap, FxHashSet};

use super::slice::Slice;
use crate::analysis::solver::closure;
use crate::context::{Contexts, Entries};
use crate::dependence::Graph;
use crate::dependence::graph::Body;
use crate::vocabulary::{Code, CodeSource, CodeTable, ContextId, SiteId};

/// The most unexecuted instructions that are followed from a branch's side.
const MAX_DETOUR: usize = 96;
/// The most instructions of a detour some of whose sides do not come back: a check or two.
const MAX_CHECK: usize = 16;

/// Adds the detours that the slice's branches may lead to. Returns the contexts that changed.
pub fn complete(
    graph: &mut Graph,
    table: &mut CodeTable,
    contexts: &Contexts,
    source: &dyn CodeSource,
    slice: &Slice,
) -> Vec<ContextId> {
    let mut changed = Vec::new();
    for context in slice.contexts.iter() {
        let mut code = Executed::of(graph, table, context);
        let mut any = false;
        for site in graph.contexts[context].sites.clone() {
            if !slice.sites.contains(site) || !decides(graph, table, slice, site) {
                continue;
            }
            let Some(branch) = graph.code(table, site).cloned() else { continue };
            for target in targets(&branch.insn) {
                if graph.flow[site].tail(target).is_some() {
                    continue;
                }
                let known = Known { entries: &contexts.entries, source, executed: &code };
                if let Some(detour) = Detour::find(&known, branch.mode, target) {
                    any |= detour.add(graph, table, &mut code, context, (site, target));
                }
            }
        }
        if any {
            changed.push(context);
        }
    }
    changed
}

/// Whether a site ends in a branch that is in the slice.
fn decides(graph: &Graph, table: &CodeTable, slice: &Slice, site: SiteId) -> bool {
    let ops = graph.ops(table, site);
    ops.last().is_some_and(|op| op.kind == Kind::BranchIf)
        && slice.ops.contains(graph.sites[site].op(ops.len() - 1))
}

/// What was executed of a context.
struct Executed {
    sites: FxHashMap<VirtAddr, SiteId>,
    /// The contexts that it was seen to go on as by tail calls, by address.
    tails: FxHashMap<VirtAddr, ContextId>,
}

impl Executed {
    fn of(graph: &Graph, table: &CodeTable, context: ContextId) -> Self {
        let sites = &graph.contexts[context].sites;
        let by_pc = sites.iter().filter_map(|&site| Some((graph.code(table, site)?.pc(), site)));
        let tails = sites.iter().flat_map(|&site| graph.flow[site].tails.iter().copied());
        Self { sites: by_pc.collect(), tails: tails.collect() }
    }
}

/// What is known of the code around a branch.
struct Known<'k> {
    entries: &'k Entries,
    source: &'k dyn CodeSource,
    executed: &'k Executed,
}

/// An instruction of a detour.
struct Unexecuted {
    insn: lift::Insn,
    bytes: Vec<u8>,
}

/// Plain code between a branch and executed code, or the function's end.
struct Detour {
    insns: Vec<Unexecuted>,
    mode: lift::Mode,
}

/// Unexecuted code that is reached from an address, and where it leads.
#[derive(Default)]
struct Reached {
    insns: Vec<Unexecuted>,
    /// Where each instruction leads within its function.
    ways: FxHashMap<VirtAddr, Vec<VirtAddr>>,
    /// Instructions that lead to executed code, return, or end the function by a tail call that was
    /// seen.
    back: Vec<VirtAddr>,
}

impl Reached {
    /// The code reached from `start`; `None` if it is too much, or its bytes are not known.
    fn from(known: &Known<'_>, mode: lift::Mode, start: VirtAddr) -> Option<Self> {
        let executed = known.executed;
        let mut reached = Self::default();
        // Depth first: the order decides how sites are numbered.
        let mut stack = vec![start];
        while let Some(pc) = stack.pop() {
            let seen = reached.ways.contains_key(&pc);
            if seen || executed.sites.contains_key(&pc) || known.entries.is_entry(pc) {
                continue;
            }
            if reached.insns.len() >= MAX_DETOUR {
                return None;
            }
            let insn = known.source.insn(mode, pc).filter(is_plain);
            let Some(insn) = insn else { continue };
            let bytes = known.source.bytes(pc, usize::from(insn.len))?;
            // Only an unconditional jump can be a tail call here: a branch to another function
            // stays unexplored.
            let ends = jump(&insn).is_some_and(|target| executed.tails.contains_key(&target));
            let ways = if ends { Vec::new() } else { targets(&insn) };
            if ends || returns(&insn) || ways.iter().any(|way| executed.sites.contains_key(way)) {
                reached.back.push(pc);
            }
            stack.extend(&ways);
            reached.ways.insert(pc, ways);
            reached.insns.push(Unexecuted { insn, bytes });
        }
        Some(reached)
    }

    /// The instructions from which some path leads back.
    fn coming_back(&self) -> FxHashSet<VirtAddr> {
        let mut before: FxHashMap<VirtAddr, Vec<VirtAddr>> = FxHashMap::default();
        for (&pc, ways) in &self.ways {
            ways.iter().for_each(|&way| before.entry(way).or_default().push(pc));
        }
        closure(self.back.iter().copied(), |pc: VirtAddr| before.get(&pc).cloned().unwrap_or_default())
    }
}

impl Detour {
    /// The detour at an address, if all paths from there come back to executed code of the
    /// function, return, or end it by a tail call that was seen. A few instructions that store
    /// nothing are taken even if they have sides that do not come back: these sides stay
    /// unexplored.
    fn find(known: &Known<'_>, mode: lift::Mode, start: VirtAddr) -> Option<Self> {
        let executed = &known.executed.sites;
        let reached = Reached::from(known, mode, start)?;
        let comes_back = reached.coming_back();
        let fine = |way: &VirtAddr| executed.contains_key(way) || comes_back.contains(way);
        let open = reached.ways.iter().any(|(pc, ways)| !comes_back.contains(pc) || !ways.iter().all(fine));
        let mut insns = reached.insns;
        insns.retain(|it| comes_back.contains(&VirtAddr(it.insn.pc)));
        let stores = insns.iter().any(|it| it.insn.ops.iter().any(|op| op.kind == Kind::Store));
        let fits = !open || insns.len() <= MAX_CHECK && !stores;
        (fits && fine(&start)).then_some(Self { insns, mode })
    }

    /// Adds the detour to the function; `site` branches to its first address `start`. Returns
    /// whether that is new.
    fn add(
        self,
        graph: &mut Graph,
        table: &mut CodeTable,
        code: &mut Executed,
        context: ContextId,
        (site, start): (SiteId, VirtAddr),
    ) -> bool {
        let mut new = Vec::new();
        for Unexecuted { insn, bytes } in self.insns {
            let (pc, count, next) = (VirtAddr(insn.pc), insn.ops.len(), targets(&insn));
            let tail = jump(&insn).and_then(|target| Some((target, *code.tails.get(&target)?)));
            let returns = returns(&insn);
            let stores: Vec<usize> = (0..count).filter(|&at| insn.ops[at].kind == Kind::Store).collect();
            let number = table.add(Code { insn, bytes, mode: self.mode });
            let added = graph.site(context, Body::Insn(number), count);
            graph.mark_executed(added);
            code.sites.insert(pc, added);
            let info = graph.sites[added];
            // No recording joined a load with these stores, so nothing would bring them into the
            // slice.
            graph.unexecuted_stores.extend(stores.into_iter().map(|at| info.op(at)));
            graph.flow[added].returns = returns;
            match tail {
                Some(tail) => {
                    graph.flow[added].tails.push(tail);
                    graph.contexts[tail.1].call_sites.insert(info.op(count - 1));
                }
                None => new.push((added, next)),
            }
        }
        for (from, next) in &new {
            for to in next.iter().filter_map(|pc| code.sites.get(pc)) {
                graph.flow[*from].add_next(*to);
            }
        }
        graph.flow[site].add_next(code.sites[&start])
    }
}

/// Where an instruction that is nothing but a jump leads.
fn jump(insn: &lift::Insn) -> Option<VirtAddr> {
    match insn.ops.as_slice() {
        [Op { kind: Kind::Jump, args: [Arg::Const(target), ..], .. }] => Some(VirtAddr(*target)),
        _ => None,
    }
}

fn returns(insn: &lift::Insn) -> bool {
    insn.ops.last().is_some_and(|op| op.kind == Kind::Ret)
}

/// Where an instruction leads within its function.
fn targets(insn: &lift::Insn) -> Vec<VirtAddr> {
    lift::control(insn).successors().map(VirtAddr).collect()
}

/// Whether an instruction only computes, loads, stores, and goes on to known addresses or returns.
fn is_plain(insn: &lift::Insn) -> bool {
    let acts = |op: &Op| matches!(op.class(), Class::Effect | Class::Nondet);
    lift::control(insn).is_plain() && !insn.ops.iter().any(acts)
}

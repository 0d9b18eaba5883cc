//! Static path completion: code that no recording executed becomes part of its function where it
//! only goes on between executed code.
//!
//! Examples are one more iteration of a loop or another entry of a hash chain: the slice follows
//! registers and locals statically, so a path that training did not take can be treated like one
//! that it took, as long as its instructions only compute, load and store, and come back to
//! executed code or return. The start snapshot has them. A side that calls, jumps to a computed
//! address or asks the environment stays unexplored: such sides are slow paths, and a whole run
//! answers for them. So does one that may read a register which its function does not take
//! ([`parameters`](super::parameters)).

use ir::Kind;
use machine::VirtAddr;

use super::detour::{Detour, Executed, Known, Unexecuted, jump, returns, targets};
use super::parameters::Parameters;
use super::slice::Slice;
use crate::analysis::address_shape::{AddressBase, moved, shape};
use crate::analysis::inverse::Inverse;
use crate::context::Contexts;
use crate::dependence::graph::Body;
use crate::dependence::{Graph, Locals};
use crate::vocabulary::{Code, CodeSource, CodeTable, ContextId, SiteId};

/// Adds the detours that the slice's branches may lead to. Returns the contexts that changed.
pub fn complete(
    graph: &mut Graph,
    table: &mut CodeTable,
    contexts: &Contexts,
    source: &dyn CodeSource,
    (slice, parameters): (&Slice, &Parameters),
) -> Vec<ContextId> {
    let mut changed = Vec::new();
    let inverse = Inverse::of(graph);
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
                let Some(detour) = Detour::find(&known, branch.mode, target) else { continue };
                if !parameters.lack(graph, table, &inverse, site, &detour.uses) {
                    any |= add(detour, graph, table, &mut code, context, (site, target));
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

impl Executed {
    fn of(graph: &Graph, table: &CodeTable, context: ContextId) -> Self {
        let sites = &graph.contexts[context].sites;
        let by_pc = sites.iter().filter_map(|&site| Some((graph.code(table, site)?.pc(), site)));
        let tails = sites.iter().flat_map(|&site| graph.flow[site].tails.iter().copied());
        Self { sites: by_pc.collect(), tails: tails.collect() }
    }
}

/// Adds a detour to its function; `site` branches to its first address `start`. Returns whether
/// that is new.
fn add(
    detour: Detour,
    graph: &mut Graph,
    table: &mut CodeTable,
    code: &mut Executed,
    context: ContextId,
    (site, start): (SiteId, VirtAddr),
) -> bool {
    let mut new = Vec::new();
    for Unexecuted { insn, bytes } in detour.insns {
        let (pc, count, next) = (VirtAddr(insn.pc), insn.ops.len(), targets(&insn));
        let tail = jump(&insn).and_then(|target| Some((target, *code.tails.get(&target)?)));
        let returns = returns(&insn);
        let stores: Vec<usize> = (0..count).filter(|&at| insn.ops[at].kind == Kind::Store).collect();
        let number = table.add(Code { insn, bytes, mode: detour.mode });
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
    let first = code.sites[&start];
    note_locals(graph, table, (site, first));
    graph.flow[site].add_next(first)
}

/// Notes where in the function's frame the accesses of a new detour go, which is what reaching
/// definitions of locals need: from a branch on, whose stack pointer training saw, instruction by
/// instruction.
fn note_locals(graph: &mut Graph, table: &CodeTable, (branch, first): (SiteId, SiteId)) {
    let Some(Locals::At(depth)) = graph.depths[branch] else { return };
    let mut waiting = vec![(first, depth)];
    while let Some((site, depth)) = waiting.pop() {
        if graph.depths[site].is_some() {
            continue;
        }
        graph.depths[site] = Some(Locals::At(depth));
        let (info, ops) = (graph.sites[site], graph.ops(table, site).to_vec());
        let accesses = ops.iter().enumerate().filter(|(_, op)| matches!(op.kind, Kind::Load | Kind::Store));
        for (at, _) in accesses {
            if let AddressBase::Local(distance) = shape(&ops, at).base {
                let place = distance.map_or(Locals::Varying, |it| Locals::At(depth.wrapping_add(it)));
                graph.locals.insert(info.op(at), place);
            }
        }
        if let Some(by) = moved(&ops) {
            let depth = depth.wrapping_add(by.cast_signed());
            waiting.extend(graph.flow[site].next.iter().map(|&next| (next, depth)));
        }
    }
}

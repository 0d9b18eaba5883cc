//! The closed backward slice: a search over the dependence graph.
//!
//! An operation in the slice brings in what it uses (as recordings saw it and, except under
//! `Policy::Assume`, on every path: [`reaching`](crate::analysis::reaching)), the branches it is
//! control dependent on in its context, and the call sites of the context, which are the calls and
//! tail jumps that enter it:
//!
//! ```text
//! slice = least set with: criteria, stores of completed paths, the end's site,
//!         definers(o), controls(site(o)), call_sites(context(o))   for each o in it
//!         guards of it, except under Policy::Assume
//!         what gives its contexts a new stack, except under Policy::Assume
//!         all decisions of its contexts, under Policy::Whole
//! ```
//!
//! The set only grows and is bounded by the operations, so the search ends. Without guards its cost
//! is linear in the edges and in the values that `reaching` follows.

use ir::{Arg, Class, Kind};
use rustc_hash::FxHashMap;

use super::guards::Guards;
use super::slice::Slice;
use crate::analysis::cfg::{Cfg, CfgInput};
use crate::analysis::reaching::Reaching;
use crate::dependence::graph::Adjacency;
use crate::vocabulary::{ContextId, IdSet, OpId, Policy, SiteId, Table};

struct Search<'s> {
    program: &'s CfgInput<'s>,
    policy: Policy,
    adjacency: &'s Adjacency,
    reaching: Reaching<'s>,
    /// What gives each context a new stack.
    stacks: FxHashMap<ContextId, Vec<OpId>>,
    slice: Slice,
    work: Vec<OpId>,
}

/// Slices the graph backward from its criteria and its end mark. `cfgs` are the control-flow graphs
/// that are known already.
#[must_use]
pub fn search(program: &CfgInput<'_>, policy: Policy, cfgs: Table<ContextId, Option<Cfg>>) -> Slice {
    let graph = program.graph;
    let adjacency = graph.adjacency();
    let mut search = Search::new(program, &adjacency, policy, cfgs);
    let criteria = graph.criteria.iter().chain(&graph.unexecuted_stores);
    criteria.for_each(|&op| search.add(op));
    if let Some(end) = graph.end {
        search.enter_site(end.site);
    }
    let mut guards = (policy != Policy::Assume).then(|| Guards::new(program));
    loop {
        search.run();
        let sites = guards.as_mut().map_or_else(Vec::new, |guards| guards.sites(program, &search.slice));
        let mut any = false;
        for site in sites {
            any |= search.add_decisions(site);
        }
        if !any {
            return search.slice;
        }
    }
}

/// What some operations of a slice depend on, by data and by the branches that decide whether they
/// are executed: the part of the slice that they need by themselves. What belongs to every slice
/// (the end mark, guards, stores of completed paths) is not in it.
#[must_use]
pub fn part(
    program: &CfgInput<'_>,
    adjacency: &Adjacency,
    policy: Policy,
    slice: &mut Slice,
    criteria: impl IntoIterator<Item = OpId>,
) -> IdSet<OpId> {
    // All decisions of a context are guards too.
    let policy = if policy == Policy::Whole { Policy::Guard } else { policy };
    let mut search = Search::new(program, adjacency, policy, std::mem::take(&mut slice.cfgs));
    criteria.into_iter().for_each(|op| search.add(op));
    search.run();
    slice.cfgs = search.slice.cfgs;
    search.slice.ops
}

impl<'s> Search<'s> {
    fn new(
        program: &'s CfgInput<'s>,
        adjacency: &'s Adjacency,
        policy: Policy,
        cfgs: Table<ContextId, Option<Cfg>>,
    ) -> Self {
        let graph = program.graph;
        let mut stacks: FxHashMap<ContextId, Vec<OpId>> = FxHashMap::default();
        for &op in graph.stacks.keys() {
            stacks.entry(graph.sites[graph.op_site[op]].context).or_default().push(op);
        }
        Self {
            program,
            policy,
            adjacency,
            reaching: Reaching::new(graph, program.code),
            stacks,
            slice: Slice {
                ops: IdSet::new(graph.op_site.len()),
                sites: IdSet::new(graph.sites.len()),
                contexts: IdSet::new(graph.contexts.len()),
                cfgs,
            },
            work: Vec::new(),
        }
    }

    fn add(&mut self, op: OpId) {
        if self.slice.ops.insert(op) {
            self.work.push(op);
        }
    }

    /// Follows everything that was added.
    fn run(&mut self) {
        let mut found = Vec::new();
        loop {
            while let Some(op) = self.work.pop() {
                found.extend_from_slice(self.adjacency.of(op));
                if self.policy != Policy::Assume {
                    found.extend(self.program.graph.may.get(&op).into_iter().flatten());
                    self.reaching.uses(op, &mut found);
                }
                found.drain(..).for_each(|op| self.add(op));
                self.enter_site(self.program.graph.op_site[op]);
            }
            if !self.reaching.follow(&mut found) {
                return;
            }
            found.drain(..).for_each(|op| self.add(op));
        }
    }

    /// A site joins the slice, and with it its controlling branches and the call sites of its
    /// context.
    fn enter_site(&mut self, site: SiteId) {
        if !self.slice.sites.insert(site) {
            return;
        }
        let context = self.program.graph.sites[site].context;
        self.enter_context(context);
        let cfg = self.slice.cfgs[context].as_ref();
        let controls = cfg.and_then(|cfg| cfg.controls.get(&site).cloned());
        for branch in controls.unwrap_or_default() {
            self.add_decisions(branch);
        }
    }

    fn enter_context(&mut self, context: ContextId) {
        if !self.slice.contexts.insert(context) {
            return;
        }
        let program = self.program;
        self.slice.cfgs[context].get_or_insert_with(|| Cfg::build(program, context));
        for &op in &program.graph.contexts[context].call_sites {
            self.add(op);
        }
        if self.policy != Policy::Assume {
            self.stacks.remove(&context).into_iter().flatten().for_each(|op| self.add(op));
        }
        if self.policy == Policy::Whole {
            for &site in &program.graph.contexts[context].sites {
                self.add_decisions(site);
            }
        }
    }

    /// Adds the operations by which a site decides where to go. Returns whether there were new
    /// ones.
    fn add_decisions(&mut self, site: SiteId) -> bool {
        let info = self.program.graph.sites[site];
        let Some(code) = self.program.graph.code(self.program.code, site) else { return false };
        let mut added = false;
        for (at, op) in code.insn.ops.iter().enumerate() {
            let computed = op.class() == Class::Control && matches!(op.args[0], Arg::Var(_));
            let decides = match op.kind {
                Kind::BranchIf => true,
                // A pseudo call only jumps; a call comes back, wherever it went.
                Kind::Call => computed && self.program.contexts.entries.is_pseudo_call(code.pc()),
                _ => computed,
            };
            if decides && !self.slice.ops.contains(info.op(at)) {
                self.add(info.op(at));
                added = true;
            }
        }
        added
    }
}

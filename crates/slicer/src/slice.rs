//! The closed backward slice: a search over the dependence graph.
//!
//! An operation in the slice brings in what it uses, the branches it is control dependent on in its
//! function, and the calls and tail jumps that enter the function. Under [`Policy::Guard`] a
//! one-sided branch also joins when its unseen side may define a register that the slice uses where
//! that side meets known code again, or may store where the slice loads.

use ir::{Arg, Class, Kind};
use rustc_hash::FxHashSet;

use crate::cfg::{Cfg, CodeSource, Node};
use crate::fields::{self, Forms};
use crate::frames::Functions;
use crate::graph::{Adjacency, Graph};
use crate::live::Liveness;
use crate::reaching::Reaching;
use crate::recording::Code;

/// What to do about branches that training saw going one way only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// They go the same way always, as in 2011. Fast and sometimes silently wrong.
    Assume,
    /// Those that can matter become guards.
    #[default]
    Guard,
    /// Every one in a function of the slice becomes a guard.
    Whole,
}

impl Policy {
    /// The policy with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Policy::Assume, Policy::Guard, Policy::Whole].into_iter().find(|policy| policy.name() == name)
    }

    /// The name in program files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Assume => "assume",
            Policy::Guard => "guard",
            Policy::Whole => "whole",
        }
    }
}

/// A slice.
pub struct Slice {
    /// Which operations are in it.
    pub ops: Vec<bool>,
    /// Which sites have one.
    pub sites: Vec<bool>,
    /// Which functions have one.
    pub functions: Vec<bool>,
    /// Control-flow graphs of those functions.
    pub cfgs: Vec<Option<Cfg>>,
}

struct Search<'s> {
    graph: &'s Graph,
    code: &'s [Code],
    functions: &'s Functions,
    source: Option<&'s dyn CodeSource>,
    adjacency: Adjacency,
    reaching: Reaching<'s>,
    policy: Policy,
    live: Liveness,
    slice: Slice,
    work: Vec<u32>,
}

/// Slices the graph backward from its criteria and its end mark. `cfgs` are graphs of functions
/// that are known already.
#[must_use]
pub fn slice(
    graph: &Graph,
    code: &[Code],
    functions: &Functions,
    source: &dyn CodeSource,
    policy: Policy,
    cfgs: Vec<Option<Cfg>>,
) -> Slice {
    let mut search = Search {
        graph,
        code,
        functions,
        source: (policy != Policy::Assume).then_some(source),
        adjacency: graph.adjacency(),
        reaching: Reaching::new(graph, code),
        policy,
        live: Liveness::new(graph, code),
        slice: Slice {
            ops: vec![false; graph.op_site.len()],
            sites: vec![false; graph.sites.len()],
            functions: vec![false; graph.functions.len()],
            cfgs,
        },
        work: Vec::new(),
    };
    let mut criteria: Vec<u32> = graph.criteria.iter().chain(&graph.forced).copied().collect();
    criteria.sort_unstable();
    for op in criteria {
        search.add(op);
    }
    if let Some((end, _)) = graph.end {
        search.enter_site(end);
    }
    loop {
        search.run();
        if !search.add_guards() {
            break;
        }
    }
    search.slice
}

impl Search<'_> {
    fn add(&mut self, op: u32) {
        if !self.slice.ops[op as usize] {
            self.slice.ops[op as usize] = true;
            self.work.push(op);
        }
    }

    fn run(&mut self) {
        let mut found = Vec::new();
        loop {
            while let Some(op) = self.work.pop() {
                for at in 0..self.adjacency.of(op).len() {
                    self.add(self.adjacency.of(op)[at]);
                }
                self.enter_site(self.graph.op_site[op as usize]);
                if self.policy != Policy::Assume {
                    self.reaching.uses(op, &mut found);
                    found.drain(..).for_each(|op| self.add(op));
                }
            }
            if !self.reaching.follow(&mut found) {
                break;
            }
            found.drain(..).for_each(|op| self.add(op));
        }
    }

    /// A site joins: its controlling branches and the ways into its function.
    fn enter_site(&mut self, site: u32) {
        if std::mem::replace(&mut self.slice.sites[site as usize], true) {
            return;
        }
        let func = self.graph.sites[site as usize].func;
        if !std::mem::replace(&mut self.slice.functions[func as usize], true) {
            let known = &mut self.slice.cfgs[func as usize];
            if known.is_none() {
                *known = Some(Cfg::build(self.graph, self.code, self.functions, self.source, func));
            }
            for &op in &self.graph.functions[func as usize].creators {
                self.add(op);
            }
            if self.policy == Policy::Whole {
                for &site in &self.graph.functions[func as usize].sites {
                    self.add_decisions(site);
                }
            }
        }
        let controls =
            self.slice.cfgs[func as usize].as_ref().and_then(|cfg| cfg.controls.get(&site).cloned());
        for branch in controls.unwrap_or_default() {
            self.add_decisions(branch);
        }
    }

    /// Adds the operations by which a site decides where to go.
    fn add_decisions(&mut self, site: u32) -> bool {
        let info = self.graph.sites[site as usize];
        let Some(code) = self.code.get(info.code as usize) else { return false };
        let mut added = false;
        for (at, op) in code.insn.ops.iter().enumerate() {
            let decides = match op.kind {
                Kind::BranchIf => true,
                _ => {
                    op.class() == Class::Control && matches!(op.args[0], Arg::Var(_)) && op.kind != Kind::Call
                }
            };
            let number = info.first_op + at as u32;
            if decides && !self.slice.ops[number as usize] {
                self.add(number);
                added = true;
            }
        }
        added
    }

    /// The forms of the slice's loads.
    fn loads(&self) -> Forms {
        let mut forms = Forms::default();
        for (op, _) in self.slice.ops.iter().enumerate().filter(|(_, included)| **included) {
            let info = self.graph.sites[self.graph.op_site[op] as usize];
            let ops = self.graph.ops(self.code, self.graph.op_site[op]);
            let at = op - info.first_op as usize;
            if ops[at].kind == Kind::Load {
                forms.insert(fields::form(ops, at));
            }
        }
        forms
    }

    /// Sites in the slice's functions whose instruction decided in its middle and never went on:
    /// string instructions that always had nothing to do. Where they copy to is unknown, so they
    /// matter.
    fn untouched_strings(&self) -> Vec<u32> {
        let in_slice = (0..self.graph.functions.len()).filter(|&func| self.slice.functions[func]);
        in_slice
            .flat_map(|func| &self.graph.functions[func].sites)
            .copied()
            .filter(|&site| {
                let info = self.graph.sites[site as usize];
                let Some(code) = self.code.get(info.code as usize) else { return false };
                let ops = &code.insn.ops;
                let middle =
                    ops.iter().position(|op| op.kind == Kind::BranchIf).filter(|at| at + 1 < ops.len());
                middle.is_some_and(|at| !self.graph.executed[info.first_op as usize + at + 1])
            })
            .collect()
    }

    /// Adds one-sided branches whose unseen side may change what the slice uses. Returns whether
    /// there were any.
    fn add_guards(&mut self) -> bool {
        if self.policy != Policy::Guard {
            return false;
        }
        self.live.update(self.graph, self.code, &self.slice);
        let live = &self.live;
        let mut guards = FxHashSet::default();
        let loads = self.loads();
        for (func, cfg) in self.slice.cfgs.iter().enumerate() {
            let Some(cfg) = cfg.as_ref().filter(|_| self.slice.functions[func]) else { continue };
            for (site, region) in &cfg.sides {
                let defines = region.defines;
                let matters = region.meets.iter().any(|&meet| match cfg.nodes[meet as usize] {
                    Node::Site(site) => defines.meets(&live.before[site as usize]),
                    _ => defines.without(&self.graph.functions[func].preserved).meets(&live.at_return[func]),
                });
                if matters || region.stores.iter().any(|store| loads.contains(store)) {
                    guards.insert(*site);
                }
            }
        }
        guards.extend(self.untouched_strings());
        let mut guards: Vec<u32> = guards.into_iter().collect();
        guards.sort_unstable();
        let mut any = false;
        for site in guards {
            any |= self.add_decisions(site);
        }
        any
    }
}

//! Which registers the slice still uses, at every site: backward liveness over all contexts of a
//! slice.
//!
//! The lattice is sets of registers, ordered by inclusion; facts are `before(s)`, what is live
//! before a site, and `returns(c)`, what some caller uses when a context returns. For a site `s` in
//! context `c`:
//!
//! ```text
//! before(s) = uses(s) + (after(s) - defines(s)) + around(s)
//! onward(s) = union of before(n) for n in next(s)  +  returns(c) if s ends the frame
//! after(s)  = onward(s) if s calls nobody, else union of before(entry(k)) over its callees k
//!           + before(entry(t)) for its tail calls t
//! around(s) = union of onward(s) & saved(k) over its callees k: given back as they were before the
//!             call instruction, so what it defines itself does not count
//! returns(k) = union of (onward(s) - saved(k)) over calls s of k
//!            + returns(c) over tail calls to k from c
//! ```
//!
//! Transfers are monotone and a fact is a set of at most 256 registers, so it rises at most 256
//! times; in practice sites are looked at two or three times. Only registers are followed; memory
//! is compared by address shapes ([`address_shape`](super::address_shape)).

use ir::{Class, Op};

use super::inverse::Inverse;
use super::solver::{Equations, solve};
use crate::dependence::Graph;
use crate::vocabulary::{CodeTable, ContextId, Id, IdSet, OpId, RegisterSet, SiteId, Table};

/// Live registers.
pub struct Liveness {
    /// Facts of all sites, then of all contexts.
    facts: Table<Point, RegisterSet>,
    /// What each site defines.
    defines: Table<SiteId, RegisterSet>,
    /// Who calls each context, or goes on as it.
    callers: Table<ContextId, Vec<SiteId>>,
    /// The sites that each site follows in its frame.
    previous: Table<SiteId, Vec<SiteId>>,
}

/// Where something is live: before a site, or when a context returns. Sites come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Point(u32);

impl Id for Point {
    fn new(index: usize) -> Self {
        Self(index as u32)
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What liveness asks of a slice.
pub struct Included<'s> {
    /// Its operations.
    pub ops: &'s IdSet<OpId>,
    /// Sites with such operations.
    pub sites: &'s IdSet<SiteId>,
    /// Contexts with such sites.
    pub contexts: &'s IdSet<ContextId>,
}

impl Liveness {
    /// Nothing is live: there is no slice yet.
    #[must_use]
    pub fn new(graph: &Graph, code: &CodeTable) -> Self {
        let Inverse { previous, callers } = Inverse::of(graph);
        Self {
            facts: Table::filled(graph.sites.len() + graph.contexts.len(), RegisterSet::default()),
            defines: graph.sites.ids().map(|site| defines(graph.ops(code, site))).collect(),
            callers,
            previous,
        }
    }

    /// What is live before a site.
    #[must_use]
    pub fn before(&self, site: SiteId) -> &RegisterSet {
        &self.facts[point_before(site)]
    }

    /// What is live when a context returns.
    #[must_use]
    pub fn at_return(&self, context: ContextId) -> &RegisterSet {
        &self.facts[self.point_at_return(context)]
    }

    fn point_at_return(&self, context: ContextId) -> Point {
        Point::new(self.defines.len() + context.index())
    }

    /// Computes the facts of a slice that has grown since the last time.
    ///
    /// Facts of a smaller slice are at most those of a larger one, so they are a start for it.
    pub fn update(&mut self, graph: &Graph, code: &CodeTable, slice: &Included<'_>) {
        let uses = graph.sites.ids().map(|site| uses(graph, code, slice, site)).collect();
        let mut order: Vec<Point> = Vec::new();
        for context in slice.contexts.iter() {
            order.push(self.point_at_return(context));
            order.extend(graph.contexts[context].sites.iter().rev().map(|&site| point_before(site)));
        }
        let mut facts = std::mem::take(&mut self.facts);
        solve(&LiveEquations { live: self, graph, slice, uses: &uses }, &order, &mut facts);
        self.facts = facts;
    }
}

fn point_before(site: SiteId) -> Point {
    Point::new(site.index())
}

/// The equations of one slice.
struct LiveEquations<'l> {
    live: &'l Liveness,
    graph: &'l Graph,
    slice: &'l Included<'l>,
    uses: &'l Table<SiteId, RegisterSet>,
}

type Facts = Table<Point, RegisterSet>;

impl LiveEquations<'_> {
    fn returns(&self, context: ContextId, facts: &Facts) -> RegisterSet {
        facts[self.live.point_at_return(context)]
    }

    /// What is live at a context's entry.
    fn entry(&self, context: ContextId, facts: &Facts) -> RegisterSet {
        self.graph.contexts[context].entry.map_or(RegisterSet::default(), |site| facts[point_before(site)])
    }

    /// What is live where the site's frame goes on behind it, or ends.
    fn onward(&self, site: SiteId, facts: &Facts) -> RegisterSet {
        let flow = &self.graph.flow[site];
        let mut live = RegisterSet::default();
        for &next in &flow.next {
            live.union(&facts[point_before(next)]);
        }
        if flow.returns {
            live.union(&self.returns(self.graph.sites[site].context, facts));
        }
        live
    }

    fn before_site(&self, site: SiteId, facts: &Facts) -> RegisterSet {
        let flow = &self.graph.flow[site];
        let onward = self.onward(site, facts);
        let mut after = if flow.calls.is_empty() { onward } else { RegisterSet::default() };
        let mut around = RegisterSet::default();
        for &(_, callee) in &flow.calls {
            around.union(&onward.intersection(&self.graph.contexts[callee].convention.callee_saved));
            if self.slice.contexts.contains(callee) {
                after.union(&self.entry(callee, facts));
            }
        }
        for &(_, tail) in &flow.tails {
            after.union(&self.entry(tail, facts));
        }
        let mut before = after.without(&self.live.defines[site]);
        before.union(&around);
        before.union(&self.uses[site]);
        before
    }

    fn at_return(&self, context: ContextId, facts: &Facts) -> RegisterSet {
        let saved = &self.graph.contexts[context].convention.callee_saved;
        let mut live = RegisterSet::default();
        for &caller in &self.live.callers[context] {
            let its_context = self.graph.sites[caller].context;
            if !self.slice.contexts.contains(its_context) {
                continue;
            }
            let flow = &self.graph.flow[caller];
            if flow.calls.iter().any(|call| call.1 == context) {
                live.union(&self.onward(caller, facts).without(saved));
            }
            if flow.tails.iter().any(|tail| tail.1 == context) {
                live.union(&self.returns(its_context, facts));
            }
        }
        live
    }
}

impl Equations for LiveEquations<'_> {
    type Node = Point;
    type Fact = RegisterSet;

    fn transfer(&self, point: Point, facts: &Facts) -> RegisterSet {
        match point.index().checked_sub(self.graph.sites.len()) {
            None => self.before_site(SiteId::new(point.index()), facts),
            Some(context) => self.at_return(ContextId::new(context), facts),
        }
    }

    fn readers(&self, point: Point, each: &mut dyn FnMut(Point)) {
        match point.index().checked_sub(self.graph.sites.len()) {
            None => {
                let site = SiteId::new(point.index());
                for &before in &self.live.previous[site] {
                    each(point_before(before));
                    // What is live behind a call is live at its callees' returns.
                    for &(_, callee) in &self.graph.flow[before].calls {
                        each(self.live.point_at_return(callee));
                    }
                }
                let context = self.graph.sites[site].context;
                if self.graph.contexts[context].entry == Some(site) {
                    self.live.callers[context].iter().for_each(|&caller| each(point_before(caller)));
                }
            }
            Some(context) => {
                for &site in &self.graph.contexts[ContextId::new(context)].sites {
                    let flow = &self.graph.flow[site];
                    if flow.returns {
                        each(point_before(site));
                        flow.calls.iter().for_each(|call| each(self.live.point_at_return(call.1)));
                    }
                    flow.tails.iter().for_each(|tail| each(self.live.point_at_return(tail.1)));
                }
            }
        }
    }
}

/// What a site's operations in the slice use before the site defines it.
fn uses(graph: &Graph, code: &CodeTable, slice: &Included<'_>, site: SiteId) -> RegisterSet {
    if !slice.sites.contains(site) {
        return RegisterSet::default();
    }
    let info = graph.sites[site];
    exposed(graph.ops(code, site), |at| slice.ops.contains(info.op(at)))
}

/// What those of an instruction's operations that count use before the instruction has certainly
/// defined it.
pub fn exposed(ops: &[Op], counts: impl Fn(usize) -> bool) -> RegisterSet {
    let (mut uses, mut defined, mut conditional) = (RegisterSet::default(), RegisterSet::default(), false);
    for (at, op) in ops.iter().enumerate() {
        if counts(at) {
            op.uses().filter(|var| var.is_reg() && !defined.has(*var)).for_each(|var| uses.insert(var));
        }
        conditional |= op.class() == Class::Control;
        if let Some(var) = op.def().filter(|var| var.is_reg() && !conditional) {
            defined.insert(var);
        }
    }
    uses
}

/// What operations define whichever way their instruction goes.
#[must_use]
pub fn defines(ops: &[Op]) -> RegisterSet {
    ops.iter().take_while(|op| op.class() != Class::Control).filter_map(Op::def).collect()
}

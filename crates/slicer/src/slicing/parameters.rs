//! What a function takes from its caller in registers, and unexecuted code that reads something
//! else.
//!
//! Where a path of the static graph leads from a function's entry to a use of a register without a
//! definition, reaching definitions go on in the caller. Usually that is a parameter. Yet a
//! compiler also leaves a register undefined on paths on which the program does not read it:
//!
//! ```text
//! seen = 0; for (p = text; *p; p++, seen = 1) if (*p == '%') break;
//! if (seen) start = p_before;          p_before is set in the loop only
//! ```
//!
//! Code that was executed shows which registers a function takes. Unexecuted code that may read
//! another one from the entry on is not taken for more than it is: whatever the callers happen to
//! have in that register, with all that this depends on, is not what it needs.
//!
//! ```text
//! taken(c)      = live before the entry of c, over everything that was executed
//! arrives(v, s) = some path from the entry of s's context to s defines v nowhere
//! ```
//!
//! Cost: one liveness analysis, and one walk over a context for each register that is asked for.

use ir::Var;

use crate::analysis::inverse::Inverse;
use crate::analysis::liveness::{Included, Liveness, defines};
use crate::analysis::solver::Worklist;
use crate::dependence::Graph;
use crate::vocabulary::{CodeTable, ContextId, GENERAL, IdSet, RegisterSet, STACK_POINTER, SiteId, Table};

/// What each context takes from its callers.
pub struct Parameters {
    taken: Table<ContextId, RegisterSet>,
}

impl Parameters {
    /// As everything in the graph shows it.
    #[must_use]
    pub fn of(graph: &Graph, code: &CodeTable) -> Self {
        let ops = IdSet::all(graph.op_site.len());
        let (sites, contexts) = (IdSet::all(graph.sites.len()), IdSet::all(graph.contexts.len()));
        let mut live = Liveness::new(graph, code);
        live.update(graph, code, &Included { ops: &ops, sites: &sites, contexts: &contexts });
        let taken = graph.contexts.values().iter();
        let taken = taken.map(|context| context.entry.map_or(RegisterSet::ALL, |entry| *live.before(entry)));
        Self { taken: taken.collect() }
    }

    /// Whether behind this site one of these registers may still be what it was at its context's
    /// entry, and is none that the context takes.
    #[must_use]
    pub fn lack(
        &self,
        graph: &Graph,
        code: &CodeTable,
        inverse: &Inverse,
        site: SiteId,
        used: &RegisterSet,
    ) -> bool {
        let taken = &self.taken[graph.sites[site].context];
        let own = used.without(taken).without(&defines(graph.ops(code, site)));
        let general = |var: &Var| usize::from(var.0) < GENERAL && *var != STACK_POINTER;
        own.iter().filter(general).any(|var| arrives(graph, code, inverse, site, var))
    }
}

/// Whether a register may be before a site what it was at the entry of the site's context.
fn arrives(graph: &Graph, code: &CodeTable, inverse: &Inverse, site: SiteId, var: Var) -> bool {
    let entry = graph.contexts[graph.sites[site].context].entry;
    let mut list = Worklist::from_iter([site]);
    while let Some(site) = list.take() {
        if entry == Some(site) {
            return true;
        }
        for &before in &inverse.previous[site] {
            let calls = &graph.flow[before].calls;
            // What a call does not give back it has defined, if only with something that nobody
            // reads.
            let kept =
                |&(_, callee): &(_, ContextId)| graph.contexts[callee].convention.callee_saved.has(var);
            if !defines(graph.ops(code, before)).has(var) && calls.iter().all(kept) {
                list.add(before);
            }
        }
    }
    false
}

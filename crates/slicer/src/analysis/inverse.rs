//! Control flow of executed sites the other way round: where a site is reached from.

use crate::dependence::Graph;
use crate::vocabulary::{ContextId, SiteId, Table};

/// Edges of all contexts, backward.
pub struct Inverse {
    /// Sites that a site was seen to follow in its frame. Behind a call that is the call.
    pub previous: Table<SiteId, Vec<SiteId>>,
    /// Sites that call a context, or go on as it.
    pub callers: Table<ContextId, Vec<SiteId>>,
}

impl Inverse {
    /// The edges of a graph.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let mut previous = Table::filled(graph.sites.len(), Vec::new());
        let mut callers = Table::filled(graph.contexts.len(), Vec::new());
        for (site, flow) in graph.flow.iter() {
            flow.next.iter().for_each(|&next| previous[next].push(site));
            flow.calls.iter().chain(&flow.tails).for_each(|&(_, callee)| callers[callee].push(site));
        }
        Self { previous, callers }
    }
}

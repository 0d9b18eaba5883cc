//! Follows a recording from site to site and notes in the graph which way control went.

use machine::VirtAddr;

use super::graph::Graph;
use crate::vocabulary::{ContextId, OpId, SiteId};

/// Follows the running frame from site to site.
#[derive(Default)]
pub struct FlowRecorder {
    /// The site before in this frame; `None` where it begins.
    previous: Option<SiteId>,
    /// Where the last instruction led.
    next_pc: VirtAddr,
}

impl FlowRecorder {
    /// A site is reached.
    pub fn enter_site(&mut self, graph: &mut Graph, site: SiteId) {
        if let Some(previous) = self.previous.replace(site) {
            graph.flow[previous].add_next(site);
        }
    }

    /// The instruction of a site leads to an address. `repeats`: it is a string instruction, which
    /// may always be followed by one more iteration of itself.
    pub fn leave_site(&mut self, graph: &mut Graph, site: SiteId, next_pc: VirtAddr, repeats: bool) {
        self.next_pc = next_pc;
        if repeats {
            graph.flow[site].add_next(site);
        }
    }

    /// A site calls a context by its control operation.
    pub fn call(&mut self, graph: &mut Graph, site: SiteId, callee: ContextId, by: Option<OpId>) {
        graph.flow[site].add_call(self.next_pc, callee);
        self.enter_context(graph, callee, by);
    }

    /// A site goes on as a context by its control operation.
    pub fn tail_call(&mut self, graph: &mut Graph, site: SiteId, tail: ContextId, by: Option<OpId>) {
        graph.flow[site].add_tail(self.next_pc, tail);
        self.enter_context(graph, tail, by);
    }

    fn enter_context(&mut self, graph: &mut Graph, context: ContextId, by: Option<OpId>) {
        graph.contexts[context].call_sites.extend(by);
        self.previous = None;
    }

    /// A frame ended that this site had called; `None` if the calling site is not known.
    pub const fn returned_to(&mut self, call: Option<SiteId>) {
        self.previous = call;
    }

    /// The call at which the running frame waits when one return closes this frame together with
    /// that of its callee.
    #[must_use]
    pub const fn waiting_call(&self) -> Option<SiteId> {
        self.previous
    }

    /// Where the recording stands: the site that was last executed in this frame, a call if its
    /// callee just returned, and the address that comes next.
    #[must_use]
    pub const fn position(&self) -> (Option<SiteId>, VirtAddr) {
        (self.previous, self.next_pc)
    }
}

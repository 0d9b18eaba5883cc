//! What recordings show of control flow between sites.

use machine::VirtAddr;

use crate::vocabulary::{ContextId, SiteId};

/// What was seen of a site's control flow.
#[derive(Clone, Default, Debug)]
pub struct Flow {
    /// Sites that followed in the same frame.
    pub next: Vec<SiteId>,
    /// Contexts that the frame went on as, by address.
    pub tails: Vec<(VirtAddr, ContextId)>,
    /// Contexts that were called, by address.
    pub calls: Vec<(VirtAddr, ContextId)>,
    /// Whether it ended the frame; for a call, whether a return from its callee ended this frame
    /// too.
    pub returns: bool,
}

impl Flow {
    /// Notes that a site may follow. Returns whether that is new.
    pub fn add_next(&mut self, site: SiteId) -> bool {
        push_new(&mut self.next, site)
    }

    /// Notes that it calls a context, at an address.
    pub fn add_call(&mut self, pc: VirtAddr, callee: ContextId) {
        push_new(&mut self.calls, (pc, callee));
    }

    /// Notes that it goes on as a context, at an address.
    pub fn add_tail(&mut self, pc: VirtAddr, tail: ContextId) {
        push_new(&mut self.tails, (pc, tail));
    }

    /// The context that a jump to an address goes on as.
    #[must_use]
    pub fn tail(&self, pc: VirtAddr) -> Option<ContextId> {
        self.tails.iter().find(|tail| tail.0 == pc).map(|tail| tail.1)
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) -> bool {
    let new = !list.contains(&item);
    if new {
        list.push(item);
    }
    new
}

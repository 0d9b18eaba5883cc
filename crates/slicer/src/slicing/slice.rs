//! A slice: which operations, sites and contexts are in it.

use crate::analysis::cfg::Cfg;
use crate::analysis::liveness::Included;
use crate::vocabulary::{ContextId, IdSet, OpId, SiteId, Table};

/// A slice.
pub struct Slice {
    /// Which operations are in it.
    pub ops: IdSet<OpId>,
    /// Which sites have such an operation, or are where the recording ends.
    pub sites: IdSet<SiteId>,
    /// Which contexts have such a site.
    pub contexts: IdSet<ContextId>,
    /// Control-flow graphs, of those contexts at least.
    pub cfgs: Table<ContextId, Option<Cfg>>,
}

impl Slice {
    /// What liveness asks of it.
    #[must_use]
    pub const fn included(&self) -> Included<'_> {
        Included { ops: &self.ops, sites: &self.sites, contexts: &self.contexts }
    }
}

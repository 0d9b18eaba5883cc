//! Names of sites and operations.

use ir::Op;
use machine::Reg;

use crate::dependence::Graph;
use crate::vocabulary::{CodeTable, OpId, SiteId};

/// A graph and its instructions, for naming what is in it.
pub struct Names<'n> {
    /// The graph.
    pub graph: &'n Graph,
    /// The code table.
    pub code: &'n CodeTable,
}

impl Names<'_> {
    /// Context and address of a site; an allocator function has no address of its own.
    #[must_use]
    pub fn site(&self, site: SiteId) -> String {
        format!("{}:{}", self.graph.sites[site].context, self.pc(site))
    }

    /// The address of a site's instruction.
    #[must_use]
    pub fn pc(&self, site: SiteId) -> String {
        match self.graph.code(self.code, site) {
            Some(code) => format!("{:#x}", code.pc()),
            None => "allocator".to_owned(),
        }
    }

    /// A site and the index of one of its operations.
    #[must_use]
    pub fn op(&self, op: OpId) -> String {
        let site = self.graph.op_site[op];
        format!("{}.{}", self.site(site), self.graph.sites[site].index_of(op))
    }

    /// Names of several operations, in the order of their ids.
    #[must_use]
    pub fn ops(&self, ops: impl IntoIterator<Item = OpId>) -> String {
        let mut ops: Vec<OpId> = ops.into_iter().collect();
        ops.sort_unstable();
        ops.dedup();
        ops.into_iter().map(|op| self.op(op)).collect::<Vec<_>>().join(" ")
    }

    /// The operations of a site.
    #[must_use]
    pub fn operations(&self, site: SiteId) -> &[Op] {
        self.graph.ops(self.code, site)
    }
}

/// An operation as text.
#[must_use]
pub fn print_op(op: &Op) -> String {
    ir::text::print_op(op, Reg::NAMES)
}

/// Registers by name, separated by spaces.
#[must_use]
pub fn registers(set: &crate::vocabulary::RegisterSet) -> String {
    let names = set.iter().filter_map(|var| Reg::NAMES.get(var.0 as usize).copied());
    names.collect::<Vec<_>>().join(" ")
}

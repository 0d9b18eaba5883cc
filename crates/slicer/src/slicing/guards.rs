//! Which one-sided branches a slice must guard.
//!
//! A branch that every recording saw going the same way, and that controls no site of the slice,
//! may still matter: its unseen side may compute something else and rejoin. It does
//!
//! * if that side may define a register that the slice uses where the side meets known code again,
//!   or that some caller uses when it ends the function;
//! * if it may store with an address shape that some load of the slice has;
//! * if it is the rest of a string instruction that always had a count of 0: the addresses it would
//!   access are unknown.
//!
//! What callees of unseen code store is not looked at.

use ir::Kind;

use crate::analysis::address_shape::{self, Shapes};
use crate::analysis::cfg::{Cfg, CfgInput};
use crate::analysis::liveness::Liveness;
use crate::analysis::node::Node;
use crate::analysis::unseen_side::Region;
use crate::vocabulary::{ContextId, SiteId};

use super::slice::Slice;

/// What is kept from one search for guards to the next, while the slice grows.
pub struct Guards {
    live: Liveness,
}

impl Guards {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(program: &CfgInput<'_>) -> Self {
        Self { live: Liveness::new(program.graph, program.code) }
    }

    /// The branch sites that a slice, which has grown since the last time, must guard; ascending.
    pub fn sites(&mut self, program: &CfgInput<'_>, slice: &Slice) -> Vec<SiteId> {
        self.live.update(program.graph, program.code, &slice.included());
        let loads = load_shapes(program, slice);
        let mut guards = untouched_strings(program, slice);
        for context in slice.contexts.iter() {
            let Some(cfg) = &slice.cfgs[context] else { continue };
            for (site, region) in &cfg.sides {
                if self.is_live(program, context, cfg, region)
                    || region.stores.iter().any(|store| loads.contains(store))
                {
                    guards.push(*site);
                }
            }
        }
        guards.sort_unstable();
        guards.dedup();
        guards
    }

    /// Whether an unseen side may define a register that is live where the side ends.
    fn is_live(&self, program: &CfgInput<'_>, context: ContextId, cfg: &Cfg, region: &Region) -> bool {
        region.meets.iter().any(|&meet| match cfg.nodes[meet] {
            Node::Site(site) => region.defines.meets(self.live.before(site)),
            Node::Exit | Node::Unseen(_) => {
                let saved = &program.graph.contexts[context].convention.callee_saved;
                region.defines.without(saved).meets(self.live.at_return(context))
            }
        })
    }
}

/// The address shapes of the slice's loads.
fn load_shapes(program: &CfgInput<'_>, slice: &Slice) -> Shapes {
    let graph = program.graph;
    let loads = slice.ops.iter().filter_map(|op| {
        let site = graph.op_site[op];
        let (ops, at) = (graph.ops(program.code, site), graph.sites[site].index_of(op));
        (ops[at].kind == Kind::Load).then(|| address_shape::shape(ops, at))
    });
    loads.collect()
}

/// Sites in the slice's contexts whose instruction branches in its middle and never went on: string
/// instructions that always had a count of 0.
fn untouched_strings(program: &CfgInput<'_>, slice: &Slice) -> Vec<SiteId> {
    let graph = program.graph;
    let sites = slice.contexts.iter().flat_map(|context| &graph.contexts[context].sites).copied();
    sites
        .filter(|&site| {
            let Some(code) = graph.code(program.code, site) else { return false };
            let ops = &code.insn.ops;
            let middle = ops.iter().position(|op| op.kind == Kind::BranchIf);
            let middle = middle.filter(|at| at + 1 < ops.len());
            middle.is_some_and(|at| !graph.executed[graph.sites[site].op(at + 1)])
        })
        .collect()
}

//! Which one-sided branches a slice must guard.
//!
//! A branch that every recording saw going the same way, and that controls no site of the slice,
//! may still matter: its unseen side may compute something else and rejoin. It does
//!
//! * if that side may define a register that the slice uses where the side meets known code again,
//!   or that some caller uses when it ends the function;
//! * if it may store with an address shape that some load of the slice has;
//! * if it may store to a local that a load of the slice in the same function then reads;
//! * if it may store to a declared output, by its address: what reads those is the end mark;
//! * if it is the rest of a string instruction that always had a count of 0: the addresses it would
//!   access are unknown.
//!
//! Functions outside the slice have guards too: [`elsewhere`](super::elsewhere).
//!
//! What callees of unseen code store is not looked at.

use ir::Kind;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::analysis::address_shape::{self, AddressBase, AddressShape, Shapes};
use crate::analysis::cfg::{Cfg, CfgInput};
use crate::analysis::liveness::Liveness;
use crate::analysis::node::Node;
use crate::analysis::solver::Worklist;
use crate::analysis::unseen_side::Region;
use crate::vocabulary::{ContextId, NodeId, SiteId};

use super::elsewhere::Elsewhere;
use super::slice::Slice;

/// What is kept from one search for guards to the next, while the slice grows.
pub struct Guards {
    live: Liveness,
    elsewhere: Elsewhere,
}

impl Guards {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(program: &CfgInput<'_>) -> Self {
        Self { live: Liveness::new(program.graph, program.code), elsewhere: Elsewhere::new(program) }
    }

    /// The branch sites that a slice, which has grown since the last time, must guard; ascending.
    pub fn sites(&mut self, program: &CfgInput<'_>, slice: &Slice) -> Vec<SiteId> {
        self.live.update(program.graph, program.code, &slice.included());
        let used = Used::new(program, slice);
        let mut guards = untouched_strings(program, slice);
        guards.extend(self.elsewhere.sites(program, slice));
        for context in slice.contexts.iter() {
            let Some(cfg) = &slice.cfgs[context] else { continue };
            for (site, region) in &cfg.sides {
                if self.is_live(program, context, cfg, region)
                    || region.stores.iter().any(|store| used.shapes.contains(store))
                    || region.stores.iter().any(|store| is_declared(program, store))
                    || used.reads_local_of(program, cfg, (context, region))
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

/// Whether a store may write a declared output.
fn is_declared(program: &CfgInput<'_>, store: &AddressShape) -> bool {
    let AddressBase::Fixed(address) = store.base else { return false };
    let end = address.saturating_add(store.size);
    program.graph.declared.iter().any(|&(first, behind)| address < behind && first < end)
}

/// What a slice's loads read, by shape.
#[derive(Default)]
struct Used {
    /// Shapes of those that are no locals.
    shapes: Shapes,
    /// Those that are, by context and site.
    locals: FxHashMap<ContextId, Vec<(SiteId, AddressShape)>>,
}

impl Used {
    fn new(program: &CfgInput<'_>, slice: &Slice) -> Self {
        let graph = program.graph;
        let mut used = Self::default();
        for op in slice.ops.iter() {
            let site = graph.op_site[op];
            let (ops, at) = (graph.ops(program.code, site), graph.sites[site].index_of(op));
            if ops[at].kind != Kind::Load {
                continue;
            }
            let shape = address_shape::shape(ops, at);
            if shape.is_local() {
                used.locals.entry(graph.sites[site].context).or_default().push((site, shape));
            } else {
                used.shapes.insert(shape);
            }
        }
        used
    }

    /// Whether a load of the slice in this context reads a local that an unseen side may store,
    /// with no store of all of it on the way.
    fn reads_local_of(
        &self,
        program: &CfgInput<'_>,
        cfg: &Cfg,
        (context, region): (ContextId, &Region),
    ) -> bool {
        let Some(loads) = self.locals.get(&context) else { return false };
        let mut stores = region.stores.iter().filter(|store| store.is_local());
        stores.any(|store| {
            let met = loads.iter().filter(|(_, load)| load.meets_local(store));
            let met: FxHashSet<SiteId> = met.map(|&(site, _)| site).collect();
            !met.is_empty() && reaches(program, cfg, region, store, &met)
        })
    }
}

/// Whether a path from where an unseen side meets executed code leads to one of these sites before
/// anything else is stored over the local that the side stored.
fn reaches(
    program: &CfgInput<'_>,
    cfg: &Cfg,
    region: &Region,
    store: &AddressShape,
    sites: &FxHashSet<SiteId>,
) -> bool {
    let mut list: Worklist<NodeId> = region.meets.iter().copied().collect();
    while let Some(node) = list.take() {
        let covered = match &cfg.nodes[node] {
            Node::Exit => true,
            Node::Unseen(unseen) => unseen.stores.iter().any(|other| other.covers_local(store)),
            Node::Site(site) if sites.contains(site) => return true,
            Node::Site(site) => {
                let ops = program.graph.ops(program.code, *site);
                address_shape::stores(ops).any(|other| other.covers_local(store))
            }
        };
        if !covered {
            cfg.next[node].iter().for_each(|&next| _ = list.add(next));
        }
    }
    false
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

//! Guards in functions that are not in the slice: stores that training had no need of.
//!
//! ```text
//! cmp [m], v; je past; mov [m], v; past:
//! ```
//!
//! Where `[m]` held `v` already in every recording, nothing was stored, so nothing brings the
//! function into the slice, not even its call; with other values it decides what a later load of
//! `[m]` reads. If that is the process's own memory, the load gives what training's process had
//! there, about every target. Shapes of addresses alone would bring in every function that stores a
//! member at the same distance. But the instruction that looked at `[m]` was executed, through the
//! same register, so it is known where the store would have gone:
//!
//! ```text
//! a branch guards if its unseen side stores through (register, distance, size)
//!                 and a load of its context that was executed has the same three
//!                 and the place that this load read last is the process's own
//!                 and one that a load of the slice read last
//! ```
//!
//! Of the system's memory a load has the target's value, which is right unless the store comes
//! before it. That is left to the comparison with the whole run: in kernels the rule brings in the
//! scheduler and the accounting of pages, which test and set bits beside those that matter.
//!
//! Cost: one pass over the loads of all contexts, and a control-flow graph of each context with
//! such a load.

use ir::{Kind, Var};
use rustc_hash::{FxHashMap, FxHashSet};

use super::slice::Slice;
use crate::analysis::address_shape::{self, AddressShape};
use crate::analysis::cfg::{Cfg, CfgInput};
use crate::analysis::unseen_side::Region;
use crate::vocabulary::{ContextId, OpId, SiteId};

/// The bytes by which places are told apart: a word.
const WORD: u64 = 8;

/// A load through a register, and the words that it read last.
struct Looked {
    through: (Var, AddressShape),
    words: [u64; 2],
}

/// What functions outside the slice looked at.
pub struct Elsewhere {
    looked: FxHashMap<ContextId, Vec<Looked>>,
    /// Unseen sides of contexts that were asked for.
    sides: FxHashMap<ContextId, Vec<(SiteId, Region)>>,
}

impl Elsewhere {
    /// What all contexts looked at.
    #[must_use]
    pub fn new(program: &CfgInput<'_>) -> Self {
        let graph = program.graph;
        let mut looked: FxHashMap<ContextId, Vec<Looked>> = FxHashMap::default();
        for (site, info) in graph.sites.iter() {
            let ops = graph.ops(program.code, site);
            for (at, _) in ops.iter().enumerate().filter(|(_, op)| op.kind == Kind::Load) {
                let words = words_of(program, info.op(at));
                if let (Some(words), Some(register)) = (words, address_shape::register(ops, at)) {
                    let through = (register, address_shape::shape(ops, at));
                    looked.entry(info.context).or_default().push(Looked { through, words });
                }
            }
        }
        Self { looked, sides: FxHashMap::default() }
    }

    /// The branches outside the slice that it must guard.
    pub fn sites(&mut self, program: &CfgInput<'_>, slice: &Slice) -> Vec<SiteId> {
        let loads = slice.ops.iter().filter_map(|op| words_of(program, op));
        let read: FxHashSet<u64> = loads.flatten().collect();
        let mut guards = Vec::new();
        for (&context, looked) in &self.looked {
            if slice.contexts.contains(context) {
                continue;
            }
            let same = looked.iter().filter(|it| it.words.iter().any(|word| read.contains(word)));
            let same: FxHashSet<(Var, AddressShape)> = same.map(|it| it.through).collect();
            if same.is_empty() {
                continue;
            }
            let sides = self.sides.entry(context).or_insert_with(|| Cfg::build(program, context).sides);
            let stores = |region: &Region| region.through.iter().any(|store| same.contains(store));
            guards.extend(sides.iter().filter(|(_, region)| stores(region)).map(|(site, _)| *site));
        }
        guards
    }
}

/// The words of the process that a load read last; `None` if it is no load, was not executed, or
/// read the system's.
fn words_of(program: &CfgInput<'_>, op: OpId) -> Option<[u64; 2]> {
    let graph = program.graph;
    let address = graph.addresses.get(&op).filter(|_| graph.own.contains(&op))?.0;
    let site = graph.op_site[op];
    let size = graph.ops(program.code, site)[graph.sites[site].index_of(op)].width.bytes();
    Some([address / WORD, address.wrapping_add(size - 1) / WORD])
}

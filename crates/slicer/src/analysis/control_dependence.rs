//! Control dependence: which branches decide whether a site is executed.
//!
//! Ferrante, Ottenstein, Warren, "The Program Dependence Graph and Its Use in Optimization" (TOPLAS
//! 1987), section 3.1: a node depends on a branch if it post-dominates one of the branch's sides
//! and not the branch itself. So for each side the nodes from it up the post-dominator tree depend
//! on the branch, until its immediate post-dominator, which does not. Cost: the sides of branches
//! times the depth of the tree.

use rustc_hash::FxHashMap;

use super::post_dominators::Edges;
use crate::vocabulary::{NodeId, SiteId, Table};

/// For each site the branch sites that it is control dependent on; `site_of` gives the site of a
/// node that is one.
#[must_use]
pub fn control_dependence(
    next: &Edges,
    ipdom: &Table<NodeId, NodeId>,
    end: NodeId,
    site_of: &dyn Fn(NodeId) -> Option<SiteId>,
) -> FxHashMap<SiteId, Vec<SiteId>> {
    let mut controls: FxHashMap<SiteId, Vec<SiteId>> = FxHashMap::default();
    for (branch, sides) in next.iter().filter(|(_, sides)| sides.len() >= 2) {
        let Some(branch_site) = site_of(branch) else { continue };
        for &side in sides {
            let mut node = side;
            // The tree has no cycle, so a path has at most as many nodes as the tree.
            for _ in 0..=next.len() {
                if node == ipdom[branch] || node == end {
                    break;
                }
                if let Some(site) = site_of(node) {
                    let branches = controls.entry(site).or_default();
                    if branches.last() != Some(&branch_site) {
                        branches.push(branch_site);
                    }
                }
                node = ipdom[node];
            }
        }
    }
    controls
}

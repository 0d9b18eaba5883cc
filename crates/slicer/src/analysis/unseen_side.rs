//! Unseen sides of branches: what code that nobody executed may do on its way back to executed
//! code.

use ir::Var;
use machine::VirtAddr;

use super::address_shape::AddressShape;
use super::node::Node;
use super::post_dominators::Edges;
use super::solver::Worklist;
use super::unseen::Unseen;
use crate::vocabulary::{NodeId, RegisterSet, SiteId, Table};

/// What the unseen side of a branch may do, up to where it meets executed code or the end.
#[derive(Clone, Default, Debug)]
pub struct Region {
    /// Registers it may define.
    pub defines: RegisterSet,
    /// Shapes of its stores.
    pub stores: Vec<AddressShape>,
    /// Those of them that go through a register, with it.
    pub through: Vec<(Var, AddressShape)>,
    /// Functions it calls.
    pub calls: Vec<VirtAddr>,
    /// Nodes of executed code that it meets, and the end if it leaves the function.
    pub meets: Vec<NodeId>,
}

/// The unseen sides of all branches of a graph, by branch site.
#[must_use]
pub fn unseen_sides(nodes: &Table<NodeId, Node>, edges: &Edges) -> Vec<(SiteId, Region)> {
    let mut sides = Vec::new();
    for (node, next) in edges.iter() {
        if let (Node::Site(site), true) = (&nodes[node], next.len() >= 2) {
            sides.extend(next.iter().filter_map(|&side| Some((*site, region(nodes, edges, side)?))));
        }
    }
    sides
}

/// From a branch's side: what unseen code may do before it meets executed sites or the end, and
/// where it meets them. `None` if the side is not unseen.
fn region(nodes: &Table<NodeId, Node>, edges: &Edges, from: NodeId) -> Option<Region> {
    if !matches!(nodes[from], Node::Unseen(_)) {
        return None;
    }
    let mut region = Region::default();
    let mut list = Worklist::from_iter([from]);
    while let Some(node) = list.take() {
        match &nodes[node] {
            Node::Unseen(Unseen { defines, stores, through, calls }) => {
                region.defines.union(defines);
                region.stores.extend(stores);
                region.through.extend(through);
                region.calls.extend(calls);
                edges[node].iter().for_each(|&next| {
                    list.add(next);
                });
            }
            Node::Site(_) | Node::Exit => region.meets.push(node),
        }
    }
    Some(region)
}

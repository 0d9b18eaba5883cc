//! Post-dominators: which nodes lie on every path from a node to its function's end.
//!
//! The algorithm is that of Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm" (2001),
//! on the reversed graph. The fact of a node is its immediate post-dominator, the lattice is the
//! tree found so far, ordered by the distance from the end:
//!
//! ```text
//! ipdom(end) = end
//! ipdom(n)   = nearest common ancestor, by ipdom, of the successors of n
//! ```
//!
//! Facts only move towards the end. A transfer also reads facts of ancestors, whose changes are not
//! reported to the node, so solving is repeated until nothing changes; on reducible graphs, taken
//! in reverse post-order, the first result is final. Cost: nearly linear in the edges.

use super::solver::{Equations, known, post_order, reversed, solve};
use crate::vocabulary::{IdSet, NodeId, Table};

/// The successors of each node.
pub type Edges = Table<NodeId, Vec<NodeId>>;

/// Gives one node of each endless loop, which cannot reach `end`, an edge to it, and finds each
/// node's immediate post-dominator. The end's own is itself.
#[must_use]
pub fn post_dominators(next: &mut Edges, end: NodeId) -> Table<NodeId, NodeId> {
    let mut previous = reversed(next);
    for node in endless(&previous, end) {
        next[node].push(end);
        previous[end].push(node);
    }
    let mut order = Vec::with_capacity(next.len());
    post_order(&previous, end, &mut IdSet::new(next.len()), &mut order);
    let mut rank = Table::filled(next.len(), 0);
    for (at, &node) in order.iter().enumerate() {
        rank[node] = at as u32;
    }
    order.pop();
    order.reverse();
    let mut facts = Table::filled(next.len(), None);
    facts[end] = Some(end);
    let equations = PostDominance { next, previous: &previous, rank: &rank };
    while solve(&equations, &order, &mut facts) {}
    facts.values().iter().map(|fact| fact.unwrap_or(end)).collect()
}

/// One node of each loop from which the end is not reached.
fn endless(previous: &Edges, end: NodeId) -> Vec<NodeId> {
    let (mut seen, mut ignored, mut found) = (IdSet::new(previous.len()), Vec::new(), Vec::new());
    post_order(previous, end, &mut seen, &mut ignored);
    for node in previous.ids().rev() {
        if !seen.contains(node) {
            found.push(node);
            post_order(previous, node, &mut seen, &mut ignored);
        }
    }
    found
}

struct PostDominance<'e> {
    next: &'e Edges,
    previous: &'e Edges,
    /// Post-order number, the end's being the highest.
    rank: &'e Table<NodeId, u32>,
}

impl PostDominance<'_> {
    fn common_ancestor(&self, facts: &Table<NodeId, Option<NodeId>>, a: NodeId, b: NodeId) -> NodeId {
        let (mut a, mut b) = (a, b);
        while a != b {
            while self.rank[a] < self.rank[b] {
                a = facts[a].unwrap_or(b);
            }
            while self.rank[b] < self.rank[a] {
                b = facts[b].unwrap_or(a);
            }
        }
        a
    }
}

impl Equations for PostDominance<'_> {
    type Node = NodeId;
    /// `None` where nothing is known yet.
    type Fact = Option<NodeId>;

    fn transfer(&self, node: NodeId, facts: &Table<NodeId, Option<NodeId>>) -> Option<NodeId> {
        let ways = self.next[node].iter().map(|&next| facts[next].map(|_| next));
        known(ways, |a, b| self.common_ancestor(facts, a, b))
    }

    fn readers(&self, node: NodeId, each: &mut dyn FnMut(NodeId)) {
        self.previous[node].iter().for_each(|&before| each(before));
    }
}

//! The two fixed-point algorithms that all analyses share.
//!
//! [`solve`] finds the least solution of a system of equations `fact(n) = transfer(n, facts)` over
//! a lattice of finite height, in which every transfer is monotone. Starting from facts that are at
//! most the solution it applies transfers until none changes anything; a node is looked at again
//! only when a fact that its equation reads has changed. Nodes are taken in the order that the
//! caller gives, so an order that follows the flow of facts (post-order backward, reverse
//! post-order forward) comes close to one pass. Termination: facts only rise, at most `height`
//! times a node. Cost: `height * edges` transfers in the worst case.
//!
//! *May and must.* A may-analysis joins by union, and its least element is the empty set. In a
//! must-analysis (a fact holds on every way) the lattice is turned round: facts begin at "nothing
//! is known of this node yet", which is the least element and the neutral one of the join, and fall
//! to smaller sets. A fact of type `Option<Set>` with `None` for that does it, as in
//! [`post_dominators`](super::post_dominators); a table filled with empty sets would start at the
//! greatest element, and loops would lose what holds in them. [`known`] joins the facts that are
//! known.
//!
//! [`Worklist`] is the case of reachability, where a fact is "reached or not": each item is worked
//! on once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hash;

use rustc_hash::FxHashSet;

use crate::vocabulary::{Id, Table};

/// A system of equations.
pub trait Equations {
    /// What facts are about.
    type Node: Id;
    /// An element of the lattice.
    type Fact: PartialEq;

    /// What the equation of a node says, given the facts so far.
    fn transfer(&self, node: Self::Node, facts: &Table<Self::Node, Self::Fact>) -> Self::Fact;

    /// The nodes whose equations read the fact of this one.
    fn readers(&self, node: Self::Node, each: &mut dyn FnMut(Self::Node));
}

/// Raises `facts` to the least solution at or above them; nodes that are not in `order` keep
/// theirs. Returns whether any changed.
pub fn solve<E: Equations>(equations: &E, order: &[E::Node], facts: &mut Table<E::Node, E::Fact>) -> bool {
    let mut changed = false;
    let mut rank: Table<E::Node, Option<u32>> = Table::filled(facts.len(), None);
    for (at, &node) in order.iter().enumerate() {
        rank[node] = Some(at as u32);
    }
    let mut waiting = vec![true; order.len()];
    let mut queue: BinaryHeap<Reverse<u32>> = (0..order.len() as u32).map(Reverse).collect();
    while let Some(Reverse(at)) = queue.pop() {
        waiting[at as usize] = false;
        let node = order[at as usize];
        let new = equations.transfer(node, facts);
        if new == facts[node] {
            continue;
        }
        facts[node] = new;
        changed = true;
        equations.readers(node, &mut |reader| {
            if let Some(at) = rank[reader]
                && !std::mem::replace(&mut waiting[at as usize], true)
            {
                queue.push(Reverse(at));
            }
        });
    }
    changed
}

/// Joins those facts that are known; `None` if none is.
pub fn known<F: Clone>(facts: impl IntoIterator<Item = Option<F>>, join: impl FnMut(F, F) -> F) -> Option<F> {
    facts.into_iter().flatten().reduce(join)
}

/// Items to be worked on, each once.
pub struct Worklist<T> {
    seen: FxHashSet<T>,
    waiting: Vec<T>,
}

impl<T: Copy + Eq + Hash> Worklist<T> {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: FxHashSet::default(), waiting: Vec::new() }
    }

    /// Adds an item unless it was added before. Returns whether it is new.
    pub fn add(&mut self, item: T) -> bool {
        let new = self.seen.insert(item);
        if new {
            self.waiting.push(item);
        }
        new
    }

    /// Takes the item that was added last.
    pub fn take(&mut self) -> Option<T> {
        self.waiting.pop()
    }

    /// All items ever added.
    #[must_use]
    pub fn into_seen(self) -> FxHashSet<T> {
        self.seen
    }
}

impl<T: Copy + Eq + Hash> FromIterator<T> for Worklist<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut list = Self::new();
        items.into_iter().for_each(|item| {
            list.add(item);
        });
        list
    }
}

/// Everything reached from `roots` over `edges`, roots included.
pub fn closure<T, I>(roots: impl IntoIterator<Item = T>, mut edges: impl FnMut(T) -> I) -> FxHashSet<T>
where
    T: Copy + Eq + Hash,
    I: IntoIterator<Item = T>,
{
    let mut list: Worklist<T> = roots.into_iter().collect();
    while let Some(item) = list.take() {
        for next in edges(item) {
            list.add(next);
        }
    }
    list.into_seen()
}

/// What is reached from `root` over `edges` and is not in `seen`, in depth-first post-order.
pub fn post_order<K: Id>(
    edges: &Table<K, Vec<K>>,
    root: K,
    seen: &mut crate::vocabulary::IdSet<K>,
    order: &mut Vec<K>,
) {
    let mut stack = vec![(root, 0)];
    seen.insert(root);
    while let Some((node, at)) = stack.last_mut() {
        if let Some(&next) = edges[*node].get(*at) {
            *at += 1;
            if seen.insert(next) {
                stack.push((next, 0));
            }
        } else {
            order.push(*node);
            stack.pop();
        }
    }
}

/// The edges in reverse direction.
#[must_use]
pub fn reversed<K: Id>(edges: &Table<K, Vec<K>>) -> Table<K, Vec<K>> {
    let mut reversed: Table<K, Vec<K>> = Table::filled(edges.len(), Vec::new());
    for (from, targets) in edges.iter() {
        for &to in targets {
            reversed[to].push(from);
        }
    }
    reversed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::NodeId;

    /// The longest path to a node of an acyclic graph, as a lattice of small numbers.
    struct Distance(Table<NodeId, Vec<NodeId>>);

    impl Equations for Distance {
        type Node = NodeId;
        type Fact = u32;

        fn transfer(&self, node: NodeId, facts: &Table<NodeId, u32>) -> u32 {
            let sources = self.0.iter().filter(|(_, next)| next.contains(&node));
            sources.map(|(source, _)| facts[source] + 1).max().unwrap_or(0)
        }

        fn readers(&self, node: NodeId, each: &mut dyn FnMut(NodeId)) {
            self.0[node].iter().for_each(|&next| each(next));
        }
    }

    #[test]
    fn facts_rise_to_the_solution_in_any_order() {
        let n = NodeId::new;
        // 0 -> 1 -> 2 -> 3, 0 -> 3
        let edges: Table<NodeId, Vec<NodeId>> = vec![vec![n(1), n(3)], vec![n(2)], vec![n(3)], vec![]].into();
        let problem = Distance(edges);
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut facts = Table::filled(4, 0);
            solve(&problem, &order.map(n), &mut facts);
            assert_eq!(facts.values(), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn nodes_outside_the_order_keep_their_facts() {
        let n = NodeId::new;
        let problem = Distance(vec![vec![n(1)], vec![]].into());
        let mut facts = Table::filled(2, 0);
        solve(&problem, &[n(0)], &mut facts);
        assert_eq!(facts.values(), [0, 0]);
    }

    #[test]
    fn a_closure_is_what_can_be_reached() {
        let reached = closure([1u32], |at| [at * 2 % 10, at * 3 % 10]);
        let mut reached: Vec<u32> = reached.into_iter().collect();
        reached.sort_unstable();
        assert_eq!(reached, [1, 2, 3, 4, 6, 7, 8, 9]);
    }
}

//! Joins instructions of a control-flow graph that do the same and go on the same way.
//!
//! Compilers duplicate the ends of functions (`je slow; xor eax,eax; ret` and `slow: call f; xor
//! eax,eax; ret`). Without merging, every such branch would decide the function's result.

use ir::{Arg, Class, Kind, Op};
use rustc_hash::FxHashMap;

use super::post_dominators::Edges;
use super::solver::reversed;
use crate::vocabulary::{IdSet, NodeId, Table};

/// A node as merging sees it.
#[derive(Clone, Copy)]
pub struct Piece<'o> {
    /// Its operations.
    pub ops: &'o [Op],
    /// Executed instructions stay; others may be replaced by what does the same.
    pub executed: bool,
}

/// Redirects edges to a node that an equal one replaces. `pieces` are the nodes that are
/// instructions, `end` is the function's end, `next` are all nodes' successors.
///
/// Two nodes are merged if they have the same operations and the same single successor; that is
/// looked at again where a successor was merged, so that equal tails are merged from their ends on.
/// Cost: each edge is redirected at most once for each node on the tail behind it.
pub fn merge(next: &mut Edges, pieces: &Table<NodeId, Option<Piece<'_>>>, end: NodeId) {
    let mut previous = reversed(next);
    let number = number_equal(pieces);
    let executed = |node: NodeId| pieces[node].is_some_and(|piece| piece.executed);
    let mut gone = IdSet::new(next.len());
    let mut known: FxHashMap<(u32, NodeId), NodeId> = FxHashMap::default();
    // Items are taken from the end: first the executed nodes in their order, then the others.
    let mut work: Vec<NodeId> = next.ids().filter(|&node| !executed(node)).collect();
    work.extend(next.ids().rev().filter(|&node| executed(node)));
    while let Some(node) = work.pop() {
        let [target] = next[node][..] else { continue };
        if gone.contains(node) {
            continue;
        }
        let same = if is_jump(pieces[node]) && target != node && target != end {
            // A jump does nothing but lead on.
            target
        } else {
            let Some(number) = number[node] else { continue };
            let first = *known.entry((number, target)).or_insert(node);
            if first == node {
                continue;
            }
            if executed(node) {
                if executed(first) {
                    continue;
                }
                known.insert((number, target), node);
                work.push(first);
                continue;
            }
            first
        };
        gone.insert(node);
        for from in std::mem::take(&mut previous[node]) {
            let targets = &mut next[from];
            let had = targets.contains(&same);
            targets.retain(|&to| to != node);
            if !had {
                targets.push(same);
                previous[same].push(from);
            }
            work.push(from);
        }
    }
}

/// A number for each node that may be merged: equal operations have equal numbers.
fn number_equal(pieces: &Table<NodeId, Option<Piece<'_>>>) -> Table<NodeId, Option<u32>> {
    let mut numbers: FxHashMap<&[Op], u32> = FxHashMap::default();
    let number = pieces.values().iter().map(|piece| {
        let piece = piece.filter(|piece| is_plain(piece.ops))?;
        let new = numbers.len() as u32;
        Some(*numbers.entry(piece.ops).or_insert(new))
    });
    number.collect()
}

/// Whether a node is an unexecuted jump to a constant address.
fn is_jump(piece: Option<Piece<'_>>) -> bool {
    let Some(Piece { ops: [op], executed: false }) = piece else { return false };
    op.kind == Kind::Jump && matches!(op.args[0], Arg::Const(_))
}

/// Whether operations neither branch nor call: then equal operations before the same code are
/// interchangeable.
fn is_plain(ops: &[Op]) -> bool {
    ops.iter()
        .all(|op| op.class() != Class::Control || matches!(op.kind, Kind::Jump | Kind::Ret | Kind::SysExit))
}

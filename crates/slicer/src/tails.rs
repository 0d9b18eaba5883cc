//! Joins instructions of a control-flow graph that do the same and go on the same way.
//!
//! Compilers repeat the ends of functions (`je slow; xor eax,eax; ret` and `slow: call f; xor
//! eax,eax; ret`). Without this every such branch would decide the function's result.

use ir::{Class, Kind, Op};
use rustc_hash::FxHashMap;

/// A node as merging sees it.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'o> {
    /// Its operations.
    pub ops: &'o [Op],
    /// Executed instructions stay; others may be replaced by what does the same.
    pub executed: bool,
}

/// Redirects edges to a node that an equal one replaces. `pieces` are the nodes that are
/// instructions; `next` all nodes' successors.
pub(crate) fn merge(next: &mut [Vec<u32>], pieces: &[Option<Piece<'_>>]) {
    let mut previous: Vec<Vec<u32>> = vec![Vec::new(); next.len()];
    for (from, targets) in next.iter().enumerate() {
        targets.iter().for_each(|&to| previous[to as usize].push(from as u32));
    }
    // Equal operations have equal numbers.
    let mut numbers: FxHashMap<&[Op], u32> = FxHashMap::default();
    let number: Vec<Option<u32>> = pieces
        .iter()
        .map(|piece| {
            let piece = piece.filter(|piece| is_plain(piece.ops))?;
            let new = numbers.len() as u32;
            Some(*numbers.entry(piece.ops).or_insert(new))
        })
        .collect();
    let executed = |node: u32| pieces[node as usize].is_some_and(|piece| piece.executed);
    let mut gone = vec![false; next.len()];
    let mut known: FxHashMap<(u32, u32), u32> = FxHashMap::default();
    // The last are looked at first: executed nodes, in their order, before they are compared with
    // others.
    let mut work: Vec<u32> = (0..next.len() as u32).filter(|&node| !executed(node)).collect();
    work.extend((0..next.len() as u32).rev().filter(|&node| executed(node)));
    while let Some(node) = work.pop() {
        let [target] = next[node as usize][..] else { continue };
        if gone[node as usize] {
            continue;
        }
        let same = if is_jump(pieces[node as usize]) && target != node && target != crate::cfg::Cfg::EXIT {
            // It does nothing but lead on.
            target
        } else {
            let Some(number) = number[node as usize] else { continue };
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
        gone[node as usize] = true;
        for from in std::mem::take(&mut previous[node as usize]) {
            let targets = &mut next[from as usize];
            let had = targets.contains(&same);
            targets.retain(|&to| to != node);
            if !had {
                targets.push(same);
                previous[same as usize].push(from);
            }
            work.push(from);
        }
    }
}

/// Whether a node is an unexecuted jump to a constant place.
fn is_jump(piece: Option<Piece<'_>>) -> bool {
    let Some(Piece { ops: [op], executed: false }) = piece else { return false };
    op.kind == Kind::Jump && matches!(op.args[0], ir::Arg::Const(_))
}

/// Whether operations neither choose where to go nor call: then the same operations before the same
/// code are the same.
fn is_plain(ops: &[Op]) -> bool {
    ops.iter()
        .all(|op| op.class() != Class::Control || matches!(op.kind, Kind::Jump | Kind::Ret | Kind::SysExit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::{Arg, Var, Width};

    #[test]
    fn a_repeated_end_is_one() {
        let clear = [Op::new(Kind::Mov, Width::B32, Var(0), &[0u64.into()])];
        let back = [Op::new(Kind::Ret, Width::B64, Var::NONE, &[Var(3).into()])];
        let call = [Op::new(Kind::Call, Width::B64, Var::NONE, &[0x100u64.into(), 0x105u64.into()])];
        let jump = [Op::new(Kind::Jump, Width::B64, Var::NONE, &[Arg::Const(0x50)])];
        let branch = [Op::new(Kind::BranchIf, Width::B64, Var::NONE, &[Var(19).into(), Arg::Const(0x40)])];
        let piece = |ops, executed| Some(Piece { ops, executed });
        // exit; 1: branch to 2 or 4; 2: clear; 3: ret; 4: call; 5: jump; 6: clear; 7: ret
        let pieces = [
            None,
            piece(&branch, true),
            piece(&clear, true),
            piece(&back, true),
            piece(&call, false),
            piece(&jump, false),
            piece(&clear, false),
            piece(&back, false),
        ];
        let mut next: Vec<Vec<u32>> =
            vec![vec![], vec![2, 4], vec![3], vec![0], vec![5], vec![6], vec![7], vec![0]];
        merge(&mut next, &pieces);
        assert_eq!(next[4], [2], "the slow path comes back to the executed end");
        assert_eq!(next[1], [2, 4]);
        assert_eq!((&next[2], &next[3]), (&vec![3], &vec![0]));
    }
}

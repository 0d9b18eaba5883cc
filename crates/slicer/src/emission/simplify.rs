//! Joins blocks that only follow one another and drops those that nothing reaches.

use ir::program::{Block, BlockId, Target, Terminator};

/// The same blocks, fewer; the first is still the entry.
#[must_use]
pub fn simplify(mut blocks: Vec<Block>) -> Vec<Block> {
    // One pass follows chains of empty blocks to their ends; the second can only change cycles of
    // them.
    for _ in 0..2 {
        skip_empty(&mut blocks);
    }
    let reached = count_references(&blocks);
    let absorbed = absorb(&mut blocks, &reached);
    let stays: Vec<bool> =
        reached.iter().zip(&absorbed).map(|(&count, absorbed)| count > 0 && !absorbed).collect();
    renumber(blocks, &stays)
}

/// Redirects targets past blocks that do nothing but go on.
fn skip_empty(blocks: &mut [Block]) {
    let skip: Vec<Option<Target>> = blocks
        .iter()
        .map(|block| match block.term {
            Terminator::Goto(target) if block.ops.is_empty() => Some(target),
            _ => None,
        })
        .collect();
    let follow = |mut target: Target| {
        // Empty blocks may form a cycle.
        for _ in 0..skip.len() {
            let Target::Block(id) = target else { break };
            match skip[id.0 as usize] {
                Some(next) if next != target => target = next,
                _ => break,
            }
        }
        target
    };
    blocks.iter_mut().for_each(|block| retarget(&mut block.term, &follow));
}

/// How many targets of reached blocks name each block; the entry has one more.
fn count_references(blocks: &[Block]) -> Vec<u32> {
    let mut references = vec![0u32; blocks.len()];
    let mut stack = vec![0u32];
    references[0] = 1;
    while let Some(at) = stack.pop() {
        each_target(&blocks[at as usize].term, &mut |target| {
            if let Target::Block(id) = target {
                references[id.0 as usize] += 1;
                if references[id.0 as usize] == 1 {
                    stack.push(id.0);
                }
            }
        });
    }
    references
}

/// Appends to each block the one that only it leads to. Returns which blocks are parts of others
/// now.
fn absorb(blocks: &mut [Block], references: &[u32]) -> Vec<bool> {
    let mut absorbed = vec![false; blocks.len()];
    for at in 0..blocks.len() {
        if references[at] == 0 || absorbed[at] {
            continue;
        }
        while let Terminator::Goto(Target::Block(next)) = blocks[at].term {
            let next = next.0 as usize;
            if next == at || next == 0 || references[next] != 1 || absorbed[next] {
                break;
            }
            absorbed[next] = true;
            let ops = std::mem::take(&mut blocks[next].ops);
            blocks[at].ops.extend(ops);
            blocks[at].term = blocks[next].term.clone();
            blocks[at].term_pc = blocks[next].term_pc;
        }
    }
    absorbed
}

/// Drops the blocks that do not stay.
fn renumber(blocks: Vec<Block>, stays: &[bool]) -> Vec<Block> {
    let mut ids = vec![BlockId(0); blocks.len()];
    let staying = stays.iter().enumerate().filter(|(_, stays)| **stays);
    for (number, (at, _)) in staying.enumerate() {
        ids[at] = BlockId(number as u32);
    }
    let new = |target: Target| match target {
        Target::Block(id) => Target::Block(ids[id.0 as usize]),
        other => other,
    };
    let mut kept: Vec<Block> =
        blocks.into_iter().zip(stays).filter(|(_, stays)| **stays).map(|(block, _)| block).collect();
    kept.iter_mut().for_each(|block| retarget(&mut block.term, &new));
    kept
}

fn retarget(term: &mut Terminator, change: &dyn Fn(Target) -> Target) {
    match term {
        Terminator::Goto(target) => *target = change(*target),
        Terminator::Branch { taken, otherwise, .. } => {
            *taken = change(*taken);
            *otherwise = change(*otherwise);
        }
        Terminator::Switch { arms, .. } => arms.iter_mut().for_each(|arm| arm.target = change(arm.target)),
        Terminator::Call { then, .. } => *then = change(*then),
        Terminator::End => {}
    }
}

/// The targets of a terminator within its function, and its tail jumps.
pub(super) fn each_target(term: &Terminator, visit: &mut dyn FnMut(Target)) {
    match term {
        Terminator::Goto(target) => visit(*target),
        Terminator::Branch { taken, otherwise, .. } => {
            visit(*taken);
            visit(*otherwise);
        }
        Terminator::Switch { arms, .. } => arms.iter().for_each(|arm| visit(arm.target)),
        Terminator::Call { then, .. } => visit(*then),
        Terminator::End => {}
    }
}

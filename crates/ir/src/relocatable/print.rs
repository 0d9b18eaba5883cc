//! By what objects are recognised in memory: hashes of a few windows of their code.
//!
//! A window has no bytes that depend on where the object is, or that the system writes when it
//! loads it. Of all windows of an object those are taken that the fewest other objects have too. A
//! hash that is found only says where to look: whether an object is there is decided by all its
//! bytes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Object;

/// Bytes of a window.
pub const PRINT: usize = 16;
/// How many windows an object is recognised by: some may lie where somebody changed the code.
const MOST: usize = 6;
/// How many of an object's windows are compared with those of all others.
const TRIED: usize = 96;
/// The fewest different bytes of a window: filling tells nothing.
const VARIED: usize = 9;

/// A window of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Print {
    /// Hash of its bytes.
    pub hash: u32,
    /// The object.
    pub object: u32,
    /// The section that it is in.
    pub section: u16,
    /// Where in that.
    pub offset: u32,
}

/// The hash of a window's bytes.
#[must_use]
#[inline]
pub fn hash(window: &[u8; PRINT]) -> u32 {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| window[at + byte]));
    // Multiplication by the golden ratio spreads what differs in few bits (Knuth, 6.4).
    let mixed = (word(0).rotate_left(29) ^ word(8)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32 ^ (word(0) as u32).wrapping_mul(0x85eb_ca6b)
}

/// The windows by which these objects are recognised, ascending by hash.
pub(super) fn prints(objects: &[Object]) -> Vec<Print> {
    let tried: Vec<Vec<Print>> =
        objects.iter().zip(0..).map(|(object, number)| windows(object, number)).collect();
    let mut counts: HashMap<u32, u32> = HashMap::new();
    tried.iter().flatten().for_each(|print| *counts.entry(print.hash).or_default() += 1);
    let mut prints: Vec<Print> = tried
        .into_iter()
        .flat_map(|mut windows| {
            // Stable: equally rare ones stay in the order of `windows`, which are spread.
            windows.sort_by_key(|print| counts[&print.hash]);
            windows.truncate(MOST);
            windows
        })
        .collect();
    prints.sort_unstable();
    prints
}

/// Windows of an object, spread over its largest section of code.
fn windows(object: &Object, number: u32) -> Vec<Print> {
    let largest =
        (0u16..).zip(&object.sections).max_by_key(|(at, section)| (section.code.len(), u16::MAX - at));
    let Some((section, part)) = largest else { return Vec::new() };
    let fixed = object.fixed(section);
    let tells = |offset: usize| {
        let mut seen = [false; 256];
        part.code[offset..offset + PRINT].iter().for_each(|byte| seen[usize::from(*byte)] = true);
        fixed[offset..offset + PRINT].iter().all(|fixed| *fixed)
            && seen.iter().filter(|seen| **seen).count() >= VARIED
    };
    let last = part.code.len().saturating_sub(PRINT - 1);
    let step = last / TRIED + 1;
    let firsts =
        (0..last).step_by(step).filter_map(|from| (from..last.min(from + step)).find(|at| tells(*at)));
    let mut offsets: Vec<usize> = firsts.collect();
    // Halves of halves: any first few of them lie far apart.
    let bits = usize::BITS - offsets.len().leading_zeros();
    let mut at = 0usize;
    offsets.sort_by_cached_key(|_| {
        at += 1;
        at.reverse_bits() >> (usize::BITS - bits.max(1))
    });
    let print = |offset: usize| {
        let bytes = std::array::from_fn(|byte| part.code[offset + byte]);
        Print { hash: hash(&bytes), object: number, section, offset: offset as u32 }
    };
    offsets.into_iter().map(print).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relocatable::tests::object;

    #[test]
    fn windows_have_no_bytes_that_differ_and_rare_ones_come_first() {
        let mut twin = object("b", 7);
        twin.sections[0].code[100..].reverse();
        let objects = [object("a", 7), twin, object("c", 31)];
        let prints = prints(&objects);
        assert!(
            prints.is_sorted()
                && (0..3).all(|number| prints.iter().filter(|it| it.object == number).count() == MOST)
        );
        let fixed = objects[0].fixed(0);
        for print in prints.iter().filter(|it| it.object == 0) {
            let at = print.offset as usize;
            assert!(fixed[at..at + PRINT].iter().all(|fixed| *fixed));
            // The first half of its code is in the second object too.
            assert!(at + PRINT > 100, "{at}");
        }
        assert!(super::prints(&[Object::default()]).is_empty());
    }
}

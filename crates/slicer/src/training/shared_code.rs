//! Whether programs of several recordings can share one copy of the system's code.
//!
//! Each recording has a snapshot of its own, and what its page tables map executable is its
//! system's code. Where those have an execute-disable bit that is code, and all recordings of a
//! boot have the same; where not, all of the kernel's memory counts as code, data included, and no
//! two snapshots are equal. The copy that another recording of the same boot left is as trusted,
//! and serves as well, if it differs only where the system may write, in few pages, and has all
//! that was executed and all interrupt handlers as this recording has them.
//!
//! Nothing in a recording names the boot. What moves, where images and gates lie, the data that
//! nobody may write, what was executed, and three quarters of all pages are no two builds' alike.

use ir::System;
use machine::VirtAddr;
use rustc_hash::FxHashSet;

use super::tables::Tables;

/// One page in so many may be another one.
const MOST_DIFFERENT: usize = 4;

/// Whether the code of `other` serves a recording whose system is `mine`, with these page tables.
/// `executed` are the pages of which it executed something.
///
/// All pages of both are compared.
pub(super) fn serves(mine: &System, other: &System, tables: &Tables, executed: &FxHashSet<VirtAddr>) -> bool {
    let (table, (ours, theirs)) = (mine.relocations(), (mine.integrity(), other.integrity()));
    let same = table == other.relocations()
        && ours.boots == theirs.boots
        && ours.data == theirs.data
        && ours.variants == theirs.variants
        && ours.extents == theirs.extents
        && ours.gates == theirs.gates;
    if !same {
        return false;
    }
    let handlers = table.gates.iter().map(|gate| VirtAddr(gate.1).page());
    let needed: FxHashSet<VirtAddr> = executed.iter().copied().chain(handlers).collect();
    let may_differ = |at: u64| !needed.contains(&VirtAddr(at)) && tables.is_writable(at) != Some(false);
    let mut different = 0;
    // A page of zeros is in neither.
    let gone = other.iter().map(|(at, _)| at).filter(|&at| mine.page(at).is_none());
    let changed = mine.iter().filter(|&(at, page)| other.page(at) != Some(page)).map(|(at, _)| at);
    for at in changed.chain(gone) {
        different += 1;
        if !may_differ(at) || different > mine.len() / MOST_DIFFERENT {
            return false;
        }
    }
    // A damaged piece has no pages.
    other.damage().is_none()
}

#[cfg(test)]
mod tests {
    use ir::relocation::RelocationTable;

    use super::*;
    use crate::training::tables::tests::mapping;

    const KERNEL: u64 = 0xc010_0000;
    const DATA: u64 = KERNEL + 0x4000;

    /// A kernel of four pages that it may only execute and as many that it may write, each filled
    /// with its number.
    fn system(change: impl Fn(&mut [[u8; 4096]; 8])) -> System {
        let mut pages: [[u8; 4096]; 8] = std::array::from_fn(|number| [number as u8 + 1; 4096]);
        change(&mut pages);
        let mut system = System::default();
        let kept = pages.iter().enumerate().filter(|(_, page)| **page != [0; 4096]);
        kept.for_each(|(number, page)| system.insert(KERNEL + number as u64 * 0x1000, page));
        system.set_relocations(RelocationTable { gates: vec![(0x40, DATA + 0x123)], ..Default::default() });
        system
    }

    #[test]
    fn a_copy_serves_if_it_differs_in_few_pages_that_may_be_written_and_nothing_needs() {
        let tables = Tables::new(vec![
            mapping(KERNEL, 0x10_0000, 0x4000, false),
            mapping(DATA, 0x10_4000, 0x4000, true),
        ]);
        let executed: FxHashSet<VirtAddr> = [VirtAddr(KERNEL), VirtAddr(DATA + 0x1000)].into_iter().collect();
        let mine = system(|_| {});
        let serves = |other: &System| serves(&mine, other, &tables, &executed);
        assert!(serves(&mine));
        assert!(serves(&system(|pages| pages[6][7] = 0)), "data");
        assert!(serves(&system(|pages| pages[6] = [0; 4096])), "a page that was still empty");
        assert!(serves(&system(|pages| (pages[6][7], pages[7][7]) = (0, 0))));
        assert!(!serves(&system(|pages| pages[5][7] = 0)), "it was executed");
        assert!(!serves(&system(|pages| pages[4][7] = 0)), "the handler of a gate");
        assert!(!serves(&system(|pages| pages[2][7] = 0)), "nobody may write that");
        let mut moved = system(|_| {});
        moved.set_relocations(RelocationTable { gates: vec![(0x40, DATA + 0x124)], ..Default::default() });
        assert!(!serves(&moved));
        let none = FxHashSet::default();
        let many = system(|pages| (pages[5][7], pages[6][7], pages[7][7]) = (0, 0, 0));
        assert!(!super::serves(&mine, &many, &tables, &none), "three pages of eight");
    }
}

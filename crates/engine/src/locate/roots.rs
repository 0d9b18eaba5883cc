//! Page tables that map the program's kernel, where nobody says which of them the processors use.
//!
//! Each process has its own, and all of one kernel agree on its half of the addresses. How many
//! agree says nothing: whoever can write memory can make any number. So page tables that disagree
//! with others are put aside only if they do not lead to what the kernel needs; see
//! [`locate`](super::locate).

use std::collections::BTreeMap;
use std::ops::Range;

use machine::paging::PagingMode;
use machine::{GuestMemory, PhysAddr, hash};

use super::pages::each_page;

/// Bits in which entries for the same mapping may differ: accessed and dirty (SDM vol. 3 section
/// 4.8).
const NOTED: u64 = 0x60;
/// Address bits of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The entry by which a root maps itself, as some systems do.
const ITSELF: u64 = u64::MAX;

/// The kernel's half of page tables, and the roots that have it.
#[derive(Clone, Debug)]
pub(super) struct Half {
    /// How many levels the tables have.
    pub mode: PagingMode,
    /// The roots, ascending.
    pub roots: Vec<u64>,
    /// The entries of the upper half of the root; 0 where there is none.
    entries: Vec<u64>,
    /// With five levels, those of the table that leads to the kernel's image, which would do as a
    /// root of four.
    below: Option<Vec<u64>>,
}

impl Half {
    /// Whether both have an entry at the same place and not the same one. That one alone has some
    /// (a process's own, or one that was made later) leads no address to two places.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        let both = self.entries.iter().zip(&other.entries);
        self.mode != other.mode || both.into_iter().any(|(a, b)| *a != 0 && *b != 0 && a != b)
    }

    /// Whether these are five levels only because they lead to the other's half: any entry in
    /// memory can point to the root of four levels.
    pub(super) fn is_explained_by(&self, other: &Self) -> bool {
        other.mode == PagingMode::Level4 && self.below.as_ref() == Some(&other.entries)
    }
}

/// The halves of all pages that `maps` says map the kernel as roots, those that most roots have
/// first. `kernel` is an address of the kernel's image; a root that is `given` is only checked.
pub(super) fn halves(
    memory: &dyn GuestMemory,
    given: Option<u64>,
    kernel: u64,
    maps: impl Fn(PagingMode, u64) -> bool,
) -> Vec<Half> {
    const MODES: [PagingMode; 2] = [PagingMode::Level5, PagingMode::Level4];
    let ranges = memory.ranges();
    if let Some(root) = given {
        let mode = MODES.into_iter().find(|mode| maps(*mode, root));
        let half = |mode| Half { mode, roots: vec![root], entries: Vec::new(), below: None };
        return mode.map(half).into_iter().collect();
    }
    let mut found: BTreeMap<(bool, Vec<u64>), Vec<u64>> = BTreeMap::new();
    each_page(memory, &mut |addr, _| {
        for mode in MODES {
            if maps(mode, addr.0) {
                let key = (mode == PagingMode::Level4, upper(memory, &ranges, addr.0));
                found.entry(key).or_default().push(addr.0);
            }
        }
    });
    let below = |root: u64| {
        let index = kernel >> 48 & 511;
        memory.read_u64(PhysAddr(root + 8 * index)).unwrap_or(0) & ADDRESS
    };
    let five = found.iter().filter(|((four, _), _)| !four);
    let tables: hash::Set<u64> = five.flat_map(|(_, roots)| roots.iter().copied().map(below)).collect();
    let mut halves: Vec<Half> = Vec::new();
    for ((four, entries), mut roots) in found {
        if four {
            // Of five levels the fourth table maps the kernel as well.
            roots.retain(|root| !tables.contains(root));
            if roots.is_empty() {
                continue;
            }
        }
        let mode = if four { PagingMode::Level4 } else { PagingMode::Level5 };
        let below = (!four).then(|| upper(memory, &ranges, below(roots[0])));
        halves.push(Half { mode, roots, entries, below });
    }
    halves.sort_by_key(|half| (std::cmp::Reverse(half.roots.len()), half.roots[0]));
    halves
}

/// The entries of the upper half of a table, without what does not make a difference.
fn upper(memory: &dyn GuestMemory, ranges: &[Range<PhysAddr>], table: u64) -> Vec<u64> {
    let in_ram = |addr: u64| {
        let next = ranges.partition_point(|range| range.start.0 <= addr);
        next.checked_sub(1).is_some_and(|at| addr < ranges[at].end.0)
    };
    let Ok(page) = memory.page(PhysAddr(table)) else { return Vec::new() };
    let entries = page[2048..].chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    let plain = |entry: u64| match entry & ADDRESS {
        _ if entry & 1 == 0 => 0,
        addr if addr == table => ITSELF,
        addr if in_ram(addr) => entry & !NOTED,
        _ => 0,
    };
    entries.map(plain).collect()
}

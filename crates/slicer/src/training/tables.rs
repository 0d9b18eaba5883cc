//! What the page tables of a boot map for the supervisor, and which of it nobody may write.

use std::ops::ControlFlow;

use machine::VirtAddr;
use machine::paging::{self, DEFAULT_WALK_LIMIT, Mapping};

use super::mappings::Mappings;

/// What the page tables of a boot map for the supervisor.
pub struct Tables {
    /// The mappings, ascending by address.
    pub all: Vec<Mapping>,
    /// Frames that some mapping lets it write.
    writable: Frames,
}

impl Tables {
    /// Those of a boot.
    pub fn of(mappings: &Mappings<'_>) -> Self {
        let mut all = Vec::new();
        paging::walk(
            &mappings.memory,
            mappings.mode,
            mappings.kernel_root,
            VirtAddr(0)..=VirtAddr(u64::MAX),
            DEFAULT_WALK_LIMIT,
            &mut |mapping| {
                if !mapping.user {
                    all.push(*mapping);
                }
                ControlFlow::Continue(())
            },
        );
        Self::new(all)
    }

    /// These mappings, ascending by address.
    pub fn new(all: Vec<Mapping>) -> Self {
        let writable = Frames::of(all.iter().filter(|it| it.writable));
        Self { all, writable }
    }

    /// Whether a frame may be written by any of its addresses.
    pub fn is_frame_writable(&self, frame: u64) -> bool {
        self.writable.overlap(frame, 1)
    }

    /// Whether what is at an address may be written, by this or any other; `None` where nothing is.
    pub fn is_writable(&self, address: u64) -> Option<bool> {
        let after = self.all.partition_point(|it| it.vaddr.0 <= address);
        let mapping = self.all.get(after.checked_sub(1)?)?;
        let at = address - mapping.vaddr.0;
        (at < mapping.size).then(|| self.is_frame_writable(mapping.paddr.0 + at))
    }
}

/// Physical memory: ranges, ascending, none of which overlaps another.
pub struct Frames(Vec<(u64, u64)>);

impl Frames {
    /// What these map.
    pub fn of<'m>(mappings: impl Iterator<Item = &'m Mapping>) -> Self {
        let mut frames: Vec<(u64, u64)> =
            mappings.map(|it| (it.paddr.0, it.paddr.0.saturating_add(it.size))).collect();
        frames.sort_unstable();
        frames.dedup_by(|next, last| {
            let joined = next.0 <= last.1;
            if joined {
                last.1 = last.1.max(next.1);
            }
            joined
        });
        Self(frames)
    }

    /// Whether any of it lies in a range.
    pub fn overlap(&self, start: u64, size: u64) -> bool {
        let before = self.0.partition_point(|range| range.0 < start.saturating_add(size));
        before.checked_sub(1).is_some_and(|at| start < self.0[at].1)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use machine::PhysAddr;

    pub fn mapping(vaddr: u64, paddr: u64, size: u64, writable: bool) -> Mapping {
        let (vaddr, paddr) = (VirtAddr(vaddr), PhysAddr(paddr));
        Mapping { vaddr, paddr, size, user: false, writable, executable: false, global: false }
    }

    #[test]
    fn what_any_mapping_of_a_frame_may_write_is_writable() {
        let tables = Tables::new(vec![
            mapping(0x1000, 0x9000, 0x1000, false),
            mapping(0x4000, 0xa000, 0x1000, false),
            // All memory, and a part of it once more.
            mapping(0x10_0000, 0xa000, 0x10_0000, true),
            mapping(0x40_0000, 0xb000, 0x1000, true),
        ]);
        assert_eq!(tables.is_writable(0x1fff), Some(false));
        assert_eq!(tables.is_writable(0x4000), Some(true), "by its other address");
        assert_eq!(tables.is_writable(0x2000), None);
        assert_eq!(tables.is_writable(0), None);
        assert!(tables.is_frame_writable(0x2_0000), "behind the smaller mapping's end");
    }
}

//! What the page tables of a boot map for the supervisor, and which of it nobody may write.

use std::ops::ControlFlow;

use machine::VirtAddr;
use machine::paging::{self, DEFAULT_WALK_LIMIT, Mapping};

use super::mappings::Mappings;

/// What the page tables of a boot map for the supervisor.
pub struct Tables {
    /// The mappings, ascending by address.
    pub all: Vec<Mapping>,
    /// Frames that some mapping lets it write: where they begin, and the farthest end so far.
    writable: Vec<(u64, u64)>,
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

    fn new(all: Vec<Mapping>) -> Self {
        let frames = |it: &Mapping| (it.paddr.0, it.paddr.0 + it.size);
        let mut writable: Vec<(u64, u64)> = all.iter().filter(|it| it.writable).map(frames).collect();
        writable.sort_unstable();
        // A large mapping may hold later ones: the farthest end so far decides.
        let mut farthest = 0;
        for it in &mut writable {
            farthest = it.1.max(farthest);
            it.1 = farthest;
        }
        Self { all, writable }
    }

    /// Whether a frame may be written by any of its addresses.
    pub fn is_frame_writable(&self, frame: u64) -> bool {
        let after = self.writable.partition_point(|it| it.0 <= frame);
        after > 0 && self.writable[after - 1].1 > frame
    }

    /// Whether what is at an address may be written, by this or any other; `None` where nothing is.
    pub fn is_writable(&self, address: u64) -> Option<bool> {
        let after = self.all.partition_point(|it| it.vaddr.0 <= address);
        let mapping = self.all.get(after.checked_sub(1)?)?;
        let at = address - mapping.vaddr.0;
        (at < mapping.size).then(|| self.is_frame_writable(mapping.paddr.0 + at))
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

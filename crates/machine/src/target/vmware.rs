//! VMware's suspended machines and snapshots with memory: a `.vmss` or `.vmsn` file that describes
//! it, and the memory in that file or in a `.vmem` file of the same name.
//!
//! The description is groups of tags. Of the group "memory" the tags are read that say which pages
//! of the memory file belong to which physical pages: with RAM beyond the hole below 4 GiB the two
//! differ, and a `.vmem` file alone would be misread. Sources: crash's `vmware_vmss.c`,
//! Volatility's `vmware.py`. Implemented from them; no file of VMware itself was at hand to compare
//! with.
//!
//! Processors are not read: of the tags that hold them, published descriptions lack the segments'
//! bases, without which nothing runs. Compressed memory and the 32-bit form of the oldest versions
//! are refused.

use std::path::{Path, PathBuf};

use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::memory::Segment;

/// How descriptions begin; the first is the old form.
const MAGICS: [u32; 5] = [0xbed0_bed0, 0xbed2_bed2, 0xbed3_bed3, 0xbad1_bad1, 0xbad2_bad2];
/// Bytes of the header, and of each group behind it.
const HEADER: usize = 12;
const GROUP: usize = 80;
/// Groups and regions accepted; files have some thirty and three.
const MAX_GROUPS: usize = 4096;
const MAX_REGIONS: usize = 4096;
/// Sizes of a tag's value that mean a block follows.
const COMPRESSED: u8 = 62;
const BLOCK: u8 = 63;

/// Why a machine of VMware cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VmwareError {
    /// The form of the oldest versions.
    #[error("it is a VMware snapshot in the old 32-bit form")]
    Old,
    /// Something lies behind the end.
    #[error("truncated or damaged: the VMware snapshot has no whole {what} at byte {at:#x}")]
    Cut {
        /// What should be there.
        what: &'static str,
        /// Where it would begin.
        at: usize,
    },
    /// A snapshot without memory.
    #[error("the VMware snapshot describes no memory")]
    NoMemory,
    /// Memory that is compressed.
    #[error("the memory in the VMware snapshot is compressed")]
    Compressed,
    /// The memory is in another file, which is not there.
    #[error("the memory of this VMware snapshot is not in it, and there is none at {}", .0.display())]
    NoVmem(PathBuf),
}

/// Where the memory is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Layout {
    /// Physical pages and where in the memory they begin, in bytes; empty if the two are the same.
    regions: Vec<Region>,
    /// Place and size of the memory in the file itself.
    pub(super) inside: Option<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Region {
    /// First page frame.
    frame: u32,
    /// First page of the memory file.
    page: u32,
    /// How many pages.
    size: u32,
}

impl Layout {
    /// The segments of memory of `len` bytes that begins at `at` of its file.
    pub(super) fn segments(&self, at: u64, len: u64) -> Vec<Segment> {
        if self.regions.is_empty() {
            return vec![Segment { start: PhysAddr(0), size: len, offset: at }];
        }
        let bytes = |pages: u32| u64::from(pages) * PAGE_SIZE;
        let segments = self.regions.iter().map(|region| Segment {
            start: PhysAddr(bytes(region.frame)),
            size: bytes(region.size),
            offset: at + bytes(region.page),
        });
        segments.collect()
    }
}

/// Whether a file is a description.
pub(super) fn is_description(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|magic| MAGICS.contains(&u32::from_le_bytes(*magic)))
}

/// The description beside a memory file, if it has the name of one.
pub(super) fn description_of(memory: &Path) -> Option<PathBuf> {
    let is_memory = memory.extension().is_some_and(|ending| ending == "vmem");
    let beside = ["vmss", "vmsn"].map(|ending| memory.with_extension(ending));
    beside.into_iter().find(|path| is_memory && path.is_file())
}

/// Reads where the memory is from a description.
pub(super) fn parse(bytes: &[u8]) -> Result<Layout, VmwareError> {
    let number = |at: usize, size: usize, what| {
        let field =
            at.checked_add(size).and_then(|end| bytes.get(at..end)).ok_or(VmwareError::Cut { what, at })?;
        Ok(field.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte)))
    };
    if number(0, 4, "header")? == u64::from(MAGICS[0]) {
        return Err(VmwareError::Old);
    }
    let groups = (number(8, 4, "header")? as usize).min(MAX_GROUPS);
    let names = (0..groups).map(|i| HEADER + i * GROUP);
    for at in names {
        let name = bytes.get(at..at + 64).ok_or(VmwareError::Cut { what: "group", at })?;
        if name.starts_with(b"memory\0") {
            let place = number(at + 64, 8, "group")?;
            let place = usize::try_from(place).map_err(|_| VmwareError::Cut { what: "group", at })?;
            return memory(bytes, place);
        }
    }
    Err(VmwareError::NoMemory)
}

/// Reads the tags of the group "memory".
fn memory(bytes: &[u8], mut at: usize) -> Result<Layout, VmwareError> {
    let mut layout = Layout::default();
    let mut count = 0;
    loop {
        let cut = VmwareError::Cut { what: "tag", at };
        let mut rest = bytes.get(at..).ok_or(cut.clone())?;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at_checked(n).ok_or(cut.clone())?;
            rest = tail;
            Ok(head)
        };
        let number = |field: &[u8]| field.iter().rev().take(8).fold(0, |n, &byte| n << 8 | u64::from(byte));
        let head = take(2)?;
        let (flags, name_len) = (head[0], head[1]);
        if (flags, name_len) == (0, 0) {
            break;
        }
        let name = take(name_len.into())?;
        let indexes = take(4 * usize::from(flags >> 6))?;
        let index = number(indexes.get(..4).unwrap_or(&[])) as usize;
        let size = flags & 0x3f;
        if size >= COMPRESSED {
            let len = number(take(8)?);
            take(8)?;
            let padding = number(take(2)?) as usize;
            take(padding)?;
            let data = bytes.len() - rest.len();
            if name == b"Memory" && size == COMPRESSED {
                return Err(VmwareError::Compressed);
            }
            if name == b"Memory" && size == BLOCK {
                layout.inside = Some((data as u64, len));
            }
            let len = usize::try_from(len).map_err(|_| VmwareError::Cut { what: "block", at })?;
            at = data.checked_add(len).ok_or(VmwareError::Cut { what: "block", at })?;
            continue;
        }
        let value = number(take(size.into())?) as u32;
        at = bytes.len() - rest.len();
        let field: fn(&mut Region) -> &mut u32 = match name {
            b"regionsCount" => {
                count = value as usize;
                continue;
            }
            b"regionPPN" => |region| &mut region.frame,
            b"regionPageNum" => |region| &mut region.page,
            b"regionSize" => |region| &mut region.size,
            _ => continue,
        };
        if index < MAX_REGIONS {
            layout.regions.resize(layout.regions.len().max(index + 1), Region::default());
            *field(&mut layout.regions[index]) = value;
        }
    }
    layout.regions.resize(count.min(MAX_REGIONS), Region::default());
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, indexes: &[u32], value: u32) -> Vec<u8> {
        let mut out = vec![(indexes.len() as u8) << 6 | 4, name.len() as u8];
        out.extend(name.as_bytes());
        indexes.iter().chain([&value]).for_each(|number| out.extend(number.to_le_bytes()));
        out
    }

    fn description(tags: &[Vec<u8>]) -> Vec<u8> {
        let mut out = [0xbed2_bed2u32, 8, 2].map(u32::to_le_bytes).concat();
        for (name, place) in [("cpu", 0u64), ("memory", (HEADER + 2 * GROUP) as u64)] {
            let mut group = name.as_bytes().to_vec();
            group.resize(64, 0);
            out.extend(group);
            out.extend([place.to_le_bytes(), [0; 8]].concat());
        }
        tags.iter().for_each(|tag| out.extend(tag));
        out.extend([0, 0]);
        out
    }

    #[test]
    fn regions_say_where_pages_are() {
        let mut tags = vec![tag("regionsCount", &[], 2), tag("align_mask", &[], 0xffff)];
        for (i, [page, frame, size]) in
            [[0, 0, 0xc_0000], [0xc_0000, 0x10_0000, 0x4_0000]].into_iter().enumerate()
        {
            let i = i as u32;
            tags.extend([
                tag("regionPageNum", &[i], page),
                tag("regionPPN", &[i], frame),
                tag("regionSize", &[i], size),
            ]);
        }
        let bytes = description(&tags);
        assert!(is_description(&bytes));
        let layout = parse(&bytes).unwrap();
        assert_eq!(layout.inside, None);
        let low = Segment { start: PhysAddr(0), size: 0xc000_0000, offset: 0 };
        let high = Segment { start: PhysAddr(1 << 32), size: 0x4000_0000, offset: 0xc000_0000 };
        assert_eq!(layout.segments(0, 0), [low, high]);
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn memory_may_be_inside() {
        let mut block = vec![2 << 6 | BLOCK, 6];
        block.extend(b"Memory");
        block.extend([0; 8]);
        block.extend([5u64.to_le_bytes(), 5u64.to_le_bytes()].concat());
        block.extend([3, 0, 0, 0, 0]);
        block.extend(b"bytes");
        let bytes = description(&[block.clone(), tag("regionsCount", &[], 0)]);
        let layout = parse(&bytes).unwrap();
        let (at, len) = layout.inside.unwrap();
        assert_eq!(&bytes[at as usize..][..len as usize], b"bytes");
        assert_eq!(layout.segments(at, len), [Segment { start: PhysAddr(0), size: 5, offset: at }]);
        block[0] = 2 << 6 | COMPRESSED;
        assert_eq!(parse(&description(&[block])), Err(VmwareError::Compressed));
        let old = [0xbed0_bed0u32.to_le_bytes(), [0; 4], [0; 4]].concat();
        assert_eq!(parse(&old), Err(VmwareError::Old));
    }
}

//! Guest memory that lies in one run of bytes (a mapped file) as segments at physical addresses.
//!
//! Whole pages are borrowed from the bytes as they are. The few pages that a segment covers only in
//! part, at its edges or at the end of a file whose length is no multiple of a page, are copied and
//! padded at construction, which keeps look-ups to one binary search. It knows nothing of file
//! formats: readers hand it segments.

use std::ops::Range;

use super::{GuestMemory, MemoryError, Page, ZERO_PAGE};
use crate::addr::{PAGE_SIZE, PhysAddr};

/// One past the largest physical address of the architecture: 2^52 (SDM vol. 3 section 4.1.4,
/// MAXPHYADDR).
pub const MAX_PHYS: u64 = 1 << 52;

/// Segments left after joining; QEMU writes some ten, a filtered Linux dump some thousands.
pub(crate) const MAX_SEGMENTS: usize = 1 << 20;
/// Pages that segments may cover only in part: bounds what construction allocates (64 MiB).
const MAX_PADDED: usize = 1 << 14;

/// `size` bytes of RAM from physical address `start` on, found at `offset` of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First physical address.
    pub start: PhysAddr,
    /// How many bytes it has.
    pub size: u64,
    /// Where in the file, in bytes.
    pub offset: u64,
}

impl Segment {
    /// One past the last physical address; construction has checked that it does not wrap.
    fn end(&self) -> u64 {
        self.start.0 + self.size
    }
}

/// Why segments do not make a memory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// A segment lies (partly) behind the end of the bytes.
    #[error(
        "truncated: the RAM at physical {start} is bytes {offset:#x} to {end:#x} of the file, which ends at \
         {len:#x}"
    )]
    Truncated {
        /// First physical address of the segment.
        start: PhysAddr,
        /// First byte it needs.
        offset: u64,
        /// One past the last byte it needs (saturated).
        end: u64,
        /// Bytes there are.
        len: u64,
    },
    /// A segment reaches beyond the largest physical address.
    #[error(
        "a segment of {size:#x} bytes at physical {start} reaches beyond 2^52, the largest physical address"
    )]
    TooLarge {
        /// First physical address of the segment.
        start: PhysAddr,
        /// Its bytes.
        size: u64,
    },
    /// Two segments give different bytes for the same physical address.
    #[error("two segments both hold physical address {0}, from different places of the file")]
    Overlap(PhysAddr),
    /// More segments, or more partly covered pages, than any capture has.
    #[error("{count} {what}; at most {limit} are accepted")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are accepted.
        limit: usize,
    },
}

/// Guest memory in bytes that are held elsewhere, usually a mapped file.
#[derive(Debug)]
pub struct ImageMemory<B> {
    bytes: B,
    /// Sorted by `start`, disjoint, joined where contiguous in memory and file.
    segments: Vec<Segment>,
    /// Padded copies of the pages covered in part, sorted by address.
    padded: Vec<(u64, Box<Page>)>,
}

impl<B: AsRef<[u8]>> ImageMemory<B> {
    /// Memory of `segments` (in any order, empty ones are dropped) over `bytes`.
    ///
    /// Segments may overlap where they agree about the place in the file: QEMU's `dump-guest-memory
    /// -p` writes one segment per *virtual* range, several of which can show the same RAM.
    pub fn new(bytes: B, segments: impl IntoIterator<Item = Segment>) -> Result<Self, ImageError> {
        let len = bytes.as_ref().len() as u64;
        let segments = join(check(segments, len)?)?;
        let mut memory = Self { bytes, segments, padded: Vec::new() };
        memory.padded = memory.pad_edges()?;
        Ok(memory)
    }

    /// Copies every page that segments cover in part.
    fn pad_edges(&self) -> Result<Vec<(u64, Box<Page>)>, ImageError> {
        let mut padded: Vec<(u64, Box<Page>)> = Vec::new();
        for segment in &self.segments {
            for edge in [segment.start.0, segment.end()] {
                let page = edge & !(PAGE_SIZE - 1);
                let known = padded.last().is_some_and(|&(last, _)| last == page);
                if edge == page || known {
                    continue;
                }
                if padded.len() == MAX_PADDED {
                    let what = "pages are covered only in part";
                    return Err(ImageError::TooMany { what, count: padded.len() + 1, limit: MAX_PADDED });
                }
                padded.push((page, self.assemble(page)));
            }
        }
        Ok(padded)
    }

    /// A page put together from all segments that touch it, zero elsewhere.
    fn assemble(&self, page: u64) -> Box<Page> {
        let mut out = Box::new(ZERO_PAGE);
        let first = self.segments.partition_point(|segment| segment.end() <= page);
        for segment in self.segments[first..].iter().take_while(|segment| segment.start.0 < page + PAGE_SIZE)
        {
            let from = segment.start.0.max(page);
            let to = segment.end().min(page + PAGE_SIZE);
            let at = (segment.offset + (from - segment.start.0)) as usize;
            out[(from - page) as usize..(to - page) as usize]
                .copy_from_slice(&self.bytes.as_ref()[at..at + (to - from) as usize]);
        }
        out
    }
}

impl<B: AsRef<[u8]> + Send + Sync> GuestMemory for ImageMemory<B> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let page = addr.page().0;
        let next = self.segments.partition_point(|segment| segment.start.0 <= page);
        if let Some(segment) = next.checked_sub(1).map(|i| self.segments[i])
            && page < segment.end()
            && segment.end() - page >= PAGE_SIZE
        {
            let at = (segment.offset + (page - segment.start.0)) as usize;
            return self.bytes.as_ref()[at..].first_chunk().ok_or(MemoryError::Hole(addr));
        }
        match self.padded.binary_search_by_key(&page, |&(at, _)| at) {
            Ok(i) => Ok(&self.padded[i].1),
            Err(_) => Err(MemoryError::Hole(addr)),
        }
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        let mut ranges: Vec<Range<PhysAddr>> = Vec::new();
        for segment in &self.segments {
            match ranges.last_mut() {
                Some(last) if last.end == segment.start => last.end = PhysAddr(segment.end()),
                _ => ranges.push(segment.start..PhysAddr(segment.end())),
            }
        }
        ranges
    }
}

/// The segments that are not empty, sorted by address, each inside the bytes and below 2^52.
fn check(segments: impl IntoIterator<Item = Segment>, len: u64) -> Result<Vec<Segment>, ImageError> {
    let mut checked: Vec<Segment> = segments.into_iter().filter(|segment| segment.size != 0).collect();
    for &Segment { start, size, offset } in &checked {
        if start.0.checked_add(size).is_none_or(|end| end > MAX_PHYS) {
            return Err(ImageError::TooLarge { start, size });
        }
        let end = offset.saturating_add(size);
        if end > len {
            return Err(ImageError::Truncated { start, offset, end, len });
        }
    }
    checked.sort_by_key(|segment| (segment.start, segment.size));
    Ok(checked)
}

/// Joins sorted segments that continue or repeat each other in memory and in the file alike.
fn join(segments: Vec<Segment>) -> Result<Vec<Segment>, ImageError> {
    let mut joined: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        if let Some(last) = joined.last_mut().filter(|last| segment.start.0 <= last.end()) {
            if last.offset + (segment.start.0 - last.start.0) == segment.offset {
                last.size = last.end().max(segment.end()) - last.start.0;
                continue;
            }
            if segment.start.0 < last.end() {
                return Err(ImageError::Overlap(segment.start));
            }
        }
        joined.push(segment);
    }
    if joined.len() > MAX_SEGMENTS {
        return Err(ImageError::TooMany {
            what: "separate segments",
            count: joined.len(),
            limit: MAX_SEGMENTS,
        });
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u64, size: u64, offset: u64) -> Segment {
        Segment { start: PhysAddr(start), size, offset }
    }

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i / 256) as u8 ^ i as u8).collect()
    }

    #[test]
    fn whole_pages_are_borrowed_and_edges_padded() {
        let data = bytes(0x2800);
        let mem = ImageMemory::new(&data, [segment(0x1_0000, 0x2800, 0)]).unwrap();
        let page = mem.page(PhysAddr(0x1_1234)).unwrap();
        assert!(std::ptr::eq(page.as_ptr(), &data[0x1000]), "a whole page is not copied");
        let last = mem.page(PhysAddr(0x1_2000)).unwrap();
        assert_eq!(last[..0x800], data[0x2000..]);
        assert_eq!(last[0x800..], [0; 0x800]);
        assert_eq!(mem.page(PhysAddr(0x1_3000)), Err(MemoryError::Hole(PhysAddr(0x1_3000))));
        assert_eq!(mem.page(PhysAddr(0xffff)), Err(MemoryError::Hole(PhysAddr(0xffff))));
        assert_eq!(mem.ranges(), [PhysAddr(0x1_0000)..PhysAddr(0x1_2800)]);
    }

    #[test]
    fn a_page_shared_by_segments_is_assembled() {
        let data = bytes(0x4000);
        let parts = [segment(0x1900, 0x1000, 0x100), segment(0x0, 0x1800, 0x2000)];
        let mem = ImageMemory::new(&data, parts).unwrap();
        let page = mem.page(PhysAddr(0x1000)).unwrap();
        assert_eq!(page[..0x800], data[0x3000..0x3800]);
        assert_eq!(page[0x800..0x900], [0; 0x100]);
        assert_eq!(page[0x900..], data[0x100..0x800]);
        assert_eq!(mem.page(PhysAddr(0x2000)).unwrap()[..0x900], data[0x800..0x1100]);
    }

    #[test]
    fn repeated_segments_are_joined_and_contradicting_ones_refused() {
        let data = bytes(0x4000);
        let same = [
            segment(0x1000, 0x2000, 0x1000),
            segment(0x2000, 0x2000, 0x2000),
            segment(0x1000, 0x1000, 0x1000),
        ];
        let mem = ImageMemory::new(&data, same).unwrap();
        assert_eq!(mem.segments, [segment(0x1000, 0x3000, 0x1000)]);
        let differ = [segment(0x1000, 0x2000, 0), segment(0x2000, 0x1000, 0)];
        assert_eq!(ImageMemory::new(&data, differ).unwrap_err(), ImageError::Overlap(PhysAddr(0x2000)));
    }

    #[test]
    fn impossible_segments_are_refused() {
        let data = bytes(0x1000);
        let cut = ImageMemory::new(&data, [segment(0, 0x1001, 0)]).unwrap_err();
        assert!(matches!(cut, ImageError::Truncated { end: 0x1001, len: 0x1000, .. }));
        for (start, size) in [(u64::MAX, 2), (MAX_PHYS, 1), (0, u64::MAX)] {
            let error = ImageMemory::new(&data, [segment(start, size, 0)]).unwrap_err();
            assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
        }
        assert!(ImageMemory::new(&data, [segment(0, 2, u64::MAX)]).is_err());
        assert!(ImageMemory::new(&data, [segment(5, 0, u64::MAX)]).unwrap().ranges().is_empty());
    }

    #[test]
    fn many_partial_pages_are_bounded() {
        let data = bytes(16);
        let crumbs = (0..MAX_PADDED as u64 + 1).map(|i| segment(i * 0x2000, 1, 0));
        assert!(matches!(ImageMemory::new(&data, crumbs), Err(ImageError::TooMany { .. })));
    }
}

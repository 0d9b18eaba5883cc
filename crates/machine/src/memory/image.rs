//! Guest memory that lies in one run of bytes (a mapped file) as segments at physical addresses.
//!
//! Whole pages are borrowed from the bytes as they are. The few pages that a segment covers only in
//! part, at its edges or at the end of a file whose length is no multiple of a page, are copied and
//! padded at construction, which keeps look-ups to one binary search. Segments may list the same
//! addresses more than once, as kernels' cores do for their text, if the bytes are the same. What a
//! file that was cut off lacks is RAM that is absent, if the caller allows that. It knows nothing
//! of file formats: readers hand it segments.

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
/// Bytes that are compared where segments list the same addresses twice: kernels do it for their
/// text, some tens of MiB.
const MAX_COMPARED: u64 = 1 << 30;
/// What a comparison counts at least, so that many small ones are bounded too.
const LEAST_COMPARED: u64 = 64;

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
        "truncated: {missing} bytes are missing at its end: the RAM at physical {start} is bytes {offset:#x} \
         to {end:#x} of the file, which ends at {len:#x}"
    )]
    Truncated {
        /// Bytes that the file would have to be longer for all segments.
        missing: u64,
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
    #[error("two segments both hold physical address {0}, with different bytes")]
    Overlap(PhysAddr),
    /// More of the memory is listed twice than is compared.
    #[error("its segments list more than {MAX_COMPARED} bytes of the same addresses again, from elsewhere")]
    Repeated,
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
    /// Whole pages of which the file lacks bytes, sorted by start; segments may hold some of them.
    missing: Vec<Range<u64>>,
    /// Places of the bytes that are zero and need not be looked at, sorted and disjoint.
    holes: Vec<Range<u64>>,
}

impl<B: AsRef<[u8]>> ImageMemory<B> {
    /// Memory of `segments` (in any order, empty ones are dropped) over `bytes`.
    ///
    /// Segments may overlap where their bytes are the same: QEMU's `dump-guest-memory -p` writes
    /// one segment per *virtual* range, several of which can show the same RAM, and `/proc/vmcore`
    /// has the kernel's text twice.
    pub fn new(bytes: B, segments: impl IntoIterator<Item = Segment>) -> Result<Self, ImageError> {
        let len = bytes.as_ref().len() as u64;
        let segments = check(segments)?;
        if let Some(error) = truncated(&segments, len) {
            return Err(error);
        }
        Self::whole(bytes, segments, Vec::new())
    }

    /// The same where bytes may end too early: pages that are not wholly there are absent.
    pub fn partial(bytes: B, segments: impl IntoIterator<Item = Segment>) -> Result<Self, ImageError> {
        let len = bytes.as_ref().len() as u64;
        let (segments, missing) = clip(check(segments)?, len);
        Self::whole(bytes, segments, missing)
    }

    fn whole(bytes: B, segments: Vec<Segment>, missing: Vec<Range<u64>>) -> Result<Self, ImageError> {
        let segments = join(segments, bytes.as_ref())?;
        let mut memory = Self { bytes, segments, padded: Vec::new(), missing, holes: Vec::new() };
        memory.padded = memory.pad_edges()?;
        Ok(memory)
    }

    /// The same memory, which knows that the bytes at these places, sorted and disjoint, are zero.
    #[must_use]
    pub fn with_holes(mut self, holes: Vec<Range<u64>>) -> Self {
        self.holes = holes;
        self
    }

    /// Whether the page at this place of the bytes is zero for sure.
    fn in_hole(&self, at: u64) -> bool {
        let behind = self.holes.partition_point(|hole| hole.start <= at);
        self.holes[..behind].last().is_some_and(|hole| at < hole.end && hole.end - at >= PAGE_SIZE)
    }

    /// Bytes of RAM that should be there and are not.
    pub fn missing(&self) -> u64 {
        let there: u64 = self.segments.iter().map(|segment| segment.size).sum();
        let all: u64 = self.ranges_of().iter().map(|range| range.end - range.start).sum();
        all - there
    }

    /// The ranges of RAM, those that are missing included.
    fn ranges_of(&self) -> Vec<Range<u64>> {
        let mut all: Vec<Range<u64>> = self.segments.iter().map(|it| it.start.0..it.end()).collect();
        if !self.missing.is_empty() {
            all.extend(self.missing.iter().cloned());
            all.sort_by_key(|range| range.start);
        }
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in all {
            match ranges.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        ranges
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
            if self.in_hole(at as u64) {
                return Ok(&ZERO_PAGE);
            }
            return self.bytes.as_ref()[at..].first_chunk().ok_or(MemoryError::Hole(addr));
        }
        let behind = self.missing.partition_point(|range| range.start < page + PAGE_SIZE);
        if self.missing[..behind].last().is_some_and(|range| page < range.end) {
            return Err(MemoryError::Absent(addr));
        }
        match self.padded.binary_search_by_key(&page, |&(at, _)| at) {
            Ok(i) => Ok(&self.padded[i].1),
            Err(_) => Err(MemoryError::Hole(addr)),
        }
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.ranges_of().into_iter().map(|range| PhysAddr(range.start)..PhysAddr(range.end)).collect()
    }
}

/// The segments that are not empty, sorted by address, each below 2^52.
fn check(segments: impl IntoIterator<Item = Segment>) -> Result<Vec<Segment>, ImageError> {
    let mut checked: Vec<Segment> = segments.into_iter().filter(|segment| segment.size != 0).collect();
    for &Segment { start, size, .. } in &checked {
        if start.0.checked_add(size).is_none_or(|end| end > MAX_PHYS) {
            return Err(ImageError::TooLarge { start, size });
        }
    }
    checked.sort_by_key(|segment| (segment.start, segment.size));
    Ok(checked)
}

/// The error of segments of which the last in the file does not lie inside its `len` bytes.
fn truncated(segments: &[Segment], len: u64) -> Option<ImageError> {
    let end = |segment: &Segment| segment.offset.saturating_add(segment.size);
    let first = segments.iter().filter(|segment| end(segment) > len).min_by_key(|segment| segment.offset)?;
    let last = segments.iter().map(end).max()?;
    let &Segment { start, offset, .. } = first;
    Some(ImageError::Truncated { missing: last - len, start, offset, end: end(first), len })
}

/// What of sorted segments lies inside `len` bytes, in whole pages where they are cut, and the
/// pages that do not, sorted and disjoint.
fn clip(segments: Vec<Segment>, len: u64) -> (Vec<Segment>, Vec<Range<u64>>) {
    let (mut kept, mut missing) = (Vec::new(), Vec::<Range<u64>>::new());
    for segment in segments {
        if segment.offset.checked_add(segment.size).is_some_and(|end| end <= len) {
            kept.push(segment);
            continue;
        }
        // A page of which bytes are missing is missing; it must not read as zeros.
        let there = segment.start.0 + len.saturating_sub(segment.offset).min(segment.size);
        let cut = (there & !(PAGE_SIZE - 1)).max(segment.start.0);
        let size = cut - segment.start.0;
        if size != 0 {
            kept.push(Segment { size, ..segment });
        }
        match missing.last_mut() {
            Some(last) if last.end >= cut => last.end = last.end.max(segment.end()),
            _ => missing.push(cut..segment.end()),
        }
    }
    (kept, missing)
}

/// Joins sorted segments that continue or repeat each other. Where two hold the same addresses from
/// different places of the file, the bytes have to be the same.
fn join(segments: Vec<Segment>, bytes: &[u8]) -> Result<Vec<Segment>, ImageError> {
    let mut joined: Vec<Segment> = Vec::with_capacity(segments.len());
    let mut compared = 0u64;
    for segment in segments {
        // What is covered from the segment's start on is covered without a gap: all that is joined
        // began no later, or where the piece before it ends.
        let first = joined.partition_point(|it| it.end() <= segment.start.0);
        for known in &joined[first..] {
            let (from, to) = (known.start.0.max(segment.start.0), known.end().min(segment.end()));
            let (this, that) =
                (segment.offset + (from - segment.start.0), known.offset + (from - known.start.0));
            if from >= to || (this == that && known.end() >= segment.end()) {
                break;
            }
            compared += if this == that { LEAST_COMPARED } else { LEAST_COMPARED.max(to - from) };
            if compared > MAX_COMPARED {
                return Err(ImageError::Repeated);
            }
            if this != that {
                let part = |at: u64| &bytes[at as usize..(at + (to - from)) as usize];
                same(part(this), part(that)).map_err(|at| ImageError::Overlap(PhysAddr(from + at)))?;
            }
        }
        let covered = joined.last().map_or(0, Segment::end).clamp(segment.start.0, segment.end());
        let known = covered - segment.start.0;
        if known == segment.size {
            continue;
        }
        let rest =
            Segment { start: PhysAddr(covered), size: segment.size - known, offset: segment.offset + known };
        match joined.last_mut() {
            Some(last) if last.end() == covered && last.offset + last.size == rest.offset => {
                last.size += rest.size;
            }
            _ => joined.push(rest),
        }
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

/// Whether bytes are the same, or where they differ first.
fn same(one: &[u8], other: &[u8]) -> Result<(), u64> {
    if one == other {
        return Ok(());
    }
    Err(one.iter().zip(other).take_while(|(a, b)| a == b).count() as u64)
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
    fn addresses_listed_twice_have_to_hold_the_same_bytes() {
        // Pages 0 to 3 of RAM, and behind them pages 1 and 2 once more, as a kernel lists its text.
        let mut data = bytes(0x4000);
        data.extend_from_within(0x1000..0x3000);
        let all = segment(0x1_0000, 0x4000, 0);
        let text = segment(0x1_1000, 0x2000, 0x4000);
        for (parts, at) in [
            (vec![text, all], 0x1000),
            // The second listing goes on where the first ends, and a third lies across both.
            (vec![segment(0x1_0000, 0x2000, 0), text, segment(0x1_1800, 0x1000, 0x1800)], 0x1000),
            (vec![segment(0x1_0800, 0x1000, 0x800), text, text, all], 0x1000),
        ] {
            let mem = ImageMemory::new(&data, parts.clone()).unwrap();
            assert_eq!(mem.page(PhysAddr(0x1_1000)).unwrap()[..], data[at..at + 0x1000], "{parts:x?}");
            assert_eq!(mem.page(PhysAddr(0x1_2000)).unwrap()[..], data[0x2000..0x3000]);
            assert!(mem.segments.windows(2).all(|pair| pair[0].end() <= pair[1].start.0));
            let mut other = data.clone();
            other[0x4123] ^= 1;
            let error = ImageMemory::new(&other, parts).unwrap_err();
            assert_eq!(error, ImageError::Overlap(PhysAddr(0x1_1123)));
        }
    }

    #[test]
    fn comparing_is_bounded() {
        let data = vec![0; 0x10_0000];
        let many = (0..2000).map(|i| segment(i, 0xf_f000, i % 3));
        assert_eq!(ImageMemory::new(&data, many).unwrap_err(), ImageError::Repeated);
    }

    #[test]
    fn what_is_cut_off_is_absent() {
        let data = bytes(0x2800);
        let parts = [segment(0x1_0000, 0x4800, 0), segment(0x8000, 0x1000, 0x4800)];
        let error = ImageMemory::new(&data, parts).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { missing: 0x3000, len: 0x2800, .. }), "{error}");
        let mem = ImageMemory::partial(&data, parts).unwrap();
        assert_eq!(mem.missing(), 0x1000 + 0x2800);
        assert_eq!(
            mem.ranges(),
            [PhysAddr(0x8000)..PhysAddr(0x9000), PhysAddr(0x1_0000)..PhysAddr(0x1_4800)]
        );
        assert_eq!(mem.page(PhysAddr(0x1_1fff)).unwrap()[..], data[0x1000..0x2000]);
        for absent in [0x8000, 0x1_2000, 0x1_2800, 0x1_4000] {
            assert_eq!(mem.page(PhysAddr(absent)), Err(MemoryError::Absent(PhysAddr(absent))));
        }
        assert_eq!(mem.page(PhysAddr(0x1_5000)), Err(MemoryError::Hole(PhysAddr(0x1_5000))));
        let whole = ImageMemory::partial(&data, [segment(0, 0x2800, 0)]).unwrap();
        assert_eq!((whole.missing(), whole.page(PhysAddr(0x2000)).is_ok()), (0, true));
        // Claims cost nothing.
        let claims = [segment(0, MAX_PHYS, 0x2000), segment(0, 0x5000, u64::MAX)];
        assert_eq!(ImageMemory::partial(&data, claims).unwrap().missing(), MAX_PHYS);
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

//! Guest memory in a migration stream.
//!
//! A stream has pages in any order, some of them more than once: the last one counts. The form for
//! files (`mapped-ram`) has a place for each page and a bitmap that says which places are used; a
//! page that was never written is zero. Pages are borrowed from the stream as they lie.

use std::ops::Range;

use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::memory::{GuestMemory, MemoryError, Page, PageStore, ZERO_PAGE};
use crate::target::placement::RamRange;

/// Says that a page consists of one byte again and again, instead of where it lies.
const FILLED: u64 = 1 << 63;

/// Pages of a stream.
#[derive(Debug)]
pub(super) enum Content {
    /// Their numbers and places, sorted by number, each once.
    Listed(Vec<(u64, u64)>),
    /// A bitmap of little-endian words and where the first page would lie.
    Mapped {
        /// Place of the bitmap.
        bitmap: u64,
        /// Place of the pages.
        pages: u64,
    },
}

/// Pages in the order of a stream.
#[derive(Debug, Default)]
pub(super) struct Listing(Vec<(u64, u64)>);

impl Listing {
    /// A page that lies at `at`.
    pub(super) fn page(&mut self, number: u64, at: usize) {
        self.0.push((number, at as u64));
    }

    /// A page of `byte`s.
    pub(super) fn filled(&mut self, number: u64, byte: u8) {
        self.0.push((number, FILLED | u64::from(byte)));
    }

    /// The last state of each page.
    pub(super) fn settle(mut self) -> Content {
        // Stable, so that the last of a page's states stays the last.
        self.0.sort_by_key(|&(number, _)| number);
        self.0.reverse();
        self.0.dedup_by_key(|&mut (number, _)| number);
        self.0.reverse();
        Content::Listed(self.0)
    }
}

/// One block of a stream that is RAM of the machine.
#[derive(Debug)]
pub(super) struct Block {
    /// Where it begins in the machine's RAM.
    pub(super) start: u64,
    /// Its bytes.
    pub(super) size: u64,
    pub(super) content: Content,
}

/// RAM of a stream at its physical addresses.
#[derive(Debug)]
pub(in crate::target) struct StreamMemory<B> {
    bytes: B,
    /// Sorted by start, disjoint.
    blocks: Vec<Block>,
    /// Sorted by address, disjoint.
    ranges: Vec<RamRange>,
    filled: PageStore,
}

impl<B: AsRef<[u8]>> StreamMemory<B> {
    pub(super) fn new(bytes: B, blocks: Vec<Block>, ranges: Vec<RamRange>) -> Self {
        Self { bytes, blocks, ranges, filled: PageStore::new(256) }
    }

    /// The page at `place` of the machine's RAM.
    fn at(&self, place: u64) -> Option<&Page> {
        let next = self.blocks.partition_point(|block| block.start <= place);
        let block = &self.blocks[next.checked_sub(1)?];
        let within = place - block.start;
        if within >= block.size {
            return None;
        }
        let number = within / PAGE_SIZE;
        let at = match &block.content {
            Content::Listed(pages) => {
                let at = pages[pages.binary_search_by_key(&number, |&(number, _)| number).ok()?].1;
                if at == FILLED {
                    return Some(&ZERO_PAGE);
                }
                if at & FILLED != 0 {
                    let byte = (at & 0xff) as u8;
                    return self.filled.get_or_make(byte.into(), || Some(Box::new([byte; 4096])));
                }
                at
            }
            Content::Mapped { bitmap, pages } => {
                let byte = usize::try_from(bitmap.checked_add(number / 8)?).ok()?;
                if self.bytes.as_ref().get(byte)? >> (number % 8) & 1 == 0 {
                    return Some(&ZERO_PAGE);
                }
                pages.checked_add(within & !(PAGE_SIZE - 1))?
            }
        };
        self.bytes.as_ref().get(usize::try_from(at).ok()?..)?.first_chunk()
    }
}

impl<B: AsRef<[u8]> + Send + Sync> GuestMemory for StreamMemory<B> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let page = addr.page().0;
        let next = self.ranges.partition_point(|range| range.start <= page);
        let range = next.checked_sub(1).map(|i| self.ranges[i]).filter(|range| page < range.end);
        let range = range.ok_or(MemoryError::Hole(addr))?;
        self.at(range.offset + (page - range.start)).ok_or(MemoryError::Absent(addr))
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        let mut ranges: Vec<Range<PhysAddr>> = Vec::new();
        for range in &self.ranges {
            match ranges.last_mut() {
                Some(last) if last.end.0 == range.start => last.end = PhysAddr(range.end),
                _ => ranges.push(PhysAddr(range.start)..PhysAddr(range.end)),
            }
        }
        ranges
    }
}

//! Guest memory in an AVML capture: blocks of Snappy frames, decoded frame by frame when they are
//! asked for.
//!
//! A block is its header, its frames, and eight bytes with the size of the frames. Blocks are
//! therefore found from the end of the file backwards, two reads for each: 64 GB are 4096 blocks of
//! 16 MiB. The frames of a block are found when its first page is asked for. A page that lies in
//! one frame, as all do where AVML writes them, is borrowed from the decoded frame; others are put
//! together.

use std::ops::Range;
use std::sync::OnceLock;

use super::error::LimeError;
use super::frames::{Frame, Frames, decode};
use super::header::{AVML_MAGIC, HEADER, Header, header};
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::memory::{GuestMemory, MAX_SEGMENTS, MemoryError, Page, PageStore, ZERO_PAGE};

/// Bytes of the size behind a block.
const TRAILER: usize = 8;
/// More than frames ever expand: at best, Snappy makes 64 bytes of 3.
const MAX_RATIO: u64 = 32;

/// Guest memory in an AVML capture.
#[derive(Debug)]
pub(crate) struct AvmlMemory<B> {
    bytes: B,
    /// Sorted by address, disjoint.
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// First physical address.
    start: u64,
    /// Bytes of RAM.
    size: u64,
    /// Place of its frames.
    at: usize,
    /// Where they end.
    end: usize,
    /// Its frames; `None` if they are broken.
    parts: OnceLock<Option<Vec<Part>>>,
    /// Pages that had to be put together.
    torn: OnceLock<PageStore>,
}

/// A frame of a block.
#[derive(Debug)]
struct Part {
    /// Where its content belongs, from the start of the block.
    start: u64,
    frame: Frame,
    content: OnceLock<Option<Box<[u8]>>>,
}

impl Block {
    /// One past the last physical address.
    fn last(&self) -> u64 {
        self.start + self.size
    }

    /// The frames, which have to fill the block exactly.
    fn parts(&self, bytes: &[u8]) -> Option<&[Part]> {
        let find = || {
            let mut frames = Frames::new(&bytes[..self.end], self.at)?;
            let mut parts = Vec::new();
            let mut start = 0;
            while start < self.size {
                let frame = frames.next()?;
                // Writers fill frames; a page for each is more than enough, and bounds the index.
                if parts.len() as u64 > self.size / PAGE_SIZE {
                    return None;
                }
                parts.push(Part { start, frame, content: OnceLock::new() });
                start += frame.content;
            }
            (start == self.size && frames.position() == self.end).then_some(parts)
        };
        self.parts.get_or_init(find).as_deref()
    }

    /// The part that holds byte `at` of the block, decoded, from that byte on.
    fn content(&self, bytes: &[u8], at: u64) -> Option<&[u8]> {
        let parts = self.parts(bytes)?;
        let part = &parts[parts.partition_point(|part| part.start <= at).checked_sub(1)?];
        let content = part.content.get_or_init(|| decode(bytes, part.frame)).as_deref()?;
        content.get((at - part.start) as usize..)
    }

    /// Copies what the block has of the page at `page`.
    fn copy(&self, bytes: &[u8], page: u64, out: &mut Page) -> Option<()> {
        let mut at = self.start.max(page);
        let end = self.last().min(page + PAGE_SIZE);
        while at < end {
            let content = self.content(bytes, at - self.start)?;
            let n = content.len().min((end - at) as usize);
            out[(at - page) as usize..][..n].copy_from_slice(&content[..n]);
            at += n as u64;
        }
        Some(())
    }
}

impl<B: AsRef<[u8]>> AvmlMemory<B> {
    /// Finds the blocks of a capture.
    pub(super) fn new(bytes: B) -> Result<Self, LimeError> {
        let mut blocks = find(bytes.as_ref())?;
        blocks.sort_by_key(|block| block.start);
        if let Some(pair) = blocks.windows(2).find(|pair| pair[0].last() > pair[1].start) {
            return Err(LimeError::Overlap(PhysAddr(pair[1].start)));
        }
        Ok(Self { bytes, blocks })
    }
}

/// All blocks, the last first.
fn find(bytes: &[u8]) -> Result<Vec<Block>, LimeError> {
    let mut blocks = Vec::new();
    let mut next = bytes.len();
    while next > 0 {
        let trailer = LimeError::Trailer(next);
        let end = next.checked_sub(TRAILER).ok_or(trailer)?;
        let size = bytes[end..].first_chunk().map(|size| u64::from_le_bytes(*size)).ok_or(trailer)?;
        let at = usize::try_from(size).ok().and_then(|size| end.checked_sub(size)).ok_or(trailer)?;
        let begin = at.checked_sub(HEADER).ok_or(trailer)?;
        let header = header(bytes, begin, AVML_MAGIC, 2).map_err(|error| match error {
            LimeError::Header(_) => trailer,
            other => other,
        })?;
        if Frames::new(bytes, at).is_none() || header.size / MAX_RATIO > size {
            return Err(LimeError::Frames(begin));
        }
        if blocks.len() == MAX_SEGMENTS {
            return Err(LimeError::TooMany);
        }
        let Header { start, size } = header;
        blocks.push(Block { start, size, at, end, parts: OnceLock::new(), torn: OnceLock::new() });
        next = begin;
    }
    Ok(blocks)
}

impl<B: AsRef<[u8]> + Send + Sync> GuestMemory for AvmlMemory<B> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let (page, bytes) = (addr.page().0, self.bytes.as_ref());
        let first = self.blocks.partition_point(|block| block.last() <= page);
        let count =
            self.blocks[first..].partition_point(|block| block.start - page.min(block.start) < PAGE_SIZE);
        let blocks = &self.blocks[first..first + count];
        let Some(block) = blocks.first() else { return Err(MemoryError::Hole(addr)) };
        let damaged = MemoryError::Damaged(addr);
        if block.start <= page
            && block.last() - page >= PAGE_SIZE
            && let Some(content) = block.content(bytes, page - block.start).ok_or(damaged)?.first_chunk()
        {
            return Ok(content);
        }
        let pages = (block.size / PAGE_SIZE + 2) as usize;
        let torn = block.torn.get_or_init(|| PageStore::new(pages));
        let make = || {
            let mut out = Box::new(ZERO_PAGE);
            blocks.iter().try_for_each(|block| block.copy(bytes, page, &mut out))?;
            Some(out)
        };
        let index = page / PAGE_SIZE - block.start / PAGE_SIZE;
        torn.get_or_make(index as usize, make).ok_or(damaged)
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        let mut ranges: Vec<Range<PhysAddr>> = Vec::new();
        for block in &self.blocks {
            match ranges.last_mut() {
                Some(last) if last.end.0 == block.start => last.end = PhysAddr(block.last()),
                _ => ranges.push(PhysAddr(block.start)..PhysAddr(block.last())),
            }
        }
        ranges
    }
}

//! The start snapshot: guest RAM at the begin mark, page by page.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use machine::{PAGE_SIZE, PhysAddr};

use crate::chunk::{ChunkRef, Kind, Source};
use crate::error::TraceError;
use crate::header::RamRange;
use crate::index::PagesRef;

/// Pages in one compressed part.
pub const PAGES_PER_CHUNK: usize = 16;
/// Most ranges of RAM a reader accepts: each address is looked for in all of them.
const MAX_RANGES: usize = 1024;
/// Decompressed parts kept for the next lookup.
const CACHED_CHUNKS: usize = 512;

/// One page's bytes.
pub type Page = [u8; PAGE_SIZE as usize];

/// Guest RAM at the begin mark. Pages are decompressed when they are asked for; a bounded number
/// stays in memory.
#[derive(Debug)]
pub struct Snapshot {
    source: Arc<Source>,
    ranges: Vec<RamRange>,
    chunks: Vec<ChunkRef>,
    /// Page number, chunk, position inside the chunk; sorted.
    pages: Vec<(u64, u32, u32)>,
    cache: Mutex<HashMap<u32, Arc<[u8]>>>,
}

impl Snapshot {
    pub(crate) fn new(
        source: Arc<Source>,
        ranges: Vec<RamRange>,
        parts: Vec<PagesRef>,
    ) -> Result<Self, TraceError> {
        if ranges.len() > MAX_RANGES {
            return Err(TraceError::damaged(0, "it has more ranges of RAM than any machine"));
        }
        let mut pages = Vec::new();
        let mut chunks = Vec::with_capacity(parts.len());
        for part in parts {
            let damaged = |what| TraceError::damaged(part.chunk.offset, what);
            if part.page_deltas.len() > PAGES_PER_CHUNK
                || part.chunk.raw_len as usize != part.page_deltas.len() * PAGE_SIZE as usize
            {
                return Err(damaged("a part of the snapshot has another size than its pages"));
            }
            let mut number = 0u64;
            for (position, delta) in part.page_deltas.iter().enumerate() {
                number = number.wrapping_add(*delta);
                let inside = number < 1 << 52
                    && ranges.iter().any(|range| range.contains(PhysAddr(number * PAGE_SIZE)));
                if !inside {
                    return Err(damaged("a snapshot page lies outside RAM"));
                }
                pages.push((number, chunks.len() as u32, position as u32));
            }
            chunks.push(part.chunk);
        }
        pages.sort_unstable();
        if pages.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(TraceError::damaged(0, "a snapshot page occurs twice"));
        }
        Ok(Self { source, ranges, chunks, pages, cache: Mutex::default() })
    }

    /// Where RAM lies.
    #[must_use]
    pub fn ram_ranges(&self) -> &[RamRange] {
        &self.ranges
    }

    /// Whether the address lies in RAM.
    #[must_use]
    pub fn is_ram(&self, addr: PhysAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(addr))
    }

    /// The page that contains `addr`; `None` outside RAM. Pages that were all zero are not stored
    /// and come as zeros.
    pub fn page(&self, addr: PhysAddr) -> Result<Option<Page>, TraceError> {
        let mut out = [0; PAGE_SIZE as usize];
        Ok(self.read(addr.page(), &mut out)?.then_some(out))
    }

    /// Copies bytes that lie in one page; `false` outside RAM or across a page's end.
    pub fn read(&self, addr: PhysAddr, out: &mut [u8]) -> Result<bool, TraceError> {
        let offset = addr.offset() as usize;
        if !self.is_ram(addr) || offset + out.len() > PAGE_SIZE as usize {
            return Ok(false);
        }
        match self.pages.binary_search_by_key(&(addr.0 / PAGE_SIZE), |page| page.0) {
            Err(_) => out.fill(0),
            Ok(found) => {
                let (_, chunk, position) = self.pages[found];
                let bytes = self.chunk(chunk)?;
                let start = position as usize * PAGE_SIZE as usize + offset;
                out.copy_from_slice(&bytes[start..start + out.len()]);
            }
        }
        Ok(true)
    }

    /// The pages that are not all zero, by ascending address.
    pub fn pages(&self) -> impl Iterator<Item = Result<(PhysAddr, Page), TraceError>> + '_ {
        self.page_addrs().map(|addr| match self.page(addr) {
            Ok(page) => Ok((addr, page.unwrap_or([0; PAGE_SIZE as usize]))),
            Err(error) => Err(error),
        })
    }

    /// Addresses of the pages that are not all zero, ascending.
    pub fn page_addrs(&self) -> impl ExactSizeIterator<Item = PhysAddr> + '_ {
        self.pages.iter().map(|page| PhysAddr(page.0 * PAGE_SIZE))
    }

    /// Bytes the stored pages take in the file.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.stored_len)).sum()
    }

    fn chunk(&self, index: u32) -> Result<Arc<[u8]>, TraceError> {
        if let Some(bytes) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&index) {
            return Ok(Arc::clone(bytes));
        }
        let max = (PAGES_PER_CHUNK as u64 * PAGE_SIZE) as u32;
        let bytes: Arc<[u8]> = self.source.chunk(Kind::Pages, self.chunks[index as usize], max)?.into();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_CHUNKS {
            cache.clear();
        }
        cache.insert(index, Arc::clone(&bytes));
        Ok(bytes)
    }

    /// Reads every part once, which verifies all checksums.
    pub(crate) fn verify(&self) -> Result<(), TraceError> {
        let max = (PAGES_PER_CHUNK as u64 * PAGE_SIZE) as u32;
        self.chunks.iter().try_for_each(|&chunk| self.source.chunk(Kind::Pages, chunk, max).map(drop))
    }

    pub(crate) fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }
}

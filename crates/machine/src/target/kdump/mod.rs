//! kdump-compressed dumps, as QEMU's `dump-guest-memory -z`, `-l` and `-s` and makedumpfile write
//! them, also flattened.
//!
//! Two bitmaps say which pages are RAM and which of them are in the file; each page in the file has
//! a descriptor with its place, size and compression. Opening reads headers and bitmaps; pages are
//! decompressed when they are asked for and then kept, up to a budget that follows from the file's
//! size, and pages that are stored as they are stay in the mapped file. Processors come from QEMU's
//! notes, as in an ELF core; a dump that a crashed kernel wrote of itself has none and needs a file
//! of processor state.
//!
//! Parts of a split dump are refused. Xen's additions and erased data (`eraseinfo`) are ignored.

mod bitmap;
mod error;
mod header;

use std::ops::Range;

pub use error::KdumpError;

use bitmap::Bitmap;
use header::Header;

use super::codec::Codec;
use super::cpu::Cpu;
use super::error::TargetCause;
use super::flat::Source;
use super::format::Claims;
use super::notes;
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::memory::{GuestMemory, MAX_SEGMENTS, MemoryError, Page, PageStore};

/// How the file (not a stream of it) begins.
pub(super) const MAGIC: &[u8] = b"KDUMP   ";
/// Bytes of a page descriptor.
const DESCRIPTOR: u64 = 24;
/// Descriptors at the end whose data is looked for at opening, so that a dump that was cut off is
/// noticed there. All of them may name one shared page of zeroes; then the cut is noticed at the
/// first page that is missing.
const CHECKED: u64 = 1 << 14;

/// Pages that are kept decompressed whatever the file's size (64 MiB), and how many more for each
/// of its bytes: far more than kernels' memory shrinks by, since pages of zeros are stored as one.
const KEPT: u64 = 1 << 14;
const RATIO: u64 = 16;

/// Guest memory in a kdump.
#[derive(Debug)]
pub(super) struct KdumpMemory<B> {
    source: Source<B>,
    /// Pages that are in the file.
    dumped: Bitmap,
    /// Pages that are RAM.
    ranges: Vec<Range<PhysAddr>>,
    /// Place of the first descriptor.
    descriptors: u64,
    /// One past the last descriptor: pages lie behind.
    data: u64,
    store: PageStore,
}

/// A dump, opened.
#[derive(Debug)]
pub(super) struct Dump<B> {
    pub(super) mem: KdumpMemory<B>,
    pub(super) cpus: Vec<Cpu>,
    pub(super) format: &'static str,
    pub(super) claims: Claims,
}

/// Reads a dump; processors only if `with_notes`.
pub(super) fn read<B: AsRef<[u8]>>(source: Source<B>, with_notes: bool) -> Result<Dump<B>, TargetCause> {
    let header = header::parse(&source).map_err(TargetCause::Kdump)?;
    let mut cpus = Vec::new();
    if let Some((at, size)) = header.notes.filter(|_| with_notes) {
        let cut =
            KdumpError::Cut { what: "its notes", end: at.saturating_add(size as u64), len: source.len() };
        notes::collect(&source.get(at, size).ok_or(TargetCause::Kdump(cut))?, header.is64, &mut cpus)?;
    }
    let flattened = matches!(source, Source::Flat(_));
    let len = source.stored();
    let mem = memory(source, &header).map_err(TargetCause::Kdump)?;
    if mem.ranges.is_empty() {
        return Err(TargetCause::NoMemory);
    }
    // In a file that may be raw RAM, all pages have to say where it ends.
    let checked = if len.is_multiple_of(PAGE_SIZE) { u64::MAX } else { CHECKED };
    let end = mem.check_end(checked).map_err(TargetCause::Kdump);
    let end = if header.incomplete { end.unwrap_or(0) } else { end? };
    // A stream is walked from its beginning to its end mark.
    let claims = if flattened { Claims::all(len) } else { Claims { described: end, covered: false } };
    Ok(Dump { mem, cpus, format: name(header.compression, flattened), claims })
}

fn memory<B: AsRef<[u8]>>(source: Source<B>, header: &Header) -> Result<KdumpMemory<B>, KdumpError> {
    let cut = |what, end| KdumpError::Cut { what, end, len: source.len() };
    let bits = header.pages;
    let bytes = usize::try_from(bits.div_ceil(8)).map_err(|_| KdumpError::TooLarge(bits))?;
    let second = header.bitmaps + header.bitmap;
    let dumped = source.get(second, bytes).map(|map| Bitmap::new(&map, bits));
    let dumped = dumped.ok_or(cut("its second bitmap", second + bytes as u64))?;
    let ram =
        source.get(header.bitmaps, bytes).ok_or(cut("its first bitmap", header.bitmaps + bytes as u64))?;
    let runs = dumped.runs_with(&ram, bits, MAX_SEGMENTS).ok_or(KdumpError::Scattered)?;
    drop(ram);
    let end = header.descriptors + dumped.total() * DESCRIPTOR;
    if end > source.len() {
        return Err(cut("its page descriptors", end));
    }
    let address = |page: u64| PhysAddr(page * PAGE_SIZE);
    let budget = KEPT + source.stored().saturating_mul(RATIO) / PAGE_SIZE;
    Ok(KdumpMemory {
        ranges: runs.into_iter().map(|run| address(run.start)..address(run.end)).collect(),
        descriptors: header.descriptors,
        data: end,
        store: PageStore::with_budget(dumped.total() as usize, budget),
        dumped,
        source,
    })
}

/// Where a page is and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Descriptor {
    offset: u64,
    size: u32,
    flags: u32,
}

impl<B: AsRef<[u8]>> KdumpMemory<B> {
    /// The descriptor of the page with this rank.
    fn descriptor(&self, rank: u64) -> Option<Descriptor> {
        let bytes = self.source.get(self.descriptors + rank * DESCRIPTOR, DESCRIPTOR as usize)?;
        let (offset, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        Some(Descriptor {
            offset: u64::from_le_bytes(*offset),
            size: u32::from_le_bytes(*size),
            flags: u32::from_le_bytes(*rest.first_chunk()?),
        })
    }

    /// Where the data of the last `checked` pages ends; it has to be there.
    fn check_end(&self, checked: u64) -> Result<u64, KdumpError> {
        let total = self.dumped.total();
        let last = (total.saturating_sub(checked)..total).filter_map(|rank| self.descriptor(rank));
        let end = last.map(|last| last.offset.saturating_add(last.size.into())).max().unwrap_or(0);
        if end > self.source.len() {
            return Err(KdumpError::Cut { what: "the data of its pages", end, len: self.source.len() });
        }
        Ok(end.max(self.data))
    }
}

impl<B: AsRef<[u8]> + Send + Sync> GuestMemory for KdumpMemory<B> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let Some(rank) = self.dumped.rank(addr.0 / PAGE_SIZE) else {
            let next = self.ranges.partition_point(|range| range.start <= addr);
            let is_ram = next.checked_sub(1).is_some_and(|i| addr < self.ranges[i].end);
            return Err(if is_ram { MemoryError::Absent(addr) } else { MemoryError::Hole(addr) });
        };
        let damaged = MemoryError::Damaged(addr);
        let Descriptor { offset, size, flags } = self.descriptor(rank).ok_or(damaged)?;
        if offset == 0 {
            // What makedumpfile leaves when it runs out of room.
            return Err(MemoryError::Absent(addr));
        }
        if offset < self.data {
            // Headers are no memory; a dump that says so was not written by any tool.
            return Err(damaged);
        }
        let size = usize::try_from(size).ok().filter(|&size| size as u64 <= PAGE_SIZE).ok_or(damaged)?;
        let codec = Codec::from_flags(flags).ok_or(damaged)?;
        if codec == Codec::Stored
            && let Some(page) = self.source.slice(offset, size)
        {
            return page.try_into().map_err(|_| damaged);
        }
        let make = || codec.page(&self.source.get(offset, size)?);
        self.store.get_or_make(rank as usize, make).ok_or(damaged)
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.ranges.clone()
    }
}

/// What the format is called, by the compression that the header states.
fn name(compression: u32, flattened: bool) -> &'static str {
    match (Codec::from_flags(compression), flattened) {
        (Some(Codec::Zlib), false) => "kdump-zlib",
        (Some(Codec::Zlib), true) => "kdump-zlib, flattened",
        (Some(Codec::Lzo), false) => "kdump-lzo",
        (Some(Codec::Lzo), true) => "kdump-lzo, flattened",
        (Some(Codec::Snappy), false) => "kdump-snappy",
        (Some(Codec::Snappy), true) => "kdump-snappy, flattened",
        (Some(Codec::Zstd), false) => "kdump-zstd",
        (Some(Codec::Zstd), true) => "kdump-zstd, flattened",
        (Some(Codec::Stored) | None, false) => "kdump",
        (Some(Codec::Stored) | None, true) => "kdump, flattened",
    }
}

//! Captures that a guest takes of itself: LiME, and AVML's compressed form of it.
//!
//! Both are a row of blocks, each a header of 32 bytes with the block's physical addresses and the bytes of that range:
//! as they are (LiME, version 1, which AVML writes too if it is told not to compress), or in Snappy frames (AVML,
//! version 2). Sources: `lime.h` and `write_range` of LiME; `image.rs` of Microsoft's AVML. Neither holds processors.
//!
//! AVML leaves out blocks of up to 16 MiB that are all zero. Nothing in the file tells them from addresses without
//! RAM, so they are holes here, and a run that reads them says so instead of guessing.

mod avml;
mod frames;

use super::error::TargetCause;
use crate::addr::PhysAddr;
use crate::memory::{ImageMemory, MAX_PHYS, MAX_SEGMENTS, Segment};

pub(super) use avml::AvmlMemory;

/// How a LiME file begins.
pub(super) const MAGIC: &[u8] = b"EMiL";
/// How an AVML file begins.
pub(super) const AVML_MAGIC: &[u8] = b"AVML";
/// Bytes of a block's header.
const HEADER: usize = 32;

/// Why a capture of LiME or AVML cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LimeError {
    /// There is no header where one should be.
    #[error("there is no header of a block at byte {0:#x}")]
    Header(usize),
    /// A header of a version that is not known.
    #[error("the block at byte {at:#x} has version {version}, which is not understood")]
    Version {
        /// Where.
        at: usize,
        /// The version.
        version: u32,
    },
    /// A range that ends before it begins or beyond the largest physical address.
    #[error("the block at byte {at:#x} has the impossible addresses {first:#x} to {last:#x}")]
    Range {
        /// Where.
        at: usize,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
    },
    /// A block that the file ends in.
    #[error("truncated: the block at byte {at:#x} is not whole, the file ends at {len:#x}")]
    Truncated {
        /// Where.
        at: usize,
        /// Bytes of the file.
        len: usize,
    },
    /// Bytes behind which no block of AVML ends.
    #[error("truncated or damaged: no whole block ends at byte {0:#x}")]
    Trailer(usize),
    /// Compressed data that is none, or not of its range.
    #[error("broken block at byte {0:#x}: its data is no Snappy stream of its size")]
    Frames(usize),
    /// Two blocks with the same addresses.
    #[error("two blocks both hold physical address {0}")]
    Overlap(PhysAddr),
    /// More blocks than any machine has.
    #[error("it has more than {MAX_SEGMENTS} blocks")]
    TooMany,
}

/// One block's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    /// First physical address.
    start: u64,
    /// Bytes, at least one.
    size: u64,
}

/// The header at `at`.
fn header(bytes: &[u8], at: usize, magic: &[u8], version: u32) -> Result<Header, LimeError> {
    let fields = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER>());
    let fields = fields.ok_or(LimeError::Truncated { at, len: bytes.len() })?;
    if fields[..4] != *magic {
        return Err(LimeError::Header(at));
    }
    let number =
        |at: usize, size: usize| fields[at..at + size].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    let found = number(4, 4) as u32;
    if found != version {
        return Err(LimeError::Version { at, version: found });
    }
    let (first, last) = (number(8, 8), number(16, 8));
    if last < first || last >= MAX_PHYS {
        return Err(LimeError::Range { at, first, last });
    }
    Ok(Header { start: first, size: last - first + 1 })
}

/// Reads a LiME capture: its ranges stay in the file.
pub(super) fn read<B: AsRef<[u8]>>(bytes: B) -> Result<ImageMemory<B>, TargetCause> {
    let data = bytes.as_ref();
    let mut segments = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let block = header(data, at, MAGIC, 1).map_err(TargetCause::Lime)?;
        let start = at + HEADER;
        let end = usize::try_from(block.size).ok().and_then(|size| start.checked_add(size));
        let end = end.filter(|&end| end <= data.len());
        let end = end.ok_or(TargetCause::Lime(LimeError::Truncated { at, len: data.len() }))?;
        if segments.len() == MAX_SEGMENTS {
            return Err(TargetCause::Lime(LimeError::TooMany));
        }
        segments.push(Segment { start: PhysAddr(block.start), size: block.size, offset: start as u64 });
        at = end;
    }
    ImageMemory::new(bytes, segments).map_err(TargetCause::Image)
}

/// Reads an AVML capture.
pub(super) fn read_avml<B: AsRef<[u8]>>(bytes: B) -> Result<AvmlMemory<B>, TargetCause> {
    AvmlMemory::new(bytes).map_err(TargetCause::Lime)
}

//! Captures that a guest takes of itself: LiME, and AVML's compressed form of it.
//!
//! Both are a row of blocks, each a header of 32 bytes with the block's physical addresses and the
//! bytes of that range: as they are (LiME, version 1, which AVML writes too if it is told not to
//! compress), or in Snappy frames (AVML, version 2). Sources: `lime.h` and `write_range` of LiME;
//! `image.rs` of Microsoft's AVML. Neither holds processors.
//!
//! AVML leaves out blocks of up to 16 MiB that are all zero. Nothing in the file tells them from
//! addresses without RAM, so they are holes here, and a run that reads them says so instead of
//! guessing.

mod avml;
mod error;
mod frames;
mod header;

use super::error::TargetCause;
use crate::addr::PhysAddr;
use crate::memory::{MAX_SEGMENTS, Segment};
use header::{HEADER, header};

pub(super) use avml::AvmlMemory;
pub use error::LimeError;
pub(super) use header::{AVML_MAGIC, MAGIC};

/// Finds the ranges of a LiME capture, which stay in the file. If it may be cut off (`partial`),
/// the last range may reach beyond it.
pub(super) fn read(data: &[u8], partial: bool) -> Result<Vec<Segment>, TargetCause> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let block = match header(data, at, MAGIC, 1) {
            // A part of a header: which memory follows it is not known.
            Err(LimeError::Truncated { .. }) if partial && !segments.is_empty() => break,
            block => block.map_err(TargetCause::Lime)?,
        };
        let start = at + HEADER;
        let end = (start as u64).saturating_add(block.size);
        if end > data.len() as u64 && !partial {
            let missing = end - data.len() as u64;
            return Err(TargetCause::Lime(LimeError::Truncated { at, len: data.len(), missing }));
        }
        if segments.len() == MAX_SEGMENTS {
            return Err(TargetCause::Lime(LimeError::TooMany));
        }
        segments.push(Segment { start: PhysAddr(block.start), size: block.size, offset: start as u64 });
        at = usize::try_from(end).unwrap_or(usize::MAX);
    }
    Ok(segments)
}

/// Reads an AVML capture.
pub(super) fn read_avml<B: AsRef<[u8]>>(bytes: B) -> Result<AvmlMemory<B>, TargetCause> {
    AvmlMemory::new(bytes).map_err(TargetCause::Lime)
}

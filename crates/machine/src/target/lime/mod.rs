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
use crate::memory::{ImageMemory, MAX_SEGMENTS, Segment};
use header::{HEADER, header};

pub(super) use avml::AvmlMemory;
pub use error::LimeError;
pub(super) use header::{AVML_MAGIC, MAGIC};

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

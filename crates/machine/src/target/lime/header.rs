//! The header of a block, which LiME and AVML have alike: four bytes that name the format, a
//! version, and the physical addresses of the block.

use super::error::LimeError;
use crate::memory::MAX_PHYS;

/// How a LiME file begins.
pub(in crate::target) const MAGIC: &[u8] = b"EMiL";
/// How an AVML file begins.
pub(in crate::target) const AVML_MAGIC: &[u8] = b"AVML";
/// Bytes of a block's header.
pub(super) const HEADER: usize = 32;

/// One block's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// First physical address.
    pub(super) start: u64,
    /// Bytes, at least one.
    pub(super) size: u64,
}

/// The header at `at`.
pub(super) fn header(bytes: &[u8], at: usize, magic: &[u8], version: u32) -> Result<Header, LimeError> {
    let missing = (at + HEADER).saturating_sub(bytes.len());
    let fields = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER>());
    let fields = fields.ok_or(LimeError::Truncated { at, len: bytes.len(), missing: missing as u64 })?;
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

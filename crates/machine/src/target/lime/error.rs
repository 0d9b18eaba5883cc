//! Why a capture of LiME or AVML cannot be read.
//!
//! Apart from the readers: the cause that a target cannot be opened for holds it, and the readers
//! give that cause.

use crate::addr::PhysAddr;
use crate::memory::MAX_SEGMENTS;

/// Why a capture of LiME or AVML cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LimeError {
    /// There is no header where one should be.
    #[error("there is no header of a block at byte {0:#x}")]
    Header(usize),
    /// A header of a version that is not known.
    #[error("the block at byte {at:#x} has version {version}, which is not understood")]
    Version {
        /// Where the block begins.
        at: usize,
        /// The version.
        version: u32,
    },
    /// A range that ends before it begins or beyond the largest physical address.
    #[error("the block at byte {at:#x} has the impossible addresses {first:#x} to {last:#x}")]
    Range {
        /// Where the block begins.
        at: usize,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
    },
    /// A block that the file ends in.
    #[error(
        "truncated: at least {missing} bytes are missing at its end: the block at byte {at:#x} is not \
         whole, the file ends at {len:#x}"
    )]
    Truncated {
        /// Where the block begins.
        at: usize,
        /// Bytes of the file.
        len: usize,
        /// Bytes of the block that are missing; others may have followed.
        missing: u64,
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

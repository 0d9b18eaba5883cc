//! Why a kdump cannot be read.
//!
//! Apart from the reader: the cause that a target cannot be opened for holds it, and the reader
//! gives that cause.

use crate::memory::MAX_SEGMENTS;

/// Why a kdump cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KdumpError {
    /// A part lies behind the end.
    #[error("truncated: {what} would end at byte {end:#x}, the dump ends at {len:#x}")]
    Cut {
        /// Which part.
        what: &'static str,
        /// Where it would end (saturated).
        end: u64,
        /// Where the dump ends.
        len: u64,
    },
    /// Pages of another size.
    #[error("its blocks have {0} bytes; 4096 are understood")]
    BlockSize(u32),
    /// Another architecture.
    #[error("it is of a machine of the kind {0:?}, not x86")]
    Machine(String),
    /// One file of several.
    #[error("it is a part of a dump that makedumpfile --split divided")]
    Split,
    /// Addresses beyond those of the architecture.
    #[error("it states {0} pages, more than 2^52 bytes have")]
    TooLarge(u64),
    /// A bitmap that is too short.
    #[error("its bitmaps have {bits} bits for {pages} pages")]
    Bitmap {
        /// Bits of each.
        bits: u64,
        /// Pages it states.
        pages: u64,
    },
    /// Memory in more pieces than any machine's.
    #[error("its memory has more than {MAX_SEGMENTS} separate ranges")]
    Scattered,
}

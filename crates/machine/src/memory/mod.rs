//! Guest-physical memory as everything above it sees it: pages that can be borrowed.
//!
//! The unit is a borrowed page and not a copied range, because the engine's TLB keeps the reference
//! for a whole run and then reads without any call. A back end that has to produce pages
//! (decompress them, copy a torn one) therefore keeps what it produced for as long as it lives,
//! e.g. in a `OnceLock` per page.
//!
//! There is deliberately no way to write: changes a run makes live in the engine's overlay.

mod image;
mod mock;
mod store;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use image::MAX_SEGMENTS;
pub use image::{ImageError, ImageMemory, MAX_PHYS, Segment};
pub use mock::Mock;
pub(crate) use store::PageStore;

use crate::addr::PhysAddr;

/// The bytes of one 4 KiB page.
pub type Page = [u8; 4096];

/// A page of zeroes, for callers that need a page where there is none.
pub static ZERO_PAGE: Page = [0; 4096];

/// Why guest-physical memory could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemoryError {
    /// No RAM at this address: outside every range of [`GuestMemory::ranges`].
    #[error("no RAM at physical address {0}")]
    Hole(PhysAddr),
    /// RAM that the capture knows of and does not hold, e.g. a page left out of a filtered dump.
    #[error("the page at physical address {0} is not in the capture")]
    Absent(PhysAddr),
    /// RAM whose bytes in the capture are not what its format promises: they do not decompress, or
    /// lie outside the file.
    #[error("the page at physical address {0} is damaged in the capture")]
    Damaged(PhysAddr),
}

impl MemoryError {
    /// The physical address that was asked for.
    #[must_use]
    pub const fn addr(&self) -> PhysAddr {
        match *self {
            Self::Hole(addr) | Self::Absent(addr) | Self::Damaged(addr) => addr,
        }
    }
}

/// Read-only guest-physical memory.
pub trait GuestMemory: Send + Sync {
    /// Borrows the page in which `addr` lies (`addr` need not be page aligned).
    ///
    /// The reference lives as long as the memory: holding it is cheaper than asking again. Asking
    /// again gives the same one; pages with the same bytes may share one. Where RAM covers only a
    /// part of the page (a range that ends in the middle of one), the rest reads as zero.
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError>;

    /// The ranges of physical addresses that are RAM: sorted, disjoint, end exclusive, exact to the
    /// byte.
    fn ranges(&self) -> Vec<Range<PhysAddr>>;

    /// Fills `out` from `addr` on, crossing pages; `out` is partly written when it fails.
    fn read(&self, addr: PhysAddr, out: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = addr;
        let mut rest = out;
        while !rest.is_empty() {
            let offset = at.offset() as usize;
            let n = rest.len().min(4096 - offset);
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&self.page(at)?[offset..offset + n]);
            rest = tail;
            if !rest.is_empty() {
                at = PhysAddr(at.0.checked_add(n as u64).ok_or(MemoryError::Hole(PhysAddr(u64::MAX)))?);
            }
        }
        Ok(())
    }

    /// The byte at `addr`.
    fn read_u8(&self, addr: PhysAddr) -> Result<u8, MemoryError> {
        Ok(self.page(addr)?[addr.offset() as usize])
    }

    /// The little-endian 16-bit number at `addr`, which need not be aligned.
    fn read_u16(&self, addr: PhysAddr) -> Result<u16, MemoryError> {
        let mut bytes = [0; 2];
        self.read(addr, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// The little-endian 32-bit number at `addr`, which need not be aligned.
    fn read_u32(&self, addr: PhysAddr) -> Result<u32, MemoryError> {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The little-endian 64-bit number at `addr`, which need not be aligned.
    fn read_u64(&self, addr: PhysAddr) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Bytes of RAM: the sum over [`GuestMemory::ranges`].
    fn size(&self) -> u64 {
        self.ranges().iter().map(|range| range.end.0 - range.start.0).sum()
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: GuestMemory + ?Sized> GuestMemory for $pointer {
            fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
                (**self).page(addr)
            }

            fn ranges(&self) -> Vec<Range<PhysAddr>> {
                (**self).ranges()
            }
        }
    )*};
}
forward!(&T, Box<T>, Arc<T>);

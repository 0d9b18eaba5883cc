//! Guest memory made by hand, for tests of every crate: sparse pages, injected faults, counted
//! accesses.
//!
//! It is part of the library and not `cfg(test)` so that the tests of other crates can use it. It
//! is not meant to be fast.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{GuestMemory, MemoryError, Page, ZERO_PAGE};
use crate::addr::{PAGE_SIZE, PhysAddr};

/// A sparse, hand-made guest memory.
#[derive(Debug, Default)]
pub struct Mock {
    pages: BTreeMap<u64, Box<Page>>,
    faults: BTreeSet<u64>,
    accesses: AtomicU64,
}

impl Mock {
    /// Memory without any RAM.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the page of `addr` RAM (zeroed if it was not) and borrows it for writing.
    pub fn page_mut(&mut self, addr: PhysAddr) -> &mut Page {
        self.pages.entry(addr.page().0).or_insert_with(|| Box::new(ZERO_PAGE))
    }

    /// Stores bytes from `addr` on, crossing pages and making them RAM; addresses wrap at 2^64.
    pub fn write(&mut self, addr: PhysAddr, bytes: &[u8]) {
        let mut at = addr;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = at.offset() as usize;
            let n = rest.len().min(4096 - offset);
            self.page_mut(at)[offset..offset + n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            at = at.add(n as u64);
        }
    }

    /// Stores a little-endian 32-bit number.
    pub fn write_u32(&mut self, addr: PhysAddr, value: u32) {
        self.write(addr, &value.to_le_bytes());
    }

    /// Stores a little-endian 64-bit number.
    pub fn write_u64(&mut self, addr: PhysAddr, value: u64) {
        self.write(addr, &value.to_le_bytes());
    }

    /// From now on the page of `addr` fails with [`MemoryError::Absent`], RAM or not.
    pub fn inject_fault(&mut self, addr: PhysAddr) {
        self.faults.insert(addr.page().0);
    }

    /// Undoes [`Mock::inject_fault`].
    pub fn clear_fault(&mut self, addr: PhysAddr) {
        self.faults.remove(&addr.page().0);
    }

    /// How often a page was asked for, failures included.
    #[must_use]
    pub fn accesses(&self) -> u64 {
        self.accesses.load(Ordering::Relaxed)
    }
}

impl GuestMemory for Mock {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        if self.faults.contains(&addr.page().0) {
            return Err(MemoryError::Absent(addr));
        }
        self.pages.get(&addr.page().0).map(|page| &**page).ok_or(MemoryError::Hole(addr))
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        let mut ranges: Vec<Range<PhysAddr>> = Vec::new();
        for &start in self.pages.keys() {
            // The last page of the address space ends at 2^64 - 1, the largest end there is.
            let end = PhysAddr(start.saturating_add(PAGE_SIZE));
            match ranges.last_mut() {
                Some(last) if last.end.0 == start => last.end = end,
                _ => ranges.push(PhysAddr(start)..end),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cross_pages_and_stop_at_holes() {
        let mut mem = Mock::new();
        mem.write(PhysAddr(0x1ffc), &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(mem.read_u64(PhysAddr(0x1ffc)), Ok(0x0807_0605_0403_0201));
        assert_eq!(mem.read_u16(PhysAddr(0x1fff)), Ok(0x0504));
        assert_eq!(mem.read_u8(PhysAddr(0x2000)), Ok(5));
        assert_eq!(mem.read_u32(PhysAddr(0x2ffe)), Err(MemoryError::Hole(PhysAddr(0x3000))));
        assert_eq!(mem.ranges(), [PhysAddr(0x1000)..PhysAddr(0x3000)]);
        assert_eq!(mem.size(), 0x2000);
    }

    #[test]
    fn faults_are_injected_and_accesses_counted() {
        let mut mem = Mock::new();
        mem.write_u32(PhysAddr(0x5000), 7);
        mem.inject_fault(PhysAddr(0x5123));
        assert_eq!(mem.read_u32(PhysAddr(0x5000)), Err(MemoryError::Absent(PhysAddr(0x5000))));
        mem.clear_fault(PhysAddr(0x5000));
        assert_eq!(mem.read_u32(PhysAddr(0x5000)), Ok(7));
        assert_eq!(mem.accesses(), 2);
    }

    #[test]
    fn the_end_of_the_address_space_is_a_hole_and_no_panic() {
        let mut mem = Mock::new();
        mem.write(PhysAddr(u64::MAX), &[9]);
        assert_eq!(mem.read_u8(PhysAddr(u64::MAX)), Ok(9));
        assert!(mem.read_u64(PhysAddr(u64::MAX)).is_err());
        let shared: &dyn GuestMemory = &mem;
        assert_eq!((&shared).ranges().len(), 1);
    }
}

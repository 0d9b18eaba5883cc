//! The pages of a target's memory.

use machine::memory::ZERO_PAGE;
use machine::{GuestMemory, PAGE_SIZE, Page, PhysAddr};

/// Visits all pages that the target's memory has and that may hold something: where memory gives
/// the page of zeros itself, as for holes of sparse files, there is nothing to be found.
pub(super) fn each_page(memory: &dyn GuestMemory, visit: &mut dyn FnMut(PhysAddr, &Page)) {
    for range in memory.ranges() {
        for addr in (range.start.0..range.end.0).step_by(PAGE_SIZE as usize) {
            if let Ok(page) = memory.page(PhysAddr(addr))
                && !std::ptr::eq(page, &ZERO_PAGE)
            {
                visit(PhysAddr(addr), page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use machine::MemoryError;

    use super::*;

    /// RAM of which the first page is a hole of the file, the second holds zeros, and the third is
    /// missing.
    struct Sparse(Page);

    impl GuestMemory for Sparse {
        fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
            match addr.0 / PAGE_SIZE {
                0 => Ok(&ZERO_PAGE),
                1 => Ok(&self.0),
                _ => Err(MemoryError::Absent(addr)),
            }
        }

        fn ranges(&self) -> Vec<Range<PhysAddr>> {
            vec![PhysAddr(0)..PhysAddr(3 * PAGE_SIZE)]
        }
    }

    #[test]
    fn holes_are_not_looked_at() {
        let mut seen = Vec::new();
        each_page(&Sparse([0; 4096]), &mut |addr, _| seen.push(addr.0));
        assert_eq!(seen, [PAGE_SIZE]);
    }
}

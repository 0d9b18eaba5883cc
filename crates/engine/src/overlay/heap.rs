//! Memory that a run allocates in the training process's address space.

use machine::memory::ZERO_PAGE;
use machine::{PAGE_SIZE, VirtAddr};

use super::fault::Fault;
use super::pages::Overlay;

impl Overlay<'_> {
    /// Allocates `size` bytes of zeroed memory in the training process's address space. The result
    /// is address 0 when there is no room. Pages that the process has of its own are passed over.
    pub fn allocate(&mut self, size: u64) -> VirtAddr {
        let pages = size.max(1).div_ceil(PAGE_SIZE);
        if pages as usize > self.limit.saturating_sub(self.counted) {
            return VirtAddr(0);
        }
        // Small allocations share a page; 16 bytes is what malloc promises on x86-64.
        let Some((start, end)) =
            size.max(1).checked_next_multiple_of(16).and_then(|size| self.room(self.heap, size))
        else {
            return VirtAddr(0);
        };
        for page in (start.page().0..end).step_by(PAGE_SIZE as usize).map(VirtAddr) {
            if !self.is_own(page) {
                let copy = self.pages.copy(&ZERO_PAGE);
                self.user.insert(page, copy);
                self.counted += 1;
            }
        }
        self.heap = VirtAddr(end);
        // Where the heap ends is part of the state too.
        self.pages.add_to_state(size.max(1));
        self.heap_sizes.insert(start, size);
        start
    }

    /// The next `size` bytes that an allocation can have, and where they end: from `start` on, or
    /// behind the pages of the process's own that are in the way. The page that `start` is in the
    /// middle of is the heap's.
    fn room(&self, mut start: VirtAddr, size: u64) -> Option<(VirtAddr, u64)> {
        loop {
            let end = start.0.checked_add(size)?;
            let first = start.0.checked_next_multiple_of(PAGE_SIZE)?;
            let own = |page: &u64| {
                let page = VirtAddr(*page);
                self.is_own(page) || self.aliases.contains_key(&page)
            };
            match (first..end).step_by(PAGE_SIZE as usize).filter(own).last() {
                None => return Some((start, end)),
                Some(page) => start = VirtAddr(page.checked_add(PAGE_SIZE)?),
            }
        }
    }

    /// Copies an allocation into a new one of `size` bytes, whose address is the result: 0 when
    /// there is no room. The old one stays.
    ///
    /// # Errors
    /// A fault when the old memory cannot be read.
    pub fn reallocate(&mut self, old: VirtAddr, size: u64) -> Result<VirtAddr, Fault> {
        let new = self.allocate(size);
        if new.0 == 0 || old.0 == 0 {
            return Ok(new);
        }
        // The size of memory that was allocated before the begin mark is not known. Copying what
        // lies behind it does no harm.
        let known = self.heap_sizes.get(&old).copied();
        for at in 0..known.unwrap_or(size).min(size) {
            let byte = match self.load(old.add(at), 1) {
                Ok(byte) => byte,
                Err(_) if known.is_none() && at > 0 => break,
                Err(fault) => return Err(fault),
            };
            self.store(new.add(at), 1, byte)?;
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::paging::PagingMode;

    use crate::process::ProcessPages;

    #[test]
    fn allocations_pass_over_the_pages_of_the_process() {
        let memory = machine::memory::Mock::new();
        let program = ir::text::parse_program(
            "program \"test\"\npage 0x3000 bytes 1 {\n 0x0: 07\n}\n",
            machine::Reg::NAMES,
        )
        .unwrap();
        let pages = ProcessPages::new(&program);
        let mut overlay =
            Overlay::new(&memory, PagingMode::Off, 0, VirtAddr(0x1000), 16).with_process(&pages);
        assert_eq!(overlay.allocate(16), VirtAddr(0x1000));
        assert_eq!(overlay.allocate(16), VirtAddr(0x1010), "small ones share a page");
        assert_eq!(overlay.allocate(0x2000), VirtAddr(0x4000));
        assert_eq!(overlay.load(VirtAddr(0x3000), 1).ok(), Some(7));
        overlay.store(VirtAddr(0x3001), 1, 9).unwrap();
        assert_eq!(overlay.load(VirtAddr(0x3000), 2).ok(), Some(0x907));
        let spare = overlay.into_spare();
        let mut again = Overlay::new(&memory, PagingMode::Off, 0, VirtAddr(0x1000), 16)
            .with_process(&pages)
            .with_spare(spare);
        assert_eq!(again.load(VirtAddr(0x3000), 2).ok(), Some(7), "the program keeps its page");
        let heap = again.allocate(8);
        assert_eq!(again.load(heap, 8).ok(), Some(0), "whatever the spare page held");
    }
}

//! Physical memory as a recording's stores leave it, step by step.

use std::ops::Range;

use machine::{GuestMemory, MemoryError, PAGE_SIZE, Page, PhysAddr, hash};

/// A copy-on-write overlay: what memory held at the begin mark, and over it what was stored since.
///
/// A page that the snapshot does not hold reads as zeros once it was asked for with
/// [`Self::page_mut`].
pub struct StoredMemory<'m> {
    begin: &'m dyn GuestMemory,
    pages: hash::Map<PhysAddr, Box<Page>>,
}

impl<'m> StoredMemory<'m> {
    /// Nothing is stored yet.
    #[must_use]
    pub fn new(begin: &'m dyn GuestMemory) -> Self {
        Self { begin, pages: hash::Map::default() }
    }

    /// The page that holds an address, to be read or stored into.
    pub fn page_mut(&mut self, addr: PhysAddr) -> &mut Page {
        let (begin, page) = (self.begin, addr.page());
        let copy = || Box::new(begin.page(page).copied().unwrap_or([0; PAGE_SIZE as usize]));
        self.pages.entry(page).or_insert_with(copy)
    }
}

impl GuestMemory for StoredMemory<'_> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        self.pages.get(&addr.page()).map_or_else(|| self.begin.page(addr), |page| Ok(page))
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.begin.ranges()
    }
}

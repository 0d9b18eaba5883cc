//! A target in which some bytes are others, for as long as one case of the search lasts.
//!
//! Only the pages that were changed are copied, and only a few may be. Where the target has no
//! memory nothing can be changed: a change never makes memory.

use std::ops::Range;

use machine::{GuestMemory, MemoryError, Page, PhysAddr};

/// Pages that may be changed: two words, each of which may lie on two pages, need no more.
const MOST_PAGES: usize = 4;

/// Why bytes cannot be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// The target has no memory there.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// More pages were changed than one case may change.
    #[error("more than {MOST_PAGES} pages changed")]
    Full,
}

/// A target with changes laid over it.
pub struct Changed<'t> {
    target: &'t dyn GuestMemory,
    pages: Vec<(PhysAddr, Box<Page>)>,
}

impl<'t> Changed<'t> {
    /// The target as it is.
    pub const fn new(target: &'t dyn GuestMemory) -> Self {
        Self { target, pages: Vec::new() }
    }

    /// Changes bytes from `addr` on, which may cross pages.
    ///
    /// # Errors
    /// [`ChangeError`]; the bytes before the page that it is about are changed.
    pub fn write(&mut self, addr: PhysAddr, bytes: &[u8]) -> Result<(), ChangeError> {
        for (at, byte) in (0..).zip(bytes) {
            let place = addr.add(at);
            self.page_mut(place)?[place.offset() as usize] = *byte;
        }
        Ok(())
    }

    fn page_mut(&mut self, addr: PhysAddr) -> Result<&mut Page, ChangeError> {
        let found = self.pages.iter().position(|(page, _)| *page == addr.page());
        let at = match found {
            Some(at) => at,
            None if self.pages.len() >= MOST_PAGES => return Err(ChangeError::Full),
            None => {
                self.pages.push((addr.page(), Box::new(*self.target.page(addr)?)));
                self.pages.len() - 1
            }
        };
        Ok(&mut self.pages[at].1)
    }
}

impl GuestMemory for Changed<'_> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        match self.pages.iter().find(|(page, _)| *page == addr.page()) {
            Some((_, page)) => Ok(page),
            None => self.target.page(addr),
        }
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.target.ranges()
    }
}

#[cfg(test)]
mod tests {
    use machine::memory::Mock;

    use super::*;

    fn target() -> Mock {
        let mut target = Mock::new();
        target.write(PhysAddr(0x1000), &[7; 0x2000]);
        target
    }

    #[test]
    fn only_what_was_written_is_another() -> Result<(), ChangeError> {
        let target = target();
        let mut changed = Changed::new(&target);
        changed.write(PhysAddr(0x1ffe), &[1, 2, 3, 4])?;
        changed.write(PhysAddr(0x1fff), &[9])?;
        let mut bytes = [0; 6];
        changed.read(PhysAddr(0x1ffd), &mut bytes)?;
        assert_eq!(bytes, [7, 1, 9, 3, 4, 7]);
        target.read(PhysAddr(0x1ffd), &mut bytes)?;
        assert_eq!(bytes, [7; 6], "the target keeps its bytes");
        assert_eq!(changed.ranges(), target.ranges());
        assert_eq!(changed.pages.len(), 2);
        Ok(())
    }

    #[test]
    fn pages_that_are_not_changed_are_the_targets_own() -> Result<(), ChangeError> {
        let target = target();
        let mut changed = Changed::new(&target);
        changed.write(PhysAddr(0x1000), &[1])?;
        assert!(std::ptr::eq(changed.page(PhysAddr(0x2000))?, target.page(PhysAddr(0x2000))?));
        assert!(!std::ptr::eq(changed.page(PhysAddr(0x1000))?, target.page(PhysAddr(0x1000))?));
        Ok(())
    }

    #[test]
    fn nothing_is_changed_where_nothing_is_and_few_pages_are() {
        let mut target = target();
        target.write(PhysAddr(0x1_0000), &[7; 0x8000]);
        let mut changed = Changed::new(&target);
        let hole = PhysAddr(0x3000);
        assert_eq!(changed.write(hole, &[1]), Err(ChangeError::Memory(MemoryError::Hole(hole))));
        for page in 0..MOST_PAGES as u64 {
            assert_eq!(changed.write(PhysAddr(0x1_0000 + page * 0x1000), &[1]), Ok(()));
        }
        assert_eq!(changed.write(PhysAddr(0x1_7000), &[1]), Err(ChangeError::Full));
        assert_eq!(changed.write(PhysAddr(0x1_0001), &[2]), Ok(()), "copied already");
        assert_eq!(changed.read_u8(PhysAddr(0x1_7000)), Ok(7));
    }
}

//! Pages that have to be produced before they can be borrowed: room for each, filled on first use.
//!
//! An empty store costs a fraction of a byte per page, so that a dump of hundreds of gigabytes
//! opens at once; slots come in groups, allocated when the first page of a group is asked for.
//! Nothing is ever thrown away, because callers hold references: what is kept grows with the pages
//! that were touched, up to the size of the guest or to a budget. When that is used up, pages fail
//! that are not there yet.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Page;

/// Slots per group: 8 KiB of them.
const GROUP: usize = 512;

type Slot = OnceLock<Box<Page>>;

/// Produced pages, by number.
#[derive(Debug)]
pub(crate) struct PageStore {
    groups: Box<[OnceLock<Box<[Slot]>>]>,
    /// Pages that may still be kept.
    left: AtomicU64,
}

impl PageStore {
    /// Room for `pages` pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self::with_budget(pages, u64::MAX)
    }

    /// The same, of which `budget` pages at most are kept.
    pub(crate) fn with_budget(pages: usize, budget: u64) -> Self {
        let groups = (0..pages.div_ceil(GROUP)).map(|_| OnceLock::new()).collect();
        Self { groups, left: AtomicU64::new(budget) }
    }

    /// Page `index`, which `make` produces if it is not there yet; `None` if there is no such slot,
    /// `make` fails, or the budget is used up.
    ///
    /// Two threads may both produce a page; one of the copies is kept.
    pub(crate) fn get_or_make(
        &self,
        index: usize,
        make: impl FnOnce() -> Option<Box<Page>>,
    ) -> Option<&Page> {
        let slots = self.groups.get(index / GROUP)?.get_or_init(|| (0..GROUP).map(|_| Slot::new()).collect());
        let slot = &slots[index % GROUP];
        if let Some(page) = slot.get() {
            return Some(page);
        }
        let page = make()?;
        let spend = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).ok()?;
        Some(slot.get_or_init(|| page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_made_once_and_failures_are_not_kept() {
        let store = PageStore::new(GROUP + 1);
        assert_eq!(store.get_or_make(GROUP, || None), None);
        let made = store.get_or_make(GROUP, || Some(Box::new([7; 4096]))).unwrap();
        let again = store.get_or_make(GROUP, || None).unwrap();
        assert!(std::ptr::eq(made, again));
        assert_eq!(store.get_or_make(2 * GROUP, || Some(Box::new([7; 4096]))), None);
    }

    #[test]
    fn a_budget_bounds_what_is_kept() {
        let store = PageStore::with_budget(5, 2);
        let made: Vec<bool> =
            (0..5).map(|at| store.get_or_make(at, || Some(Box::new([7; 4096]))).is_some()).collect();
        assert_eq!(made, [true, true, false, false, false]);
        assert!(store.get_or_make(1, || None).is_some(), "what is kept stays");
    }
}

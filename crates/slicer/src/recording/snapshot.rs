//! A recording's start snapshot as guest memory.

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use machine::{GuestMemory, MemoryError, PAGE_SIZE, Page, PhysAddr};
use trace::{Trace, TraceError};

use crate::error::Error;

/// A start snapshot as guest memory; pages are decompressed when first read.
///
/// A page whose compressed bytes are damaged reads as absent; [`SnapshotMemory::intact`] says
/// afterwards whether there was one.
pub struct SnapshotMemory<'t> {
    snapshot: &'t trace::Snapshot,
    ranges: Vec<Range<PhysAddr>>,
    /// By range: its pages in order, each filled in when it is first read.
    pages: Vec<Vec<OnceLock<Option<Box<Page>>>>>,
    damage: Mutex<Option<TraceError>>,
}

impl<'t> SnapshotMemory<'t> {
    /// The snapshot of a trace.
    #[must_use]
    pub fn new(trace: &'t Trace) -> Self {
        let ram = &trace.header().ram_ranges;
        let ranges: Vec<Range<PhysAddr>> =
            ram.iter().map(|range| range.start..range.start.add(range.size)).collect();
        let count = |range: &Range<PhysAddr>| (range.end.0 - range.start.0).div_ceil(PAGE_SIZE);
        let pages = ranges.iter().map(|range| (0..count(range)).map(|_| OnceLock::new()).collect()).collect();
        Self { snapshot: trace.snapshot(), ranges, pages, damage: Mutex::new(None) }
    }

    /// Checks that every page that was read could be.
    ///
    /// # Errors
    /// [`Error::Trace`] with the first that could not; it is reported once.
    pub fn intact(&self) -> Result<(), Error> {
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner).take();
        damage.map_or(Ok(()), |error| Err(Error::Trace(error)))
    }

    fn load(&self, page: PhysAddr) -> Option<Box<Page>> {
        match self.snapshot.page(page) {
            Ok(bytes) => bytes.map(Box::new),
            Err(error) => {
                self.damage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                None
            }
        }
    }
}

impl GuestMemory for SnapshotMemory<'_> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let page = addr.page();
        let range = self.ranges.iter().position(|range| range.contains(&page));
        let range = range.ok_or(MemoryError::Hole(addr))?;
        let at = (page.0 - self.ranges[range].start.0) / PAGE_SIZE;
        let cell = self.pages[range].get(at as usize).ok_or(MemoryError::Hole(addr))?;
        cell.get_or_init(|| self.load(page)).as_deref().ok_or(MemoryError::Absent(addr))
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.ranges.clone()
    }
}

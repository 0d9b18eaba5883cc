//! Which of the recording's own stores made the mapping that an access goes through.
//!
//! A system may map memory while it answers: a window onto a frame, a stack, a buffer. What goes
//! through such a mapping depends on the stores into page tables that made it, as much as on its
//! address: without them a run would meet whatever the target last mapped there. Memory of the
//! process itself needs none of this, a run has its own.

use std::ops::Range;
use std::rc::Rc;

use machine::paging::{self, PagingMode};
use machine::{GuestMemory, MemoryError, Page, PhysAddr, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::graph::INITIAL;

/// Physical memory with what stores left in it.
pub(crate) struct Content<'s> {
    begin: &'s dyn GuestMemory,
    pages: FxHashMap<u64, Box<Page>>,
}

impl<'s> Content<'s> {
    /// Nothing is stored yet.
    pub fn new(begin: &'s dyn GuestMemory) -> Self {
        Self { begin, pages: FxHashMap::default() }
    }

    /// The page of this frame, to store into.
    pub fn page_mut(&mut self, frame: u64) -> &mut Page {
        let begin = self.begin;
        self.pages
            .entry(frame)
            .or_insert_with(|| Box::new(begin.page(PhysAddr(frame)).copied().unwrap_or([0; 4096])))
    }
}

impl GuestMemory for Content<'_> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        self.pages.get(&addr.page().0).map_or_else(|| self.begin.page(addr), |page| Ok(page))
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.begin.ranges()
    }
}

/// The mappings that were looked up since page tables last changed.
pub(crate) struct Mappings {
    mode: PagingMode,
    root: u64,
    makers: FxHashMap<u64, Rc<[u32]>>,
    tables: FxHashSet<u64>,
}

impl Mappings {
    /// With page tables of this form.
    pub fn new(mode: PagingMode) -> Self {
        Self { mode, root: 0, makers: FxHashMap::default(), tables: FxHashSet::default() }
    }

    /// The operations whose stores an access to `vaddr` is mapped by, under the tables at `root`;
    /// `writers` are those of physical bytes.
    pub fn makers(
        &mut self,
        root: u64,
        vaddr: u64,
        content: &Content<'_>,
        writers: &FxHashMap<u64, Box<[u32; 4096]>>,
    ) -> Rc<[u32]> {
        if self.root != root {
            self.root = root;
            self.makers.clear();
        }
        if let Some(makers) = self.makers.get(&(vaddr & !4095)) {
            return Rc::clone(makers);
        }
        let mut found = Vec::new();
        let size = self.mode.entry_bytes() as usize;
        // Where it leads is known from the recording: only the entries on the way matter.
        let _ = paging::translate_by(content, self.mode, root, VirtAddr(vaddr), &mut |entry: PhysAddr| {
            self.tables.insert(entry.page().0);
            if let Some(page) = writers.get(&entry.page().0) {
                let at = entry.offset() as usize;
                found.extend(page[at..at + size].iter().copied().filter(|&writer| writer != INITIAL));
            }
        });
        found.sort_unstable();
        found.dedup();
        let makers: Rc<[u32]> = found.into();
        self.makers.insert(vaddr & !4095, Rc::clone(&makers));
        makers
    }

    /// Something is stored into a frame.
    pub fn stored(&mut self, frame: u64) {
        if self.tables.contains(&frame) {
            self.makers.clear();
        }
    }
}

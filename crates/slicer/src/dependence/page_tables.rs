//! Which of the recording's own stores made the mapping that an access goes through.
//!
//! A system may map memory while it answers: a window onto a frame, a stack, a buffer. What goes
//! through such a mapping depends on the stores into page tables that made it, as much as on its
//! address: without them a run would meet whatever the target last mapped there. Memory of the
//! process itself needs none of this: a run has its own copy.

use std::rc::Rc;

use machine::paging::{self, PagingMode};
use machine::{PhysAddr, VirtAddr, hash};

use super::definer::{Definer, PackedDefiner};
use super::shadow_memory::ShadowMemory;
use crate::recording::stored_memory::StoredMemory;

/// The mappings that were looked up since page tables last changed.
pub struct PageTables {
    mode: PagingMode,
    /// The tables that they were looked up in.
    root: u64,
    /// By page, the definers of the entries on the way to it.
    definers: hash::Map<VirtAddr, Rc<[PackedDefiner]>>,
    /// Frames that entries were read from.
    tables: hash::Set<PhysAddr>,
}

impl PageTables {
    /// For page tables of this mode.
    #[must_use]
    pub fn new(mode: PagingMode) -> Self {
        Self { mode, root: 0, definers: hash::Map::default(), tables: hash::Set::default() }
    }

    /// Who stored the entries by which an access to `vaddr` is mapped, under the tables at `root`
    /// (CR3's value); entries of the begin mark have no definer.
    pub fn definers(
        &mut self,
        root: u64,
        vaddr: VirtAddr,
        content: &StoredMemory<'_>,
        memory: &ShadowMemory,
    ) -> Rc<[PackedDefiner]> {
        if self.root != root {
            self.root = root;
            self.definers.clear();
        }
        if let Some(definers) = self.definers.get(&vaddr.page()) {
            return Rc::clone(definers);
        }
        let mut found: Vec<PackedDefiner> = Vec::new();
        let size = self.mode.entry_bytes() as usize;
        // Where the access goes is known from the recording: only the entries on the way matter.
        let _ = paging::translate_by(content, self.mode, root, vaddr, &mut |entry: PhysAddr| {
            self.tables.insert(entry.page());
            if let Some(frame) = memory.writers(entry.page()) {
                let at = entry.offset() as usize;
                let writers = frame[at..at + size].iter().copied();
                for writer in writers.filter(|writer| writer.unpack() != Definer::Initial) {
                    if !found.contains(&writer) {
                        found.push(writer);
                    }
                }
            }
        });
        let definers: Rc<[PackedDefiner]> = found.into();
        self.definers.insert(vaddr.page(), Rc::clone(&definers));
        definers
    }

    /// Something is stored into a frame: if an entry was read from it, all look-ups are dropped.
    pub fn stored(&mut self, frame: PhysAddr) {
        if self.tables.contains(&frame) {
            self.definers.clear();
        }
    }
}

//! What others write between the marks: other threads and processes, handlers, devices.
//!
//! Steps that were cut are not the program's own work. What they store over something that the
//! recording stored, or into the process's memory, is *foreign*: a slice that needs it is refused.
//! What an interruption changes in the system's own memory is not foreign: it is the system's
//! state, and the target has its own.

use machine::{GuestMemory, PhysAddr, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};
use trace::Access;

use super::definer::PackedDefiner;
use super::shadow_memory::ShadowMemory;
use crate::recording::stored_memory::StoredMemory;
use crate::recording::{UserMemory, parts};

/// A byte that others stored over one that was stored before.
struct Overwritten {
    /// What they left.
    value: u8,
    /// Whether they did so through an address of the process, or in a frame that it had at the
    /// begin mark.
    own: bool,
}

/// What a process has to itself, without the pages that the system shows to all of them.
#[derive(Default)]
pub struct OwnPages {
    /// Its pages at the begin mark, by frame.
    pub frames: FxHashMap<PhysAddr, VirtAddr>,
    /// Those it gained later that somebody else had filled.
    pub filled: FxHashSet<VirtAddr>,
}

/// What others wrote, and where it counts as foreign.
pub struct ForeignWrites {
    overwritten: FxHashMap<PhysAddr, Overwritten>,
    own: OwnPages,
    /// Whether other tasks ran before this step.
    switched: bool,
    /// Whether this step loads what a device wrote.
    unexplained: bool,
}

impl ForeignWrites {
    /// For a recording whose process has these pages to itself.
    #[must_use]
    pub fn new(own: OwnPages) -> Self {
        Self { overwritten: FxHashMap::default(), own, switched: false, unexplained: false }
    }

    /// Whether somebody else filled this page of the process before it was first touched.
    #[must_use]
    pub fn is_filled(&self, page: VirtAddr) -> bool {
        self.own.filled.contains(&page)
    }

    /// Other tasks ran in the call that the next step returns from.
    pub const fn switched(&mut self) {
        self.switched = true;
    }

    /// Whether they did; forgets it.
    pub const fn take_switched(&mut self) -> bool {
        std::mem::replace(&mut self.switched, false)
    }

    /// The next step loads what a device wrote, or no longer does.
    pub const fn set_unexplained(&mut self, unexplained: bool) {
        self.unexplained = unexplained;
    }

    /// Whether the running step loads what a device wrote.
    #[must_use]
    pub const fn is_unexplained(&self) -> bool {
        self.unexplained
    }

    /// A step of somebody else passes; `here` when the processor uses the process's address space.
    pub fn passes(
        &mut self,
        accesses: &[Access],
        here: bool,
        memory: &mut ShadowMemory,
        user: &dyn UserMemory,
    ) {
        let stores = accesses.iter().filter(|access| access.store && !access.io);
        for part in stores.flat_map(parts) {
            let (page, frame) = (part.vaddr.page(), part.paddr.page());
            // The store may be another process's in memory that both have, or the system's through
            // an address of its own.
            let known = self.own.frames.get(&frame).copied();
            let shared = known.is_some_and(|page| memory.frame_or(page, frame) == frame);
            let addressed = here && user.is_user(page);
            if addressed {
                memory.frame_or(page, frame);
            }
            let own = addressed || shared;
            for (at, value) in part.each() {
                if memory.writer(at) != PackedDefiner::INITIAL {
                    self.overwritten.insert(at, Overwritten { value, own });
                } else if own {
                    memory.set(at, PackedDefiner::FOREIGN);
                }
            }
        }
    }

    /// A retained step follows. A byte that the recording had stored and others left with another
    /// value is foreign, if it is the process's or if other tasks ran.
    pub fn settle(&mut self, memory: &mut ShadowMemory, content: &StoredMemory<'_>) {
        for (at, Overwritten { value, own }) in std::mem::take(&mut self.overwritten) {
            let changed = content.page(at).is_ok_and(|page| page[at.offset() as usize] != value);
            if changed && (own || self.switched) {
                memory.set(at, PackedDefiner::FOREIGN);
            }
        }
    }
}

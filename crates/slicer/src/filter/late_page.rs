//! Pages of the process that appear after the begin mark: demand paging, copy on write.
//!
//! A program begins with the process's pages. Those that a recording's process gained on the way
//! are given to it with the content they had when they were first touched; to know it, all stores
//! of the recording are followed in physical memory.

use machine::paging::{self, PagingMode};
use machine::{Page, PhysAddr, Reg, VirtAddr, hash};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::recording::snapshot::SnapshotMemory;
use crate::recording::stored_memory::StoredMemory;
use crate::recording::{Part, Recording, UserMemory, parts};
use crate::vocabulary::{Id, StepId};

/// A user page that appeared after the begin mark.
pub struct LatePage {
    /// Its frame when first touched.
    pub frame: PhysAddr,
    /// What it held then.
    pub content: Box<Page>,
    /// Whether the process ever wrote to it.
    pub written: bool,
    /// Whether the system filled it before the process touched it, and not to answer that very
    /// access: then it did so for somebody else, or for a device.
    pub foreign: bool,
    /// When it was first touched.
    step: StepId,
}

/// The pages found so far, and physical memory as the recording's stores leave it.
pub(super) struct LatePages<'r> {
    recording: &'r Recording,
    user: &'r dyn UserMemory,
    memory: StoredMemory<'r>,
    found: FxHashMap<VirtAddr, LatePage>,
    /// By frame, the last step that stored something other than zeros into it through an address
    /// that is not the process's.
    filled: hash::Map<PhysAddr, StepId>,
    /// Steps that load from the process's memory what no recorded store left there.
    unexplained: FxHashSet<StepId>,
    /// When the system began to answer the access that the process makes now: if an interruption
    /// just ended, the step at which it began, else this step.
    fault: StepId,
    /// Whether no interruption was open at the step before.
    outside_before: bool,
}

impl<'r> LatePages<'r> {
    pub fn new(recording: &'r Recording, snapshot: &'r SnapshotMemory<'r>, user: &'r dyn UserMemory) -> Self {
        Self {
            recording,
            user,
            memory: StoredMemory::new(snapshot),
            found: FxHashMap::default(),
            filled: hash::Map::default(),
            unexplained: FxHashSet::default(),
            fault: StepId::new(0),
            outside_before: true,
        }
    }

    /// A step begins: `ready` if no interruption was open before it, `outside` if none is now.
    pub fn step(&mut self, step: StepId, ready: bool, outside: bool) {
        // The first step after an interruption keeps the mark: the interruption may have prepared
        // the page for it.
        if ready && (self.outside_before || !outside) {
            self.fault = step;
        }
        self.outside_before = outside;
        let pc = self.recording.pc(step);
        // Fetches of code are not recorded: the page tables tell where the code lies.
        if outside
            && self.is_late(pc.page())
            && !self.found.contains_key(&pc.page())
            && let Some(found) = self.translate(pc)
        {
            self.touch(pc.page(), found.page(), step);
        }
        for access in self.recording.accesses_of(step).iter().filter(|access| !access.io) {
            for part in parts(access) {
                self.access(access.store, &part, step, outside);
            }
        }
    }

    /// The process, or somebody else, reads or stores bytes of one page.
    fn access(&mut self, store: bool, part: &Part, step: StepId, outside: bool) {
        let (page, frame) = (part.vaddr.page(), part.paddr.page());
        let user = self.user.is_user(page);
        if outside && self.is_late(page) {
            if !self.found.contains_key(&page) {
                self.touch(page, frame, step);
            }
            if let Some(late) = self.found.get_mut(&page) {
                late.written |= store;
            }
        }
        let (start, bytes) = (part.paddr.offset() as usize, part.bytes());
        let end = start + bytes.len();
        if store {
            if !user && bytes.iter().any(|&byte| byte != 0) {
                self.filled.insert(frame, step);
            }
            self.memory.page_mut(frame)[start..end].copy_from_slice(bytes);
        } else if outside && user && !self.recording.is_whole_run() {
            // A whole run's recording has no memory to compare with.
            if self.memory.page_mut(frame)[start..end] != *bytes {
                self.unexplained.insert(step);
            }
        }
    }

    fn is_late(&self, page: VirtAddr) -> bool {
        !self.user.is_mapped_at_begin(page) && self.user.is_user(page)
    }

    /// A page of the process as it is when first touched by this step.
    fn touch(&mut self, page: VirtAddr, frame: PhysAddr, step: StepId) {
        let content = Box::new(*self.memory.page_mut(frame));
        let filled = self.filled.get(&frame).is_some_and(|&filled| filled < self.fault);
        let foreign = filled && content.iter().any(|&byte| byte != 0);
        self.found.insert(page, LatePage { frame, content, written: false, foreign, step });
    }

    /// Where the process has an address by now.
    fn translate(&self, address: VirtAddr) -> Option<PhysAddr> {
        let regs = self.recording.begin_regs();
        let mode = PagingMode::from_regs(regs).ok()?;
        let found = paging::translate(&self.memory, mode, regs.get(Reg::Cr3)?, address).ok()?;
        Some(found.paddr)
    }

    /// Forgets what was first touched after the call at this step: another process ran, which has
    /// pages of its own at these addresses.
    pub fn cut(&mut self, call: StepId) {
        self.found.retain(|_, page| page.step <= call);
    }

    /// The pages, by address, and the steps that load what a device wrote.
    pub fn finish(self) -> (FxHashMap<VirtAddr, LatePage>, FxHashSet<StepId>) {
        (self.found, self.unexplained)
    }
}

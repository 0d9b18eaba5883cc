//! Takes out of a recording what is not the program's own work.
//!
//! Interrupts are cut from the handler's entry to the return to the interrupted instruction, nested ones and whatever was
//! scheduled in between with them. A fault that returns to the same instruction is cut together with the first, unfinished
//! attempt. Both are found without knowledge of the system: an instruction follows that the one before does not lead to, and
//! later a return from a handler leads back to the expected place with the same stack pointer.
//!
//! On the way the recording's stores are followed in physical memory, so that pages the process gained after the begin mark
//! are known with the content they had when first touched.

use ir::Kind;
use std::ops::Range;

use machine::paging::{self, PagingMode};
use machine::{GuestMemory, MemoryError, Page, PhysAddr, Reg, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Error;
use crate::interrupt::Interruptions;
use crate::recording::Recording;
use crate::replay::{Blind, Ended, Replay};
use crate::snapshot::SnapshotMemory;

/// A recording without its interruptions.
pub struct Kept {
    /// The remaining steps in order.
    pub steps: Vec<u32>,
    /// How each of them ended.
    pub ended: Vec<Ended>,
    /// User pages that appeared after the begin mark.
    pub late_pages: FxHashMap<u64, LatePage>,
    /// Steps with which the system goes back to the process.
    pub exits: FxHashSet<u32>,
}

/// A user page that appeared after the begin mark.
pub struct LatePage {
    /// Its frame when first touched.
    pub frame: u64,
    /// What it held then.
    pub content: Box<[u8; 4096]>,
    /// Whether the process ever wrote to it.
    pub written: bool,
}

/// Physical memory as the recording's stores leave it.
struct Frames<'r> {
    recording: &'r Recording,
    pages: FxHashMap<u64, Box<[u8; 4096]>>,
}

impl Frames<'_> {
    fn page(&mut self, paddr: u64) -> Result<&mut [u8; 4096], Error> {
        use std::collections::hash_map::Entry;
        match self.pages.entry(paddr) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let page = self.recording.trace.snapshot().page(PhysAddr(paddr)).map_err(Error::Trace)?;
                Ok(entry.insert(Box::new(page.unwrap_or([0; 4096]))))
            }
        }
    }
}

/// Physical memory as guest memory.
struct Now<'f> {
    snapshot: SnapshotMemory<'f>,
    pages: &'f FxHashMap<u64, Box<[u8; 4096]>>,
}

impl GuestMemory for Now<'_> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        match self.pages.get(&addr.page().0) {
            Some(page) => Ok(page),
            None => self.snapshot.page(addr),
        }
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.snapshot.ranges()
    }
}

impl Frames<'_> {
    /// Where the process has an address by now: nothing is recorded of how code is fetched.
    fn find(&self, address: u64) -> Option<u64> {
        let regs = self.recording.begin_regs();
        let memory = Now { snapshot: SnapshotMemory::new(self.recording), pages: &self.pages };
        let mode = PagingMode::from_regs(regs).ok()?;
        let found = paging::translate(&memory, mode, regs.get(Reg::Cr3)?, VirtAddr(address)).ok()?;
        Some(found.paddr.0)
    }
}

/// Cuts interruptions; `begin_pages` are the user pages present at the begin mark, `is_user` decides for others.
///
/// # Errors
/// [`Error::Interrupted`] when a handler never returns to where it interrupted.
pub fn preprocess(
    recording: &Recording,
    begin_pages: &FxHashSet<u64>,
    is_user: &dyn Fn(u64) -> bool,
) -> Result<Kept, Error> {
    let mut replay = Replay::new(recording);
    let mut kept =
        Kept { steps: Vec::new(), ended: Vec::new(), late_pages: FxHashMap::default(), exits: FxHashSet::default() };
    let mut frames = Frames { recording, pages: FxHashMap::default() };
    let mut interruptions = Interruptions::default();
    let mut last: Option<Ended> = None;
    let rsp = Reg::Rsp.index();
    for step in 0..recording.steps.len() {
        let pc = recording.pc(step);
        if let Some(last) = &last
            && interruptions.before(step - 1, recording.pc(step - 1), last, pc, replay.regs[rsp])
        {
            replay.interrupted(pc);
        }
        let outside = interruptions.none();
        let page = pc & !4095;
        if outside
            && !begin_pages.contains(&page)
            && !kept.late_pages.contains_key(&page)
            && is_user(page)
            && let Some(found) = frames.find(pc)
        {
            let content = Box::new(*frames.page(found)?);
            kept.late_pages.insert(page, LatePage { frame: found & !4095, content, written: false });
        }
        for access in recording.accesses_of(step) {
            if access.io {
                continue;
            }
            let page = access.vaddr.page().0;
            if outside && !begin_pages.contains(&page) && is_user(page) {
                let frame = access.paddr.page().0;
                if let std::collections::hash_map::Entry::Vacant(e) = kept.late_pages.entry(page) {
                    let content = Box::new(*frames.page(frame)?);
                    e.insert(LatePage { frame, content, written: false });
                }
                if let Some(late) = kept.late_pages.get_mut(&page) {
                    late.written |= access.store;
                }
            }
            if access.store {
                let (start, bytes) = (access.paddr.offset() as usize, access.value.to_le_bytes());
                let end = (start + access.size as usize).min(4096);
                frames.page(access.paddr.page().0)?[start..end].copy_from_slice(&bytes[..end - start]);
            }
        }
        let ended = replay.step(step, &mut Blind);
        if outside {
            kept.steps.push(step as u32);
            kept.ended.push(ended);
            if ended.control == Some(Kind::SysExit) && is_user(ended.next & !4095) {
                kept.exits.insert(step as u32);
            }
        } else if let Some(closed) = interruptions.after(&ended, replay.regs[rsp])
            && closed.outermost
            && closed.fault
        {
            kept.steps.pop();
            kept.ended.pop();
        }
        last = Some(ended);
    }
    match interruptions.open().first() {
        None => Ok(kept),
        Some(open) => Err(Error::Interrupted { pc: open.pc }),
    }
}

//! Takes out of a recording what is not the program's own work.
//!
//! Interrupts are cut from the handler's entry to the return to the interrupted instruction, nested
//! ones and whatever was scheduled in between with them. A fault that returns to the same
//! instruction is cut together with the first, unfinished attempt. Both are found without knowledge
//! of the system: an instruction follows that the one before does not lead to, and later a return
//! from a handler leads back to the expected place with the same stack pointer. Where the system
//! goes over to other tasks and comes back (`switch`), the call in which it did so is left without
//! a body.
//!
//! On the way the recording's stores are followed in physical memory, so that pages the process
//! gained after the begin mark are known with the content they had when first touched.

use ir::Kind;
use std::ops::Range;

use machine::paging::{self, PagingMode};
use machine::{GuestMemory, MemoryError, Page, PhysAddr, Reg, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Error;
use crate::interrupt::{Interruptions, address_space};
use crate::recording::Recording;
use crate::replay::{Blind, Ended, Replay};
use crate::snapshot::SnapshotMemory;
use crate::switch::{Call, Found, Step, Switches};

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
    /// Returns from calls in which other tasks ran: what came before each, back to the call, is
    /// cut.
    pub switched: FxHashSet<u32>,
    /// Steps that load from the process's memory what no recorded store left there: a device wrote
    /// it.
    pub unexplained: FxHashSet<u32>,
}

/// A user page that appeared after the begin mark.
pub struct LatePage {
    /// Its frame when first touched.
    pub frame: u64,
    /// What it held then.
    pub content: Box<[u8; 4096]>,
    /// Whether the process ever wrote to it.
    pub written: bool,
    /// The system filled it before the process touched it, and not to answer that very access: on
    /// behalf of somebody else, or of a device.
    pub foreign: bool,
    /// When it was first touched.
    step: u32,
}

/// Physical memory as the recording's stores leave it.
struct Frames<'r> {
    recording: &'r Recording,
    pages: FxHashMap<u64, Box<[u8; 4096]>>,
    /// The last step that stored something other than zeros into a frame, but through an address of
    /// the process.
    filled: FxHashMap<u64, u32>,
}

impl Frames<'_> {
    /// A page of the process as it is when first touched by this step; `fault` is when the system
    /// began to answer an access to it.
    fn late(&mut self, frame: u64, step: u32, fault: u32) -> Result<LatePage, Error> {
        let content = Box::new(*self.page(frame)?);
        let filled = self.filled.get(&frame).is_some_and(|&filled| filled < fault);
        let foreign = filled && content.iter().any(|&byte| byte != 0);
        Ok(LatePage { frame, content, written: false, foreign, step })
    }

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

/// Cuts interruptions; `begin_pages` are the user pages present at the begin mark, `is_user`
/// decides for others.
///
/// # Errors
/// [`Error::Interrupted`] and [`Error::Unfinished`] when a handler never returns to where it
/// interrupted, [`Error::Switched`] when another process's steps could not be cut.
pub fn preprocess(
    recording: &Recording,
    begin_pages: &FxHashSet<u64>,
    is_user: &dyn Fn(u64) -> bool,
) -> Result<Kept, Error> {
    let mut replay = Replay::new(recording);
    let mut kept = Kept {
        steps: Vec::new(),
        ended: Vec::new(),
        late_pages: FxHashMap::default(),
        exits: FxHashSet::default(),
        switched: FxHashSet::default(),
        unexplained: FxHashSet::default(),
    };
    // A whole run's recording has no memory to compare with.
    let compare = !recording.trace.header().whole_run;
    let mut frames = Frames { recording, pages: FxHashMap::default(), filled: FxHashMap::default() };
    let mut interruptions = Interruptions::default();
    let mut switches = Switches::default();
    // Steps of other processes that are kept so far.
    let mut strangers: Vec<u32> = Vec::new();
    let own = address_space(recording.begin_regs().get_or_zero(Reg::Cr3));
    let in_process = |regs: &[u64; 256]| regs[Reg::Cpl.index()] == 3;
    let mut last: Option<Ended> = None;
    // Where the interruption before this step began, if one just ended, else this step.
    let (mut fault, mut outside_before) = (0, true);
    let rsp = Reg::Rsp.index();
    for step in 0..recording.steps.len() {
        let pc = recording.pc(step);
        let ready = interruptions.none();
        if let Some(last) = &last
            && interruptions.before(step - 1, recording.pc(step - 1), last, pc, &replay.regs)
        {
            replay.interrupted(pc);
        }
        let outside = interruptions.none();
        // Not so for the first step after an interruption: what that did may have been for this
        // step.
        if ready && (outside_before || !outside) {
            fault = step as u32;
        }
        outside_before = outside;
        let page = pc & !4095;
        if outside
            && !begin_pages.contains(&page)
            && !kept.late_pages.contains_key(&page)
            && is_user(page)
            && let Some(found) = frames.find(pc)
        {
            kept.late_pages.insert(page, frames.late(found & !4095, step as u32, fault)?);
        }
        for access in recording.accesses_of(step) {
            if access.io {
                continue;
            }
            let page = access.vaddr.page().0;
            if outside && !begin_pages.contains(&page) && is_user(page) {
                let frame = access.paddr.page().0;
                if let std::collections::hash_map::Entry::Vacant(e) = kept.late_pages.entry(page) {
                    e.insert(frames.late(frame, step as u32, fault)?);
                }
                if let Some(late) = kept.late_pages.get_mut(&page) {
                    late.written |= access.store;
                }
            }
            let (start, bytes) = (access.paddr.offset() as usize, access.value.to_le_bytes());
            let end = (start + access.size as usize).min(4096);
            if compare && outside && !access.store && is_user(page) {
                let held = &frames.page(access.paddr.page().0)?[start..end];
                if *held != bytes[..end - start] {
                    kept.unexplained.insert(step as u32);
                }
            }
            if access.store {
                if access.value != 0 && !is_user(page) {
                    frames.filled.insert(access.paddr.page().0, step as u32);
                }
                frames.page(access.paddr.page().0)?[start..end].copy_from_slice(&bytes[..end - start]);
            }
        }
        let (stack, process) = (replay.regs[rsp], in_process(&replay.regs));
        let ended = replay.step(step, &mut Blind);
        if outside {
            if process && address_space(replay.regs[Reg::Cr3.index()]) != own {
                strangers.push(step as u32);
            }
            kept.steps.push(step as u32);
            kept.ended.push(ended);
            if ended.control == Some(Kind::SysExit) && is_user(ended.next & !4095) {
                kept.exits.insert(step as u32);
            }
        } else if let Some(closed) = interruptions.after(&ended, &replay.regs)
            && closed.outermost
            && closed.fault
        {
            kept.steps.pop();
            kept.ended.pop();
        }
        let seen = Step {
            step: step as u32,
            kept: outside.then_some(kept.steps.len().saturating_sub(1)),
            pc,
            fallthrough: pc.wrapping_add(u64::from(recording.code_of(step).insn.len)),
            ended: &ended,
            stack: [stack, replay.regs[rsp]],
            system: !process && !in_process(&replay.regs),
            open: interruptions.open().len(),
        };
        match switches.after(&seen) {
            Some(Found::Back(open)) => interruptions.back(open),
            // Another task's call may have been cut already.
            Some(Found::Over(call)) if kept.steps.get(call.kept) == Some(&call.step) => {
                kept.cut(&call, step as u32, ended);
                strangers.retain(|&stranger| stranger < call.step);
            }
            _ => {}
        }
        last = Some(ended);
    }
    if let Some(open) = interruptions.open().first() {
        let pc = open.pc;
        return Err(if open.complete { Error::Interrupted { pc } } else { Error::Unfinished { pc } });
    }
    let lost = switches.is_leaving().then_some(recording.steps.len() as u32 - 1);
    match strangers.first().copied().or(lost) {
        None => Ok(kept),
        Some(step) => Err(Error::Switched { pc: recording.pc(step as usize) }),
    }
}

impl Kept {
    /// Takes out what came after a call and before the return from it at `step`.
    fn cut(&mut self, call: &Call, step: u32, ended: Ended) {
        self.steps.truncate(call.kept + 1);
        self.ended.truncate(call.kept + 1);
        self.steps.push(step);
        self.ended.push(ended);
        self.switched.insert(step);
        // Another process has other pages there.
        self.late_pages.retain(|_, page| page.step <= call.step);
    }
}

//! Takes out of a recording what is not the program's own work.
//!
//! Interrupts are cut from the handler's entry to the return to the interrupted code, with nested
//! ones and other tasks that were scheduled in between. A fault that returns to the same
//! instruction is cut together with the first, unfinished attempt ([`interruption`]). Both are
//! found without knowledge of the system: an instruction follows that the one before does not lead
//! to, and later a return from a handler leads back to the expected place with the same stack
//! pointer. Where the system switches to other tasks and comes back ([`task_switch`]), the call in
//! which it did so is left without a body.
//!
//! On the way the recording's stores are followed in physical memory, so that pages the process
//! gained after the begin mark are known with the content they had when first touched
//! ([`late_page`]).

pub mod interruption;
pub mod late_page;
pub mod task_switch;

use ir::Kind;
use machine::paging::address_space;
use machine::{Reg, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::Error;
use crate::recording::replay::{Blind, Ended, Replay};
use crate::recording::snapshot::SnapshotMemory;
use crate::recording::{Recording, UserMemory};
use crate::vocabulary::{Id, RegisterValues, RetainedId, StepId, Table};
use interruption::{Closed, Interruptions};
use late_page::{LatePage, LatePages};
use task_switch::{Call, Found, Switches};

/// A recording without its interruptions: the retained trace.
#[derive(Default)]
pub struct Retained {
    /// The remaining steps in order.
    pub steps: Table<RetainedId, StepId>,
    /// How each of them ended.
    pub ended: Table<RetainedId, Ended>,
    /// User pages that appeared after the begin mark, by address.
    pub late_pages: FxHashMap<VirtAddr, LatePage>,
    /// Steps with which the system goes back to the process.
    pub exits: FxHashSet<StepId>,
    /// Returns from calls in which other tasks ran: what came before each, back to the call, is
    /// cut.
    pub switched: FxHashSet<StepId>,
    /// Steps that load from the process's memory what no recorded store left there: a device wrote
    /// it.
    pub unexplained: FxHashSet<StepId>,
}

/// Cuts interruptions and the work of other tasks.
///
/// Cost: one replay of the recording, and a copy of each frame that it stores into or that the
/// process loads from.
///
/// # Errors
/// [`Error::Interrupted`] and [`Error::Unfinished`] when a handler never returns to where it
/// interrupted, [`Error::Switched`] when another process's steps could not be cut, [`Error::Trace`]
/// when the start snapshot is damaged.
pub fn filter(recording: &Recording, user: &dyn UserMemory) -> Result<Retained, Error> {
    let snapshot = SnapshotMemory::new(&recording.trace);
    let mut filter = Filter::new(recording, &snapshot, user);
    for step in recording.steps.ids() {
        filter.step(step);
    }
    let filtered = filter.finish();
    snapshot.intact()?;
    filtered
}

struct Filter<'f> {
    recording: &'f Recording,
    user: &'f dyn UserMemory,
    replay: Replay<'f>,
    interruptions: Interruptions,
    switches: Switches,
    pages: LatePages<'f>,
    retained: Retained,
    /// Steps of other processes that are retained so far.
    strangers: Vec<StepId>,
    /// The recorded process's address space.
    own: u64,
    /// How the step before this one ended.
    last: Option<Ended>,
}

impl<'f> Filter<'f> {
    fn new(recording: &'f Recording, snapshot: &'f SnapshotMemory<'f>, user: &'f dyn UserMemory) -> Self {
        Self {
            recording,
            user,
            replay: Replay::new(recording),
            interruptions: Interruptions::default(),
            switches: Switches::default(),
            pages: LatePages::new(recording, snapshot, user),
            retained: Retained::default(),
            strangers: Vec::new(),
            own: address_space(recording.begin_regs().get_or_zero(Reg::Cr3)),
            last: None,
        }
    }

    fn step(&mut self, step: StepId) {
        let pc = self.recording.pc(step);
        let ready = self.interruptions.none();
        let (before, last) = match (step.previous(), &self.last) {
            (Some(before), Some(last)) => (before, *last),
            // The begin mark leads to the first instruction, unless an interrupt comes first.
            _ => (step, begin_mark(self.recording)),
        };
        let last_pc = if before == step { last.next } else { self.recording.pc(before) };
        if self.interruptions.before(before, last_pc, &last, pc, &self.replay.regs) {
            self.replay.interrupted(pc);
        }
        let outside = self.interruptions.none();
        self.pages.step(step, ready, outside);
        let (stack, process) = (self.replay.regs[Reg::Rsp], in_process(&self.replay.regs));
        let ended = self.replay.step(step, &mut Blind);
        if outside {
            self.retain(step, ended, process);
        } else if let Some(Closed { outermost: true, fault: true }) =
            self.interruptions.after(&ended, &self.replay.regs)
        {
            self.retained.pop();
        }
        let seen = task_switch::Step {
            step,
            retained: outside.then_some(RetainedId::new(self.retained.steps.len().saturating_sub(1))),
            pc,
            fallthrough: self.recording.code_of(step).fallthrough(),
            ended: &ended,
            stack: [stack, self.replay.regs[Reg::Rsp]],
            system: !process && !in_process(&self.replay.regs),
            open: self.interruptions.open().len(),
        };
        match self.switches.after(&seen) {
            Some(Found::Back(open)) => self.interruptions.back(open),
            // Another task's call may have been cut already.
            Some(Found::Over(call)) if self.retained.steps.get(call.retained) == Some(&call.step) => {
                self.retained.cut(&call, step, ended);
                self.pages.cut(call.step);
                self.strangers.retain(|&stranger| stranger < call.step);
            }
            _ => {}
        }
        self.last = Some(ended);
    }

    /// A step outside of interruptions; `process`: it began in a process.
    fn retain(&mut self, step: StepId, ended: Ended, process: bool) {
        if process && address_space(self.replay.regs[Reg::Cr3]) != self.own {
            self.strangers.push(step);
        }
        self.retained.steps.push(step);
        self.retained.ended.push(ended);
        if ended.control == Some(Kind::SysExit) && self.user.is_user(ended.next.page()) {
            self.retained.exits.insert(step);
        }
    }

    fn finish(self) -> Result<Retained, Error> {
        if let Some(open) = self.interruptions.open().first() {
            let pc = open.pc;
            return Err(if open.complete { Error::Interrupted { pc } } else { Error::Unfinished { pc } });
        }
        let lost = self.recording.steps.ids().next_back().filter(|_| self.switches.is_leaving());
        if let Some(step) = self.strangers.first().copied().or(lost) {
            return Err(Error::Switched { pc: self.recording.pc(step) });
        }
        let (late_pages, unexplained) = self.pages.finish();
        Ok(Retained { late_pages, unexplained, ..self.retained })
    }
}

/// How the begin mark ended: it leads where the processor stood then, where a recording says so.
fn begin_mark(recording: &Recording) -> Ended {
    let first = || recording.steps.ids().next().map_or(VirtAddr(0), |step| recording.pc(step));
    let begin = recording.begin_regs().get(Reg::Rip).filter(|_| !recording.is_whole_run());
    Ended { control: None, next: begin.map_or_else(first, VirtAddr), complete: true, slot: VirtAddr(0) }
}

/// Whether the processor runs at the least privileged level.
fn in_process(regs: &RegisterValues) -> bool {
    regs[Reg::Cpl] == 3
}

impl Retained {
    fn pop(&mut self) {
        let left = self.steps.len().saturating_sub(1);
        self.truncate(left);
    }

    fn truncate(&mut self, left: usize) {
        self.steps.truncate(left);
        self.ended.truncate(left);
    }

    /// Takes out what came after a call and before the return from it, which is `step`.
    fn cut(&mut self, call: &Call, step: StepId, ended: Ended) {
        self.truncate(call.retained.index() + 1);
        self.steps.push(step);
        self.ended.push(ended);
        self.switched.insert(step);
    }
}

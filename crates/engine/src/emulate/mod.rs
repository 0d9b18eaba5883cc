//! Emulation: the whole run of the trainer's and the kernel's trusted machine code over the
//! target's memory.
//!
//! The run begins behind the begin mark and ends at the end mark. The trainer's allocator functions
//! are replaced by the run's allocator. There is no device, no interrupt and no other CPU. An
//! assertion of the kernel (`ud2`) is stepped over, as the kernel's handler does for a warning, and
//! reported.

mod report;
mod steps;
mod way;

use std::sync::Arc;

use ir::Program;
use jit::{Slots, Spare};

use crate::checkpoint::Checkpoint;
use crate::code::{AtHand, Code, Given, Translation, restore};
use crate::counter::{Counter, briefly, settled};
use crate::limits::Budget;
use crate::outcome::{Outcome, Stopped};
use crate::overlay::Overlay;
use crate::predecode::slots;
use crate::relocate::Relocation;
use crate::run::{Run, RunError};
use crate::start::{NoAnswer, outcome};
use crate::variables::{Inputs, collect, prepare};
use crate::watch::{Unwatched, Watch};
pub use report::WholeReport;
use way::{Inside, State, Way};

/// The most assertions that are reported.
const MOST_ASSERTIONS: usize = 64;
/// The vector of the exception that `ud2` raises (SDM vol. 3 table 6-1).
const INVALID_OPCODE: u8 = 6;
/// The most pages that are kept for the next run.
const MOST_SPARE: usize = 1024;

/// What a run works with, for the next one to use again. Nothing of a run is left in it but code
/// that is the same for all.
pub(crate) struct Workspace {
    slots: Box<Slots>,
    at_hand: AtHand,
    /// Blocks that have just been interpreted often.
    often: Vec<Arc<Translation>>,
    spare: Spare,
}

impl Default for Workspace {
    fn default() -> Self {
        Self { slots: slots(), at_hand: AtHand::default(), often: Vec::new(), spare: Spare::default() }
    }
}

impl Workspace {
    /// Keeps pages for the next run.
    fn keep(&mut self, spare: Spare) {
        self.spare.add(spare);
        self.spare.truncate(MOST_SPARE);
    }

    /// Forgets code: it will be that of another target.
    pub fn forget(&mut self) {
        self.at_hand.clear();
        self.often.clear();
    }
}

/// A whole run that is to be made: a program that was found in a target.
pub(crate) struct Ask<'a, 's, 't> {
    pub program: &'a Program,
    pub run: Run<'t>,
    pub relocation: &'a Relocation<'a>,
    /// The target's time stamp counter, if it is known.
    pub tsc: Option<u64>,
    pub code: Code<'a, 's>,
}

impl<'a> Ask<'a, '_, 'a> {
    /// Makes the run, with these inputs; and if it came to code that is not trusted, once more with
    /// the pointers that lead to such code as they were in training.
    pub fn answer<W: Watch>(
        &self,
        (inputs, budget): (&Inputs, Budget),
        workspace: &mut Workspace,
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let (deadline, first) = (budget.deadline(), Given { inputs, restored: &[] });
        // What the last run noted: who asks once needs no machine code.
        self.code.cache.compile(&mut workspace.often, &mut workspace.at_hand);
        let ended = self.counted((first, budget), workspace, watch)?;
        if W::ON || !matches!(ended.0, Outcome::Stopped(Stopped::NoCode { .. })) {
            return Ok(ended);
        }
        match self.code.kernel.redirected(deadline) {
            [] => Ok(ended),
            restored => {
                let budget = Budget::until(&self.run.limits, deadline);
                self.counted((Given { inputs, restored }, budget), workspace, watch)
            }
        }
    }

    /// Makes the run as often as it takes to see whether it depends on a counter that is not known.
    fn counted<W: Watch>(
        &self,
        (given, budget): (Given<'_>, Budget),
        workspace: &mut Workspace,
        watch: &mut W,
    ) -> Result<(Outcome, WholeReport), RunError> {
        let [tsc, hpet] = self.code.kernel.last_readings();
        let known = [self.tsc.or(tsc), hpet];
        // What is watched is all of a run.
        let mut counter = if W::ON { Counter::new(known) } else { Counter::announced(known) };
        let (mut report, mut checkpoint) = (WholeReport::default(), None);
        let told = (&mut counter, &mut report, &mut checkpoint);
        let outcome = self.once((given, budget), told, workspace, watch)?;
        let brief = Ask { run: briefly(&self.run, report.used), ..*self };
        if W::ON {
            // What is watched is the first run.
            workspace.forget();
        }
        let again = |counter: &mut Counter| {
            let (budget, mut report) = (Budget::new(&brief.run.limits), WholeReport::default());
            match &mut checkpoint {
                Some(checkpoint) => brief.again(checkpoint, budget, (counter, &mut report), workspace),
                None => {
                    let told = (counter, &mut report, &mut None);
                    brief.once((given, budget), told, workspace, &mut Unwatched)
                }
            }
        };
        // What was watched is what is sliced.
        let (outcome, clock) = settled(outcome, (&counter, known), !W::ON, again)?;
        if let Some((at, last)) = clock {
            self.code.kernel.note_clock(at, last);
            report.departures.clocks.push(at);
        }
        if let Some(checkpoint) = checkpoint {
            workspace.keep(checkpoint.into_spare());
        }
        Ok((outcome, report))
    }

    /// One run with this counter.
    fn once<W: Watch>(
        &self,
        (Given { inputs, restored }, budget): (Given<'_>, Budget),
        (counter, report, checkpoint): (&mut Counter, &mut WholeReport, &mut Option<Checkpoint<'a, Inside>>),
        workspace: &mut Workspace,
        watch: &mut W,
    ) -> Result<Outcome, RunError> {
        let Self { program, relocation, run, code, .. } = self;
        report.departures.restored = restored.iter().map(|it| it.trained).collect();
        let overlay = match run.overlay(program, relocation, &code.own.process) {
            Ok(overlay) => overlay,
            Err(stopped) => return Ok(Outcome::Stopped(stopped)),
        };
        let mut overlay = overlay.with_spare(std::mem::take(&mut workspace.spare));
        let begun = restore(restored, program, &mut overlay)
            .map_err(NoAnswer::from)
            .and_then(|()| Ok(prepare(program, inputs, &mut overlay)?))
            .and_then(|()| run.override_per_cpu(program, relocation, &mut overlay));
        let state = State::new(&workspace.slots);
        let mut way = Way { state, counter, report, checkpoint };
        let ended = begun.and_then(|()| self.begin(budget, workspace, &mut overlay, &mut way, watch));
        self.end(ended, overlay, way, workspace)
    }

    /// The rest of a run, from where another one was.
    fn again(
        &self,
        checkpoint: &mut Checkpoint<'a, Inside>,
        budget: Budget,
        (counter, report): (&mut Counter, &mut WholeReport),
        workspace: &mut Workspace,
    ) -> Result<Outcome, RunError> {
        let spare = std::mem::take(&mut workspace.spare);
        let (mut overlay, Inside { state, block, op }) = checkpoint.restore(&mut workspace.slots, spare);
        let mut way = Way { state, counter, report, checkpoint: &mut None };
        let ended = self.resume((&block, op), (budget, workspace), &mut overlay, &mut way);
        self.end(ended, overlay, way, workspace)
    }

    /// What came of a run that ended so, and all that there is to tell of it.
    fn end(
        &self,
        ended: Result<u64, NoAnswer>,
        mut overlay: Overlay<'a>,
        way: Way<'_, 'a>,
        workspace: &mut Workspace,
    ) -> Result<Outcome, RunError> {
        let (Self { program, code, .. }, Way { state, counter, report, .. }) = (self, way);
        let State { modules, progress, private, .. } = state;
        if !private.is_empty() {
            workspace.at_hand.clear();
        }
        let reported = |at: u64| code.kernel.reported(at, modules);
        (report.used, report.instructions) = (progress.used, progress.instructions);
        report.assertions.iter_mut().for_each(|at| *at = reported(*at));
        counter.report_at(reported);
        report.departures.overruled = code.kernel.departures().overruled;
        let ended = ended.map_err(|ended| ended.map_addresses(reported));
        let answer = ended.and_then(|end| match &program.provenance.unrepeated {
            // In training, another task or a device helped the trainer; here nothing does.
            Some(why) => Err(Stopped::Unrepeated { at: end, why: why.clone() }.into()),
            None => Ok(collect(program, end, &mut overlay)?),
        });
        workspace.keep(overlay.into_spare());
        // Where a damaged piece of the companion file would have been, there was no code.
        match code.kernel.damage() {
            Some(error) => Err(error.into()),
            None => outcome(answer),
        }
    }
}

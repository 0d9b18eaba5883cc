//! Checks a trace against the lifter: every instruction is replayed, every store, next address and
//! known register compared.

use machine::VirtAddr;

use crate::filter::interruption::Interruptions;
use crate::recording::Recording;
use crate::recording::replay::{Blind, Ended, Mismatch, Replay};
use crate::vocabulary::StepId;

/// A disagreement between lifter and trace.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// Where in the recording.
    pub step: StepId,
    /// Address of its instruction.
    pub pc: VirtAddr,
    /// The instruction's bytes.
    pub bytes: Vec<u8>,
    /// What differs.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Instructions executed in the trace.
    pub instructions: u64,
    /// Of those, how many replayed without a disagreement.
    pub agreed: u64,
    /// Interrupts and faults: how often the processor left the code by itself.
    pub interruptions: u64,
    /// The first disagreements, 20 at most.
    pub disagreements: Vec<Disagreement>,
}

impl CheckReport {
    /// Whether lifter and trace agree on everything.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.agreed == self.instructions && self.disagreements.is_empty()
    }

    fn disagree(&mut self, recording: &Recording, step: StepId, what: String) {
        const KEEP: usize = 20;
        if self.disagreements.len() < KEEP {
            let code = recording.code_of(step);
            self.disagreements.push(Disagreement { step, pc: code.pc(), bytes: code.bytes.clone(), what });
        }
    }
}

/// Replays a recording.
#[must_use]
pub fn check(recording: &Recording) -> CheckReport {
    let mut report = CheckReport::default();
    let mut replay = Replay::new(recording);
    let mut interruptions = Interruptions::default();
    let mut last: Option<(StepId, Ended, Vec<Mismatch>)> = None;
    for step in recording.steps.ids() {
        let pc = recording.pc(step);
        if let Some((before, ended, own)) = last.take() {
            let diverted = interruptions.before(before, recording.pc(before), &ended, pc, &replay.regs);
            if diverted {
                report.interruptions += 1;
                replay.interrupted(pc);
            }
            settle(&mut report, recording, before, &own, diverted && !ended.complete);
        }
        let ended = replay.step(step, &mut Blind);
        report.instructions += 1;
        let found = std::mem::take(&mut replay.mismatches);
        // Register differences belong to the instructions since the last record, not to this one.
        let (registers, own): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|it| matches!(it, Mismatch::Register { .. }));
        for it in &registers {
            report.disagree(recording, step, format!("before it: {it:x?}"));
        }
        interruptions.after(&ended, &replay.regs);
        last = Some((step, ended, own));
    }
    if let Some((step, _, own)) = last {
        settle(&mut report, recording, step, &own, false);
    }
    for open in interruptions.open() {
        let what = format!("execution should go on at {:#x}, and never did", open.next);
        report.agreed = report.agreed.saturating_sub(1);
        report.disagree(recording, open.step, what);
    }
    report
}

/// Counts a step. An attempt that a fault ended may lack accesses: they were never made.
fn settle(report: &mut CheckReport, recording: &Recording, step: StepId, own: &[Mismatch], faulted: bool) {
    let missing =
        |it: &Mismatch| matches!(it, Mismatch::NoLoad { .. } | Mismatch::Store { recorded: None, .. });
    if own.is_empty() || (faulted && own.iter().all(missing)) {
        report.agreed += 1;
    } else {
        for it in own {
            report.disagree(recording, step, format!("{it:x?}"));
        }
    }
}

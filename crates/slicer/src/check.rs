//! Checks a trace against the lifter: every instruction is replayed, every store, next address and
//! known register compared.

use crate::interrupt::Interruptions;
use crate::recording::Recording;
use crate::replay::{Blind, Ended, Mismatch, Replay};

/// A disagreement between lifter and trace.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The step.
    pub step: usize,
    /// Address of its instruction.
    pub pc: u64,
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
    /// Interrupts and faults: the processor went elsewhere by itself and came back.
    pub interruptions: u64,
    /// The first disagreements.
    pub disagreements: Vec<Disagreement>,
}

impl CheckReport {
    /// Whether lifter and trace agree on everything.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.agreed == self.instructions && self.disagreements.is_empty()
    }

    fn disagree(&mut self, recording: &Recording, step: usize, what: String) {
        const KEEP: usize = 20;
        if self.disagreements.len() < KEEP {
            let code = recording.code_of(step);
            self.disagreements.push(Disagreement { step, pc: code.insn.pc, bytes: code.bytes.clone(), what });
        }
    }
}

/// Replays a recording.
#[must_use]
pub fn check(recording: &Recording) -> CheckReport {
    let mut report = CheckReport::default();
    let mut replay = Replay::new(recording);
    let mut interruptions = Interruptions::default();
    let mut last: Option<(Ended, Vec<Mismatch>)> = None;
    for step in 0..recording.steps.len() {
        if let Some((ended, own)) = last.take() {
            let diverted = interruptions.before(
                step - 1,
                recording.pc(step - 1),
                &ended,
                recording.pc(step),
                &replay.regs,
            );
            if diverted {
                report.interruptions += 1;
                replay.interrupted(recording.pc(step));
            }
            settle(&mut report, recording, step - 1, &own, diverted && !ended.complete);
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
        last = Some((ended, own));
    }
    if let Some((_, own)) = last {
        settle(&mut report, recording, recording.steps.len() - 1, &own, false);
    }
    for open in interruptions.open() {
        let what = format!("execution should go on at {:#x}, and never did", open.next);
        report.agreed = report.agreed.saturating_sub(1);
        report.disagree(recording, open.step, what);
    }
    report
}

/// Counts a step; an attempt that a fault ended has accesses that were never made.
fn settle(report: &mut CheckReport, recording: &Recording, step: usize, own: &[Mismatch], faulted: bool) {
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

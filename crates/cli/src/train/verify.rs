//! Compares a program's answer about a guest with the answer that the trainer itself got there.
//!
//! A recording holds the guest's memory at the begin mark and what the trainer's own code, executed
//! by that guest, then wrote into its outputs. So a recording of *another* boot is a target with a
//! truth that does not come from our code.

use std::collections::BTreeMap;
use std::fmt;

use engine::{Limits, Outcome, Seen, SliceProgram, Watch, WholeProgram};
use lift::Mode;
use machine::{Reg, VirtAddr};
use slicer::{Recording, Start};

use crate::interrupted;
use crate::recorded;
use crate::training::{Error, Trained};

/// How a program did on one recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Slice and whole run gave the guest's answer.
    BySlice,
    /// The whole run gave it; why the slice stopped.
    ByWhole(String),
    /// The guest's answer was changed by an interrupt, so it judges nothing.
    Interrupted,
    /// There was no answer, or another one.
    Wrong(String),
}

impl Verdict {
    /// Whether it is the guest's answer.
    #[must_use]
    pub const fn is_right(&self) -> bool {
        matches!(self, Self::BySlice | Self::ByWhole(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BySlice => f.write_str("the guest's answer"),
            Self::ByWhole(why) => write!(f, "the guest's answer by the whole run; the slice stopped: {why}"),
            Self::Interrupted => f.write_str("an interrupt changed the guest's answer"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

/// Asks a program about the guest of a recording of the same trainer.
///
/// # Errors
/// The recording has no usable start, or the program cannot run over it at all.
pub fn ask(trained: &Trained, recording: &Recording) -> Result<Verdict, Error> {
    let start = Start::new(recording)?;
    let run = recorded::run(&start, Limits::default());
    let inputs = start.inputs();
    let program = &trained.program;
    let mut whole = WholeProgram::new(program, &trained.system);
    let mut written = Written::default();
    let whole = match whole.watched(&run, &inputs, &mut written)?.0 {
        Outcome::Answer(values) => values,
        Outcome::Stopped(why) => return Ok(Verdict::Wrong(format!("the whole run stopped: {why}"))),
    };
    let truth = start.written_outputs();
    for (variable, recorded) in program.outputs.iter().zip(recording.trace.header().outputs()) {
        if within(&truth, recorded.addr, recorded.size)
            != within(&written.0, VirtAddr(variable.addr), recorded.size)
        {
            if interrupted::by_luck(program, &trained.system, &start)?.is_some() {
                return Ok(Verdict::Interrupted);
            }
            return Ok(Verdict::Wrong(format!(
                "the whole run's {} is not what the guest found itself",
                variable.name
            )));
        }
    }
    let slice = SliceProgram::new(program).map_err(engine::RunError::from)?;
    Ok(match slice.run(&run, &inputs)?.0 {
        Outcome::Answer(values) if values == whole => Verdict::BySlice,
        Outcome::Answer(_) => Verdict::Wrong("slice and whole run give different answers".to_owned()),
        Outcome::Stopped(why) => Verdict::ByWhole(why.to_string()),
    })
}

/// The bytes of one variable, by their offset in it; bytes that are not there are left out.
fn within(bytes: &BTreeMap<VirtAddr, u8>, from: VirtAddr, size: u64) -> Vec<(u64, u8)> {
    let range = from..VirtAddr(from.0.saturating_add(size));
    bytes.range(range).map(|(address, &byte)| (address.0 - from.0, byte)).collect()
}

/// The bytes that a whole run wrote last, by address.
#[derive(Default)]
struct Written(BTreeMap<VirtAddr, u8>);

impl Watch for Written {
    const ON: bool = true;

    fn insn(&mut self, _: u64, _: Mode, _: &[u8]) {}

    fn access(&mut self, seen: Seen) {
        if seen.store {
            let bytes = seen.value.to_le_bytes();
            self.0.extend(
                (0..u64::from(seen.size))
                    .zip(bytes)
                    .map(|(at, byte)| (VirtAddr(seen.vaddr.wrapping_add(at)), byte)),
            );
        }
    }

    fn registers(&mut self, _: &[(Reg, u64); 16]) {}
}

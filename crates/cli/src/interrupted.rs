//! Recordings whose trainer read what an interruption changed between the marks.
//!
//! A clock's interrupt may come in the middle of the work and move the time that the trainer goes
//! on to read. Nothing is wrong with such a recording, but the memory of its begin mark no longer
//! holds what its answer was made of, so it can neither teach nor judge an answer. When interrupts
//! come is luck: another recording of the same trainer will do.

use engine::{Limits, Seen, Watch, WholeProgram};
use ir::{Program, System};
use lift::Mode;
use machine::{PhysAddr, Reg, VirtAddr};
use rustc_hash::FxHashSet;
use slicer::Start;

use crate::recorded;

/// The first instruction of a whole run over the recording's own memory that reads a byte which an
/// interruption or another task changed there between the marks.
///
/// # Errors
/// The whole run could not begin.
pub fn by_luck(
    program: &Program,
    system: &System,
    start: &Start<'_>,
) -> Result<Option<VirtAddr>, engine::RunError> {
    let changed = start.changed_by_others();
    if changed.is_empty() {
        return Ok(None);
    }
    let run = recorded::run(start, Limits::default());
    let mut reads = Reads { changed, pc: VirtAddr(0), found: None };
    WholeProgram::new(program, system).watched(&run, &start.inputs(), &mut reads)?;
    Ok(reads.found)
}

/// Looks for reads of what others changed.
struct Reads {
    changed: FxHashSet<PhysAddr>,
    /// The running instruction.
    pc: VirtAddr,
    found: Option<VirtAddr>,
}

impl Watch for Reads {
    const ON: bool = true;

    fn insn(&mut self, pc: u64, _: Mode, _: &[u8]) {
        self.pc = VirtAddr(pc);
    }

    fn access(&mut self, seen: Seen) {
        let reads = !seen.store && seen.bytes().any(|at| self.changed.contains(&PhysAddr(at)));
        if reads && self.found.is_none() {
            self.found = Some(self.pc);
        }
    }

    fn registers(&mut self, _: &[(Reg, u64); 16]) {}
}

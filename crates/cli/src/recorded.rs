//! The machine that a recording began in, as a target.

use engine::{ApicId, Environment, Limits, Run};
use slicer::Start;

/// A run over the memory that a recording began in. The recorder takes a machine of one processor,
/// and the local APIC of QEMU's first one is number 0.
pub fn run<'t>(start: &'t Start<'_>, limits: Limits) -> Run<'t> {
    let env = Environment { tsc: start.time_stamp(), apic: ApicId::Is(0) };
    Run { memory: start.memory(), regs: start.registers(), env, limits }
}

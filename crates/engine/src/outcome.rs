//! How a run ends.

use serde::Serialize;

use crate::hpet;
use crate::overlay::Fault;
use crate::value::Values;

/// Why a run stopped without an answer.
///
/// Addresses of code are the training system's; a whole run names an address of the target where
/// training has no such code. A slice run names the first instruction of the block that it was in,
/// or, if a branch, call or jump is the cause, that instruction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Stopped {
    /// A branch, call or jump led to code that no training run executed.
    #[error("unexplored: the instruction at {at:#x} goes to {to:#x}, which no training run did")]
    Unexplored {
        /// Address of the deciding instruction.
        at: u64,
        /// Where it would go; 0 for a return without a call.
        to: u64,
    },
    /// A slice read memory of the system's stack that it had not written: code that is not in the
    /// slice overwrites that, and no recording had anything there that the slice needs.
    #[error("overwritten: {at:#x} reads {address:#x}, where code that is not in the slice keeps its stack")]
    Overwritten {
        /// The instruction.
        at: u64,
        /// The linear address in the target.
        address: u64,
    },
    /// The fuel is used up.
    #[error("out of fuel: {used} operations executed, last at {at:#x}")]
    OutOfFuel {
        /// The block that a slice run was in; the block that a whole run would have executed next.
        at: u64,
        /// Fuel used: operations, and one more for each block.
        used: u64,
    },
    /// The time on the clock is over.
    #[error("out of time: {milliseconds} ms were over after {used} operations, last at {at:#x}")]
    OutOfTime {
        /// As for [`Stopped::OutOfFuel`].
        at: u64,
        /// Fuel used.
        used: u64,
        /// The time that the run had.
        milliseconds: u64,
    },
    /// An access that memory does not allow: the address is not mapped, its page table or frame is
    /// not in the target's memory, it is user memory of the target, or it is read-only.
    #[error("unmapped memory: {at:#x} accesses {address:#x}: {cause}")]
    Unmapped {
        /// The instruction.
        at: u64,
        /// The linear address in the target.
        address: u64,
        /// What is wrong with it, as a clause.
        cause: String,
    },
    /// Something only a device or the processor could answer.
    #[error("needs a device: {at:#x} {what}")]
    NeedsDevice {
        /// The instruction.
        at: u64,
        /// What it does, as a verb and its objects.
        what: String,
        /// Whether what it reads is a clock of the PC. Nobody needs to wait for another moment
        /// then.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        clock: bool,
    },
    /// The answer depends on the time stamp counter, and nothing tells what that is in the target.
    #[error(
        "needs a device: {at:#x} reads the time stamp counter, on which the answer depends, and no memory \
         of the target is known to hold it"
    )]
    #[serde(rename = "needs-device")]
    UnknownCounter {
        /// The first instruction that reads it.
        at: u64,
    },
    /// The code waits for something that never comes to a paused guest: it halts, or is in the same
    /// state as before.
    #[error("blocked: the code waits at {at:#x}")]
    Blocked {
        /// The instruction.
        at: u64,
    },
    /// The system went on with something other than the trainer: another task, or a signal's
    /// handler.
    #[error(
        "another task runs: the system goes from {at:#x} to {to:#x}, not back to the trainer that called it"
    )]
    Switched {
        /// The instruction that leaves the system.
        at: u64,
        /// Where it goes.
        to: u64,
    },
    /// The end mark was reached, but a whole run over the training system's own memory did not
    /// reach it: training had help that this run did not.
    #[error(
        "an answer without help at {at:#x}: over the training system's own memory the whole run stopped \
         ({why})"
    )]
    Unrepeated {
        /// The end mark.
        at: u64,
        /// How the rehearsal ended.
        why: String,
    },
    /// The code raised an exception.
    #[error("exception {vector} at {at:#x}")]
    Exception {
        /// The instruction.
        at: u64,
        /// The vector (SDM vol. 3 table 6-1).
        vector: u8,
    },
    /// An instruction that the lifter does not model.
    #[error("unsupported instruction {name} at {at:#x}")]
    Unsupported {
        /// The instruction.
        at: u64,
        /// Its mnemonic.
        name: String,
    },
    /// Code outside the trusted copy of the training system.
    #[error("no trusted code at {to:#x}, reached from {at:#x}{}", .object.as_deref().unwrap_or(""))]
    NoCode {
        /// The block that went there.
        at: u64,
        /// Where it went.
        to: u64,
        /// If that is in a relocatable object that the system has loaded, which one, and why its
        /// code is not executed there, in words.
        object: Option<String>,
    },
    /// The run copied or allocated as many pages as it may, or nested as many calls as it may.
    #[error("limit reached at {at:#x}: {what}")]
    Limit {
        /// The instruction.
        at: u64,
        /// Which limit, in words.
        what: String,
    },
}

/// Whether an I/O port is that of a clock: the timers of the first PCs, their real time clock, and
/// ACPI's power management timer, at 8 in a block of registers that begins at a multiple of 0x100
/// in QEMU, in PIIX4 and ICH.
pub(crate) const fn is_clock(port: u64) -> bool {
    matches!(port, 0x40..=0x43 | 0x70 | 0x71) || (port >= 0x400 && port & 0xff == 8)
}

impl Stopped {
    /// The same with all addresses of code changed.
    pub(crate) fn map_addresses(mut self, change: impl Fn(u64) -> u64) -> Self {
        match &mut self {
            Self::Unexplored { at, to } | Self::NoCode { at, to, .. } | Self::Switched { at, to } => {
                *at = change(*at);
                *to = change(*to);
            }
            Self::OutOfFuel { at, .. }
            | Self::Overwritten { at, .. }
            | Self::OutOfTime { at, .. }
            | Self::Unmapped { at, .. }
            | Self::NeedsDevice { at, .. }
            | Self::UnknownCounter { at }
            | Self::Blocked { at }
            | Self::Unrepeated { at, .. }
            | Self::Exception { at, .. }
            | Self::Unsupported { at, .. }
            | Self::Limit { at, .. } => *at = change(*at),
        }
        self
    }

    /// The answer depends on the main counter of the HPET, which the code at `at` reads.
    pub(crate) fn hpet(at: u64) -> Self {
        let what = "reads the HPET, a clock, on which the answer depends".to_string();
        Self::NeedsDevice { at, what, clock: true }
    }

    /// The instruction at `at` accessed `address` and met this fault.
    #[cold]
    pub(crate) fn access(at: u64, address: u64, fault: &Fault) -> Self {
        match fault {
            Fault::Undefined => Self::Overwritten { at, address },
            Fault::Full => Self::Limit { at, what: fault.to_string() },
            Fault::Device(_) => {
                let clock = hpet::is_it(fault);
                let which = if clock { " (the HPET, a clock)" } else { "" };
                Self::NeedsDevice { at, what: format!("accesses {address:#x}, where {fault}{which}"), clock }
            }
            _ => Self::Unmapped { at, address, cause: fault.to_string() },
        }
    }
}

/// The result of a run.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The end mark was reached: the outputs.
    Answer(Values),
    /// It was not reached.
    Stopped(Stopped),
}

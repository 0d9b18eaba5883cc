//! How a run ends.

use serde::Serialize;

use crate::overlay::Fault;
use crate::value::Values;

/// Why a run stopped before it reached the end mark.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Stopped {
    /// A branch, call or jump led to code that no training run executed.
    #[error("unexplored: the instruction at {at:#x} goes to {to:#x}, which no training run did")]
    Unexplored {
        /// Address of the deciding instruction.
        at: u64,
        /// Where it would go.
        to: u64,
    },
    /// The budget of operations is used up.
    #[error("out of fuel: {used} operations executed, last at {at:#x}")]
    OutOfFuel {
        /// Where it was.
        at: u64,
        /// Operations executed.
        used: u64,
    },
    /// An address is not mapped, or its table or frame is not in the target's memory.
    #[error("unmapped memory: {at:#x} accesses {address:#x}: {cause}")]
    Unmapped {
        /// The instruction.
        at: u64,
        /// The linear address.
        address: u64,
        /// What is wrong there.
        cause: String,
    },
    /// Something only a device or the processor could answer.
    #[error("needs a device: {at:#x} {what}")]
    NeedsDevice {
        /// The instruction.
        at: u64,
        /// What it wants.
        what: String,
    },
    /// The code waits for something that never comes to a paused guest: it halts, or goes round
    /// without changing anything.
    #[error("blocked: the code waits at {at:#x}")]
    Blocked {
        /// The instruction.
        at: u64,
    },
    /// The system went on with something else than the trainer: another task, or a signal's
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
    /// The end mark was reached where a whole run over the training system's own memory did not
    /// reach it.
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
        /// Its address.
        at: u64,
        /// Its name.
        name: String,
    },
    /// Code outside the trusted copy of the training system.
    #[error("no trusted code at {to:#x}, reached from {at:#x}")]
    NoCode {
        /// The instruction that went there.
        at: u64,
        /// The address.
        to: u64,
    },
    /// Memory for the overlay or the call stack ran out.
    #[error("limit reached at {at:#x}: {what}")]
    Limit {
        /// Where it was.
        at: u64,
        /// Which limit.
        what: String,
    },
}

impl Stopped {
    /// The same with the addresses of code changed.
    pub(crate) fn map_addresses(mut self, change: impl Fn(u64) -> u64) -> Self {
        match &mut self {
            Self::Unexplored { at, to } | Self::NoCode { at, to } | Self::Switched { at, to } => {
                *at = change(*at);
                *to = change(*to);
            }
            Self::OutOfFuel { at, .. }
            | Self::Unmapped { at, .. }
            | Self::NeedsDevice { at, .. }
            | Self::Blocked { at }
            | Self::Unrepeated { at, .. }
            | Self::Exception { at, .. }
            | Self::Unsupported { at, .. }
            | Self::Limit { at, .. } => *at = change(*at),
        }
        self
    }

    /// An access that failed: a limit where the overlay is full, else memory that is not there.
    #[cold]
    pub(crate) fn access(at: u64, address: u64, fault: &Fault) -> Self {
        match fault {
            Fault::Full => Self::Limit { at, what: fault.to_string() },
            Fault::Device(_) => {
                Self::NeedsDevice { at, what: format!("accesses {address:#x}, where {fault}") }
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

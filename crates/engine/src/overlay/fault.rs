//! Why an access to a run's memory fails.

use machine::{MemoryError, PhysAddr};

/// Why an access failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The target's page tables do not map the address; the text says at which level.
    #[error("{0}")]
    Translate(String),
    /// It is user memory of the target.
    #[error("it is user memory of the paused process")]
    User,
    /// A store to a page that is mapped read-only.
    #[error("it is mapped read-only")]
    ReadOnly,
    /// The target's memory does not have the frame.
    #[error("{0}")]
    NoFrame(MemoryError),
    /// A device's registers: mapped without caching, at a frame that the target's memory does not
    /// have.
    #[error("a device is there, at physical {0:#x}")]
    Device(PhysAddr),
    /// A slice may not read it before it wrote it.
    #[error("code that is not in the slice keeps its stack there")]
    Undefined,
    /// The run has copied or allocated as many pages as it may.
    #[error("the overlay is full")]
    Full,
}

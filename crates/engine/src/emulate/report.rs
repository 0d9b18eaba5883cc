//! What a whole run tells of itself.

use crate::code::Departures;

/// What a whole run reports beside its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeReport {
    /// Machine instructions executed, without those of replaced functions. A block that was left in
    /// its middle counts in full.
    pub instructions: u64,
    /// Fuel used: operations, and one more for each block.
    pub used: u64,
    /// The addresses, the training system's where it has that code, at which the kernel's own
    /// assertions fired and were stepped over: the first 64.
    pub assertions: Vec<u64>,
    /// Where the run did not follow the target, or one over the same target before it.
    pub departures: Departures,
}

//! Reads a word of the training process.

use machine::paging::{self, PagingMode};
use machine::{Reg, VirtAddr};

use crate::error::Error;
use crate::recording::Recording;
use crate::recording::snapshot::SnapshotMemory;

/// A word of the process at the begin mark, little-endian; `None` where it is not in memory.
///
/// # Errors
/// [`Error::Paging`] when the snapshot's page tables cannot be used.
pub fn process_word(recording: &Recording, address: VirtAddr, bytes: usize) -> Result<Option<u64>, Error> {
    let regs = recording.begin_regs();
    let mode = PagingMode::from_regs(regs).map_err(|error| Error::Paging(error.to_string()))?;
    let memory = SnapshotMemory::new(&recording.trace);
    let read = paging::read_mapped(&memory, mode, regs.get_or_zero(Reg::Cr3), address, bytes);
    Ok(read.into_iter().rev().try_fold(0, |value, byte| Some(value << 8 | u64::from(byte?))))
}

//! The per-CPU signature, by which per-CPU memory is recognised in a target whose registers nobody
//! kept: words of that memory that hold an address in it.
//!
//! Many of them may belong to lists that are empty in training, and so point at themselves, but not
//! in a target. So a search asks for a majority of the words, and a second boot (`build --base`)
//! removes those that were chance. What the words are for need not be known.

use ir::program::SignatureWord;
use machine::{Reg, VirtAddr};

use super::mappings::Mappings;

/// How far above the segment base words are looked for, and may point, in bytes.
const REACH: u64 = 256 << 10;
/// The most words that are kept.
const MOST: usize = 48;

/// The signature of a boot, ascending by offset; empty where the process's kernel has no GS base of
/// its own.
#[must_use]
pub fn signature(mappings: &Mappings<'_>) -> Vec<SignatureWord> {
    // At the begin mark the process runs: the kernel's base waits to be swapped in.
    let base = mappings.begin_regs.get(Reg::KernelGsBase).filter(|base| base >> 63 == 1);
    let Some(base) = base else { return Vec::new() };
    let bytes = mappings.read_mapped(VirtAddr(base), REACH as usize);
    let words = bytes.chunks_exact(8).enumerate().filter_map(|(at, word)| {
        let value = word.iter().rev().try_fold(0u64, |value, byte| Some(value << 8 | u64::from((*byte)?)))?;
        let points = value.wrapping_sub(base);
        (points < REACH).then_some(SignatureWord { offset: at as u32 * 8, points: points as u32 })
    });
    words.take(MOST).collect()
}

//! Raw RAM: a file that is nothing but RAM, with the processors in a side file.
//!
//! Byte n is the byte at physical address n in what QEMU's `pmemsave 0 SIZE` writes, holes
//! included. A memory back-end file is the same only for guests without a hole below 4 GiB (RAM up
//! to 2 or 3 GiB, depending on the machine type); beyond, what lies above the hole follows what
//! lies below it (`placement`). Which it is the user says, or the processors' page tables. Nothing
//! in the bytes says that they are RAM, so a file is taken for raw RAM only if its processor state
//! is there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cpu::Cpu;
use super::cpu_json::{JsonError, parse_cpus};
use super::error::TargetCause;
use super::placement::{Placement, RamRange, agreed, candidates};
use crate::addr::PAGE_SIZE;
use crate::memory::{ImageMemory, Segment};

/// Bytes a side file may have.
const MAX_SIDE_FILE: u64 = 16 << 20;

/// Where the RAM of a file lies, and what there is to say about that. If it may be cut off
/// (`partial`), it reaches to the end of the page that the file ends in, or of the ranges.
pub(super) fn read(
    bytes: &[u8],
    placement: Option<&Placement>,
    partial: bool,
    cpus: &[Cpu],
) -> Result<(Vec<Segment>, Vec<String>), TargetCause> {
    let len = bytes.len() as u64;
    // No machine has a part of a page, and reading what was cut off as zeros would make answers of
    // it.
    if !len.is_multiple_of(PAGE_SIZE) && !partial {
        return Err(TargetCause::PartOfAPage(len));
    }
    let len = len.next_multiple_of(PAGE_SIZE);
    let (placement, remarks) = match placement {
        Some(placement) => (placement.clone(), Vec::new()),
        None => chosen(bytes, len, cpus)?,
    };
    let ranges = placement.ranges(len, partial).map_err(TargetCause::Placement)?;
    Ok((ranges.into_iter().map(RamRange::segment).collect(), remarks))
}

/// How RAM of `len` bytes is placed: the page tables of a processor know, if some of them lie where
/// placements differ.
fn chosen(bytes: &[u8], len: u64, cpus: &[Cpu]) -> Result<(Placement, Vec<String>), TargetCause> {
    let mut candidates = candidates(len);
    if candidates.len() == 1 {
        return Ok((Placement::Flat, Vec::new()));
    }
    let memory = |placement: &Placement| {
        let ranges = placement.ranges(len, true).map_err(TargetCause::Placement)?;
        let segments = ranges.into_iter().map(RamRange::segment);
        ImageMemory::partial(bytes, segments).map_err(TargetCause::Image)
    };
    let memories = candidates.iter().map(memory).collect::<Result<Vec<_>, _>>()?;
    let agreed = cpus.first().and_then(|cpu| agreed(&memories, cpu));
    let why = if agreed.is_some() { "as the page tables of processor 0 show" } else { "which nothing shows" };
    let chosen = candidates.swap_remove(agreed.unwrap_or(0));
    let how = match &chosen {
        Placement::Board(board) => format!("as QEMU's machine {} has it", board.name()),
        _ => "one byte behind the other, without a hole below 4 GiB left out".to_owned(),
    };
    Ok((chosen, vec![format!("RAM is taken to lie {how}, {why}; --ram says otherwise")]))
}

/// The target's path with `.cpu.json` appended.
pub(super) fn default_cpu_file(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".cpu.json");
    name.into()
}

/// Reads a file of processor state.
pub(super) fn read_cpus(path: &Path) -> Result<Vec<Cpu>, TargetCause> {
    let failed = |source| TargetCause::cpu_file_io(path, source);
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_SIDE_FILE + 1).read_to_end(&mut text)).map_err(failed)?;
    let parsed = if text.len() as u64 > MAX_SIDE_FILE {
        Err(JsonError::TooLarge { limit: MAX_SIDE_FILE })
    } else {
        parse_cpus(&text)
    };
    parsed.map_err(|source| TargetCause::CpuFile { path: path.to_owned(), source })
}

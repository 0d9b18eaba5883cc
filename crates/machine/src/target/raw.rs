//! Raw RAM: a file whose byte n is the byte at physical address n, with the processors in a side
//! file.
//!
//! That is what QEMU's `pmemsave 0 SIZE` writes, holes included. A memory back-end file is the same
//! only for guests without a hole below 4 GiB (RAM up to 2 or 3 GiB, depending on the machine
//! type): beyond, addresses shift and an ELF core is needed. Nothing in the bytes says that they
//! are RAM, so a file is taken for raw RAM only if its processor state is there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cpu::Cpu;
use super::cpu_json::{JsonError, parse_cpus};
use super::error::TargetCause;
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::memory::Segment;

/// Bytes a side file may have.
const MAX_SIDE_FILE: u64 = 16 << 20;

/// Memory of which byte n is at physical address n, for a file of `len` bytes. If it may be cut off
/// (`partial`), it reaches to the end of the page that the file ends in.
pub(super) fn read(len: u64, partial: bool) -> Result<Segment, TargetCause> {
    // No machine has a part of a page, and reading what was cut off as zeros would make answers of
    // it.
    if !len.is_multiple_of(PAGE_SIZE) && !partial {
        return Err(TargetCause::PartOfAPage(len));
    }
    Ok(Segment { start: PhysAddr(0), size: len.next_multiple_of(PAGE_SIZE), offset: 0 })
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

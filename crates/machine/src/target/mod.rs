//! A machine to ask: the memory of a captured guest and the state of its processors, read from files, or from a running
//! guest while it is paused (`live`).
//!
//! The format is found from the content, not from the name. Opening maps the file and decodes headers only: it costs
//! the number of segments, not the size of the guest. Formats read today: ELF cores of QEMU's `dump-guest-memory` and
//! raw RAM with a side file for the processors. Targets are never written.

mod cpu;
mod cpu_json;
mod elf;
mod error;
pub mod live;
mod qemu_note;
mod raw;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub use cpu::{Cpu, MAX_CPUS};
pub use cpu_json::{JsonError, cpu_json, cpus_json, parse_cpus};
pub use error::{TargetCause, TargetError};
pub use qemu_note::NoteError;

use crate::map::FileMap;
use crate::memory::GuestMemory;

/// How to open a target.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// Where the processors' state is, in the format of [`cpus_json`]. Default: for raw RAM the target's path plus
    /// `.cpu.json`; an ELF core brings its own, which a file given here replaces.
    pub cpu_file: Option<PathBuf>,
}

/// A captured machine.
pub struct Target {
    /// Guest-physical memory.
    pub mem: Box<dyn GuestMemory>,
    /// The processors, at least one, in the order of the capture.
    pub cpus: Vec<Cpu>,
    /// What was read: `"elf64"`, `"elf32"`, `"raw"`, or how a live guest's RAM is read.
    pub format: &'static str,
    /// Where from.
    pub path: PathBuf,
}

impl Target {
    /// Opens a capture for reading.
    ///
    /// The file must not be modified while the target lives: it is mapped, and a file that another process truncates
    /// makes the operating system end this one (SIGBUS).
    pub fn open(path: impl AsRef<Path>, options: &TargetOptions) -> Result<Self, TargetError> {
        let path = path.as_ref();
        open(path, options).map_err(|cause| TargetError { path: path.to_owned(), cause: Box::new(cause) })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("path", &self.path)
            .field("format", &self.format)
            .field("cpus", &self.cpus.len())
            .field("ranges", &self.mem.ranges())
            .finish()
    }
}

fn open(path: &Path, options: &TargetOptions) -> Result<Target, TargetCause> {
    // Looked at before opening: opening a pipe would wait for somebody to write to it.
    let meta = fs::metadata(path).map_err(TargetCause::Io)?;
    if !meta.is_file() {
        return Err(if meta.is_dir() { TargetCause::Directory } else { TargetCause::NotAFile });
    }
    if meta.len() == 0 {
        return Err(TargetCause::Empty);
    }
    let file = File::open(path).map_err(TargetCause::Io)?;
    let map = FileMap::new(&file).map_err(TargetCause::Io)?;
    let (mem, cpus, format): (Box<dyn GuestMemory>, _, _) = if map.as_ref().starts_with(&elf::MAGIC) {
        let given = options.cpu_file.as_deref().map(raw::read_cpus).transpose()?;
        let core = elf::read(map, given)?;
        (Box::new(core.mem), core.cpus, core.format)
    } else if let Some(name) = foreign_format(map.as_ref()) {
        return Err(TargetCause::Foreign(name));
    } else {
        let (mem, cpus) = raw::read(path, map, options.cpu_file.as_deref())?;
        (Box::new(mem), cpus, "raw")
    };
    Ok(Target { mem, cpus, format, path: path.to_owned() })
}

/// The name of a format that is recognised and not read.
fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    const MAGICS: &[(&[u8], &str)] = &[
        (b"KDUMP   ", "a compressed kdump"),
        (b"makedumpfile", "a flattened makedumpfile stream"),
        (b"EMiL", "a LiME capture"),
        (b"LVMA", "an AVML capture"),
        (b"AVML", "an AVML capture"),
        (b"PAGEDU64", "a Windows crash dump"),
        (b"PAGEDUMP", "a Windows crash dump"),
        (b"QFI\xfb", "a qcow2 disk image"),
        (b"QEVM", "a QEMU migration stream"),
        (b"\xd2\xbe\xd2\xbe", "a VMware snapshot"),
        (b"\x1f\x8b\x08", "gzip-compressed"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
        (b"\xfd7zXZ\0", "xz-compressed"),
        (b"BZh", "bzip2-compressed"),
    ];
    MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, name)| name)
}

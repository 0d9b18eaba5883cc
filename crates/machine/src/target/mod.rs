//! A machine to ask: the memory of a captured guest and the state of its processors, read from
//! files, or from a running guest while it is paused (`live`).
//!
//! The format is found from the content, not from the name. Opening maps the file and decodes
//! headers and indexes only: what is compressed is decompressed when it is asked for. Formats read
//! today: ELF cores and compressed kdumps of QEMU's `dump-guest-memory`, kdumps of makedumpfile,
//! LiME, AVML, and raw RAM; docs/targets.md has the list with what each was tested against.
//! Captures without processors take them from a side file. Targets are never written.

mod codec;
mod cpu;
mod cpu_json;
mod elf;
mod error;
mod flat;
mod kdump;
mod lime;
pub mod live;
mod notes;
mod qemu_note;
mod raw;
mod vbox_note;
mod vmware;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub use cpu::{Cpu, MAX_CPUS};
pub use cpu_json::{JsonError, cpu_json, cpus_json, parse_cpus};
pub use error::{TargetCause, TargetError};
pub use flat::FlatError;
pub use kdump::KdumpError;
pub use lime::LimeError;
pub use qemu_note::NoteError;
pub use vbox_note::VboxError;
pub use vmware::VmwareError;

use flat::Source;

use crate::map::FileMap;
use crate::memory::{GuestMemory, ImageMemory};

/// How to open a target.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// Where the processors' state is, in the format of [`cpus_json`]. Default: what the capture
    /// holds, and the target's path plus `.cpu.json` where it holds none.
    pub cpu_file: Option<PathBuf>,
    /// Open a capture that has no processors, too, and no side file: somebody finds them in memory.
    /// A file of no known format is RAM then.
    pub without_cpus: bool,
}

/// A captured machine.
pub struct Target {
    /// Guest-physical memory.
    pub mem: Box<dyn GuestMemory>,
    /// The processors in the order of the capture; at least one, unless the options allow none.
    pub cpus: Vec<Cpu>,
    /// What was read, for people: `"elf64"`, `"kdump-zlib, flattened"`, `"lime"`, `"avml"`, `"raw"`
    /// and so on, or how a live guest's RAM is read.
    pub format: &'static str,
    /// Where from.
    pub path: PathBuf,
}

impl Target {
    /// Opens a capture for reading.
    ///
    /// The file must not be modified while the target lives: it is mapped, and a file that another
    /// process truncates makes the operating system end this one (SIGBUS).
    pub fn open(path: impl AsRef<Path>, options: &TargetOptions) -> Result<Self, TargetError> {
        let path = path.as_ref();
        open(path, options).map_err(|cause| TargetError { path: path.to_owned(), cause: Box::new(cause) })
    }

    /// The same for bytes in memory, which are called `name` in messages; no file is looked at.
    /// `cpus` replace the processors of the capture.
    ///
    /// For tests and fuzzing: what is on a disk is better mapped.
    pub fn from_bytes(
        bytes: Vec<u8>,
        name: impl AsRef<Path>,
        cpus: Option<Vec<Cpu>>,
    ) -> Result<Self, TargetError> {
        let path = name.as_ref();
        let open = || {
            if bytes.is_empty() {
                return Err(TargetCause::Empty);
            }
            let layout = vmware::is_description(&bytes).then(|| vmware::parse(&bytes)).transpose();
            let layout = layout.map_err(TargetCause::Vmware)?;
            if layout.as_ref().is_some_and(|layout| layout.inside.is_none()) {
                return Err(TargetCause::Vmware(VmwareError::NoVmem(path.with_extension("vmem"))));
            }
            decode(bytes, path, layout, cpus, || Ok(None))
        };
        open().map_err(|cause| TargetError { path: path.to_owned(), cause: Box::new(cause) })
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
    let (map, layout) = with_description(path, map)?;
    let side = options.cpu_file.clone().unwrap_or_else(|| raw::default_cpu_file(path));
    let given = if options.cpu_file.is_some() { Some(raw::read_cpus(&side)?) } else { None };
    decode(map, path, layout, given, || match side.exists() {
        true => raw::read_cpus(&side).map(Some),
        false => Ok(options.without_cpus.then(Vec::new)),
    })
}

/// A file and, if it is of VMware, where memory is in it; for a description without memory the file
/// that has it.
fn with_description(path: &Path, map: FileMap) -> Result<(FileMap, Option<vmware::Layout>), TargetCause> {
    let open = |path: &Path| File::open(path).and_then(|file| FileMap::new(&file));
    if vmware::is_description(map.as_ref()) {
        let layout = vmware::parse(map.as_ref()).map_err(TargetCause::Vmware)?;
        if layout.inside.is_some() {
            return Ok((map, Some(layout)));
        }
        let memory = path.with_extension("vmem");
        let opened = if memory.is_file() { open(&memory).ok() } else { None };
        let opened = opened.ok_or(TargetCause::Vmware(VmwareError::NoVmem(memory)))?;
        return Ok((opened, Some(layout)));
    }
    if let Some(description) = vmware::description_of(path) {
        let described = open(&description).map_err(TargetCause::Io)?;
        if vmware::is_description(described.as_ref()) {
            let mut layout = vmware::parse(described.as_ref()).map_err(TargetCause::Vmware)?;
            layout.inside = None;
            return Ok((map, Some(layout)));
        }
    }
    Ok((map, None))
}

/// Opens bytes, whose `layout` is given if they are of VMware. Processors `given` replace those of
/// the capture; `find` looks for some where there are none.
fn decode<B: AsRef<[u8]> + Send + Sync + 'static>(
    bytes: B,
    path: &Path,
    layout: Option<vmware::Layout>,
    given: Option<Vec<Cpu>>,
    find: impl FnOnce() -> Result<Option<Vec<Cpu>>, TargetCause>,
) -> Result<Target, TargetCause> {
    let with_notes = given.is_none();
    let target =
        |mem: Box<dyn GuestMemory>, cpus, format| Target { mem, cpus, format, path: path.to_owned() };
    let start = &bytes.as_ref()[..bytes.as_ref().len().min(64)];
    let mut target = if let Some(layout) = layout {
        let (at, len) = layout.inside.unwrap_or((0, bytes.as_ref().len() as u64));
        let mem = ImageMemory::new(bytes, layout.segments(at, len)).map_err(TargetCause::Image)?;
        target(Box::new(mem), Vec::new(), "vmware")
    } else if start.starts_with(&elf::MAGIC) {
        let (mem, cpus, format) = elf::read(bytes, with_notes)?;
        target(Box::new(mem), cpus, format)
    } else if start.starts_with(kdump::MAGIC) || start.starts_with(flat::MAGIC) {
        let source = Source::new(bytes).map_err(TargetCause::Flat)?;
        let first = source.get(0, kdump::MAGIC.len());
        if first.as_deref() != Some(kdump::MAGIC) {
            return Err(TargetCause::Foreign("a flattened stream of something else than a kdump"));
        }
        drop(first);
        let (mem, cpus, format) = kdump::read(source, with_notes)?;
        target(Box::new(mem), cpus, format)
    } else if start.starts_with(lime::MAGIC) {
        target(Box::new(lime::read(bytes)?), Vec::new(), "lime")
    } else if start.starts_with(lime::AVML_MAGIC) {
        target(Box::new(lime::read_avml(bytes)?), Vec::new(), "avml")
    } else if let Some(name) = foreign_format(start) {
        return Err(TargetCause::Foreign(name));
    } else {
        // Nothing in the bytes says that they are RAM: somebody has to.
        let cpus = match given {
            Some(given) => given,
            None => find()?.ok_or_else(|| TargetCause::NoCpuFile(raw::default_cpu_file(path)))?,
        };
        return Ok(target(Box::new(raw::read(bytes)?), cpus, "raw"));
    };
    if let Some(given) = given {
        target.cpus = given;
    } else if target.cpus.is_empty() {
        target.cpus = find()?.ok_or_else(|| TargetCause::NoCpus(raw::default_cpu_file(path)))?;
    }
    Ok(target)
}

/// The name of a format that is recognised and not read.
fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    const MAGICS: &[(&[u8], &str)] = &[
        (b"PAGEDU64", "a Windows crash dump"),
        (b"PAGEDUMP", "a Windows crash dump"),
        (b"QFI\xfb", "a qcow2 disk image"),
        (b"QEVM", "a QEMU migration stream"),
        (b"\x1f\x8b\x08", "gzip-compressed"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
        (b"\xfd7zXZ\0", "xz-compressed"),
        (b"BZh", "bzip2-compressed"),
    ];
    MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, name)| name)
}

//! A machine to ask: the memory of a captured guest and the state of its processors, read from
//! files, or from a running guest while it is paused (`live`).
//!
//! The format is found from the content, not from the name, unless the user names it; where the
//! content may be what a guest wrote, it is not believed (`format`). Opening maps the file and
//! decodes headers and indexes only: what is compressed is decompressed when it is asked for.
//! Formats read today: ELF cores and compressed kdumps of QEMU's `dump-guest-memory`, kdumps of
//! makedumpfile, LiME, AVML, VMware's snapshots, QEMU's migration streams, files of `virsh save`
//! and raw RAM; docs/targets.md has the list with what each was tested against. Files that were
//! compressed as a whole are unpacked first (`unpack`).
//! Captures without processors take them from a side file. Targets are never written.

mod codec;
mod cpu;
mod cpu_json;
mod decode;
mod elf;
mod error;
mod flat;
mod foreign;
mod format;
mod kdump;
mod lime;
pub mod live;
mod migration;
mod notes;
mod placement;
mod qemu_note;
mod raw;
mod unpack;
mod vbox_note;
mod vmware;

use std::fmt;
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};

pub use cpu::{Cpu, MAX_CPUS};
pub use cpu_json::{JsonError, cpu_json, cpus_json, parse_cpus};
pub use error::{TargetCause, TargetError};
pub use flat::FlatError;
pub use foreign::Foreign;
pub use format::{Doubt, Format};
pub use kdump::KdumpError;
pub use lime::LimeError;
pub use migration::MigrationError;
pub use placement::{Board, Placement, PlacementError, RamRange};
pub use qemu_note::NoteError;
pub use unpack::{UnpackError, Unpacking, Watcher};
pub use vbox_note::VboxError;
pub use vmware::VmwareError;

use decode::{Decoded, How, decode, with_description};

use crate::addr::PAGE_SIZE;
use crate::map::{self, FileMap};
use crate::memory::GuestMemory;

/// How to open a target.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// Where the processors' state is, in the format of [`cpus_json`]. Default: what the capture
    /// holds, and the target's path plus `.cpu.json` where it holds none.
    pub cpu_file: Option<PathBuf>,
    /// Open a capture that has no processors, too, and no side file: somebody finds them in memory.
    /// A file of no known format is RAM then.
    pub without_cpus: bool,
    /// What the file is. Default: what its content shows, if that is beyond doubt.
    pub format: Option<Format>,
    /// Open a file that was cut off: what is missing is RAM that is absent.
    pub partial: bool,
    /// Where RAM lies that the file has in one piece: raw RAM, and that of a migration stream.
    /// Default: byte n of raw RAM is at physical address n, unless the processors' page tables say
    /// otherwise; a stream's as its machine has it.
    pub placement: Option<Placement>,
    /// Where compressed files are unpacked.
    pub unpacking: Unpacking,
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
    /// Bytes of RAM that the file should hold and does not ([`TargetOptions::partial`]).
    pub missing: u64,
    /// What the whole file was compressed with.
    pub packed: Option<&'static str>,
    /// What whoever asks should know about how the file was read, one sentence each without a full
    /// stop.
    pub remarks: Vec<String>,
    /// The file that is mapped, or was unpacked, as it was when it was opened.
    origin: Option<Origin>,
}

/// A file and what it was like.
struct Origin {
    file: File,
    meta: Metadata,
}

impl Target {
    /// Opens a capture for reading.
    ///
    /// The file must not be modified while the target lives: it is mapped, and a file that another
    /// process truncates makes the operating system end this one (SIGBUS).
    /// [`Target::check_unchanged`] says afterwards whether that was so.
    pub fn open(path: impl AsRef<Path>, options: &TargetOptions) -> Result<Self, TargetError> {
        let path = path.as_ref();
        open(path, options).map_err(|cause| {
            let len = fs::metadata(path).map_or(0, |meta| meta.len());
            error(path, cause, options.format, len)
        })
    }

    /// That the file is as it was when it was opened: neither cut off nor written. What was read of
    /// one that is not is worth nothing.
    ///
    /// # Errors
    /// That it was changed.
    pub fn check_unchanged(&self) -> Result<(), TargetError> {
        let Some(Origin { file, meta }) = &self.origin else { return Ok(()) };
        let cause = match file.metadata() {
            Ok(now) if now.len() != meta.len() => TargetCause::Resized { before: meta.len(), now: now.len() },
            Ok(now) if now.modified().ok() != meta.modified().ok() => TargetCause::Written,
            Ok(_) => return Ok(()),
            Err(error) => TargetCause::Io(error),
        };
        Err(TargetError { path: self.path.clone(), cause: Box::new(cause), maybe_raw: false })
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
        Self::from_bytes_as(bytes, name, cpus, &TargetOptions::default())
    }

    /// The same with format and completeness by the options.
    pub fn from_bytes_as(
        bytes: Vec<u8>,
        name: impl AsRef<Path>,
        cpus: Option<Vec<Cpu>>,
        options: &TargetOptions,
    ) -> Result<Self, TargetError> {
        let path = name.as_ref();
        let len = bytes.len() as u64;
        let how = How { beside: options.cpu_file.is_some(), ..how(options) };
        let open = || {
            if bytes.is_empty() {
                return Err(TargetCause::Empty);
            }
            let (bytes, packed) = match how.packing(&bytes)? {
                Some((at, packing)) => {
                    let unpacked = unpack::to_memory(&bytes[at..], packing, how.partial);
                    (unpacked.map_err(TargetCause::Packed)?, Some(packing.name()))
                }
                None => (bytes, None),
            };
            let described = how.may_be(Format::Vmware) && vmware::is_description(&bytes);
            let layout = described.then(|| vmware::parse(&bytes)).transpose();
            let layout = layout.map_err(TargetCause::Vmware)?;
            if layout.as_ref().is_some_and(|layout| layout.inside.is_none()) {
                return Err(TargetCause::Vmware(VmwareError::NoVmem(path.with_extension("vmem"))));
            }
            let decoded = decode(bytes, path, layout, &how, cpus, || Ok(None))?;
            Ok(Self { packed, ..Self::of(decoded, path) })
        };
        open().map_err(|cause| error(path, cause, options.format, len))
    }

    fn of(decoded: Decoded, path: &Path) -> Self {
        let Decoded { mem, cpus, format, missing, remarks } = decoded;
        Self { mem, cpus, format, path: path.to_owned(), missing, packed: None, remarks, origin: None }
    }

    /// A live guest's memory.
    fn live(mem: Box<dyn GuestMemory>, cpus: Vec<Cpu>, format: &'static str, path: PathBuf) -> Self {
        Self { mem, cpus, format, path, missing: 0, packed: None, remarks: Vec::new(), origin: None }
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
    let mut how = how(options);
    how.beside = options.cpu_file.is_some() || raw::default_cpu_file(path).exists();
    if let Some((at, packing)) = how.packing(map.as_ref())? {
        let unpacked = unpack::to_file(&map.as_ref()[at..], packing, how.partial, &options.unpacking);
        let unpacked = unpacked.map_err(TargetCause::Packed)?;
        let target = mapped(path, unpacked, options, how)?;
        // The unpacked file is ours; the other one may be changed while it is read.
        return Ok(Target { packed: Some(packing.name()), origin: Some(Origin { file, meta }), ..target });
    }
    let (file, map, layout) =
        if how.may_be(Format::Vmware) { with_description(path, file, map)? } else { (file, map, None) };
    let meta = file.metadata().map_err(TargetCause::Io)?;
    how.holes = map::holes(&file, meta.len());
    let target = described(path, map, layout, options, &how)?;
    Ok(Target { origin: Some(Origin { file, meta }), ..target })
}

/// Opens what a compressed file was unpacked to.
fn mapped(path: &Path, file: File, options: &TargetOptions, mut how: How) -> Result<Target, TargetCause> {
    let len = file.metadata().map_err(TargetCause::Io)?.len();
    if len == 0 {
        return Err(TargetCause::Empty);
    }
    let map = FileMap::new(&file).map_err(TargetCause::Io)?;
    how.holes = map::holes(&file, len);
    described(path, map, None, options, &how)
}

/// Opens a mapped file, with the processors that the options or a side file have.
fn described(
    path: &Path,
    map: FileMap,
    layout: Option<vmware::Layout>,
    options: &TargetOptions,
    how: &How,
) -> Result<Target, TargetCause> {
    let side = options.cpu_file.clone().unwrap_or_else(|| raw::default_cpu_file(path));
    let given = if options.cpu_file.is_some() { Some(raw::read_cpus(&side)?) } else { None };
    let decoded = decode(map, path, layout, how, given, || match side.exists() {
        true => raw::read_cpus(&side).map(Some),
        false => Ok(options.without_cpus.then(Vec::new)),
    })?;
    Ok(Target::of(decoded, path))
}

/// How the options say that bytes are to be read.
fn how(options: &TargetOptions) -> How {
    let TargetOptions { format, partial, ref placement, .. } = *options;
    How { format, partial, placement: placement.clone(), beside: false, holes: Vec::new() }
}

/// The error of a file of `len` bytes for this cause; `format` is what the user said that it is.
fn error(path: &Path, cause: TargetCause, format: Option<Format>, len: u64) -> TargetError {
    let maybe_raw = format.is_none() && len.is_multiple_of(PAGE_SIZE) && cause.is_of_content();
    TargetError { path: path.to_owned(), cause: Box::new(cause), maybe_raw }
}

//! Why a target cannot be opened, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::cpu::MAX_CPUS;
use super::cpu_json::JsonError;
use super::flat::FlatError;
use super::foreign::Foreign;
use super::format::{Doubt, Format};
use super::kdump::KdumpError;
use super::lime::LimeError;
use super::migration::MigrationError;
use super::placement::PlacementError;
use super::qemu_note::NoteError;
use super::unpack::UnpackError;
use super::vbox_note::VboxError;
use super::vmware::VmwareError;
use crate::memory::ImageError;

/// A target that cannot be opened; its text names the file, the cause and the next step.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}; {}{}", path.display(), self.hint(), self.raw_hint())]
pub struct TargetError {
    /// The target asked for.
    pub path: PathBuf,
    /// What is wrong.
    pub cause: Box<TargetCause>,
    /// It has the size of raw RAM: the guest may have written what it seems to be.
    pub maybe_raw: bool,
}

impl TargetError {
    /// What to do next, in one sentence without a full stop.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.cause.hint()
    }

    const fn raw_hint(&self) -> &'static str {
        if self.maybe_raw { "; if it is raw RAM that happens to begin so, say --format raw" } else { "" }
    }
}

/// What is wrong with a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetCause {
    /// The operating system refused.
    #[error("cannot read it: {0}")]
    Io(io::Error),
    /// A directory.
    #[error("it is a directory")]
    Directory,
    /// A pipe, socket or device.
    #[error("it is no regular file")]
    NotAFile,
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// A known format that is not read.
    #[error("it is {}, which is not read", .0.name)]
    Foreign(&'static Foreign),
    /// It begins as a dump and may be raw RAM.
    #[error("it begins as {} does, but those headers may be what a guest wrote into raw RAM: {doubt}",
        format.title())]
    Ambiguous {
        /// What it begins as.
        format: Format,
        /// Why that is not believed.
        doubt: Doubt,
    },
    /// It begins as a compressed file and may be raw RAM.
    #[error("it begins as a file of {packing} does, but a guest may have written that into raw RAM: {doubt}")]
    AmbiguousPacked {
        /// The compression.
        packing: &'static str,
        /// Why that is not believed.
        doubt: Doubt,
    },
    /// It is compressed, and cannot be unpacked.
    #[error("{0}")]
    Packed(UnpackError),
    /// A migration stream cannot be read.
    #[error("{0}")]
    Migration(MigrationError),
    /// RAM cannot lie as the user says.
    #[error("{0}")]
    Placement(PlacementError),
    /// Ranges for a file that has its own.
    #[error("{} says itself where its RAM lies", .0.title())]
    Placed(Format),
    /// The format that the user named is not the file's.
    #[error("it does not begin as {} does", .0.title())]
    NotThat(Format),
    /// The file got longer or shorter.
    #[error("it was changed while it was read: it had {before} bytes and has {now} now")]
    Resized {
        /// Bytes that it had when it was opened.
        before: u64,
        /// Bytes that it has.
        now: u64,
    },
    /// The file was written.
    #[error("it was changed while it was read: somebody wrote to it")]
    Written,
    /// Neither an ELF file nor accompanied by processor state.
    #[error(
        "unknown format: no dump of a kind that is read, and no processor state at {} that would make it \
         raw RAM",
        .0.display()
    )]
    NoCpuFile(PathBuf),
    /// The file with the processors' state cannot be read.
    #[error("cannot read the processor state {}: {source}", path.display())]
    CpuFileIo {
        /// That file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file with the processors' state does not hold one.
    #[error("bad processor state {}: {source}", path.display())]
    CpuFile {
        /// That file.
        path: PathBuf,
        /// What is wrong with it.
        source: JsonError,
    },
    /// The ELF headers are broken or cut off.
    #[error("broken ELF file: {0}")]
    Elf(String),
    /// An ELF file, but not a core of an x86 machine.
    #[error("it is {0}, not a core of an x86 machine")]
    NotACore(&'static str),
    /// A flattened stream is broken.
    #[error("{0}")]
    Flat(FlatError),
    /// A kdump is broken, or not of a kind that is read.
    #[error("{0}")]
    Kdump(KdumpError),
    /// A capture of LiME or AVML is broken.
    #[error("{0}")]
    Lime(LimeError),
    /// It holds no memory.
    #[error("it holds no memory")]
    NoMemory,
    /// Segments that make no memory.
    #[error("{0}")]
    Image(ImageError),
    /// A processor's note is broken.
    #[error("the state of processor {cpu} is unusable: {source}")]
    Note {
        /// Its number, from 0.
        cpu: usize,
        /// What is wrong.
        source: NoteError,
    },
    /// Raw RAM that ends in the middle of a page.
    #[error(
        "it has {0} bytes, which are no whole pages of 4096: at least {missing} bytes are missing at its \
         end, or it is no raw RAM", missing = .0.next_multiple_of(4096) - .0
    )]
    PartOfAPage(u64),
    /// The notes of a core of VirtualBox cannot be used.
    #[error("{0}")]
    Vbox(VboxError),
    /// A machine of VMware cannot be read.
    #[error("{0}")]
    Vmware(VmwareError),
    /// A capture without processors, and no file of them beside it.
    #[error("it holds no processor state, and there is none at {}", .0.display())]
    NoCpus(PathBuf),
    /// More processors than any machine has.
    #[error("it holds the state of more than {MAX_CPUS} processors")]
    TooManyCpus,
}

impl TargetCause {
    /// What to do next.
    fn hint(&self) -> &'static str {
        match self {
            Self::Io(error) | Self::CpuFileIo { source: error, .. } => match error.kind() {
                io::ErrorKind::NotFound => "check the path",
                io::ErrorKind::PermissionDenied => "make the file readable for this user",
                _ => "check the file and the disk it is on",
            },
            Self::Directory | Self::NotAFile => "give the path of a dump file",
            Self::Empty => "take the dump again, after making room on the disk",
            Self::Foreign(foreign) => foreign.next,
            Self::Ambiguous { format, .. } => match format {
                Format::Elf => "say which it is with --format elf or --format raw",
                Format::Kdump => "say which it is with --format kdump or --format raw",
                Format::Lime => "say which it is with --format lime or --format raw",
                Format::Avml => "say which it is with --format avml or --format raw",
                Format::Vmware => "say which it is with --format vmware or --format raw",
                Format::Migration => "say which it is with --format migration or --format raw",
                Format::Raw => "say which it is with --format",
            },
            Self::AmbiguousPacked { .. } => "say --format raw if it is raw RAM, else decompress it first",
            Self::Packed(error) => error.hint(),
            Self::Migration(error) => error.hint(),
            Self::Placement(_) => "name ranges as START..END@OFFSET, of the file or of the RAM in the stream",
            Self::Placed(_) => "leave --ram out",
            Self::NotThat(_) => "leave --format out, or give the format that it has",
            Self::Resized { .. } | Self::Written => {
                "ask again when nobody writes to it; while QEMU still writes a dump, wait for it"
            }
            Self::Image(ImageError::Truncated { .. })
            | Self::Lime(LimeError::Truncated { .. })
            | Self::PartOfAPage(_) => "copy it again or take the dump again; --partial uses what is there",
            Self::NoCpuFile(_) => {
                "take an ELF core with QEMU's dump-guest-memory, or name the CPU state of the raw RAM with \
                 --cpu-file"
            }
            Self::CpuFile { .. } => "write the file in the format that target info --json prints",
            Self::NotACore(_) => "give a dump taken with QEMU's dump-guest-memory",
            Self::Kdump(KdumpError::Split) => "put the parts together with makedumpfile --reassemble",
            Self::Kdump(KdumpError::Machine(_) | KdumpError::BlockSize(_)) => "give a dump of an x86 machine",
            Self::Vmware(VmwareError::NoVmem(_)) => "put the .vmem file beside it",
            Self::Vmware(VmwareError::Old | VmwareError::Compressed) => {
                "take the snapshot with a newer VMware, uncompressed"
            }
            Self::Vbox(_) => "add the CPU state with --cpu-file",
            Self::NoCpus(_) => {
                "take the dump with QEMU's dump-guest-memory, or add the CPU state with --cpu-file"
            }
            Self::Elf(_)
            | Self::Flat(_)
            | Self::Kdump(_)
            | Self::Lime(_)
            | Self::Vmware(_)
            | Self::NoMemory
            | Self::Image(_)
            | Self::Note { .. }
            | Self::TooManyCpus => "take the dump again, or copy it again if it was copied",
        }
    }
}

impl TargetCause {
    /// Whether it says that the content is not that of a dump which can be read.
    pub(super) const fn is_of_content(&self) -> bool {
        matches!(
            self,
            Self::Foreign(_)
                | Self::Elf(_)
                | Self::NotACore(_)
                | Self::Flat(_)
                | Self::Kdump(_)
                | Self::Lime(_)
                | Self::Image(_)
                | Self::Note { .. }
                | Self::TooManyCpus
                | Self::Vbox(_)
                | Self::Migration(_)
                | Self::Packed(
                    UnpackError::Cut(_) | UnpackError::Damaged { .. } | UnpackError::TooMuch { .. }
                )
                | Self::Vmware(
                    VmwareError::Old
                        | VmwareError::Cut { .. }
                        | VmwareError::NoMemory
                        | VmwareError::Compressed
                )
        )
    }

    /// A file of processor state that could not be read.
    pub(super) fn cpu_file_io(path: &Path, source: io::Error) -> Self {
        Self::CpuFileIo { path: path.to_owned(), source }
    }
}

//! Why a migration stream of QEMU cannot be read.
//!
//! Apart from the readers: the cause that a target cannot be opened for holds it, and the readers
//! give that cause.

/// Why a migration stream of QEMU cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MigrationError {
    /// It ends before all RAM is in it.
    #[error(
        "truncated: the migration stream ends at byte {0:#x}, before its RAM is complete; what is there is \
         of different moments"
    )]
    Cut(usize),
    /// It ends after its RAM, before the devices or their description do.
    #[error(
        "truncated: the migration stream ends at byte {0:#x} without the description of its devices; its \
         RAM is complete"
    )]
    CutDevices(usize),
    /// Another version of the stream.
    #[error("the migration stream has version {0}; version 3 is understood")]
    Version(u32),
    /// Bytes that begin no section.
    #[error("broken migration stream: there is no section that is understood at byte {0:#x}")]
    Section(usize),
    /// A section whose size nothing tells.
    #[error("the migration stream has the section {0:?}, whose size nothing tells")]
    Unknown(String),
    /// RAM in a form that is not read.
    #[error("the RAM of the migration stream is {0}, which is not read")]
    Form(&'static str),
    /// A compression that is not read.
    #[error("the file of virsh save is compressed with {0}, which is not read")]
    Compression(&'static str),
    /// A record of RAM that cannot be.
    #[error("broken migration stream: the record of RAM at byte {0:#x} is impossible")]
    Record(usize),
    /// No block that is the machine's RAM.
    #[error("the migration stream has no block that is the machine's RAM; it has {0}")]
    NoRam(String),
    /// RAM of which nothing tells where it lies.
    #[error(
        "nothing tells where the {size} bytes of RAM of the machine {machine:?} lie in its physical addresses"
    )]
    Placement {
        /// The machine's name in the stream.
        machine: String,
        /// Bytes of RAM.
        size: u64,
    },
    /// A header of libvirt that is none.
    #[error("broken file of virsh save: its header {0}")]
    Header(&'static str),
}

impl MigrationError {
    /// What to do next.
    pub(in crate::target) const fn hint(&self) -> &'static str {
        match self {
            Self::Cut(_) => "write it again: migrate to a file, or virsh save, until it is completed",
            Self::CutDevices(_) => {
                "write it again, or use its RAM with --partial; processors are then found in memory"
            }
            Self::Compression(_) => {
                "set save_image_format in libvirt's qemu.conf to raw, gzip, xz or zstd and save it again"
            }
            Self::Placement { .. } => "say where with --ram",
            Self::Version(_)
            | Self::Section(_)
            | Self::Unknown(_)
            | Self::Form(_)
            | Self::Record(_)
            | Self::NoRam(_)
            | Self::Header(_) => {
                "resume the guest from it and take an ELF core with QEMU's dump-guest-memory, or virsh dump \
                 --memory-only"
            }
        }
    }
}

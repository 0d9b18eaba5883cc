//! Dumps that somebody compressed as a whole: gzip, bzip2, zstd, xz, lz4 and lzop files are
//! unpacked before they are looked at, to a file without a name that goes with the target.
//!
//! Pages that nobody wrote are most of many guests' RAM: blocks of zeros are left out of the file,
//! so that it takes no more room than the RAM that is in use. What a file unpacks to is bounded by
//! its size, twice: with the zeros and without. The checksums that a format has are checked.

mod input;
mod lz4;
mod lzop;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use input::Input;

/// Where and how compressed dumps are unpacked.
#[derive(Clone, Default)]
pub struct Unpacking {
    /// The directory for what they unpack to; without one they are refused.
    pub directory: Option<PathBuf>,
    /// Is told again and again how many of the file's bytes are done, and how many there are.
    pub watcher: Option<Watcher>,
}

/// Hears how far something is: done, and all.
pub type Watcher = Arc<dyn Fn(u64, u64) + Send + Sync>;

impl fmt::Debug for Unpacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacking").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Why a compressed dump cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Nobody said where.
    #[error("it is compressed with {0}, and there is no directory to unpack it to")]
    Nowhere(&'static str),
    /// The data ends too early.
    #[error("truncated: the {0} data ends before its end mark")]
    Cut(&'static str),
    /// The data is none.
    #[error("broken {packing} data: {source}")]
    Damaged {
        /// The compression.
        packing: &'static str,
        /// What its decoder says.
        source: io::Error,
    },
    /// More than a file of this size may unpack to.
    #[error("the {packing} data unpacks to more than {limit} bytes, the most for a file of its size")]
    TooMuch {
        /// The compression.
        packing: &'static str,
        /// Bytes that are accepted.
        limit: u64,
    },
    /// The file that it is unpacked to cannot be written.
    #[error("cannot unpack it to {}: {source}", directory.display())]
    Room {
        /// Where it was to be.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl UnpackError {
    /// What to do next.
    pub(super) const fn hint(&self) -> &'static str {
        match self {
            Self::Nowhere(_) => "decompress it first",
            Self::Cut(_) => "copy it again, or compress the dump again; --partial uses what is there",
            Self::Damaged { .. } => "copy it again, or decompress it by hand to see what is wrong",
            Self::TooMuch { .. } => "decompress it first, if it is what it should be",
            Self::Room { .. } => "TMPDIR names a directory with room for the guest's RAM",
        }
    }
}

/// A compression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packing {
    Gzip,
    Bzip2,
    Zstd,
    Xz,
    Lz4,
    Lzop,
}

/// Memory that xz may take, in KiB: `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;

impl Packing {
    /// The compression that bytes begin as.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        // bzip2's has the size of blocks behind it, and then that of a block or of the end.
        if let [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] = bytes
            && (rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17rE8P\x90"))
        {
            return Some(Self::Bzip2);
        }
        let magics: [(&[u8], Self); 5] = [
            (b"\x1f\x8b\x08", Self::Gzip),
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
            (b"\xfd7zXZ\0", Self::Xz),
            (lz4::MAGIC, Self::Lz4),
            (lzop::MAGIC, Self::Lzop),
        ];
        magics.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, packing)| packing)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Lzop => "lzop",
        }
    }

    fn reader<'a>(self, input: Input<'a>) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY)),
            Self::Lz4 => Box::new(lz4::Frames::new(input)),
            Self::Lzop => Box::new(lzop::Files::new(input)),
        })
    }
}

/// What a file may unpack to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes in all.
    all: u64,
    /// Bytes that are not in blocks of zeros.
    data: u64,
}

impl Limits {
    /// Those of a file of `len` bytes. RAM that is in use shrinks to a third or a tenth, and RAM
    /// that is not to nothing.
    fn of_file(len: u64) -> Self {
        Self { all: (64 << 30) + len.saturating_mul(256), data: (1 << 30) + len.saturating_mul(64) }
    }

    /// Those of bytes in memory.
    pub(super) const MEMORY: Self = Self { all: 64 << 20, data: 64 << 20 };
}

/// Room for what is unpacked.
trait Room: Write + Seek {
    /// Makes it this long, with zeros at its end.
    fn end_at(&mut self, len: u64) -> io::Result<()>;
}

impl Room for File {
    fn end_at(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

impl Room for Cursor<Vec<u8>> {
    fn end_at(&mut self, len: u64) -> io::Result<()> {
        self.get_mut().resize(len as usize, 0);
        Ok(())
    }
}

/// Unpacks bytes into memory. Data that ends too early is used as far as it goes if it may be cut
/// off (`partial`).
pub(super) fn to_memory(bytes: &[u8], packing: Packing, partial: bool) -> Result<Vec<u8>, UnpackError> {
    let mut room = Cursor::new(Vec::new());
    unpack(bytes, packing, partial, Limits::MEMORY, &mut room, Path::new("memory"), &|_, _| {})?;
    Ok(room.into_inner())
}

/// Unpacks bytes into a file that has no name any more.
pub(super) fn to_file(
    bytes: &[u8],
    packing: Packing,
    partial: bool,
    how: &Unpacking,
) -> Result<File, UnpackError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let directory = how.directory.as_deref().ok_or(UnpackError::Nowhere(packing.name()))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("virtuoso-unpacked-{}-{number}", std::process::id()));
    let opened = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let made = opened.and_then(|file| fs::remove_file(&path).map(|()| file));
    let mut file = made.map_err(|source| UnpackError::Room { directory: directory.to_owned(), source })?;
    let told = |done, all| how.watcher.iter().for_each(|watcher| watcher(done, all));
    let limits = Limits::of_file(bytes.len() as u64);
    unpack(bytes, packing, partial, limits, &mut file, directory, &told)?;
    Ok(file)
}

/// Bytes that are looked at together: zeros become a hole.
const BLOCK: usize = 1 << 16;

fn unpack(
    bytes: &[u8],
    packing: Packing,
    partial: bool,
    limits: Limits,
    room: &mut impl Room,
    directory: &Path,
    told: &dyn Fn(u64, u64),
) -> Result<(), UnpackError> {
    let name = packing.name();
    let full = |source| UnpackError::Room { directory: directory.to_owned(), source };
    let damaged = |source: io::Error| match source.kind() {
        ErrorKind::UnexpectedEof => UnpackError::Cut(name),
        _ => UnpackError::Damaged { packing: name, source },
    };
    let done = AtomicU64::new(0);
    let mut reader = packing.reader(Input { rest: bytes, done: &done }).map_err(damaged)?;
    let (mut block, mut len, mut data) = (vec![0; BLOCK], 0u64, 0u64);
    loop {
        let (filled, ended) = match fill(&mut reader, &mut block) {
            (filled, Ok(())) => (filled, filled < block.len()),
            (filled, Err(error)) => match damaged(error) {
                UnpackError::Cut(_) if partial => (filled, true),
                error => return Err(error),
            },
        };
        let part = &block[..filled];
        len += filled as u64;
        if part.iter().all(|&byte| byte == 0) {
            room.seek(SeekFrom::Start(len)).map_err(full)?;
        } else {
            data += filled as u64;
            // Before it is written: what is too much takes no room.
            if data <= limits.data && len <= limits.all {
                room.write_all(part).map_err(full)?;
            }
        }
        for (size, limit) in [(len, limits.all), (data, limits.data)] {
            if size > limit {
                return Err(UnpackError::TooMuch { packing: name, limit });
            }
        }
        told(done.load(Ordering::Relaxed), bytes.len() as u64);
        if ended {
            return room.end_at(len).map_err(full);
        }
    }
}

/// Reads until `out` is full or there is no more; how much it was.
fn fill(reader: &mut dyn Read, out: &mut [u8]) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while filled < out.len() {
        match reader.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}

#[cfg(test)]
mod tests;

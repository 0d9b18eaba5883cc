//! The file's parts: a 24-byte head (kind, sizes, checksum) and a zstd frame.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checksum::xxh64;
use crate::error::TraceError;

/// First bytes of every trace.
pub const MAGIC: [u8; 8] = *b"VIRTRACE";
/// Last bytes of every finished trace.
pub const END_MAGIC: [u8; 8] = *b"ECARTRIV";
/// Version this crate reads and writes.
pub const FORMAT_VERSION: u32 = 3;
/// Bytes of magic and version.
pub const PREFIX_LEN: u64 = 16;
/// Bytes of a chunk's head.
pub const HEAD_LEN: u64 = 24;
/// Bytes of the trailer.
pub const TRAILER_LEN: u64 = 40;
/// Most raw bytes a reader accepts in a chunk.
pub const MAX_RAW: u32 = 256 << 20;

/// What a reader accepts of parts whose size in memory a file chooses: so much whatever the file's
/// own size, and so much on top for each of its bytes. Recordings stay far below: theirs unpack to
/// four times their size.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Whatever the file's size.
    pub any: u64,
    /// For each byte.
    pub each: u64,
}

impl Allowance {
    /// What a file, or a part of one, may come to with so many bytes.
    #[must_use]
    pub const fn of(self, bytes: u64) -> u64 {
        self.any.saturating_add(bytes.saturating_mul(self.each))
    }
}

/// Bytes of the header, by the bytes that it has in the file.
pub const HEADER_BYTES: Allowance = Allowance { any: 64 << 10, each: 64 };
/// Bytes of the index, by the file's size: its entries name parts that are all in the file.
pub const INDEX_BYTES: Allowance = Allowance { any: 64 << 10, each: 4 };
/// Bytes of the static instructions, by what they have in the file.
pub const INSN_BYTES: Allowance = Allowance { any: 1 << 20, each: 64 };
/// Executed instructions, by the file's size. A loop takes no room in a file, so that a recording
/// of nothing else may be refused that has more.
pub const INSN_EVENTS: Allowance = Allowance { any: 16 << 20, each: 16 };
/// Other events, by the file's size.
pub const OTHER_EVENTS: Allowance = Allowance { any: 4 << 20, each: 16 };
/// Bytes of all event blocks, by the file's size.
pub const EVENT_BYTES: Allowance = Allowance { any: 32 << 20, each: 64 };

/// What a chunk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// Header and begin registers, at the beginning.
    Header = 1,
    /// A block of events.
    Events = 2,
    /// A part of the static instruction table.
    Insns = 3,
    /// Pages of the start snapshot.
    Pages = 4,
    /// Where everything is, at the end.
    Index = 5,
}

/// Where a chunk lies and how large it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Offset of its head.
    pub offset: u64,
    /// Bytes of the content.
    pub raw_len: u32,
    /// Bytes in the file after the head.
    pub stored_len: u32,
}

impl ChunkRef {
    /// Offset of the byte after it.
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(HEAD_LEN + self.stored_len as u64)
    }
}

/// The bytes of one chunk: head and compressed content.
pub fn seal(kind: Kind, raw: &[u8], level: i32) -> Result<(Vec<u8>, u32), TraceError> {
    let fail = |source| TraceError::Io { action: "compressing", path: PathBuf::new(), source };
    let compressed =
        if cfg!(fuzzing) { uncompressed(raw) } else { zstd::bulk::compress(raw, level).map_err(fail)? };
    let too_large = || TraceError::Unrecordable("a part of the trace is larger than 256 MiB".to_owned());
    let raw_len = u32::try_from(raw.len()).ok().filter(|&len| len <= MAX_RAW).ok_or_else(too_large)?;
    let stored_len = u32::try_from(compressed.len()).map_err(|_| too_large())?;
    let mut out = Vec::with_capacity(compressed.len() + HEAD_LEN as usize);
    out.extend_from_slice(&(kind as u32).to_le_bytes());
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.extend_from_slice(&stored_len.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    let checksum = xxh64(&compressed, seed(&out));
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&compressed);
    Ok((out, stored_len))
}

/// A zstd frame of raw blocks (RFC 8878): what a fuzzer changes in a seed is then the content
/// itself.
fn uncompressed(raw: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 1 << 16;
    // The magic, and a descriptor for a single segment with a size of four bytes.
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    let blocks = raw.len().div_ceil(BLOCK).max(1);
    for number in 0..blocks {
        let block = &raw[number * BLOCK..raw.len().min((number + 1) * BLOCK)];
        let head = (block.len() << 3 | usize::from(number + 1 == blocks)) as u32;
        out.extend_from_slice(&head.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// Whether stored bytes are this checksum. No fuzzer guesses one, so under cargo-fuzz any will do.
pub fn is_checksum(stored: &[u8], checksum: u64) -> bool {
    cfg!(fuzzing) || stored == checksum.to_le_bytes()
}

/// The head's fields take part in the checksum as its seed.
fn seed(head: &[u8]) -> u64 {
    xxh64(head, 0)
}

/// The trailer: where the index is.
pub fn trailer(index: ChunkRef) -> [u8; TRAILER_LEN as usize] {
    let mut out = [0; TRAILER_LEN as usize];
    out[..8].copy_from_slice(&index.offset.to_le_bytes());
    out[8..12].copy_from_slice(&index.raw_len.to_le_bytes());
    out[12..16].copy_from_slice(&index.stored_len.to_le_bytes());
    let checksum = xxh64(&out[..24], 0);
    out[24..32].copy_from_slice(&checksum.to_le_bytes());
    out[32..].copy_from_slice(&END_MAGIC);
    out
}

/// A trace's bytes, in a file or in memory.
#[derive(Debug)]
pub enum Source {
    /// A file, read at offsets.
    File {
        /// The open file.
        file: File,
        /// Its name, for messages.
        path: PathBuf,
        /// Its size when it was opened.
        len: u64,
    },
    /// Bytes in memory.
    Memory(Arc<[u8]>),
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(TraceError::io("opening", path))?;
        let meta = file.metadata().map_err(TraceError::io("opening", path))?;
        if !meta.is_file() {
            return Err(TraceError::NotATrace);
        }
        Ok(Self::File { file, path: path.to_path_buf(), len: meta.len() })
    }

    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// `len` bytes at `offset`. The caller has checked that they are inside the file.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, TraceError> {
        const CUT: TraceError = TraceError::Truncated { missing: "a part that the index names is not there" };
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len()) {
            return Err(CUT);
        }
        match self {
            Self::Memory(bytes) => Ok(bytes[offset as usize..][..len].to_vec()),
            Self::File { file, path, .. } => {
                let mut out = vec![0; len];
                read_exact_at(file, &mut out, offset).map_err(TraceError::io("reading", path))?;
                Ok(out)
            }
        }
    }

    /// The content of a chunk after its checksum has been verified.
    pub fn chunk(&self, kind: Kind, chunk: ChunkRef, max_raw: u32) -> Result<Vec<u8>, TraceError> {
        let damaged = |what| TraceError::damaged(chunk.offset, what);
        if chunk.raw_len > max_raw {
            return Err(damaged("a part is larger than the format allows"));
        }
        let bytes = self.read(chunk.offset, HEAD_LEN as usize + chunk.stored_len as usize)?;
        let (head, compressed) = bytes.split_at(HEAD_LEN as usize);
        let mut expected = [0; 16];
        expected[..4].copy_from_slice(&(kind as u32).to_le_bytes());
        expected[4..8].copy_from_slice(&chunk.raw_len.to_le_bytes());
        expected[8..12].copy_from_slice(&chunk.stored_len.to_le_bytes());
        if head[..16] != expected {
            return Err(damaged("a part's head differs from the index"));
        }
        if !is_checksum(&head[16..24], xxh64(compressed, seed(&head[..16]))) {
            return Err(damaged("the checksum does not match"));
        }
        let raw = zstd::bulk::decompress(compressed, chunk.raw_len as usize)
            .map_err(|_| damaged("a part cannot be decompressed"))?;
        if raw.len() != chunk.raw_len as usize {
            return Err(damaged("a part decompresses to another size"));
        }
        Ok(raw)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut out[done..], offset + done as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_fuzzers_decompress() {
        for len in [0, 1, 4096, (1 << 16) - 1, 1 << 16, (1 << 17) + 5] {
            let raw: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            assert_eq!(zstd::bulk::decompress(&uncompressed(&raw), len).unwrap(), raw);
        }
    }
}

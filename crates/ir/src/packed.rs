//! The file of a companion: an index, and behind it pieces that are unpacked when they are first
//! used.
//!
//! ```text
//! 0   8  magic
//! 8   4  version, little endian
//! 12 32  SHA-256 of what follows, up to the end of the index
//! 44  8  length of the index before compression, little endian
//! 52  8  its length in the file
//! 60  .. the index: a zstd frame of the postcard-encoded [`Index`]
//! ..  .. the pieces, one behind the other, each a zstd frame
//! ```
//!
//! The index has a checksum of each piece before compression, and is covered by the file's own: a
//! piece need not be looked at until it is used, and cannot be exchanged even then. What a file
//! that is opened this way becomes in memory is bounded by the index alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock, PoisonError};

use sha2::{Digest, Sha256};
use zstd::bulk::Decompressor;

use crate::file::{self, FileError};
use crate::index::{Index, PAGE, PAGES, Piece};

/// Version of companion files.
pub const VERSION: u32 = 7;
const MAGIC: &[u8; 8] = b"VIRTSYS\0";
const HEADER: usize = 60;
/// The largest companion file accepted, uncompressed: far more than any kernel's text.
const MAX_BYTES: u64 = 1 << 30;
const WHAT: &str = "companion file";

/// What a file of this length may unpack to.
fn most(length: u64) -> u64 {
    MAX_BYTES.min(file::unpacked(length))
}

/// SHA-256 of bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn damaged(why: impl Into<String>) -> FileError {
    FileError::Damaged { what: WHAT, why: why.into() }
}

/// What a file is read from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// The file, which is read where it is used.
    File(File),
}

impl Source {
    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }

    /// `count` bytes at an offset, which have to be there.
    fn read(&self, at: u64, count: usize) -> Result<Vec<u8>, FileError> {
        match self {
            Self::Bytes(bytes) => {
                let from = bytes.get(at as usize..).and_then(|rest| rest.get(..count));
                from.map(<[u8]>::to_vec).ok_or_else(|| damaged("it is cut off"))
            }
            Self::File(file) => {
                let mut bytes = vec![0; count];
                file.read_exact_at(&mut bytes, at).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => damaged("it is cut off"),
                    _ => damaged(format!("it cannot be read: {error}")),
                })?;
                Ok(bytes)
            }
        }
    }
}

/// An opened file: its pieces are there when they were used.
pub(crate) struct Packed {
    pub index: Index,
    /// Bytes of the whole file.
    pub length: u64,
    source: Source,
    /// Where each piece of code begins, and then the other two.
    offsets: Vec<u64>,
    /// Pieces of code that were used: their bytes, or `None` if they are damaged.
    code: Vec<OnceLock<Option<Box<[u8]>>>>,
    /// What is wrong with a piece that was used.
    damage: OnceLock<FileError>,
    unpacker: Mutex<Option<Decompressor<'static>>>,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Packed {
    /// Reads and checks the index.
    pub fn open(source: Source) -> Result<Self, FileError> {
        let length = source.length().map_err(|error| damaged(format!("it cannot be read: {error}")))?;
        let head = source.read(0, HEADER.min(usize::try_from(length).unwrap_or(HEADER)))?;
        file::is_of(MAGIC, (WHAT, VERSION), &head, HEADER)?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let (unpacked, packed) = (number(44), number(52));
        if packed > length - HEADER as u64 {
            return Err(damaged("it is cut off"));
        }
        let frame = source.read(HEADER as u64, packed as usize)?;
        let sum = Sha256::new().chain_update(&head[44..]).chain_update(&frame).finalize();
        if !cfg!(fuzzing) && sum[..] != head[12..44] {
            return Err(damaged("its checksum is wrong"));
        }
        if unpacked > most(length) {
            return Err(damaged("it claims to be too large"));
        }
        let body = zstd::bulk::decompress(&frame, unpacked as usize)
            .map_err(|_| damaged("its index does not decompress"))?;
        let index: Index = file::value(WHAT, &body, length)?;
        let start = HEADER as u64 + packed;
        if let Some(why) = index.broken(start, length, most(length)) {
            return Err(damaged(why));
        }
        let mut next = start;
        let offsets = index.pieces().map(|piece| {
            next += u64::from(piece.packed);
            next - u64::from(piece.packed)
        });
        let offsets = offsets.collect();
        let code = index.code.iter().map(|_| OnceLock::new()).collect();
        let (damage, unpacker) = (OnceLock::new(), Mutex::default());
        Ok(Self { index, length, source, offsets, code, damage, unpacker })
    }

    /// The bytes of a piece that begins at this offset.
    fn unpack(&self, piece: &Piece, offset: u64) -> Result<Vec<u8>, FileError> {
        let frame = self.source.read(offset, piece.packed as usize)?;
        let size = piece.unpacked as usize;
        let mut unpacker = self.unpacker.lock().unwrap_or_else(PoisonError::into_inner);
        let unpacker = match &mut *unpacker {
            Some(unpacker) => unpacker,
            empty => empty.insert(Decompressor::new().map_err(|error| damaged(error.to_string()))?),
        };
        let bytes = unpacker.decompress(&frame, size).map_err(|_| damaged("a piece does not decompress"))?;
        if bytes.len() != size || (!cfg!(fuzzing) && digest(&bytes) != piece.digest) {
            return Err(damaged("the checksum of a piece is wrong"));
        }
        Ok(bytes)
    }

    /// The page of code with this number, if its piece is what the index says.
    pub fn page(&self, number: usize) -> Option<&[u8]> {
        let piece = number / PAGES;
        let bytes = self.code[piece].get_or_init(|| {
            let unpacked = self.unpack(&self.index.code[piece], self.offsets[piece]);
            unpacked.map_err(|error| self.blame(error)).ok().map(Vec::into_boxed_slice)
        });
        bytes.as_ref().and_then(|bytes| bytes.get(number % PAGES * PAGE..)?.get(..PAGE))
    }

    /// The packed fixups.
    pub fn fixups(&self) -> Result<Vec<u8>, FileError> {
        self.unpack(&self.index.fixups, self.offsets[self.index.code.len()])
    }

    /// The encoded [`Integrity`](crate::Integrity).
    pub fn integrity(&self) -> Result<Vec<u8>, FileError> {
        self.unpack(&self.index.integrity, self.offsets[self.index.code.len() + 1])
    }

    /// Remembers the first thing that is wrong.
    pub fn blame(&self, error: FileError) {
        // A second one adds nothing.
        let _ = self.damage.set(error);
    }

    /// What was wrong with a piece that was used.
    pub fn damage(&self) -> Option<&FileError> {
        self.damage.get()
    }
}

/// The bytes of a file: its index gets the pieces' lengths and digests. `pages` are those of the
/// index.
pub(crate) fn write<'p>(
    mut index: Index,
    pages: impl Iterator<Item = &'p [u8]>,
    fixups: &[u8],
    integrity: &[u8],
) -> Result<Vec<u8>, FileError> {
    let mut pieces = Vec::new();
    let mut pack = |bytes: &[u8]| -> Result<Piece, FileError> {
        let frame = zstd::bulk::compress(bytes, 9).map_err(|error| damaged(error.to_string()))?;
        pieces.extend_from_slice(&frame);
        let size = |length: usize| u32::try_from(length).map_err(|_| damaged("a piece is too large"));
        Ok(Piece { packed: size(frame.len())?, unpacked: size(bytes.len())?, digest: digest(bytes) })
    };
    index.code = chunks(pages).map(|bytes| pack(&bytes)).collect::<Result<_, _>>()?;
    index.fixups = pack(fixups)?;
    index.integrity = pack(integrity)?;
    let body = postcard::to_stdvec(&index).map_err(|error| damaged(error.to_string()))?;
    let unpacked = index.pieces().map(|piece| u64::from(piece.unpacked)).sum();
    let bytes = assemble(&body, &pieces)?;
    // What no reader would accept is not written.
    if (body.len() as u64).max(unpacked) > most(bytes.len() as u64) {
        return Err(damaged("it is too large for what it holds"));
    }
    Ok(bytes)
}

/// A file with this encoded index, whatever it says.
pub(crate) fn assemble(body: &[u8], pieces: &[u8]) -> Result<Vec<u8>, FileError> {
    let frame = zstd::bulk::compress(body, 9).map_err(|error| damaged(error.to_string()))?;
    let lengths = [body.len() as u64, frame.len() as u64].map(u64::to_le_bytes).concat();
    let sum = Sha256::new().chain_update(&lengths).chain_update(&frame).finalize();
    Ok([&MAGIC[..], &VERSION.to_le_bytes(), &sum, &lengths, &frame, pieces].concat())
}

/// Pages put together as pieces have them.
pub(crate) fn chunks<'p>(mut pages: impl Iterator<Item = &'p [u8]>) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let bytes = pages.by_ref().take(PAGES).collect::<Vec<_>>().concat();
        (!bytes.is_empty()).then_some(bytes)
    })
}

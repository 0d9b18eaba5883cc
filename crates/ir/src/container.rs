//! The container of files whose pieces are unpacked when they are first used: companion files and
//! files of relocatable objects.
//!
//! ```text
//! 0   8  magic
//! 8   4  version, little endian
//! 12 32  SHA-256 of what follows, up to the end of the index
//! 44  8  length of the index before compression, little endian
//! 52  8  its length in the file
//! 60  .. the index: a zstd frame of it, postcard-encoded
//! ..  .. the pieces, one behind the other, each a zstd frame, or stored as it is where the index
//!        has its size as packed size
//! ```
//!
//! The index has a checksum of each piece before compression, and is covered by the file's own: a
//! piece need not be looked at until it is used, and cannot be exchanged even then. What a file
//! that is opened this way becomes in memory is bounded by the index alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zstd::bulk::Decompressor;

use crate::file::{self, FileError};

const HEADER: usize = 60;
/// The largest file accepted, uncompressed: far more than any kernel's text.
const MAX_BYTES: u64 = 1 << 30;

/// A sort of file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sort {
    pub magic: &'static [u8; 8],
    pub version: u32,
    /// What messages call it.
    pub what: &'static str,
}

impl Sort {
    pub fn damaged(&self, why: impl Into<String>) -> FileError {
        FileError::Damaged { what: self.what, why: why.into() }
    }

    /// A file with this encoded index, whatever it says.
    pub fn assemble(&self, body: &[u8], pieces: &[u8]) -> Result<Vec<u8>, FileError> {
        let frame = self.compress(body)?;
        let lengths = [body.len() as u64, frame.len() as u64].map(u64::to_le_bytes).concat();
        let sum = Sha256::new().chain_update(&lengths).chain_update(&frame).finalize();
        Ok([&self.magic[..], &self.version.to_le_bytes(), &sum, &lengths, &frame, pieces].concat())
    }

    /// Packs a piece behind those that are there.
    pub fn pack(&self, bytes: &[u8], pieces: &mut Vec<u8>) -> Result<Piece, FileError> {
        let frame = self.compress(bytes)?;
        // What packs to its own size, or to more, is stored.
        match frame.len() < bytes.len() {
            true => self.add(bytes, &frame, pieces),
            false => self.store(bytes, pieces),
        }
    }

    /// Stores a piece as it is behind those that are there.
    pub fn store(&self, bytes: &[u8], pieces: &mut Vec<u8>) -> Result<Piece, FileError> {
        self.add(bytes, bytes, pieces)
    }

    fn add(&self, bytes: &[u8], packed: &[u8], pieces: &mut Vec<u8>) -> Result<Piece, FileError> {
        pieces.extend_from_slice(packed);
        let size = |length: usize| u32::try_from(length).map_err(|_| self.damaged("a piece is too large"));
        Ok(Piece { packed: size(packed.len())?, unpacked: size(bytes.len())?, digest: digest(bytes) })
    }

    fn compress(&self, bytes: &[u8]) -> Result<Vec<u8>, FileError> {
        zstd::bulk::compress(bytes, 9).map_err(|error| self.damaged(error.to_string()))
    }
}

/// What a file of this length may unpack to.
pub(crate) fn most(length: u64) -> u64 {
    MAX_BYTES.min(file::unpacked(length))
}

/// SHA-256 of bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A piece of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Bytes in the file.
    pub packed: u32,
    /// Bytes before compression.
    pub unpacked: u32,
    /// SHA-256 of these.
    pub digest: [u8; 32],
}

impl Piece {
    /// Whether its bytes are in the file as they are.
    pub const fn is_stored(&self) -> bool {
        self.packed == self.unpacked
    }
}

/// Where each piece begins, of those behind one another from `start` on, and where the last ends.
pub(crate) fn offsets<'p>(start: u64, pieces: impl Iterator<Item = &'p Piece>) -> Vec<u64> {
    let mut next = start;
    let begins = pieces.map(|piece| {
        next += u64::from(piece.packed);
        next - u64::from(piece.packed)
    });
    let mut offsets: Vec<u64> = begins.collect();
    offsets.push(next);
    offsets
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
    fn read(&self, sort: &Sort, at: u64, count: usize) -> Result<Vec<u8>, FileError> {
        let damaged = |why: &str| sort.damaged(why);
        match self {
            Self::Bytes(bytes) => {
                let from = bytes.get(at as usize..).and_then(|rest| rest.get(..count));
                from.map(<[u8]>::to_vec).ok_or_else(|| damaged("it is cut off"))
            }
            Self::File(file) => {
                let mut bytes = vec![0; count];
                file.read_exact_at(&mut bytes, at).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => damaged("it is cut off"),
                    _ => sort.damaged(format!("it cannot be read: {error}")),
                })?;
                Ok(bytes)
            }
        }
    }
}

/// An opened file, whose index was read and checked.
pub(crate) struct Container {
    sort: Sort,
    /// Bytes of the whole file.
    pub length: u64,
    /// Where its pieces begin.
    pub start: u64,
    source: Source,
    unpacker: Mutex<Option<Decompressor<'static>>>,
}

impl Container {
    /// Opens a file; the second result is its index, which says nothing yet of the pieces.
    pub fn open(sort: Sort, source: Source) -> Result<(Self, Vec<u8>), FileError> {
        let damaged = |why: &str| sort.damaged(why);
        let (length, head) = Self::head(sort, &source)?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let (unpacked, packed) = (number(44), number(52));
        if packed > length - HEADER as u64 {
            return Err(damaged("it is cut off"));
        }
        let frame = source.read(&sort, HEADER as u64, packed as usize)?;
        let sum = Sha256::new().chain_update(&head[44..]).chain_update(&frame).finalize();
        if !cfg!(fuzzing) && sum[..] != head[12..44] {
            return Err(damaged("its checksum is wrong"));
        }
        if unpacked > most(length) {
            return Err(damaged("it claims to be too large"));
        }
        let body = zstd::bulk::decompress(&frame, unpacked as usize)
            .map_err(|_| damaged("its index does not decompress"))?;
        let start = HEADER as u64 + packed;
        Ok((Self { sort, length, start, source, unpacker: Mutex::default() }, body))
    }

    /// A file's length, and its header if it is of this sort and version.
    pub fn head(sort: Sort, source: &Source) -> Result<(u64, Vec<u8>), FileError> {
        let length = source.length().map_err(|error| sort.damaged(format!("it cannot be read: {error}")))?;
        let head = source.read(&sort, 0, HEADER.min(usize::try_from(length).unwrap_or(HEADER)))?;
        file::is_of(sort.magic, (sort.what, sort.version), &head, HEADER)?;
        Ok((length, head))
    }

    /// The bytes of a piece that begins at this offset.
    pub fn unpack(&self, piece: &Piece, offset: u64) -> Result<Vec<u8>, FileError> {
        let damaged = |why: &str| self.sort.damaged(why);
        let frame = self.source.read(&self.sort, offset, piece.packed as usize)?;
        let size = piece.unpacked as usize;
        let bytes = match piece.is_stored() {
            true => frame,
            false => self.decompress(&frame, size)?,
        };
        if bytes.len() != size || (!cfg!(fuzzing) && digest(&bytes) != piece.digest) {
            return Err(damaged("the checksum of a piece is wrong"));
        }
        Ok(bytes)
    }

    fn decompress(&self, frame: &[u8], size: usize) -> Result<Vec<u8>, FileError> {
        let damaged = |why: &str| self.sort.damaged(why);
        let mut unpacker = self.unpacker.lock().unwrap_or_else(PoisonError::into_inner);
        let unpacker = match &mut *unpacker {
            Some(unpacker) => unpacker,
            empty => empty.insert(Decompressor::new().map_err(|error| damaged(&error.to_string()))?),
        };
        unpacker.decompress(frame, size).map_err(|_| damaged("a piece does not decompress"))
    }
}

//! The container of program files: magic, version, checksum, compressed body. What companion files
//! share with it is here too; their own container is that of `packed.rs`.
//!
//! ```text
//! 0   8  magic
//! 8   4  version, little endian
//! 12 32  SHA-256 of the rest
//! 44  8  length of the body before compression
//! 52  .. zstd frame of the postcard-encoded body
//! ```

use std::cell::Cell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::budget::Metered;
use crate::program::Program;
use crate::verify;

/// Version of program files.
pub const VERSION: u32 = 6;
const HEADER: usize = 52;
const MAGIC: &[u8; 8] = b"VIRTPROG";
/// The largest program accepted, uncompressed: a program holds the pages of one process.
const MAX_BYTES: usize = 256 << 20;

/// What any file may unpack to, whatever its own size, and how many times its own size on top. Real
/// ones unpack to ten times their size at most, and a program to less than a megabyte.
const UNPACKED: (usize, usize) = (32 << 20, 16);
/// The same for what its lists take in memory.
const DECODED: (usize, usize) = (64 << 20, 64);

/// What a file of this many bytes may unpack to.
pub(crate) fn unpacked(length: u64) -> u64 {
    allowance(UNPACKED, usize::try_from(length).unwrap_or(usize::MAX)) as u64
}

/// What lists of a file of this many bytes may take in memory.
pub(crate) fn decoded(length: u64) -> usize {
    allowance(DECODED, usize::try_from(length).unwrap_or(usize::MAX))
}

/// What a file of this many bytes may come to.
const fn allowance((any, times): (usize, usize), bytes: usize) -> usize {
    bytes.saturating_mul(times).saturating_add(any)
}

/// Why a file cannot be read or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileError {
    /// It is something else.
    #[error("this is no Virtuoso {what}")]
    Foreign {
        /// What was expected.
        what: &'static str,
    },
    /// It was written by another version.
    #[error(
        "the {what} has format version {version}, this build reads {readable}; build it again from its traces"
    )]
    Version {
        /// What was expected.
        what: &'static str,
        /// The file's version.
        version: u32,
        /// The version that can be read.
        readable: u32,
    },
    /// It is cut off or changed.
    #[error("the {what} is damaged ({why}); build it again from its traces")]
    Damaged {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

fn encode<T: Serialize>(magic: &[u8; 8], version: u32, value: &T) -> Result<Vec<u8>, FileError> {
    let damaged = |why: String| FileError::Damaged { what: "value", why };
    let body = postcard::to_stdvec(value).map_err(|error| damaged(error.to_string()))?;
    let packed = zstd::bulk::compress(&body, 9).map_err(|error| damaged(error.to_string()))?;
    // What no reader would accept is not written.
    if body.len() > allowance(UNPACKED, packed.len() + HEADER) {
        return Err(damaged("it is too large for what it holds".to_string()));
    }
    let mut rest = (body.len() as u64).to_le_bytes().to_vec();
    rest.extend_from_slice(&packed);
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&Sha256::digest(&rest));
    bytes.extend_from_slice(&rest);
    Ok(bytes)
}

/// Whether bytes begin a file of this sort and version, with all of a header.
pub(crate) fn is_of(
    magic: &[u8; 8],
    (what, readable): (&'static str, u32),
    bytes: &[u8],
    header: usize,
) -> Result<(), FileError> {
    if bytes.len() < 8 || &bytes[..8] != magic {
        return Err(FileError::Foreign { what });
    }
    if bytes.len() < header {
        return Err(FileError::Damaged { what, why: "it is cut off".to_string() });
    }
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if version != readable {
        return Err(FileError::Version { what, version, readable });
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(
    magic: &[u8; 8],
    (what, readable): (&'static str, u32),
    bytes: &[u8],
    max: usize,
) -> Result<T, FileError> {
    let damaged = |why: &str| FileError::Damaged { what, why: why.to_string() };
    is_of(magic, (what, readable), bytes, HEADER)?;
    // No fuzzer guesses a checksum, so under cargo-fuzz any will do.
    if !cfg!(fuzzing) && Sha256::digest(&bytes[44..])[..] != bytes[12..44] {
        return Err(damaged("its checksum is wrong"));
    }
    let length: [u8; 8] = std::array::from_fn(|at| bytes[44 + at]);
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > max.min(allowance(UNPACKED, bytes.len())) {
        return Err(damaged("it claims to be too large"));
    }
    let body =
        zstd::bulk::decompress(&bytes[HEADER..], length).map_err(|_| damaged("it does not decompress"))?;
    value(what, &body, bytes.len() as u64)
}

/// Decodes a body of a file of this many bytes.
pub(crate) fn value<T: DeserializeOwned>(
    what: &'static str,
    body: &[u8],
    length: u64,
) -> Result<T, FileError> {
    let damaged = |why: &str| FileError::Damaged { what, why: why.to_string() };
    let left = Cell::new(decoded(length));
    let mut deserializer = postcard::Deserializer::from_bytes(body);
    let value = T::deserialize(Metered::new(&mut deserializer, &left));
    let end = deserializer.finalize();
    match value {
        Ok(value) if end.is_ok_and(<[u8]>::is_empty) => Ok(value),
        Ok(_) => Err(damaged("something follows its content")),
        Err(_) if left.get() == 0 => Err(damaged("its lists take more memory than its size allows")),
        Err(_) => Err(damaged("its content is malformed")),
    }
}

impl Program {
    /// The program file's bytes; the same program always gives the same bytes.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        encode(MAGIC, VERSION, self)
    }

    /// Reads and verifies a program file's bytes.
    ///
    /// # Errors
    /// [`FileError`] for anything but a whole, undamaged, well-formed program.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let program: Self = decode(MAGIC, ("program file", VERSION), bytes, MAX_BYTES)?;
        verify::verify(&program)
            .map_err(|error| FileError::Damaged { what: "program file", why: error.to_string() })?;
        Ok(program)
    }
}

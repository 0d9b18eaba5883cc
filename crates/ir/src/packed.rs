//! The file of a companion: pages of code in pieces, packed fixups, and what a search for tampering
//! reads, each read and checked when it is first used (`container.rs`).

use std::sync::OnceLock;

use crate::container::{self, Container, Sort, most};
pub(crate) use crate::container::{Source, digest};
use crate::file::{self, FileError};
use crate::index::{Index, PAGE, PAGES};

/// Version of companion files.
pub const VERSION: u32 = 10;
const SORT: Sort = Sort { magic: b"VIRTSYS\0", version: VERSION, what: "companion file" };

pub(crate) fn damaged(why: impl Into<String>) -> FileError {
    SORT.damaged(why)
}

/// An opened file: its pieces are there when they were used.
pub(crate) struct Packed {
    pub index: Index,
    container: Container,
    /// Where each piece of code begins, and then the other two.
    offsets: Vec<u64>,
    /// Pieces of code that were used: their bytes, or `None` if they are damaged.
    code: Vec<OnceLock<Option<Box<[u8]>>>>,
    /// What is wrong with a piece that was used.
    damage: OnceLock<FileError>,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Packed {
    /// Reads and checks the index.
    pub fn open(source: Source) -> Result<Self, FileError> {
        let (container, body) = Container::open(SORT, source)?;
        let index: Index = file::value(SORT.what, &body, container.length)?;
        if let Some(why) = index.broken(container.start, container.length, most(container.length)) {
            return Err(damaged(why));
        }
        let offsets = container::offsets(container.start, index.pieces());
        let code = index.code.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { index, container, offsets, code, damage: OnceLock::new() })
    }

    /// Bytes of the whole file.
    pub const fn length(&self) -> u64 {
        self.container.length
    }

    /// The page of code with this number, if its piece is what the index says.
    pub fn page(&self, number: usize) -> Option<&[u8]> {
        let piece = number / PAGES;
        let bytes = self.code[piece].get_or_init(|| {
            let unpacked = self.container.unpack(&self.index.code[piece], self.offsets[piece]);
            unpacked.map_err(|error| self.blame(error)).ok().map(Vec::into_boxed_slice)
        });
        bytes.as_ref().and_then(|bytes| bytes.get(number % PAGES * PAGE..)?.get(..PAGE))
    }

    /// The packed fixups.
    pub fn fixups(&self) -> Result<Vec<u8>, FileError> {
        self.container.unpack(&self.index.fixups, self.offsets[self.index.code.len()])
    }

    /// The encoded [`Integrity`](crate::Integrity).
    pub fn integrity(&self) -> Result<Vec<u8>, FileError> {
        self.container.unpack(&self.index.integrity, self.offsets[self.index.code.len() + 1])
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
    // Code is read here and there by every command: unpacking it takes longer than reading it.
    index.code = chunks(pages).map(|bytes| SORT.store(&bytes, &mut pieces)).collect::<Result<_, _>>()?;
    index.fixups = SORT.pack(fixups, &mut pieces)?;
    index.integrity = SORT.pack(integrity, &mut pieces)?;
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
    SORT.assemble(body, pieces)
}

/// Pages put together as pieces have them.
pub(crate) fn chunks<'p>(mut pages: impl Iterator<Item = &'p [u8]>) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let bytes = pages.by_ref().take(PAGES).collect::<Vec<_>>().concat();
        (!bytes.is_empty()).then_some(bytes)
    })
}

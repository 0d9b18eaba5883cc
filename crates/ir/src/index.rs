//! The index of a companion file: what is where in it, and what it has to be.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::container::Piece;
use crate::relocation::Image;

/// How many pages a piece of code has; the last one may have fewer. A run uses a few hundred of
/// some thousand pages, here and there: with larger pieces more is read and checked for nothing,
/// with smaller ones the index, which is always read, has more digests.
pub(crate) const PAGES: usize = 2;
pub(crate) const PAGE: usize = 4096;

/// What of the file is where, and what it has to be.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Addresses of the pages of code, ascending.
    pub pages: Vec<u64>,
    /// The pieces with their bytes, [`PAGES`] pages in each.
    pub code: Vec<Piece>,
    /// The images of [`RelocationTable`](crate::RelocationTable).
    pub images: Vec<Image>,
    /// Where interrupt gates led, from the same.
    pub gates: Vec<(u8, u64)>,
    /// The fixups from the same, packed.
    pub fixups: Piece,
    /// What only a search for tampering reads.
    pub integrity: Piece,
}

impl Index {
    /// What programs name a system by: SHA-256 over all but how it is compressed.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let count = |hasher: &mut Sha256, length: usize| hasher.update((length as u64).to_le_bytes());
        count(&mut hasher, self.pages.len());
        self.pages.iter().for_each(|page| hasher.update(page.to_le_bytes()));
        self.code.iter().for_each(|piece| hasher.update(piece.digest));
        count(&mut hasher, self.images.len());
        for image in &self.images {
            hasher.update(image.start.to_le_bytes());
            hasher.update(image.end.to_le_bytes());
            hasher.update([u8::from(image.movable)]);
        }
        count(&mut hasher, self.gates.len());
        for (vector, handler) in &self.gates {
            hasher.update([*vector]);
            hasher.update(handler.to_le_bytes());
        }
        hasher.update(self.fixups.digest);
        hasher.update(self.integrity.digest);
        hasher.finalize().into()
    }

    /// All pieces in the order of the file.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.code.iter().chain([&self.fixups, &self.integrity])
    }

    /// What makes it unusable in a file of this length, which may unpack to `most` bytes, and whose
    /// pieces begin at `start`.
    pub fn broken(&self, start: u64, length: u64, most: u64) -> Option<&'static str> {
        if !self.pages.windows(2).all(|pair| pair[0] < pair[1])
            || self.pages.iter().any(|page| page % PAGE as u64 != 0)
        {
            return Some("pages have wrong addresses or do not ascend");
        }
        let sizes = self.pages.chunks(PAGES).map(|pages| pages.len() * PAGE);
        if !self.code.iter().map(|piece| piece.unpacked as usize).eq(sizes) {
            return Some("a piece of code has the wrong size");
        }
        let packed: u64 = self.pieces().map(|piece| u64::from(piece.packed)).sum();
        if start.checked_add(packed) != Some(length) {
            return Some("it is cut off, or something follows its content");
        }
        let unpacked: u64 = self.pieces().map(|piece| u64::from(piece.unpacked)).sum();
        (unpacked > most).then_some("it claims to be too large")
    }
}

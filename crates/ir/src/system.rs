//! Companion files: the trusted code of a training system, kept once for all programs trained on
//! it.
//!
//! Pages that the training system's page tables map executable for the supervisor, by address. A
//! slice needs none of them; a whole run takes all its kernel code from here. What only a search
//! for tampering needs beside the code is [`Integrity`].

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::file::{self, FileError};
use crate::integrity::Integrity;
use crate::relocation::RelocationTable;
use crate::verify;

/// The trusted code of a training system.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct System {
    pages: BTreeMap<u64, Vec<u8>>,
    relocations: RelocationTable,
    integrity: Integrity,
}

/// Version of companion files.
pub const VERSION: u32 = 6;
const MAGIC: &[u8; 8] = b"VIRTSYS\0";
/// The largest companion file accepted, uncompressed: far more than any kernel's text.
const MAX_BYTES: usize = 1 << 30;

impl System {
    /// Adds a page.
    pub fn insert(&mut self, addr: u64, bytes: &[u8; 4096]) {
        self.pages.insert(addr, bytes.to_vec());
    }

    /// What of the code is another in another boot. It names no constants.
    #[must_use]
    pub const fn relocations(&self) -> &RelocationTable {
        &self.relocations
    }

    /// Sets [`System::relocations`].
    pub fn set_relocations(&mut self, relocations: RelocationTable) {
        self.relocations = relocations;
    }

    /// What a search for tampering compares beside the code.
    #[must_use]
    pub const fn integrity(&self) -> &Integrity {
        &self.integrity
    }

    /// Sets [`System::integrity`].
    pub fn set_integrity(&mut self, integrity: Integrity) {
        self.integrity = integrity;
    }

    /// The page at a page-aligned address.
    #[must_use]
    pub fn page(&self, addr: u64) -> Option<&[u8]> {
        self.pages.get(&addr).map(Vec::as_slice)
    }

    /// The pages in ascending order of address.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> + '_ {
        self.pages.iter().map(|(&addr, page)| (addr, page.as_slice()))
    }

    /// The pages that begin in a range of addresses, in ascending order.
    pub fn pages_in(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &[u8])> + '_ {
        let all = if range.is_empty() { 0..0 } else { range };
        self.pages.range(all).map(|(&addr, page)| (addr, page.as_slice()))
    }

    /// How many pages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there is no code at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// SHA-256 over all that it holds: what programs name it by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        use sha2::Digest;
        let mut hasher = sha2::Sha256::new();
        for (addr, bytes) in &self.pages {
            hasher.update(addr.to_le_bytes());
            hasher.update(bytes);
        }
        hash_relocations(&self.relocations, &mut hasher);
        self.integrity.hash(&mut hasher);
        hasher.finalize().into()
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        file::encode(MAGIC, VERSION, self)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`FileError`] for anything but a whole, undamaged companion file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let system: Self = file::decode(MAGIC, ("companion file", VERSION), bytes, MAX_BYTES)?;
        if let Some(why) = verify::broken_relocations(&system.relocations) {
            return Err(FileError::Damaged { what: "companion file", why: why.into() });
        }
        if system.pages.iter().any(|(addr, page)| addr % 4096 != 0 || page.len() != 4096) {
            return Err(FileError::Damaged {
                what: "companion file",
                why: "a page has the wrong size or address".into(),
            });
        }
        if let Some(why) = system.integrity.broken(system.relocations.images.len()) {
            return Err(FileError::Damaged { what: "companion file", why: why.into() });
        }
        Ok(system)
    }
}

fn hash_relocations(relocations: &RelocationTable, hasher: &mut sha2::Sha256) {
    use crate::relocation::FixupKind;
    use sha2::Digest;
    for image in &relocations.images {
        hasher.update(image.start.to_le_bytes());
        hasher.update(image.end.to_le_bytes());
        hasher.update([u8::from(image.movable)]);
    }
    for (vector, handler) in &relocations.gates {
        hasher.update([*vector]);
        hasher.update(handler.to_le_bytes());
    }
    for fixup in &relocations.fixups {
        let images = match fixup.kind {
            FixupKind::Moves { plus, minus } => {
                [plus, minus].map(|image| image.map_or(0, |image| u32::from(image) + 1))
            }
            FixupKind::Patched => [u32::MAX; 2],
        };
        hasher.update(fixup.addr.to_le_bytes());
        hasher.update([fixup.size]);
        images.iter().for_each(|image| hasher.update(image.to_le_bytes()));
    }
}

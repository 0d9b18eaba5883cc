//! Companion files: the trusted code of a training system, kept once for all programs trained on
//! it.
//!
//! Pages that the training system's page tables map executable for the supervisor, by address. A
//! slice needs none of them; a whole run takes all its kernel code from here. What only a search
//! for tampering needs beside the code is [`Integrity`].
//!
//! A run uses a small part of it. [`System::open`] reads where everything is, and unpacks what is
//! used; whoever uses all of it reads it at once ([`System::from_bytes`]).

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::container::Piece;
use crate::file::{self, FileError};
use crate::index::{Index, PAGE};
use crate::integrity::Integrity;
pub use crate::packed::VERSION;
use crate::packed::{self, Packed, Source, damaged};
use crate::relocatable::{Decision, Objects, OwnSite};
use crate::relocation::{Fixups, RelocationTable};
use crate::verify;

/// The trusted code of a training system.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Ascending by address.
    pages: Vec<(u64, Place)>,
    relocations: RelocationTable,
    integrity: OnceLock<Integrity>,
    /// The file that holds what is not here yet.
    file: Option<Arc<Packed>>,
    /// What it is named by, as long as nothing was changed.
    hash: OnceLock<[u8; 32]>,
    /// What the system may load, which has a file of its own.
    modules: Option<Arc<Objects>>,
}

/// Where a page is.
#[derive(Clone, Debug)]
enum Place {
    Here(Box<[u8; 4096]>),
    /// In the file, with this number.
    Packed(u32),
}

impl PartialEq for System {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for System {}

impl System {
    /// Adds a page.
    pub fn insert(&mut self, addr: u64, bytes: &[u8; 4096]) {
        let place = Place::Here(Box::new(*bytes));
        match self.pages.binary_search_by_key(&addr, |page| page.0) {
            Ok(at) => self.pages[at].1 = place,
            Err(at) => self.pages.insert(at, (addr, place)),
        }
        self.hash.take();
    }

    /// What of the code is another in another boot. It names no constants.
    #[must_use]
    pub const fn relocations(&self) -> &RelocationTable {
        &self.relocations
    }

    /// Sets [`System::relocations`].
    pub fn set_relocations(&mut self, relocations: RelocationTable) {
        self.relocations = relocations;
        self.hash.take();
    }

    /// What a search for tampering compares beside the code.
    #[must_use]
    pub fn integrity(&self) -> &Integrity {
        self.integrity.get_or_init(|| {
            let Some(file) = &self.file else { return Integrity::default() };
            let read = file.integrity().and_then(|body| file::value("companion file", &body, file.length()));
            let checked = read.and_then(|integrity: Integrity| {
                let broken = integrity.broken(self.relocations.images.len());
                broken.map_or(Ok(integrity), |why| Err(damaged(why)))
            });
            checked.map_err(|error| file.blame(error)).unwrap_or_default()
        })
    }

    /// Sets [`System::integrity`].
    pub fn set_integrity(&mut self, integrity: Integrity) {
        self.integrity = integrity.into();
        self.hash.take();
    }

    /// The page at a page-aligned address. One that the file has, but damaged, is `None` too:
    /// [`System::damage`] tells.
    #[must_use]
    pub fn page(&self, addr: u64) -> Option<&[u8]> {
        let at = self.pages.binary_search_by_key(&addr, |page| page.0).ok()?;
        self.content(&self.pages[at].1)
    }

    fn content<'s>(&'s self, place: &'s Place) -> Option<&'s [u8]> {
        match place {
            Place::Here(bytes) => Some(&bytes[..]),
            Place::Packed(number) => self.file.as_ref()?.page(*number as usize),
        }
    }

    /// The pages in ascending order of address.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> + '_ {
        self.pages_in(0..u64::MAX)
    }

    /// The pages that begin in a range of addresses, in ascending order.
    pub fn pages_in(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &[u8])> + '_ {
        let first = self.pages.partition_point(|page| page.0 < range.start);
        let pages = self.pages[first..].iter().take_while(move |page| page.0 < range.end);
        pages.filter_map(|(addr, place)| Some((*addr, self.content(place)?)))
    }

    /// Whether an address lies in a page of code.
    #[must_use]
    pub fn has_code(&self, address: u64) -> bool {
        self.page(address & !(PAGE as u64 - 1)).is_some()
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
        *self.hash.get_or_init(|| {
            let piece = |bytes: &[u8]| Piece { digest: packed::digest(bytes), ..Piece::default() };
            let pages = self.iter().map(|(_, bytes)| bytes);
            let code = packed::chunks(pages).map(|bytes| piece(&bytes)).collect();
            let (fixups, integrity) = (piece(&self.packed_fixups()), piece(&self.encoded_integrity()));
            Index { code, fixups, integrity, ..self.index() }.hash()
        })
    }

    /// What of the index does not depend on pieces.
    fn index(&self) -> Index {
        let RelocationTable { images, gates, .. } = self.relocations.clone();
        Index { pages: self.pages.iter().map(|page| page.0).collect(), images, gates, ..Index::default() }
    }

    fn packed_fixups(&self) -> Vec<u8> {
        self.relocations.fixups.packed().to_vec()
    }

    fn encoded_integrity(&self) -> Vec<u8> {
        // Nothing in it can fail to be encoded.
        postcard::to_stdvec(self.integrity()).unwrap_or_default()
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FileError> {
        let pages = self.iter().map(|(_, bytes)| bytes);
        let bytes = packed::write(self.index(), pages, &self.packed_fixups(), &self.encoded_integrity())?;
        self.damage().map_or(Ok(bytes), Err)
    }

    /// Reads a file's bytes, all of them.
    ///
    /// # Errors
    /// [`FileError`] for anything but a whole, undamaged companion file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let system = Self::read(Source::Bytes(bytes.to_vec()))?;
        system.check()?;
        Ok(system)
    }

    /// Reads where everything is in a file, and checks that. The rest is read and checked when it
    /// is first used; [`System::damage`] says what came of that.
    ///
    /// # Errors
    /// [`FileError`] for a file whose head is damaged, or that is none.
    pub fn open(file: File) -> Result<Self, FileError> {
        Self::read(Source::File(file))
    }

    fn read(source: Source) -> Result<Self, FileError> {
        let file = Packed::open(source)?;
        let fixups = Fixups::unpack(file.fixups()?, file::decoded(file.length()));
        let relocations = RelocationTable {
            images: file.index.images.clone(),
            gates: file.index.gates.clone(),
            constants: Vec::new(),
            fixups: fixups.ok_or_else(|| damaged("its fixups are malformed"))?,
        };
        if let Some(why) = verify::broken_relocations(&relocations) {
            return Err(damaged(why));
        }
        // Its index says that they ascend.
        let pages = file.index.pages.iter().zip(0..).map(|(&addr, number)| (addr, Place::Packed(number)));
        let (pages, hash) = (pages.collect(), file.index.hash().into());
        let integrity = OnceLock::new();
        Ok(Self { pages, relocations, integrity, file: Some(Arc::new(file)), hash, modules: None })
    }

    /// Unpacks and checks all that was not used yet.
    ///
    /// # Errors
    /// What is damaged.
    pub fn check(&self) -> Result<(), FileError> {
        self.iter().for_each(drop);
        let _ = self.integrity();
        self.damage().map_or(Ok(()), Err)
    }

    /// What was wrong with a piece of its file that was used, or of its objects: then code is
    /// missing that the system has, and nothing should be made of a run.
    #[must_use]
    pub fn damage(&self) -> Option<FileError> {
        let own = self.file.as_ref().and_then(|file| file.damage());
        own.or_else(|| self.modules()?.damage()).cloned()
    }

    /// What the system may load, if that is known.
    #[must_use]
    pub fn modules(&self) -> Option<&Objects> {
        self.modules.as_deref()
    }

    /// The places that overlap a range of addresses of the system's own code and that it writes, as
    /// far as its tables are known.
    pub fn own_sites(&self, start: u64, end: u64) -> impl Iterator<Item = &OwnSite> {
        self.modules().into_iter().flat_map(move |modules| modules.own().sites_in(start, end))
    }

    /// The places that overlap a range of addresses of the system's own code and where it decides,
    /// as far as its tables are known.
    pub fn decisions(&self, start: u64, end: u64) -> impl Iterator<Item = Decision<'_>> {
        let all = self.modules().and_then(Objects::decisions);
        all.into_iter().flat_map(move |all| all.in_range(start, end))
    }

    /// The system may load nothing any more: its whole runs end at code that training had not.
    pub fn forget_modules(&mut self) {
        self.modules = None;
    }

    /// Sets [`System::modules`]. They are no part of what it is named by.
    pub fn set_modules(&mut self, modules: Objects) {
        self.modules = Some(Arc::new(modules));
    }
}

/// A file that has this encoded index and nothing else, for fuzzers: they guess no compression.
///
/// # Errors
/// [`FileError`] when it cannot be compressed.
pub fn with_index(index: &[u8]) -> Result<Vec<u8>, FileError> {
    packed::assemble(index, &[])
}

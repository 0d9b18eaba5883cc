//! Which sections of a module's file are an object's, and what its relocations name in these.

use std::collections::BTreeMap;

use object::read::elf::{ElfFile, FileHeader};
use object::{Object as _, ObjectSymbol, RelocationTarget, SectionIndex};

/// A place in a section: its number in the object, and how far behind its beginning.
pub(crate) type Place = (u16, i64);

/// What a file's sections are called, and which of them are an object's.
pub(crate) struct Parts<'f, 'b, H: FileHeader> {
    pub file: &'f ElfFile<'b, H>,
    /// The object's number of each section.
    numbers: BTreeMap<usize, u16>,
}

impl<'f, 'b, H: FileHeader<Endian = object::LittleEndian>> Parts<'f, 'b, H> {
    /// A file, of which these sections, by their numbers in it, are an object's.
    pub const fn new(file: &'f ElfFile<'b, H>, numbers: BTreeMap<usize, u16>) -> Self {
        Self { file, numbers }
    }

    /// The place that a relocation names, if it lies in a section of the object.
    pub fn place(&self, target: RelocationTarget, addend: i64) -> Option<Place> {
        let RelocationTarget::Symbol(index) = target else { return None };
        let symbol = self.file.symbol_by_index(index).ok()?;
        let section = self.numbers.get(&symbol.section_index()?.0)?;
        Some((*section, addend.wrapping_add_unsigned(symbol.address())))
    }

    /// The number of a section of the file.
    pub fn number(&self, index: SectionIndex) -> Option<u16> {
        self.numbers.get(&index.0).copied()
    }

    /// What a relocation adds to its symbol: said by itself, or by the bytes that it is about.
    pub fn addend(relocation: &object::Relocation, bytes: &[u8], at: u64) -> i64 {
        let own = || bytes.get(at as usize..)?.get(..4)?.try_into().ok().map(i32::from_le_bytes);
        if relocation.has_implicit_addend() { own().unwrap_or(0).into() } else { relocation.addend() }
    }
}

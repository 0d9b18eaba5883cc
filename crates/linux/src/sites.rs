//! Where the kernel writes into a module's code when it loads it.
//!
//! Each kind of place has a section of its own, a table of addresses, mostly with more beside them.
//! The addresses are relocations, so that the tables are read by these.

use ir::relocatable::{LoadSite, LoadSiteKind, Object, Replacement, Trampoline};
use object::read::elf::FileHeader;
use object::{Object as _, ObjectSection};

use crate::calls;
use crate::parts::{Parts, Place};

/// The no-operations of five and of two bytes that stand for a jump (arch/x86/include/asm/nops.h).
pub(crate) struct Nops {
    pub(crate) long: [u8; 5],
    pub(crate) short: [u8; 2],
}

/// Those of a kernel of this width: one of 32 bits has such as every 32-bit processor knows.
pub(crate) const fn nops(is_64_bit: bool) -> Nops {
    if is_64_bit {
        Nops { long: [0x0f, 0x1f, 0x44, 0x00, 0x00], short: [0x66, 0x90] }
    } else {
        Nops { long: [0x3e, 0x8d, 0x74, 0x26, 0x00], short: [0x89, 0xf6] }
    }
}

/// A table: its bytes, and the places that its relocations name, by offset in it.
struct Table {
    bytes: Vec<u8>,
    places: Vec<(usize, Place)>,
}

/// The sites of an object.
pub(crate) fn of<H: FileHeader<Endian = object::LittleEndian>>(
    parts: &Parts<'_, '_, H>,
    object: &Object,
) -> Vec<LoadSite> {
    let table = |name: &str| table(parts, name);
    let word = if parts.file.is_64() { 8 } else { 4 };
    let nops = nops(parts.file.is_64());
    let mut sites = Vec::new();
    let mut add = |place: Place, len: Option<u8>, kind: LoadSiteKind| {
        if let (Some(section), Some(len), Ok(offset)) =
            (object.sections.get(usize::from(place.0)), len, u32::try_from(place.1))
            && section.is_code
            && u64::from(offset) + u64::from(len) <= u64::from(section.size)
        {
            sites.push(LoadSite { section: place.0, offset, len, kind });
        }
    };
    let alternatives = table(".altinstructions");
    let size = alternatives.entry_of_two();
    for (at, place) in alternatives.every(size, 0) {
        add(place, alternatives.lengths(at, size).map(|it| it.0), LoadSiteKind::Same);
    }
    // struct paravirt_patch_site: an address, a type, a length.
    let paravirt = table(".parainstructions");
    for (at, place) in paravirt.every(2 * word, 0) {
        add(place, paravirt.bytes.get(at + word + 1).copied(), LoadSiteKind::Same);
    }
    for (name, size, fixed) in [
        (".smp_locks", 4, Some(1)),
        (".ibt_endbr_seal", 4, Some(4)),
        ("__mcount_loc", word, Some(5)),
        (".retpoline_sites", 4, None),
        (".return_sites", 4, None),
        (".static_call_sites", 8, None),
    ] {
        for (_, place) in table(name).every(size, 0) {
            add(place, fixed.or_else(|| branch(&nops, object, place)), LoadSiteKind::Same);
        }
    }
    for place in calls::trampolines(parts) {
        add(place, Some(Trampoline::LEN), LoadSiteKind::Same);
    }
    // struct jump_entry: two addresses of four bytes each, and a key.
    let jumps = table("__jump_table");
    for (at, place) in jumps.every(8 + word, 0) {
        if let Some((section, offset)) = jumps.at(at + 4)
            && let Ok(offset) = u32::try_from(offset)
        {
            add(place, branch(&nops, object, place), LoadSiteKind::Jump { section, offset });
        }
    }
    ordered(sites)
}

/// What the kernel may put at places of an object: its alternatives, which lie in a section of it.
pub(crate) fn replacements<H: FileHeader<Endian = object::LittleEndian>>(
    parts: &Parts<'_, '_, H>,
    object: &Object,
) -> Vec<Replacement> {
    let table = table(parts, ".altinstructions");
    let size = table.entry_of_two();
    let holds = |section: u16, offset: u32, len: u8| {
        let part = object.sections.get(usize::from(section));
        part.is_some_and(|it| it.is_code && u64::from(offset) + u64::from(len) <= u64::from(it.size))
    };
    let replacement = |(at, (section, offset)): (usize, Place)| {
        let (len, from_len) = table.lengths(at, size)?;
        let (from_section, from_offset) = table.at(at + 4)?;
        let (offset, from_offset) = (u32::try_from(offset).ok()?, u32::try_from(from_offset).ok()?);
        let fits = from_len <= len && holds(section, offset, len);
        let fits = fits && holds(from_section, from_offset, from_len);
        fits.then_some(Replacement { section, offset, len, from_section, from_offset, from_len })
    };
    let mut found: Vec<Replacement> = table.every(size, 0).filter_map(replacement).collect();
    found.sort_by_key(|it| (it.section, it.offset));
    found
}

/// The two lengths of an entry of this size: of the code, and of what replaces it. `struct
/// alt_instr` has two addresses, a feature of the processor, the lengths of a byte each, and at a
/// time one of padding behind them. The feature has grown from two to four bytes.
pub(crate) fn alternative_lengths(size: usize, entry: &[u8]) -> Option<(u8, u8)> {
    let at = if size == 13 { 10 } else { size.checked_sub(2)? };
    Some((*entry.get(at)?, *entry.get(at + 1)?))
}

/// How long the branch at a place is, or what stands for one.
fn branch(nops: &Nops, object: &Object, (section, offset): Place) -> Option<u8> {
    let code = &object.sections.get(usize::from(section))?.code;
    let bytes = code.get(usize::try_from(offset).ok()?..)?;
    match bytes {
        // With a prefix of no effect, to make it longer.
        [0x2e, 0xe8 | 0xe9, ..] | [0x0f, 0x80..=0x8f, ..] => Some(6),
        [0xe8 | 0xe9, ..] => Some(5),
        [0xeb, ..] => Some(2),
        _ if bytes.starts_with(&nops.long) => Some(5),
        _ if bytes.starts_with(&nops.short) => Some(2),
        _ => None,
    }
}

impl Table {
    /// The size of an entry that begins with two addresses: the next one tells.
    fn entry_of_two(&self) -> usize {
        self.places.get(2).map_or(self.bytes.len(), |(at, _)| *at)
    }

    /// The lengths of the alternative that is there.
    fn lengths(&self, at: usize, size: usize) -> Option<(u8, u8)> {
        alternative_lengths(size, self.bytes.get(at..at + size)?)
    }

    /// The places that entries of this size have at an offset, with where each entry is.
    fn every(&self, size: usize, offset: usize) -> impl Iterator<Item = (usize, Place)> + '_ {
        let first = self.places.iter().filter(move |(at, _)| size > 0 && at % size == offset);
        first.map(move |(at, place)| (at - offset, *place))
    }

    /// The place that stands at an offset.
    fn at(&self, offset: usize) -> Option<Place> {
        let found = self.places.binary_search_by_key(&offset, |it| it.0).ok()?;
        Some(self.places[found].1)
    }
}

fn table<H: FileHeader<Endian = object::LittleEndian>>(parts: &Parts<'_, '_, H>, name: &str) -> Table {
    let empty = Table { bytes: Vec::new(), places: Vec::new() };
    let Some(section) = parts.file.section_by_name(name) else { return empty };
    let Ok(bytes) = section.data() else { return empty };
    let places = section.relocations().filter_map(|(at, relocation)| {
        let addend = Parts::<H>::addend(&relocation, bytes, at);
        Some((at as usize, parts.place(relocation.target(), addend)?))
    });
    let mut places: Vec<(usize, Place)> = places.collect();
    places.sort_unstable();
    Table { bytes: bytes.to_vec(), places }
}

/// Sites in the order in which an object has them, those that overlap as one.
fn ordered(mut sites: Vec<LoadSite>) -> Vec<LoadSite> {
    sites.sort_by_key(|site| (site.section, site.offset, site.len));
    let mut ordered: Vec<LoadSite> = Vec::new();
    for site in sites {
        let end = |site: &LoadSite| site.offset + u32::from(site.len);
        match ordered.last_mut() {
            Some(last) if last.section == site.section && end(last) > site.offset => {
                let len = end(last).max(end(&site)) - last.offset;
                (last.len, last.kind) = (u8::try_from(len).unwrap_or(u8::MAX), LoadSiteKind::Same);
            }
            _ => ordered.push(site),
        }
    }
    ordered
}

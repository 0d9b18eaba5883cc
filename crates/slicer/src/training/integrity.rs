//! What a search for tampering compares beside the code: read-only data of the images, interrupt
//! gates, and the forms that two boots show of one place.
//!
//! Read-only is what no mapping lets the kernel write: not the one at the image's address, and no
//! other of the same frame; with two boots, in neither of them. Where all memory is mapped beside
//! the kernel's image, one boot has memory there that is read-only for another reason: what is a
//! module's by another address of the same frame is never the kernel's. Data that differs in
//! another boot by more than addresses that moved is data that each boot writes; with one boot
//! nothing is known of that.

use ir::integrity::{DataPage, Extent, Integrity, Variant, differing_words, number};
use ir::relocation::RelocationTable;
use machine::paging::Mapping;
use machine::{GuestMemory, PAGE_SIZE, Reg, VirtAddr};

use super::extents::{extents, frames_in};
use super::images::{Stretch, stretches};
use super::mappings::{MAX_CODE_MAPPING, Mappings};
use super::tables::Tables;

/// The most bytes of an interrupt descriptor table: 256 gates.
const TABLE: u64 = 4096;

/// The other boot: its memory, and the slide of each image there.
pub struct OtherBoot<'o, 't> {
    /// Its memory.
    pub mappings: &'o Mappings<'t>,
    /// By image: its slide there, if it was found.
    pub slides: &'o [Option<u64>],
}

/// What one boot shows, or two.
#[must_use]
pub fn learn(
    mappings: &Mappings<'_>,
    table: &RelocationTable,
    other: Option<&OtherBoot<'_, '_>>,
) -> Integrity {
    let mine = Tables::of(mappings);
    let theirs = other.map(|other| Tables::of(other.mappings));
    // Whether the other boot may write what an image has at an address; not where it has nothing.
    let written = |image: usize, address: u64| {
        let slide = other.and_then(|other| other.slides.get(image).copied().flatten());
        let there = slide.zip(theirs.as_ref());
        there.is_some_and(|(slide, theirs)| theirs.is_writable(address.wrapping_add(slide)) == Some(true))
    };
    let extents = extents(&table.images, &mine.all, &|it| written(0, it));
    let mut found = Integrity { boots: 1, extents, gates: gates(mappings), ..Integrity::default() };
    found.writable = writable_code(&mine.all);
    read_only(mappings, &mine, &written, &mut found);
    if let Some(other) = other {
        found.boots = 2;
        let compared = Compared { mappings, table, other, extents: &found.extents };
        let mut variants = compared.code();
        for (&addr, page) in &mut found.data {
            let words = compared.data(addr, page);
            // A number that only looks like an address of what moved is the same in both.
            let is_number = |it: &Variant| page.bytes[(it.addr - addr) as usize..].starts_with(&it.bytes);
            page.steady = words.as_ref().is_some_and(|words| words.iter().all(is_number));
            variants.extend(words.unwrap_or_default());
        }
        variants.sort_by_key(|it| it.addr);
        variants.dedup_by(|next, last| next.addr < last.addr + last.bytes.len() as u64);
        found.variants = variants;
    }
    found
}

/// Pages that the kernel may execute and write.
fn writable_code(all: &[Mapping]) -> Vec<u64> {
    let both = all.iter().filter(|it| it.executable && it.writable && it.size <= MAX_CODE_MAPPING);
    let mut pages: Vec<u64> = both.flat_map(pages).map(|(page, _)| page).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// The pages of a mapping: linear and physical address.
fn pages(mapping: &Mapping) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (vaddr, paddr) = (mapping.vaddr.0, mapping.paddr.0);
    (0..mapping.size).step_by(PAGE_SIZE as usize).map(move |at| (vaddr.wrapping_add(at), paddr + at))
}

/// Adds the pages of images that are data and that nobody may write; `written` tells of the other
/// boot, by image and address.
fn read_only(
    mappings: &Mappings<'_>,
    tables: &Tables,
    written: &dyn Fn(usize, u64) -> bool,
    found: &mut Integrity,
) {
    let theirs = frames_in(&tables.all, found.extents.get(1..).unwrap_or_default());
    for (page, frame) in tables.all.iter().filter(|it| !it.writable && !it.executable).flat_map(pages) {
        let Some(image) = found.image(page) else { continue };
        let is_theirs = image == 0 && theirs.overlap(frame, PAGE_SIZE);
        if is_theirs || tables.is_frame_writable(frame) || written(image, page) {
            continue;
        }
        if let Ok(bytes) = mappings.memory.page(machine::PhysAddr(frame)) {
            found.data.insert(page, DataPage { image: image as u16, steady: false, bytes: bytes.to_vec() });
        }
    }
}

/// The bytes of the interrupt descriptor table.
fn gates(mappings: &Mappings<'_>) -> Vec<u8> {
    let regs = mappings.begin_regs;
    let Some(base) = regs.get(Reg::IdtrBase) else { return Vec::new() };
    let size = regs.get(Reg::IdtrLimit).map_or(TABLE, |limit| (limit + 1).min(TABLE));
    let bytes = mappings.read_mapped(VirtAddr(base), size as usize);
    bytes.into_iter().map_while(|byte| byte).collect()
}

/// Two boots beside each other.
struct Compared<'c, 't> {
    mappings: &'c Mappings<'t>,
    table: &'c RelocationTable,
    other: &'c OtherBoot<'c, 't>,
    extents: &'c [Extent],
}

impl Compared<'_, '_> {
    /// The slide of an image.
    fn slide(&self, image: usize) -> Option<u64> {
        self.other.slides.get(image).copied().flatten()
    }

    /// The other boot's address for one of this boot that lies in an image.
    fn moved(&self, address: u64) -> Option<u64> {
        let image = self.extents.iter().position(|it| it.start <= address && address < it.end)?;
        Some(address.wrapping_add(self.slide(image)?))
    }

    /// The reverse.
    fn back(&self, address: u64) -> Option<u64> {
        let back = |(image, extent): (usize, &Extent)| {
            let here = address.wrapping_sub(self.slide(image)?);
            (extent.start <= here && here < extent.end).then_some(here)
        };
        self.extents.iter().enumerate().find_map(back)
    }

    /// The places of all code where the boots differ by more than addresses that moved.
    fn code(&self) -> Vec<Variant> {
        let mut variants = Vec::new();
        for stretch in stretches(self.mappings) {
            let image = self.table.image(stretch.start.0);
            if let Some(slide) = image.and_then(|image| self.slide(image)) {
                self.stretch(&stretch, slide, &mut variants);
            }
        }
        variants
    }

    fn stretch(&self, stretch: &Stretch, slide: u64, variants: &mut Vec<Variant>) {
        let (mode, start, mine) = (self.mappings.lift_mode(), stretch.start.0, &stretch.bytes);
        let theirs = self.other.mappings.read_mapped(stretch.start.add(slide), mine.len());
        let theirs: Vec<u8> = mine.iter().zip(theirs).map(|(mine, theirs)| theirs.unwrap_or(*mine)).collect();
        let mut expected = mine.clone();
        let slides: Vec<u64> = self.other.slides.iter().map(|slide| slide.unwrap_or(0)).collect();
        self.table.apply(start, &mut expected, &slides, &mut |_| None);
        let mut at = 0;
        while at < mine.len() {
            let len = lift::length(mode, &mine[at..]).unwrap_or(1);
            let end = (at + len).min(mine.len());
            let pc = start.wrapping_add(at as u64);
            let same = theirs[at..end] == expected[at..end]
                || lift::rebase(mode, pc, &mine[at..end], pc.wrapping_add(slide), &|it| self.moved(it))
                    .is_some_and(|code| code == theirs[at..end]);
            if !same {
                let bytes = self.normal(pc, &theirs[at..end], slide);
                match variants.last_mut() {
                    Some(last) if last.addr + last.bytes.len() as u64 == pc => last.bytes.extend(bytes),
                    _ => variants.push(Variant { addr: pc, bytes }),
                }
            }
            at = end;
        }
    }

    /// The other boot's code as it would be where this boot has it.
    fn normal(&self, pc: u64, theirs: &[u8], slide: u64) -> Vec<u8> {
        let (mode, mut bytes) = (self.mappings.lift_mode(), theirs.to_vec());
        let mut at = 0;
        while at < bytes.len() {
            let pc = pc.wrapping_add(at as u64);
            let code = lift::rebase(mode, pc.wrapping_add(slide), &theirs[at..], pc, &|it| self.back(it));
            let Some(code) = code else {
                at += lift::length(mode, &theirs[at..]).unwrap_or(1);
                continue;
            };
            bytes[at..at + code.len()].copy_from_slice(&code);
            at += code.len();
        }
        bytes
    }

    /// The words of a page of data that differ by more than addresses that moved; `None` where the
    /// other boot lacks the page.
    fn data(&self, addr: u64, page: &DataPage) -> Option<Vec<Variant>> {
        let to = addr.wrapping_add(self.slide(usize::from(page.image))?);
        let theirs = self.other.mappings.read_mapped(VirtAddr(to), page.bytes.len());
        let theirs: Vec<u8> = theirs.into_iter().collect::<Option<_>>()?;
        let word = if self.mappings.mode.linear_bits() > 32 { 8 } else { 4 };
        let moved = |address| self.moved(address);
        let words = differing_words((addr, &page.bytes), (to, &theirs), word, &moved, &|_| false);
        let differing = words.into_iter().map(|at| {
            let (mine, theirs) = (&page.bytes[at..at + word], &theirs[at..at + word]);
            Variant { addr: addr + at as u64, bytes: other_form(mine, theirs, &|it| self.back(it)) }
        });
        Some(differing.collect())
    }
}

/// A word of the other boot as it would be here: what did not move with what it seems to name is a
/// number.
fn other_form(mine: &[u8], theirs: &[u8], back: &dyn Fn(u64) -> Option<u64>) -> Vec<u8> {
    let here = if mine == theirs { None } else { back(number(theirs)) };
    here.map_or(theirs.to_vec(), |here| here.to_le_bytes()[..theirs.len()].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_stays_is_a_number_and_keeps_its_form() {
        // It lies in an image of the other boot too, where something else was.
        let back = |address: u64| (address >= 0xd0a0_0000).then(|| address - 0x10_0000);
        let form = |mine: u32, theirs: u32| other_form(&mine.to_le_bytes(), &theirs.to_le_bytes(), &back);
        assert_eq!(form(0xd0a0_6d9f, 0xd0a0_6d9f), 0xd0a0_6d9fu32.to_le_bytes());
        assert_eq!(form(0xd0a0_0010, 0xd0b0_0020), 0xd0a0_0020u32.to_le_bytes());
        assert_eq!(form(7, 8), 8u32.to_le_bytes());
    }
}

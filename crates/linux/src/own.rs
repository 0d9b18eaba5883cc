//! What the kernel writes into its own code, by the tables of its image, and into its read-only
//! data before that is read-only.
//!
//! `.altinstructions` (arch/x86/include/asm/alternative.h, `struct alt_instr`) has code for some
//! processors and code that replaces it on others; `.smp_locks` the lock prefixes that are not
//! needed on one processor; the jump table (include/linux/jump_label.h, `struct jump_entry`) the
//! places that static keys switch. The last one has no section of its own in an image that was
//! linked: it is recognised by what its entries name. Calls through thunks, and returns, need no
//! table: what they do says it all.

use ir::System;
use ir::relocatable::{Own, OwnSite};
use object::{Object, ObjectSection, SectionKind};

use crate::sites::{alternative_lengths, nops};

/// The fewest entries one behind the other that are a jump table.
const FEWEST: usize = 16;

/// The sections of a kernel that are there when it starts.
struct Image<'f> {
    sections: Vec<Section<'f>>,
    is_64_bit: bool,
}

struct Section<'f> {
    name: &'f str,
    address: u64,
    bytes: &'f [u8],
    is_code: bool,
}

/// What the kernel proper, an ELF file ([`kernel_proper`](crate::kernel_proper)), says of a system
/// that was trained where it was linked to lie; nothing if it is no such file.
#[must_use]
pub fn own(kernel: &[u8], system: &System) -> Own {
    let Ok(file) = object::File::parse(kernel) else { return Own::default() };
    let sections = file.sections().filter_map(|section| {
        // Per-CPU memory of 64-bit kernels begins at 0: it is no part of the image.
        let (address, bytes) = (section.address(), section.data().ok()?);
        let is_code = section.kind() == SectionKind::Text;
        (address != 0).then_some(Section { name: section.name().ok()?, address, bytes, is_code })
    });
    let image = Image { sections: sections.collect(), is_64_bit: file.is_64() };
    let mut sites = image.alternatives();
    sites.extend(image.locks());
    sites.extend(image.jumps());
    sites.sort_by_key(|site| site.address);
    let pages = || system.integrity().data.iter();
    let written = pages().filter(|(page, data)| image.differs(**page, &data.bytes));
    let written = written.map(|(page, _)| *page).collect();
    let unused = pages().flat_map(|(page, data)| image.gaps(*page, page + data.bytes.len() as u64)).collect();
    Own { sites, written, unused }
}

impl<'f> Image<'f> {
    fn section(&self, name: &str) -> Option<&Section<'f>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Code of the image at an address.
    fn code(&self, address: u64, count: usize) -> Option<&'f [u8]> {
        self.sections.iter().filter(|section| section.is_code).find_map(|section| {
            let from = usize::try_from(address.checked_sub(section.address)?).ok()?;
            section.bytes.get(from..from.checked_add(count)?)
        })
    }

    /// Whether a page of data is something else in the image; not where the image has none.
    fn differs(&self, page: u64, bytes: &[u8]) -> bool {
        self.sections.iter().filter(|section| !section.is_code).any(|section| {
            let (start, end) = (section.address, section.address + section.bytes.len() as u64);
            let (from, to) = (start.max(page), end.min(page + bytes.len() as u64));
            // Neither range leaves its slice.
            from < to
                && section.bytes[(from - start) as usize..(to - start) as usize]
                    != bytes[(from - page) as usize..(to - page) as usize]
        })
    }

    /// Where no section lies in a range that some section reaches into. The kernel's loader moves
    /// whole segments, and what is behind them in their last page is whatever was there.
    fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut used: Vec<(u64, u64)> = self
            .sections
            .iter()
            .map(|it| (it.address.max(start), (it.address + it.bytes.len() as u64).min(end)))
            .filter(|(from, to)| from < to)
            .collect();
        used.sort_unstable();
        let mut gaps = Vec::new();
        if used.is_empty() {
            return gaps;
        }
        let mut at = start;
        for (from, to) in used {
            if at < from {
                gaps.push((at, from));
            }
            at = at.max(to);
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }

    /// What four bytes of a table name, relative to where they stand.
    fn named(&self, section: &Section<'_>, at: usize) -> Option<u64> {
        let distance = i32::from_le_bytes(section.bytes.get(at..at + 4)?.try_into().ok()?);
        let named = (section.address + at as u64).wrapping_add_signed(distance.into());
        Some(if self.is_64_bit { named } else { named & u64::from(u32::MAX) })
    }

    fn alternatives(&self) -> Vec<OwnSite> {
        let (Some(table), Some(code)) =
            (self.section(".altinstructions"), self.section(".altinstr_replacement"))
        else {
            return Vec::new();
        };
        // The entries have grown: all of them must name code, and what replaces it.
        let entry = |at: usize, size: usize| {
            let (len, from_len) = alternative_lengths(size, table.bytes.get(at..at + size)?)?;
            let (address, from) = (self.named(table, at)?, self.named(table, at + 4)?);
            let old = self.code(address, len.into())?;
            let start = usize::try_from(from.checked_sub(code.address)?).ok()?;
            let new = code.bytes.get(start..start.checked_add(from_len.into())?)?;
            Some(OwnSite { address, len, forms: forms(old, new, from.wrapping_sub(address)) })
        };
        let all = |size: usize| {
            let sites = (0..table.bytes.len()).step_by(size).map(|at| entry(at, size));
            sites.collect::<Option<Vec<OwnSite>>>()
        };
        let sizes = [12, 13, 14].into_iter().filter(|size| table.bytes.len().is_multiple_of(*size));
        sizes.into_iter().find_map(all).unwrap_or_default()
    }

    fn locks(&self) -> Vec<OwnSite> {
        let Some(table) = self.section(".smp_locks") else { return Vec::new() };
        let places = (0..table.bytes.len()).step_by(4).filter_map(|at| self.named(table, at));
        let is_prefix = |address: &u64| matches!(self.code(*address, 1), Some([0xf0 | 0x3e]));
        let forms = || vec![vec![0xf0], vec![0x3e]];
        places.filter(is_prefix).map(|address| OwnSite { address, len: 1, forms: forms() }).collect()
    }

    /// Lists of entries that are those of a jump table: one that is not may be between them.
    fn jumps(&self) -> Vec<OwnSite> {
        let size = if self.is_64_bit { 16 } else { 12 };
        let mut found = Vec::new();
        for section in self.sections.iter().filter(|section| !section.is_code) {
            let mut at = 0;
            while at + size <= section.bytes.len() {
                let entries = (at..).step_by(size).map_while(|at| self.jump(section, at));
                let run: Vec<OwnSite> = entries.collect();
                at += if run.is_empty() { 4 } else { run.len() * size };
                if run.len() >= FEWEST {
                    found.extend(run);
                }
            }
        }
        found
    }

    /// The place of an entry of a jump table: what is there leads where the entry says, or nowhere.
    fn jump(&self, section: &Section<'_>, at: usize) -> Option<OwnSite> {
        let (address, to) = (self.named(section, at)?, self.named(section, at + 4)?);
        let (old, _) = (self.code(address, 2)?, self.code(to, 1)?);
        let (nops, long) = (nops(self.is_64_bit), || self.code(address, 5));
        let (len, is_nop) = match old {
            [0xeb, _] => (2, false),
            _ if old == nops.short => (2, true),
            [0xe9, _] => (5, false),
            _ if long()? == nops.long => (5, true),
            _ => return None,
        };
        let distance = to.wrapping_sub(address).wrapping_sub(u64::from(len)).to_le_bytes();
        let mut jump = vec![if len == 2 { 0xeb } else { 0xe9 }];
        jump.extend_from_slice(&distance[..usize::from(len) - 1]);
        let leads = is_nop || self.code(address, len.into())? == jump;
        leads.then(|| OwnSite { address, len, forms: vec![jump, Vec::new()] })
    }
}

/// What may be where `old` is, which `new` replaces, linked for a place that is so much farther on:
/// a call or jump at its beginning is made to lead where it led, and a jump nearby has a short form
/// (arch/x86/kernel/alternative.c, `recompute_jump`).
fn forms(old: &[u8], new: &[u8], farther: u64) -> Vec<Vec<u8>> {
    let mut moved = new.to_vec();
    let mut forms = vec![old.to_vec()];
    if let [0xe8 | 0xe9, a, b, c, d, ..] = *new {
        let distance = u32::from_le_bytes([a, b, c, d]).wrapping_add(farther as u32);
        moved[1..5].copy_from_slice(&distance.to_le_bytes());
        let short = i32::from_le_bytes(distance.to_le_bytes()).wrapping_add(3);
        if new[0] == 0xe9 && new.len() == 5 && i8::try_from(short).is_ok() {
            forms.push(vec![0xeb, short as u8]);
        }
    }
    forms.push(moved);
    forms
}

//! What is known of a place of code that differs: forms that training boots show or the system's
//! tables name, and constants.

use ir::integrity::number;
use ir::relocation::FixupKind;

use super::code::Stretch;
use super::comparison::Comparison;
use super::form::Patch;
use super::report::{Change, Tampering};

impl Comparison<'_> {
    /// Takes over into `expected` what training boots show of this very place.
    pub(super) fn explain(
        &self,
        mode: lift::Mode,
        stretch: &Stretch,
        expected: &mut [u8],
        (from, to): (usize, usize),
        report: &mut Tampering,
    ) {
        let address = |at: usize| stretch.start + at as u64;
        for variant in self.system.integrity().variants_in(address(from), address(to)) {
            let Some((range, found)) = stretch.place(variant.addr, variant.bytes.len()) else { continue };
            let mut form = variant.bytes.clone();
            let mut offset = 0;
            while offset < form.len() && form != found {
                let code = self.rebased(mode, stretch, range.start + offset, &variant.bytes[offset..]);
                let len = code.as_ref().map_or(1, Vec::len);
                if let Some(code) = code {
                    form[offset..offset + len].copy_from_slice(&code);
                }
                offset += len;
            }
            if form == found && expected[range.clone()] != *found {
                self.add(stretch, &expected[range.clone()], range.start, Change::Variant, report);
                expected[range].copy_from_slice(found);
            }
        }
    }

    /// Takes over into `expected` what the system's own tables name for this very place.
    pub(super) fn listed(
        &self,
        mode: lift::Mode,
        stretch: &Stretch,
        expected: &mut [u8],
        (from, to): (usize, usize),
        report: &mut Tampering,
    ) {
        let address = |at: usize| stretch.start + at as u64;
        for site in self.system.own_sites(address(from), address(to)) {
            let Some((range, found)) = stretch.place(site.address, site.len.into()) else { continue };
            if expected[range.clone()] == *found {
                continue;
            }
            let here = |form: &Vec<u8>| {
                let mut form = form.clone();
                let mut offset = 0;
                while let Some(code) = self.rebased(mode, stretch, range.start + offset, &form[offset..]) {
                    form[offset..offset + code.len()].copy_from_slice(&code);
                    offset += code.len();
                }
                lift::is_form(mode, &form, found)
            };
            if site.forms.iter().any(here) {
                self.add(stretch, &expected[range.clone()], range.start, Change::Listed, report);
                expected[range].copy_from_slice(found);
            }
        }
    }

    /// Whether bytes that differ belong to a word of four bytes that training boots show to vary
    /// and that moved by its image's slide: code of another mode has addresses of its own. The
    /// slide says which bytes of the word differ, so those that training shows may be others of it.
    pub(super) fn slid(&self, stretch: &Stretch, first: usize, last: usize) -> bool {
        let shown = |at: usize| {
            let word = stretch.start + at as u64;
            self.system.integrity().variants_in(word, word + 4).next().is_some()
        };
        let four = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).and_then(|it| it.first_chunk().copied()).map(u32::from_le_bytes)
        };
        let moved = |at: usize| {
            four(&stretch.mine, at).map(|it| it.wrapping_add(stretch.slide as u32))
                == four(&stretch.found, at)
        };
        (last.saturating_sub(3)..=first).any(|at| moved(at) && shown(at))
    }

    /// A constant that training boots show to vary, with another value: only its bytes differ.
    pub(super) fn value(&self, stretch: &Stretch, expected: &[u8], from: usize, to: usize) -> Option<Patch> {
        let (start, end) = (stretch.start + from as u64, stretch.start + to as u64);
        let fixups = self.relocation.table().fixups_in(start, end);
        let patched = |at: usize| {
            let address = stretch.start + at as u64;
            let holds = |start: u64, size: u8| (start..start + u64::from(size)).contains(&address);
            fixups.clone().any(|it| it.kind == FixupKind::Patched && holds(it.addr, it.size))
        };
        let all = (from..to).all(|at| expected[at] == stretch.found[at] || patched(at));
        // A number that the system keeps in its data too, where that is compared.
        let word = |bytes: &[u8], at: u64| {
            let at = at.checked_sub(stretch.start)? as usize;
            Some(number(bytes.get(at..at + 8)?))
        };
        let kept = fixups.clone().filter(|it| it.kind == FixupKind::Patched && it.size == 8).all(|it| {
            let both = word(&stretch.mine, it.addr).zip(word(&stretch.found, it.addr));
            both.is_some_and(|(trained, found)| self.is_also_data(trained, found))
        });
        let kept = kept && fixups.clone().any(|it| it.kind == FixupKind::Patched && it.size == 8);
        let change = if kept { Change::Equal } else { Change::Value };
        all.then_some(Patch { from, to, change })
    }
}

//! Code: every byte of the trusted copy against what the target has there.

use std::ops::Range;

use ir::Program;
use machine::paging;
use machine::{PAGE_SIZE, Page, VirtAddr};

use super::acts::target;
use super::comparison::Comparison;
use super::form::{Codes, Patch};
use super::report::{Change, Class, Difference, Place, Tampering};
use super::target::Frames;

/// How pages are compared.
pub struct CodePages<'p> {
    /// The program, whose instructions are code for sure.
    pub program: &'p Program,
    /// The mode of the code.
    pub mode: lift::Mode,
    /// Whether page tables tell code from data.
    pub tells_code: bool,
}

/// Contiguous pages of the trusted copy, all there in the target.
#[derive(Default)]
pub(super) struct Stretch {
    /// Its address in the training system.
    pub start: u64,
    /// How far the target has it from there.
    pub slide: u64,
    /// The trusted copy as training has it.
    pub mine: Vec<u8>,
    /// What the target has.
    pub found: Vec<u8>,
    /// Offsets of the pages that may hold data.
    unclear: Vec<usize>,
}

impl Stretch {
    /// Where in it a place is that has this address in the training system, and what the target has
    /// there; `None` if not all of it is in the stretch.
    pub fn place(&self, address: u64, len: usize) -> Option<(Range<usize>, &[u8])> {
        let at = address.checked_sub(self.start)? as usize;
        let range = at..at + len;
        Some((range.clone(), self.found.get(range)?))
    }
}

impl Comparison<'_> {
    /// Compares all code, and gives the frames of the target that were compared.
    pub(super) fn compare_code(&self, pages: &CodePages<'_>, report: &mut Tampering) -> Frames {
        let mut frames = Frames::default();
        let mut stretch = Stretch::default();
        for (address, mine) in self.system.iter() {
            let slide = match self.relocation.table().image(address) {
                Some(image) => self.relocation.slide_of(image),
                None => Some(0),
            };
            let Some(slide) = slide else {
                report.missing += 1;
                continue;
            };
            let follows = stretch.start + stretch.mine.len() as u64 == address && stretch.slide == slide;
            if !follows {
                self.stretch(pages, &std::mem::take(&mut stretch), report);
                (stretch.start, stretch.slide) = (address, slide);
            }
            let there = VirtAddr(address.wrapping_add(slide));
            if self.is_compared_by_file(address, there) {
                continue;
            }
            let mapped =
                paging::translate(self.memory, self.relocation.mode(), self.relocation.root(), there);
            let mapped = mapped.ok().filter(|it| !it.user);
            let found =
                mapped.and_then(|it| Some((it.paddr.page().0, self.memory.page(it.paddr.page()).ok()?)));
            let Some((frame, found)) = found else {
                self.stretch(pages, &std::mem::take(&mut stretch), report);
                report.uncompared.absent += 1;
                continue;
            };
            if stretch.mine.is_empty() {
                (stretch.start, stretch.slide) = (address, slide);
            }
            if self.may_be_data(pages, address) {
                stretch.unclear.push(stretch.mine.len());
                report.uncompared.unclear += 1;
            } else if !self.kernel.contains(&address) && is_other(mine, found) {
                // Other code lies where training had this: it is counted as the target's.
                self.stretch(pages, &std::mem::take(&mut stretch), report);
                report.missing += 1;
                continue;
            }
            frames.insert(frame);
            report.pages += 1;
            stretch.mine.extend_from_slice(mine);
            stretch.found.extend_from_slice(found);
        }
        self.stretch(pages, &stretch, report);
        frames
    }

    /// Whether a page is a module's of which the pack's file tells more.
    fn is_compared_by_file(&self, address: u64, there: VirtAddr) -> bool {
        let of_module = self.relocation.table().image(address).is_some_and(|image| image != 0);
        let page = there.0..there.0.saturating_add(PAGE_SIZE);
        of_module && self.loaded.as_ref().is_some_and(|loaded| loaded.has_whole_in(&page))
    }

    /// Whether a page of the trusted copy may hold data.
    fn may_be_data(&self, pages: &CodePages<'_>, address: u64) -> bool {
        let integrity = self.system.integrity();
        integrity.writable.binary_search(&address).is_ok() || !pages.tells_code && integrity.boots == 0
    }

    /// Adds the differences of a stretch.
    fn stretch(&self, pages: &CodePages<'_>, stretch: &Stretch, report: &mut Tampering) {
        let mut expected = stretch.mine.clone();
        self.relocation.moved_code(stretch.start, &mut expected);
        for &at in &stretch.unclear {
            let range = at..at + PAGE_SIZE as usize;
            let address = VirtAddr(stretch.start + at as u64);
            only_instructions(pages.program, address, &mut expected[range.clone()], &stretch.found[range]);
        }
        let Some(first) = expected.iter().zip(&stretch.found).position(|(a, b)| a != b) else { return };
        let mut run: Option<(usize, usize)> = None;
        let mut at = 0;
        while at < expected.len() {
            let len = lift::length(pages.mode, &stretch.mine[at..]).unwrap_or(1);
            let end = (at + len).min(expected.len());
            let same = end <= first
                || expected[at..end] == stretch.found[at..end]
                || self.is_same(pages.mode, stretch, at, end);
            if !same {
                // Where no second boot has told what moves, the instruction itself does.
                let mut told =
                    self.relocation.table().fixups_in(stretch.start + at as u64, stretch.start + end as u64);
                if told.next().is_none()
                    && let Some(code) = self.rebased(pages.mode, stretch, at, &stretch.mine[at..end])
                {
                    expected[at..end].copy_from_slice(&code);
                }
                run = Some((run.map_or(at, |run| run.0), end));
            } else {
                if let Some((from, to)) = run.take() {
                    self.differing(pages, stretch, &mut expected, (from, to), report);
                }
                // Of what is explained the rest must not see a difference.
                expected[at..end].copy_from_slice(&stretch.found[at..end]);
            }
            at = end;
        }
        if let Some((from, to)) = run {
            self.differing(pages, stretch, &mut expected, (from, to), report);
        }
    }

    /// Whether the target has the same instruction, apart from what moved.
    fn is_same(&self, mode: lift::Mode, stretch: &Stretch, at: usize, end: usize) -> bool {
        self.rebased(mode, stretch, at, &stretch.mine[at..end])
            .is_some_and(|code| code == stretch.found[at..end])
    }

    /// An instruction of the training system as it would be in the target.
    pub(super) fn rebased(
        &self,
        mode: lift::Mode,
        stretch: &Stretch,
        at: usize,
        code: &[u8],
    ) -> Option<Vec<u8>> {
        let pc = stretch.start + at as u64;
        lift::rebase(mode, pc, code, pc.wrapping_add(stretch.slide), &|it| self.moved(it))
    }

    /// Adds what instructions that differ, one after the other, show.
    fn differing(
        &self,
        pages: &CodePages<'_>,
        stretch: &Stretch,
        expected: &mut [u8],
        (from, to): (usize, usize),
        report: &mut Tampering,
    ) {
        self.explain(pages.mode, stretch, expected, (from, to), report);
        self.listed(pages.mode, stretch, expected, (from, to), report);
        let trusted = |address| self.trusted(address);
        let code = |address, count| self.trusted_code(address, count);
        let codes = Codes {
            mode: pages.mode,
            start: stretch.start,
            expected,
            found: &stretch.found,
            slide: stretch.slide,
            trusted: &trusted,
            code: &code,
        };
        let differs = |at: &usize| codes.expected[*at] != codes.found[*at];
        let (Some(first), Some(last)) = ((from..to).find(differs), (from..to).rfind(differs)) else { return };
        if self.slid(stretch, first, last) {
            self.add(stretch, &codes.expected[first..=last], first, Change::Variant, report);
            return;
        }
        // Each instruction by itself, if each has a form of its own.
        let mut patches = Vec::new();
        let mut at = from;
        while at < to {
            let mut len = lift::length(pages.mode, &stretch.mine[at..]).unwrap_or(1).min(to - at);
            let mut bytes = (at..at + len).filter(differs);
            if let Some(first) = bytes.next() {
                let last = bytes.next_back().unwrap_or(first);
                let value = self.value(stretch, codes.expected, at, at + len);
                let known = value.or_else(|| codes.branch(at, at + len));
                let patch = known.unwrap_or_else(|| codes.patch(first, last));
                if patch.change == Change::Equal {
                    len = patch.to - at;
                }
                patches.push(patch);
            }
            at += len;
        }
        // Where the walk is out of step with the code a patch is met twice.
        patches.dedup_by_key(|it| (it.from, it.to));
        if patches.iter().any(|it| it.change.class() == Class::Foreign) {
            patches = if codes.is_thunk(from, to) {
                vec![Patch { from, to, change: Change::Thunk }]
            } else if codes.is_alternative(from, to) {
                vec![Patch { from, to, change: Change::Alternative }]
            } else if patches.len() > 1 {
                vec![codes.patch(first, last)]
            } else {
                patches
            };
        }
        for Patch { from, to, change } in patches {
            self.add(stretch, &codes.expected[from..to], from, change, report);
        }
    }

    /// Adds a difference.
    pub(super) fn add(
        &self,
        stretch: &Stretch,
        trusted: &[u8],
        from: usize,
        change: Change,
        report: &mut Tampering,
    ) {
        let found = &stretch.found[from..from + trusted.len()];
        let address = stretch.start + from as u64;
        let leads_to = target(&stretch.found[from..], address.wrapping_add(stretch.slide));
        report.differences.push(Difference {
            address,
            place: Place::Code,
            change,
            trusted: trusted.to_vec(),
            found: found.to_vec(),
            leads_to: leads_to.map(|it| self.reported(it)),
        });
    }
}

/// Whether the target has other code altogether: half of the bytes, padding left out, differ.
fn is_other(mine: &[u8], found: &Page) -> bool {
    let pairs = mine.iter().zip(found);
    let telling = pairs.filter(|(a, b)| !lift::is_padding(**a) || !lift::is_padding(**b));
    let (equal, all) = telling.fold((0, 0), |(equal, all), (a, b)| (equal + usize::from(a == b), all + 1));
    equal * 2 < all
}

/// Overwrites the trusted copy of the page at `address` with what was found, except for the
/// program's instructions, so that only they can differ.
pub(super) fn only_instructions(program: &Program, address: VirtAddr, trusted: &mut [u8], found: &[u8]) {
    let mut known = [false; PAGE_SIZE as usize];
    for range in &program.code {
        for at in range.addr..range.addr.saturating_add(range.bytes.len() as u64) {
            if let Some(known) = at.checked_sub(address.0).and_then(|at| known.get_mut(at as usize)) {
                *known = true;
            }
        }
    }
    for (byte, (found, _)) in trusted.iter_mut().zip(found.iter().zip(known)).filter(|it| !it.1.1) {
        *byte = *found;
    }
}

//! The code of modules, against the files that a pack has of them: those that training had not
//! loaded, and those that it had, for the files say more than two boots show.
//!
//! What a module's own tables name as written anew when it is loaded (load sites) may be a lock
//! prefix, a thunk, a call of a tracer, or what the trusted call leads to in the end: that is the
//! system's own. Other instructions there that lead nowhere or to trusted code are unknown, and
//! everything else must be the file's. Between a module's sections nothing may be but filling,
//! where all of them were found.

use std::collections::{BTreeMap, BTreeSet};

use machine::paging;
use machine::{PAGE_SIZE, VirtAddr};

use super::acts::target;
use super::calls::StaticCalls;
use super::comparison::Comparison;
use super::form::{Codes, Patch};
use super::report::{Change, Class, Difference, Place, Tampering};
use super::target::Frames;
use crate::loaded::{Loaded, Space, Survey};

/// Bytes of a page that some section has: address of the page, and which.
type Covered = BTreeMap<u64, [bool; PAGE_SIZE as usize]>;

impl Comparison<'_> {
    /// Looks for modules in all code but the kernel's own.
    pub(super) fn find_loaded(&mut self) {
        let (Some(modules), Some(slide)) = (self.system.modules(), self.relocation.slide_of(0)) else {
            return;
        };
        let space = Space { tables: self.relocation.tables(self.memory), slide };
        let loaded = Loaded::new(modules, space);
        let own = |page: u64| {
            let trained = self.trusted(page);
            trained.is_some_and(|it| self.relocation.table().image(it).is_none_or(|image| image == 0))
        };
        let others = self.code.pages().iter().filter(|page| !own(page.0));
        others.for_each(|page| loaded.look(page.0, self.relocation.deadline()));
        self.loaded = Some(loaded);
    }

    /// Compares these modules, and adds their frames to those that were compared.
    pub(super) fn compare_loaded(&self, mode: lift::Mode, frames: &mut Frames, report: &mut Tampering) {
        let Some(loaded) = &self.loaded else { return };
        let trusted = |address| self.trusted(address);
        let code = |address, count| self.trusted_code(address, count);
        let calls = StaticCalls::of(loaded, self.relocation.deadline());
        let (mut covered, mut modules, mut module) = (Covered::new(), BTreeSet::new(), None);
        let mut whole = true;
        for survey in loaded.survey(self.relocation.deadline()) {
            if module.is_some_and(|module| module != survey.object) {
                self.gaps(&std::mem::take(&mut covered), whole, frames, report);
            }
            (module, whole) = (Some(survey.object), survey.whole);
            modules.insert(survey.object);
            cover(&mut covered, &survey);
            let codes = Codes {
                mode,
                start: survey.address,
                expected: &self.without_listed(mode, &survey, &trusted, report),
                found: &survey.found,
                slide: 0,
                trusted: &trusted,
                code: &code,
            };
            self.compare_survey((&survey, &calls), &codes, report);
        }
        self.gaps(&covered, whole, frames, report);
        report.modules = modules.len();
    }

    /// The trusted code of a section, with what the module's own tables name where the target has
    /// that.
    fn without_listed(
        &self,
        mode: lift::Mode,
        survey: &Survey,
        trusted: &dyn Fn(u64) -> Option<u64>,
        report: &mut Tampering,
    ) -> Vec<u8> {
        let mut expected = survey.trusted.clone();
        for (place, form) in &survey.forms {
            let (Some(old), Some(found)) = (expected.get(place.clone()), survey.found.get(place.clone()))
            else {
                continue;
            };
            if old != found && lift::is_form(mode, form, found) {
                let codes = Codes {
                    mode,
                    start: survey.address,
                    expected: &expected,
                    found: &survey.found,
                    slide: 0,
                    trusted,
                    code: &|_, _| Vec::new(),
                };
                let patch = Patch { from: place.start, to: place.end, change: Change::Listed };
                self.add_survey(&codes, &patch, report);
                expected[place.clone()].copy_from_slice(found);
            }
        }
        expected
    }

    /// Adds the differences of a section.
    fn compare_survey(
        &self,
        (survey, calls): (&Survey, &StaticCalls),
        codes: &Codes<'_>,
        report: &mut Tampering,
    ) {
        let (of, mut at, mut run) = ((survey, calls), 0, None::<(usize, usize)>);
        while at < survey.trusted.len() {
            let len = lift::length(codes.mode, &survey.trusted[at..]).unwrap_or(1);
            let end = (at + len).min(survey.trusted.len());
            if codes.expected[at..end] == survey.found[at..end] {
                run.take().into_iter().for_each(|run| self.explain_survey(of, codes, run, report));
            } else {
                run = Some((run.map_or(at, |run| run.0), end));
            }
            at = end;
        }
        run.into_iter().for_each(|run| self.explain_survey(of, codes, run, report));
    }

    /// Adds what instructions that differ, one after the other, show.
    fn explain_survey(
        &self,
        (survey, calls): (&Survey, &StaticCalls),
        codes: &Codes<'_>,
        (from, to): (usize, usize),
        report: &mut Tampering,
    ) {
        let differs = |at: &usize| codes.expected[*at] != codes.found[*at];
        let mut at = from;
        while at < to {
            // A load site, or what lies between two.
            let site = survey.sites.iter().find(|site| site.end > at && site.start < to);
            let end = match site {
                Some(site) if site.start > at => site.start,
                Some(site) => site.end.min(codes.expected.len()),
                None => to,
            };
            let is_site = site.is_some_and(|site| site.start <= at);
            let mut bytes = (at..end).filter(differs);
            if let Some(first) = bytes.next() {
                let last = bytes.next_back().unwrap_or(first);
                let start = site.filter(|_| is_site).map_or(at, |site| site.start);
                let mut patch = codes.patch(first, last);
                let place = codes.start + start as u64;
                let is_call = is_site && calls.is_one(place, &codes.expected[start..end]);
                if is_call {
                    if calls.agrees(self, codes, start..end) {
                        patch = Patch { from: start, to: end, change: Change::Listed };
                    }
                } else if let Some(known) = is_site.then(|| codes.branch(start, end)).flatten() {
                    patch = known;
                } else if is_site && codes.does_nothing(start, end) {
                    patch = Patch { from: start, to: end, change: Change::Equal };
                } else if codes.is_thunk(start, end) {
                    patch = Patch { from: start, to: end, change: Change::Thunk };
                } else if patch.change.class() == Class::Foreign
                    && (codes.is_alternative(start, end) || is_site && codes.stays(start, end))
                {
                    patch = Patch { from: start, to: end, change: Change::Alternative };
                }
                // Locks, thunks and calls of tracers are what such sites are for.
                let own = matches!(patch.change, Change::Lock | Change::Thunk | Change::TracePoint);
                if is_site && !is_call && (own || self.goes_on(codes, start)) {
                    patch.change = Change::Variant;
                }
                self.add_survey(codes, &patch, report);
            }
            at = end.max(at + 1);
        }
    }

    /// Whether a call or jump at a load site leads where the trusted one leads in the end: there is
    /// nothing but a jump at its target.
    fn goes_on(&self, codes: &Codes<'_>, at: usize) -> bool {
        let address = codes.start + at as u64;
        let (Some(old), Some(new)) =
            (target(&codes.expected[at..], address), target(&codes.found[at..], address))
        else {
            return false;
        };
        if codes.expected[at] != codes.found[at] {
            return false;
        }
        let jump = self.trusted_code(old, 5);
        jump.first() == Some(&0xe9) && target(&jump, old) == Some(new)
    }

    /// Reports what the pages of a module have beside its sections, and counts them as compared.
    fn gaps(&self, covered: &Covered, whole: bool, frames: &mut Frames, report: &mut Tampering) {
        for (&page, covered) in covered {
            let (mode, root) = (self.relocation.mode(), self.relocation.root());
            let mapped = paging::translate(self.memory, mode, root, VirtAddr(page));
            let Some(frame) = mapped.ok().map(|it| it.paddr.page()) else { continue };
            let Ok(bytes) = self.memory.page(frame) else { continue };
            let other = |at: &usize| !covered[*at] && !lift::is_padding(bytes[*at]);
            let gap = ((0..covered.len()).find(other), (0..covered.len()).rfind(other));
            if let ((Some(_), _), false) = (gap, whole) {
                report.uncompared.unknown += 1;
            } else if let (Some(first), Some(last)) = gap {
                report.differences.push(Difference {
                    address: page + first as u64,
                    place: Place::Code,
                    change: Change::Foreign,
                    trusted: Vec::new(),
                    found: bytes[first..=last].to_vec(),
                    leads_to: None,
                });
            }
            report.pages += 1;
            frames.insert(frame.0);
        }
    }

    fn add_survey(&self, codes: &Codes<'_>, patch: &Patch, report: &mut Tampering) {
        let address = codes.start + patch.from as u64;
        let leads_to = target(&codes.found[patch.from..], address);
        report.differences.push(Difference {
            address,
            place: Place::Code,
            change: patch.change,
            trusted: codes.expected[patch.from..patch.to].to_vec(),
            found: codes.found[patch.from..patch.to].to_vec(),
            leads_to: leads_to.map(|it| self.reported(it)),
        });
    }
}

/// Notes which bytes of pages a section has.
fn cover(covered: &mut Covered, survey: &Survey) {
    for address in survey.address..survey.address + survey.found.len() as u64 {
        let page = covered.entry(address & !(PAGE_SIZE - 1)).or_insert([false; PAGE_SIZE as usize]);
        page[(address % PAGE_SIZE) as usize] = true;
    }
}

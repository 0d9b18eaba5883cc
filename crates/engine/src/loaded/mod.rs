//! Relocatable objects in one target: found by their code wherever they lie, and executed from the
//! trusted object.
//!
//! What a run executes at an address is the object's own code with the addresses filled in that its
//! fields name there: places of its own sections and of other objects found likewise, and of the
//! kernel. None of these is taken on trust from the field's bytes in the target: they only tell
//! where sections lie of which there is no code, the same for all fields of an object
//! (`placement.rs`). Code that the target has otherwise is not executed. A jump that the system
//! switches is there or not as the target has it, and must be one of both.
//!
//! Looking for objects begins where a run needs one: around an address that is executed or named.

mod placement;
mod region;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ir::Objects;
use ir::relocatable::{LoadSite, LoadSiteKind, Object, Replacement, Section, Symbol};

use crate::limits::Deadline;
use placement::Placement;
pub(crate) use region::Space;

/// Bytes before and behind a piece of code that may belong to fields and sites in it.
const MARGIN: u32 = 8;
/// How many placements are tried around one address: a target may have any number of windows that
/// look like an object's.
const MOST_TRIED: usize = 64;

/// The objects of a system as they are in one target.
pub(crate) struct Loaded<'s> {
    objects: &'s Objects,
    space: Space<'s>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// Where was looked for objects.
    searched: Vec<Range<u64>>,
    placements: Vec<Arc<Placement>>,
}

/// What there is at an address of the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fetched {
    /// No object.
    Nothing,
    /// Code of an object: fewer bytes than wanted where it ends, or where the target has other
    /// code.
    Code(Vec<u8>),
    /// The time was over before it was known.
    Late,
}

/// Code of a section that was found.
pub(crate) struct Survey {
    /// The object's number.
    pub object: u32,
    /// Whether all code of the object was found.
    pub whole: bool,
    /// Where it is.
    pub address: u64,
    /// The trusted code, with the addresses of the target.
    pub trusted: Vec<u8>,
    /// What the target has there.
    pub found: Vec<u8>,
    /// What the system writes anew when it loads the object, but for jumps that it switches: where
    /// in both.
    pub sites: Vec<Range<usize>>,
    /// What the object's own tables name for places, with the addresses of the target: where in
    /// both, and code, behind which nothing is done.
    pub forms: Vec<(Range<usize>, Vec<u8>)>,
}

/// Whether all code of an object was found.
fn is_whole(object: &Object, placement: &Placement) -> bool {
    let nowhere = |(part, base): (&Section, &Option<u64>)| base.is_none() && !part.code.is_empty();
    !object.sections.iter().zip(&placement.bases).any(nowhere)
}

impl<'s> Loaded<'s> {
    /// The objects in a target.
    pub fn new(objects: &'s Objects, space: Space<'s>) -> Self {
        Self { objects, space, found: Mutex::default() }
    }

    /// Up to `count` bytes of an object's code at an address.
    pub fn fetch(&self, pc: u64, count: usize, deadline: Deadline) -> Fetched {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((placement, section)) = self.at(&mut found, pc, deadline) else {
            return if deadline.is_over() { Fetched::Late } else { Fetched::Nothing };
        };
        let code = self.code(&mut found, (&placement, section), (pc, count), deadline);
        if deadline.is_over() { Fetched::Late } else { Fetched::Code(code.unwrap_or_default()) }
    }

    /// Whether an object that was found already has code at an address.
    pub fn holds(&self, address: u64) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.known(&found, address).is_some()
    }

    /// The name of the object whose code is at an address, of those that were found already, and
    /// where all its code is.
    pub fn object_at(&self, pc: u64) -> Option<(&'s str, Vec<Range<u64>>)> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (placement, _) = self.known(&found, pc)?;
        let object = self.objects.object(placement.object)?;
        Some((self.objects.name(placement.object)?, placement.ranges(object)))
    }

    /// The object that is known to have code at an address, and in which section.
    fn known(&self, found: &Found, pc: u64) -> Option<(Arc<Placement>, u16)> {
        found.placements.iter().find_map(|placement| {
            let section = placement.section_at(self.objects.object(placement.object)?, pc)?;
            Some((Arc::clone(placement), section))
        })
    }

    /// The same, looked for if it is not known.
    fn at(&self, found: &mut Found, pc: u64, deadline: Deadline) -> Option<(Arc<Placement>, u16)> {
        if let Some(known) = self.known(found, pc) {
            return Some(known);
        }
        if found.searched.iter().any(|range| range.contains(&pc)) {
            return None;
        }
        let region = self.space.around(pc)?;
        let range = region.start..region.start + region.bytes.len() as u64;
        // Windows that agree about where an object is speak for it.
        let mut votes: HashMap<(u32, u16, u64), usize> = HashMap::new();
        for (at, print) in self.objects.recognise(&region.bytes) {
            let base = (range.start + at as u64).wrapping_sub(print.offset.into());
            *votes.entry((print.object, print.section, base)).or_default() += 1;
        }
        let mut votes: Vec<_> = votes.into_iter().collect();
        votes.sort_unstable_by_key(|(place, count)| (std::cmp::Reverse(*count), *place));
        for ((number, section, base), _) in votes.into_iter().take(MOST_TRIED) {
            if deadline.is_over() {
                return None;
            }
            let Some(object) = self.objects.object(number) else { continue };
            let overlaps = found.placements.iter().any(|placement| {
                self.objects
                    .object(placement.object)
                    .is_some_and(|it| placement.section_at(it, base).is_some())
            });
            if !overlaps
                && let Some(placement) = Placement::find(object, number, (section, base), self.space, &region)
            {
                found.placements.push(Arc::new(placement));
            }
        }
        found.searched.push(range);
        self.known(found, pc)
    }

    /// Code of a section as it is in the target; `None` where none of it may be executed.
    fn code(
        &self,
        found: &mut Found,
        (placement, section): (&Placement, u16),
        (pc, count): (u64, usize),
        deadline: Deadline,
    ) -> Option<Vec<u8>> {
        let object = self.objects.object(placement.object)?;
        let part = object.sections.get(usize::from(section))?;
        let from = u32::try_from(pc.wrapping_sub(placement.bases[usize::from(section)]?)).ok()?;
        let last = from.saturating_add(u32::try_from(count).ok()?).min(part.size);
        let (mut bytes, unknown) = self.filled(found, (placement, section), (from, last), deadline)?;
        let end = unknown.min(placement.strange_from(section, from)).clamp(from, last);
        bytes.truncate((end - from) as usize);
        Some(bytes)
    }

    /// Bytes of a section with the addresses of the target, and the offset of the first one that is
    /// not known: of a field whose symbol is nowhere, or a switched jump that is neither there nor
    /// not there.
    fn filled(
        &self,
        found: &mut Found,
        (placement, section): (&Placement, u16),
        (from, last): (u32, u32),
        deadline: Deadline,
    ) -> Option<(Vec<u8>, u32)> {
        let object = self.objects.object(placement.object)?;
        let part = object.sections.get(usize::from(section))?;
        let base = placement.bases[usize::from(section)]?;
        let (start, stop) = (from.saturating_sub(MARGIN), last.saturating_add(MARGIN).min(part.size));
        let mut bytes = part.code.get(start as usize..stop as usize)?.to_vec();
        let mut unknown = u32::MAX;
        for site in object.load_sites_in(section, from, last) {
            if let LoadSiteKind::Jump { .. } = site.kind
                && self.jump(placement, site, start, &mut bytes).is_none()
            {
                unknown = unknown.min(site.offset);
            }
        }
        for field in object.fields_in(section, from, last) {
            let sites = object.load_sites_in(section, field.offset, field.offset + 1);
            if sites.iter().any(|site| site.kind != LoadSiteKind::Same) {
                continue;
            }
            let value = self.symbol(found, placement, object, field.symbol, deadline);
            let at = (field.offset.checked_sub(start)).map(|at| at as usize);
            let into = at.and_then(|at| bytes.get_mut(at..at + field.form.size()));
            match (value, into) {
                (Some(value), Some(into)) => {
                    let own = base.wrapping_add(field.offset.into());
                    let less = if field.form.is_relative() { own } else { 0 };
                    let value = value.wrapping_add_signed(field.addend).wrapping_sub(less);
                    into.copy_from_slice(&value.to_le_bytes()[..field.form.size()]);
                }
                _ => unknown = unknown.min(field.offset),
            }
        }
        bytes.truncate((last - start) as usize);
        bytes.drain(..(from - start) as usize);
        Some((bytes, unknown))
    }

    /// Looks for objects around an address, if nobody has.
    pub fn look(&self, address: u64, deadline: Deadline) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.at(&mut found, address, deadline);
    }

    /// Whether an object of which all code was found has some in a range of addresses.
    pub fn has_whole_in(&self, range: &Range<u64>) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.placements.iter().any(|placement| {
            self.objects.object(placement.object).is_some_and(|object| {
                let ranges = placement.ranges(object);
                ranges.iter().any(|it| it.start < range.end && range.start < it.end)
                    && is_whole(object, placement)
            })
        })
    }

    /// The code of all objects that were found, as it should be and as it is.
    pub fn survey(&self, deadline: Deadline) -> Vec<Survey> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for placement in self.together(&found) {
            let Some(object) = self.objects.object(placement.object) else { continue };
            let whole = is_whole(object, &placement);
            for (section, part) in (0u16..).zip(&object.sections) {
                let Some(address) = placement.bases[usize::from(section)].filter(|_| !part.code.is_empty())
                else {
                    continue;
                };
                let all_of_it = (0, part.size);
                let trusted = self.filled(&mut found, (&placement, section), all_of_it, deadline);
                let there = self.space.read(address, part.code.len());
                if let (Some((trusted, _)), Some(there)) = (trusted, there) {
                    let sites = object.load_sites_in(section, 0, u32::MAX).iter();
                    let same = sites.filter(|site| site.kind == LoadSiteKind::Same);
                    let sites = same.map(|it| it.offset as usize..it.offset as usize + usize::from(it.len));
                    let sites = sites.collect();
                    let replacements = object.replacements_of(section).iter();
                    let forms = replacements
                        .flat_map(|it| self.forms(&mut found, &placement, object, it, deadline))
                        .collect();
                    let object = placement.object;
                    all.push(Survey { object, whole, address, trusted, found: there, sites, forms });
                }
            }
        }
        all
    }

    /// What a replacement comes to in the target, at its place: nothing if it names what is
    /// nowhere. A jump nearby has a short form too.
    fn forms(
        &self,
        found: &mut Found,
        placement: &Placement,
        object: &Object,
        replacement: &Replacement,
        deadline: Deadline,
    ) -> Vec<(Range<usize>, Vec<u8>)> {
        let Replacement { section, offset, len, from_section, from_offset, from_len } = *replacement;
        let end = from_offset.saturating_add(from_len.into());
        let mut filled = || {
            let part = object.sections.get(usize::from(from_section))?;
            let mut code = part.code.get(from_offset as usize..end as usize)?.to_vec();
            let base = placement.bases[usize::from(section)]?.wrapping_add(offset.into());
            for field in object.fields_in(from_section, from_offset, end) {
                let at = field.offset.checked_sub(from_offset)?;
                let value = self.symbol(found, placement, object, field.symbol, deadline)?;
                let less = if field.form.is_relative() { base.wrapping_add(at.into()) } else { 0 };
                let value = value.wrapping_add_signed(field.addend).wrapping_sub(less);
                let into = code.get_mut(at as usize..at as usize + field.form.size())?;
                into.copy_from_slice(&value.to_le_bytes()[..field.form.size()]);
            }
            Some(code)
        };
        let place = offset as usize..offset as usize + usize::from(len);
        let Some(code) = filled() else { return Vec::new() };
        let short = match code[..] {
            [0xe9, a, b, c, d] => i8::try_from(i32::from_le_bytes([a, b, c, d]).wrapping_add(3)).ok(),
            _ => None,
        };
        let short = short.map(|distance| (place.clone(), vec![0xeb, distance.cast_unsigned()]));
        std::iter::once((place, code)).chain(short).collect()
    }

    /// What the symbol with a number is in the target.
    fn symbol(
        &self,
        found: &mut Found,
        placement: &Placement,
        object: &Object,
        symbol: u16,
        deadline: Deadline,
    ) -> Option<u64> {
        match *object.symbols.get(usize::from(symbol))? {
            Symbol::Own(section) => *placement.bases.get(usize::from(section))?,
            Symbol::System(address) => Some(self.space.moved(address)),
            Symbol::Constant(value) => Some(value),
            Symbol::Unknown => None,
            Symbol::Other { object: number, section } => {
                // Where it should be is said by the target, whether it is there by its code.
                let hint = placement.hint(number, section)?;
                let is_there = |found: &Found| {
                    let others = found.placements.iter().filter(|it| it.object == number);
                    others.into_iter().any(|it| it.bases.get(usize::from(section)) == Some(&Some(hint)))
                };
                if !is_there(found) {
                    let other = self.objects.object(number)?;
                    if other.sections.get(usize::from(section))?.is_code {
                        let _ = self.at(found, hint, deadline);
                    } else {
                        self.everywhere(found, deadline);
                    }
                }
                is_there(found).then_some(hint)
            }
        }
    }

    /// The objects that were found, each with where the sections of others are that it names, if
    /// these are in one place only: of what only load sites name nothing else says it.
    fn together(&self, found: &Found) -> Vec<Placement> {
        let mut places: HashMap<u32, Option<&Placement>> = HashMap::new();
        for placement in &found.placements {
            places.entry(placement.object).and_modify(|it| *it = None).or_insert(Some(placement));
        }
        let mut all: Vec<Placement> = found.placements.iter().map(|it| Placement::clone(it)).collect();
        for placement in &mut all {
            let symbols = self.objects.object(placement.object).map_or(&[][..], |it| &it.symbols);
            for symbol in symbols {
                if let Symbol::Other { object, section } = *symbol
                    && let Some(Some(other)) = places.get(&object)
                    && let Some(Some(base)) = other.bases.get(usize::from(section))
                {
                    placement.add_hint((object, section), *base);
                }
            }
        }
        all
    }

    /// The trampolines of all objects that were found: where each is, and where trusted code makes
    /// it lead to.
    pub fn trampolines(&self, deadline: Deadline) -> Vec<(u64, Vec<u64>)> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for placement in self.together(&found) {
            let Some(object) = self.objects.object(placement.object) else { continue };
            for trampoline in &object.trampolines {
                let Some(base) = placement.bases[usize::from(trampoline.section)] else { continue };
                let mut leads = |&(symbol, addend): &(u16, i64)| {
                    let address = self.symbol(&mut found, &placement, object, symbol, deadline)?;
                    Some(self.space.truncated(address.wrapping_add_signed(addend)))
                };
                let functions = trampoline.functions.iter().filter_map(&mut leads).collect();
                all.push((base.wrapping_add(trampoline.offset.into()), functions));
            }
        }
        all
    }

    /// Looks for objects in all of memory where code is.
    fn everywhere(&self, found: &mut Found, deadline: Deadline) {
        for pc in self.space.regions() {
            if deadline.is_over() {
                return;
            }
            let _ = self.at(found, pc, deadline);
        }
    }

    /// Puts a jump, or nothing, at a site into code that begins at `start` of its section, as the
    /// target has it; `None` if it has neither.
    fn jump(&self, placement: &Placement, site: &LoadSite, start: u32, bytes: &mut [u8]) -> Option<()> {
        let own = placement.bases[usize::from(site.section)]?.wrapping_add(site.offset.into());
        let there = self.space.read(own, site.len.into())?;
        if !(lift::is_nop(self.space.code(), &there) || there == self.jump_bytes(placement, site)?) {
            return None;
        }
        for (at, byte) in (site.offset..).zip(there) {
            if let Some(into) = at.checked_sub(start).and_then(|at| bytes.get_mut(at as usize)) {
                *into = byte;
            }
        }
        Some(())
    }

    /// The jump of a site.
    fn jump_bytes(&self, placement: &Placement, site: &LoadSite) -> Option<Vec<u8>> {
        let LoadSiteKind::Jump { section, offset } = site.kind else { return None };
        let own = placement.bases[usize::from(site.section)]?.wrapping_add(site.offset.into());
        let to = (*placement.bases.get(usize::from(section))?)?.wrapping_add(offset.into());
        let distance = to.wrapping_sub(own).wrapping_sub(site.len.into());
        let opcode = if site.len == 2 { 0xeb } else { 0xe9 };
        let mut jump = vec![opcode];
        jump.extend_from_slice(distance.to_le_bytes().get(..usize::from(site.len).checked_sub(1)?)?);
        Some(jump)
    }
}

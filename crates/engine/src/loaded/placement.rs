//! Where an object's sections are in a target.
//!
//! One section of its code is where windows of it were recognised. That it is there is decided by
//! all its bytes that do not depend on where anything is: nine in ten must be the object's, and
//! those that are not are never executed. What its fields name tells where the other sections are:
//! each field that names one says where that begins, and nine in ten must say the same. So it goes
//! on with the code of sections found in this way. A section of code that no field names is looked
//! for between and behind the others.

use std::collections::HashMap;
use std::ops::Range;

use ir::relocatable::{Object, Symbol};

use super::region::{Region, Space};

/// How far behind the first of the others a section may be that no field names.
const NEAR: u64 = 4 << 20;

/// Where an object is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placement {
    /// The object's number.
    pub object: u32,
    /// Where each of its sections begins, if that is known.
    pub bases: Vec<Option<u64>>,
    /// Bytes of its code that are others in the target, by section.
    strange: Vec<Vec<Range<u32>>>,
    /// Where sections of other objects should begin.
    hints: HashMap<(u32, u16), u64>,
}

/// What fields say about where something begins: addresses, and how many fields say so.
type Votes<K> = HashMap<K, HashMap<u64, usize>>;

/// The address that nine in ten fields say.
fn elected(votes: &HashMap<u64, usize>) -> Option<u64> {
    let all: usize = votes.values().sum();
    let (address, count) = votes.iter().max_by_key(|(address, count)| (**count, **address))?;
    (count * 10 >= all * 9).then_some(*address)
}

impl Placement {
    /// An object of which a section seems to begin at an address; `None` if it is not there.
    pub(super) fn find(
        object: &Object,
        number: u32,
        (first, base): (u16, u64),
        space: Space<'_>,
        region: &Region,
    ) -> Option<Self> {
        let count = object.sections.len();
        let mut placed = Self {
            object: number,
            bases: vec![None; count],
            strange: vec![Vec::new(); count],
            hints: HashMap::new(),
        };
        placed.bases[usize::from(first)] = Some(base);
        let found = placed.compare(object, first, space)?;
        placed.strange[usize::from(first)] = found;
        let (mut own, mut others) = (Votes::new(), Votes::new());
        let mut todo = vec![first];
        let mut refused = vec![false; count];
        while let Some(section) = todo.pop() {
            placed.listen(object, section, space, (&mut own, &mut others));
            for number in 0..count as u16 {
                let at = usize::from(number);
                if placed.bases[at].is_some() || refused[at] {
                    continue;
                }
                placed.bases[at] = own.get(&number).and_then(elected);
                if placed.bases[at].is_none() || !object.sections[at].is_code {
                    continue;
                }
                placed.accept(object, number, space, (&mut todo, &mut refused));
            }
            if todo.is_empty() {
                placed.beside(object, space, region, (&mut todo, &mut refused));
            }
        }
        placed.hints = others.iter().filter_map(|(key, votes)| Some((*key, elected(votes)?))).collect();
        for section in 0..count as u16 {
            placed.check_fields(object, section, space);
        }
        Some(placed)
    }

    /// Compares a section that should be where it is said to be, and takes that back if it is not.
    fn accept(
        &mut self,
        object: &Object,
        section: u16,
        space: Space<'_>,
        (todo, refused): (&mut Vec<u16>, &mut [bool]),
    ) {
        match self.compare(object, section, space) {
            Some(strange) => {
                self.strange[usize::from(section)] = strange;
                todo.push(section);
            }
            None => {
                self.bases[usize::from(section)] = None;
                refused[usize::from(section)] = true;
            }
        }
    }

    /// Where the bytes of a section of code are others than the object's; `None` if too many are.
    fn compare(&self, object: &Object, section: u16, space: Space<'_>) -> Option<Vec<Range<u32>>> {
        let part = object.sections.get(usize::from(section))?;
        let base = self.bases[usize::from(section)]?;
        if base % u64::from(part.align) != 0 {
            return None;
        }
        let there = space.read(base, part.code.len())?;
        let fixed = object.fixed(section);
        let (mut strange, mut differing): (Vec<Range<u32>>, usize) = (Vec::new(), 0);
        for (at, ((mine, found), fixed)) in (0u32..).zip(part.code.iter().zip(&there).zip(&fixed)) {
            if mine != found && *fixed {
                differing += 1;
                match strange.last_mut() {
                    Some(last) if last.end == at => last.end += 1,
                    _ => strange.push(at..at + 1),
                }
            }
        }
        let all = fixed.iter().filter(|fixed| **fixed).count();
        (differing * 10 <= all).then_some(strange)
    }

    /// Counts what the fields of a section say about where sections are.
    fn listen(
        &self,
        object: &Object,
        section: u16,
        space: Space<'_>,
        (own, others): (&mut Votes<u16>, &mut Votes<(u32, u16)>),
    ) {
        let Some(fields) = self.fields(object, section, space) else { return };
        for (symbol, _, address) in fields {
            match symbol {
                Symbol::Own(number) => {
                    *own.entry(number).or_default().entry(address).or_default() += 1;
                }
                Symbol::Other { object, section } => {
                    *others.entry((object, section)).or_default().entry(address).or_default() += 1;
                }
                Symbol::System(_) | Symbol::Constant(_) | Symbol::Unknown => {}
            }
        }
    }

    /// The fields of a section: what each names, where it is in the section, and where its symbol
    /// is if the target's bytes are right.
    fn fields(
        &self,
        object: &Object,
        section: u16,
        space: Space<'_>,
    ) -> Option<Vec<(Symbol, Range<u32>, u64)>> {
        let part = object.sections.get(usize::from(section)).filter(|part| part.is_code)?;
        let base = self.bases[usize::from(section)]?;
        let there = space.read(base, part.code.len())?;
        let fields = object.fields_in(section, 0, u32::MAX).iter().filter_map(|field| {
            let end = field.offset + field.form.size() as u32;
            let value = field.form.read(there.get(field.offset as usize..end as usize)?)?;
            let own = base.wrapping_add(field.offset.into());
            let plus = if field.form.is_relative() { own } else { 0 };
            let address = value.wrapping_add(plus).wrapping_sub(field.addend as u64);
            let strange = self.strange_from(section, field.offset) < end;
            let alone = object.load_sites_in(section, field.offset, end).is_empty() && !strange;
            let symbol = *object.symbols.get(usize::from(field.symbol))?;
            alone.then_some((symbol, field.offset..end, space.truncated(address)))
        });
        Some(fields.collect())
    }

    /// Fields that name something else than they should are strange.
    fn check_fields(&mut self, object: &Object, section: u16, space: Space<'_>) {
        let Some(fields) = self.fields(object, section, space) else { return };
        let strange = fields.into_iter().filter_map(|(symbol, range, address)| {
            let right = match symbol {
                Symbol::Own(number) => self.bases[usize::from(number)].is_none_or(|base| base == address),
                Symbol::System(value) => space.moved(value) == address,
                Symbol::Constant(value) => space.truncated(value) == address,
                Symbol::Other { object, section } => self.hint(object, section) == Some(address),
                Symbol::Unknown => true,
            };
            (!right).then_some(range)
        });
        let strange: Vec<Range<u32>> = strange.collect();
        let all = &mut self.strange[usize::from(section)];
        all.extend(strange);
        all.sort_unstable_by_key(|range| range.start);
    }

    /// Looks between and behind the sections that were found for code that no field names.
    fn beside(
        &mut self,
        object: &Object,
        space: Space<'_>,
        region: &Region,
        (todo, refused): (&mut Vec<u16>, &mut [bool]),
    ) {
        let first = self.ranges(object).iter().map(|range| range.start).min();
        let Some(from) = first.and_then(|first| first.checked_sub(region.start)) else { return };
        for section in 0..object.sections.len() as u16 {
            let part = &object.sections[usize::from(section)];
            let known = self.bases[usize::from(section)].is_some() || refused[usize::from(section)];
            if known || part.code.is_empty() {
                continue;
            }
            refused[usize::from(section)] = true;
            let (fixed, taken) = (object.fixed(section), self.ranges(object));
            let is_at = |at: &u64| {
                let here = region.start + at..region.start + at + u64::from(part.size);
                if taken.iter().any(|other| other.start < here.end && here.start < other.end) {
                    return false;
                }
                let there = region.bytes.get(*at as usize..).and_then(|rest| rest.get(..part.code.len()));
                let same = |there: &[u8]| {
                    let both = part.code.iter().zip(there).zip(&fixed);
                    both.into_iter().all(|((mine, there), fixed)| mine == there || !fixed)
                };
                here.start.is_multiple_of(part.align.into()) && there.is_some_and(same)
            };
            if fixed.iter().any(|fixed| *fixed)
                && let Some(at) = (from..from.saturating_add(NEAR)).find(is_at)
            {
                self.bases[usize::from(section)] = Some(region.start + at);
                self.accept(object, section, space, (todo, refused));
            }
        }
    }

    /// Where its code is.
    pub(super) fn ranges(&self, object: &Object) -> Vec<Range<u64>> {
        let code = object.sections.iter().zip(&self.bases).filter(|(part, _)| !part.code.is_empty());
        code.filter_map(|(part, base)| Some((*base)?..(*base)? + u64::from(part.size))).collect()
    }

    /// The section of code that holds an address.
    pub(super) fn section_at(&self, object: &Object, address: u64) -> Option<u16> {
        let sections = (0u16..).zip(object.sections.iter().zip(&self.bases));
        let holds = |(part, base): (&ir::relocatable::Section, &Option<u64>)| {
            part.is_code && base.is_some_and(|base| (base..base + u64::from(part.size)).contains(&address))
        };
        sections.into_iter().find(|(_, it)| holds(*it)).map(|it| it.0)
    }

    /// Where the next byte is in a section, from an offset on, that is another one in the target.
    pub(super) fn strange_from(&self, section: u16, offset: u32) -> u32 {
        let ranges = self.strange.get(usize::from(section)).map_or(&[][..], |ranges| ranges);
        let next = ranges.iter().filter(|range| range.end > offset);
        next.map(|range| range.start.max(offset)).min().unwrap_or(u32::MAX)
    }

    /// Adds where a section of another object is, if no field says it.
    pub(super) fn add_hint(&mut self, section: (u32, u16), base: u64) {
        self.hints.entry(section).or_insert(base);
    }

    /// Where a section of another object should begin.
    pub(super) fn hint(&self, object: u32, section: u16) -> Option<u64> {
        self.hints.get(&(object, section)).copied()
    }
}

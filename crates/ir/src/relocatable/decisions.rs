//! Places of a system's own code where it decides, once, and writes the decision down: a jump or
//! nothing, or two jumps.
//!
//! They are some of the places of its tables (`own.rs`), by themselves and in few pieces of memory:
//! every run over a target asks for them, most look for nothing else of what the system writes.

use serde::{Deserialize, Serialize};

use super::OwnSite;
use crate::varint::{put, take};

/// Places where a system decides, ascending by address.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Decisions {
    places: Vec<Place>,
    /// The forms of all places, one behind the other, each behind its length.
    forms: Vec<u8>,
}

/// The most places of a file: some hundred times as many as a kernel has.
const MOST: usize = 1 << 20;

/// Them as a file has them.
#[derive(Serialize, Deserialize)]
struct Packed {
    /// Three numbers for each place: how far it is behind the one before, how many bytes are
    /// written there, and how many its forms take.
    #[serde(with = "serde_bytes")]
    places: Vec<u8>,
    #[serde(with = "serde_bytes")]
    forms: Vec<u8>,
}

impl From<Decisions> for Packed {
    fn from(Decisions { places: all, forms }: Decisions) -> Self {
        let (mut places, mut last) = (Vec::new(), 0);
        for place in all {
            let taken = place.to.saturating_sub(place.from);
            for number in [place.address.wrapping_sub(last), place.len.into(), taken.into()] {
                put(&mut places, number);
            }
            last = place.address;
        }
        Self { places, forms }
    }
}

impl TryFrom<Packed> for Decisions {
    type Error = &'static str;

    fn try_from(Packed { places: packed, forms }: Packed) -> Result<Self, Self::Error> {
        let (mut rest, mut places) = (&packed[..], Vec::new());
        let (mut address, mut from) = (0u64, 0u32);
        let mut next = |rest: &mut &[u8]| {
            address = address.wrapping_add(take(rest)?);
            let len = take(rest)?.try_into().ok()?;
            let to = from.checked_add(take(rest)?.try_into().ok()?)?;
            let place = Place { address, len, from, to };
            from = to;
            Some(place)
        };
        while !rest.is_empty() {
            if places.len() == MOST {
                return Err("there are too many decisions of the system's code");
            }
            places.push(next(&mut rest).ok_or("decisions of the system's code are malformed")?);
        }
        Ok(Self { places, forms })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    address: u64,
    len: u8,
    /// Where its forms begin, and end.
    from: u32,
    to: u32,
}

/// A place where the system decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision<'d> {
    /// Its address in the training system.
    pub address: u64,
    /// How many bytes are written.
    pub len: u8,
    forms: &'d [u8],
}

impl<'d> Decision<'d> {
    /// Code that may be there, as it is at this address in the training system. What it does not
    /// fill does nothing.
    pub fn forms(self) -> impl Iterator<Item = &'d [u8]> {
        let mut rest = self.forms;
        std::iter::from_fn(move || {
            let (&len, behind) = rest.split_first()?;
            let (form, behind) = behind.split_at_checked(len.into())?;
            rest = behind;
            Some(form)
        })
    }
}

impl Decisions {
    /// Of these places, which ascend, those where at least two forms decide, and differently:
    /// `decision` tells where a form leads.
    #[must_use]
    pub fn of(sites: &[OwnSite], decision: impl Fn(&[u8]) -> Option<i64>) -> Self {
        let mut all = Self::default();
        for site in sites {
            // What a form does not fill is filled up.
            let leads = |form: &Vec<u8>| if form.is_empty() { Some(site.len.into()) } else { decision(form) };
            let deciding: Vec<(i64, &Vec<u8>)> =
                site.forms.iter().filter_map(|form| Some((leads(form)?, form))).collect();
            if deciding.iter().any(|it| it.0 != deciding[0].0) {
                let from = all.forms.len() as u32;
                for (_, form) in deciding {
                    all.forms.push(form.len() as u8);
                    all.forms.extend_from_slice(form);
                }
                let (address, len, to) = (site.address, site.len, all.forms.len() as u32);
                all.places.push(Place { address, len, from, to });
            }
        }
        all
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The places that overlap a range of the system's addresses.
    pub fn in_range(&self, start: u64, end: u64) -> impl Iterator<Item = Decision<'_>> {
        let first = self.places.partition_point(|it| it.address.saturating_add(u8::MAX.into()) < start);
        let near = self.places[first..].iter().take_while(move |it| it.address < end);
        near.filter(move |it| start < it.address.saturating_add(it.len.into())).map(|it| Decision {
            address: it.address,
            len: it.len,
            forms: self.forms.get(it.from as usize..it.to as usize).unwrap_or_default(),
        })
    }

    /// What is wrong with them, if anything is.
    pub(super) fn broken(&self) -> Option<&'static str> {
        let fits = |it: &Place| {
            it.from <= it.to
                && it.to as usize <= self.forms.len()
                && it.address.checked_add(it.len.into()).is_some()
        };
        if !self.places.iter().all(fits) {
            return Some("a decision of the system's code has forms elsewhere");
        }
        let ascend = self.places.is_sorted_by_key(|it| it.address);
        (!ascend).then_some("decisions of the system's code do not ascend")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_with_two_decisions_are_kept() {
        let site = |address, forms: &[&[u8]]| OwnSite {
            address,
            len: 5,
            forms: forms.iter().map(|form| form.to_vec()).collect(),
        };
        let (jump, other, call) = ([0xe9, 1, 0, 0, 0], [0xe9, 2, 0, 0, 0], [0xe8, 1, 0, 0, 0]);
        let sites = [
            site(0x1000, &[&jump, &[]]),
            site(0x1010, &[&call, &[]]),
            site(0x1020, &[&jump, &call, &other]),
            site(0x1030, &[&jump, &jump]),
        ];
        let leads = |form: &[u8]| (form[0] == 0xe9).then(|| i64::from(form[1]) + 5);
        let all = Decisions::of(&sites, leads);
        assert_eq!((all.len(), all.broken()), (2, None));
        let found = |start, end| all.in_range(start, end).map(|it| it.address).collect::<Vec<_>>();
        assert_eq!(found(0, u64::MAX), [0x1000, 0x1020]);
        assert_eq!((found(0x1004, 0x1020), found(0x1005, 0x1020)), (vec![0x1000], vec![]));
        let forms = |at| all.in_range(at, at + 1).flat_map(Decision::forms).collect::<Vec<_>>();
        assert_eq!(forms(0x1000), [&jump[..], &[]]);
        assert_eq!(forms(0x1022), [&jump[..], &other]);
        let packed = Packed::from(all.clone());
        assert!(packed.places.len() < 10);
        assert!(Decisions::try_from(Packed { places: packed.places[..5].to_vec(), forms: vec![] }).is_err());
        assert_eq!(Decisions::try_from(packed), Ok(all));
    }

    #[test]
    fn what_leads_out_or_does_not_ascend_is_broken() {
        let place = |address, from, to| Place { address, len: 5, from, to };
        let broken = |places: &[Place]| {
            let all = Decisions { places: places.to_vec(), forms: vec![0, 9, 0xe9] };
            // Forms that are cut off are none.
            assert!(all.in_range(0, u64::MAX).flat_map(Decision::forms).count() <= 3 * places.len());
            all.broken().is_some()
        };
        assert!(!broken(&[place(0x10, 0, 1), place(0x10, 1, 3)]));
        assert!(broken(&[place(0x11, 0, 1), place(0x10, 1, 3)]));
        assert!(broken(&[place(0x10, 2, 1)]) && broken(&[place(0x10, 1, 4)]));
        assert!(broken(&[place(u64::MAX, 0, 1)]));
    }
}

//! Fixups as companion files have them, and as they are kept in memory: some 75,000 in a kernel,
//! mostly of a few kinds and near each other, so that each takes two or three bytes and is read in
//! nanoseconds.
//!
//! First come the kinds: how many, and for each the
//! size, then 0 for *patched*, or 1 and the two images, each 0 for none or its number plus one, or
//! 2 and the other form.
//! Then the fixups: how many, and for each the distance from the address before and the number of
//! its kind.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::varint::{byte, put, take};

/// How a fixup of machine code changes from boot to boot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FixupKind {
    /// By the slides of these images: one is added, one is taken off.
    Moves {
        /// The image whose slide is added.
        plus: Option<u16>,
        /// The image whose slide is taken off.
        minus: Option<u16>,
    },
    /// The system writes its own value in each boot.
    Patched,
    /// The system writes one of two forms, both of which training saw in this place: the target's
    /// is taken if it is the other one.
    Either {
        /// The form that the first training boot did not have.
        other: u64,
    },
}

/// Bytes of machine code that are others in another boot: a little-endian number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Fixup {
    /// Its address in the training system.
    pub addr: u64,
    /// Bytes, at most 8.
    pub size: u8,
    /// What happens to it.
    pub kind: FixupKind,
}

/// Where every so many-th fixup is remembered: who looks for one reads no more than those before.
const SPACING: usize = 16;

/// Fixups, ascending by address.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<Fixup>", into = "Vec<Fixup>")]
pub struct Fixups {
    /// All of them, packed; equal ones have equal bytes.
    bytes: Vec<u8>,
    count: usize,
    /// Sizes and kinds, by number.
    kinds: Vec<(u8, FixupKind)>,
    /// Where every [`SPACING`]-th fixup is.
    places: Vec<Place>,
    ascend: bool,
    /// The last one's address; 0 if there is none.
    last: u64,
}

/// Where a fixup is among the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Place {
    /// The address of the fixup before; 0 for the first.
    last: u64,
    at: usize,
}

/// Fixups one after the other.
#[derive(Clone, Debug)]
pub struct Iter<'f> {
    rest: &'f [u8],
    kinds: &'f [(u8, FixupKind)],
    addr: u64,
}

impl Iterator for Iter<'_> {
    type Item = Fixup;

    #[inline]
    fn next(&mut self) -> Option<Fixup> {
        // Nothing of it is malformed.
        self.addr = self.addr.wrapping_add(take(&mut self.rest)?);
        let (size, kind) = *self.kinds.get(take(&mut self.rest)? as usize)?;
        Some(Fixup { addr: self.addr, size, kind })
    }
}

impl Default for Fixups {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<Fixup>> for Fixups {
    fn from(fixups: Vec<Fixup>) -> Self {
        // What is packed here is well formed.
        Self::unpack(pack(&fixups), usize::MAX).unwrap_or_else(|| Self {
            bytes: Vec::new(),
            count: 0,
            kinds: Vec::new(),
            places: Vec::new(),
            ascend: true,
            last: 0,
        })
    }
}

impl From<Fixups> for Vec<Fixup> {
    fn from(fixups: Fixups) -> Self {
        fixups.iter().collect()
    }
}

impl Fixups {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        self.behind(self.places.first())
    }

    fn behind(&self, place: Option<&Place>) -> Iter<'_> {
        let Place { last, at } = place.copied().unwrap_or(Place { last: 0, at: self.bytes.len() });
        Iter { rest: &self.bytes[at..], kinds: &self.kinds, addr: last }
    }

    /// Those that lie in, or reach into, a range of addresses.
    pub fn in_range(&self, start: u64, end: u64) -> impl Iterator<Item = Fixup> + Clone {
        let reaches = move |fixup: &Fixup| fixup.addr.saturating_add(fixup.size.into()) > start;
        // The fixup before a place may reach in, those before that one too.
        let first = self.places.partition_point(|it| it.last.saturating_add(u8::MAX.into()) <= start);
        let near = self.behind(self.places.get(first.saturating_sub(1)));
        near.skip_while(move |fixup| !reaches(fixup)).take_while(move |fixup| fixup.addr < end)
    }

    /// Whether each has a higher address than the one before.
    pub(crate) const fn ascend(&self) -> bool {
        self.ascend
    }

    /// The last one's address.
    pub(crate) fn last(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.last)
    }

    /// The sizes and kinds that there are.
    pub(crate) fn kinds(&self) -> &[(u8, FixupKind)] {
        &self.kinds
    }

    /// Them packed, as a file has them.
    pub(crate) fn packed(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads packed fixups that take at most `most` bytes of memory; `None` if they are malformed
    /// or more.
    pub(crate) fn unpack(bytes: Vec<u8>, most: usize) -> Option<Self> {
        let mut rest = &bytes[..];
        let from = &mut rest;
        let kinds = kinds(from, most)?;
        let count = usize::try_from(take(from)?).ok()?;
        // Each takes two bytes at least.
        if count > from.len() / 2 || count / SPACING * size_of::<Place>() > most {
            return None;
        }
        let mut places = Vec::with_capacity(count.div_ceil(SPACING));
        let (mut last, mut ascend) = (0u64, true);
        for number in 0..count {
            if number % SPACING == 0 {
                places.push(Place { last, at: bytes.len() - from.len() });
            }
            let addr = last.wrapping_add(take(from)?);
            kinds.get(usize::try_from(take(from)?).ok()?)?;
            ascend &= number == 0 || last < addr;
            last = addr;
        }
        from.is_empty().then_some(())?;
        Some(Self { bytes, count, kinds, places, ascend, last })
    }
}

/// Packs fixups; equal ones have equal bytes.
fn pack(fixups: &[Fixup]) -> Vec<u8> {
    let mut numbers: HashMap<(u8, FixupKind), u64> = HashMap::new();
    let (mut kinds, mut body, mut last) = (Vec::new(), Vec::new(), 0u64);
    for fixup in fixups {
        let next = numbers.len() as u64;
        let kind = *numbers.entry((fixup.size, fixup.kind)).or_insert_with(|| {
            kinds.push(fixup.size);
            match fixup.kind {
                FixupKind::Patched => kinds.push(0),
                FixupKind::Either { other } => {
                    kinds.push(2);
                    put(&mut kinds, other);
                }
                FixupKind::Moves { plus, minus } => {
                    kinds.push(1);
                    let image = |image: Option<u16>| image.map_or(0, |image| u64::from(image) + 1);
                    put(&mut kinds, image(plus));
                    put(&mut kinds, image(minus));
                }
            }
            next
        });
        put(&mut body, fixup.addr.wrapping_sub(last));
        put(&mut body, kind);
        last = fixup.addr;
    }
    let mut bytes = Vec::new();
    put(&mut bytes, numbers.len() as u64);
    bytes.extend_from_slice(&kinds);
    put(&mut bytes, fixups.len() as u64);
    bytes.extend_from_slice(&body);
    bytes
}

/// The kinds at the beginning of packed fixups.
fn kinds(from: &mut &[u8], most: usize) -> Option<Vec<(u8, FixupKind)>> {
    let mut kinds = Vec::new();
    for _ in 0..take(from)? {
        let size = byte(from)?;
        let kind = match byte(from)? {
            0 => FixupKind::Patched,
            1 => {
                let mut image = || {
                    let number = take(from)?;
                    number.checked_sub(1).map(u16::try_from).transpose().ok()
                };
                FixupKind::Moves { plus: image()?, minus: image()? }
            }
            2 => FixupKind::Either { other: take(from)? },
            _ => return None,
        };
        kinds.push((size, kind));
        if kinds.len() * size_of::<(u8, FixupKind)>() > most {
            return None;
        }
    }
    Some(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixups_come_back_and_nothing_else_does() {
        let moves = |plus, minus| FixupKind::Moves { plus, minus };
        let fixups = vec![
            Fixup { addr: 0xffff_ffff_8100_0001, size: 4, kind: moves(Some(0), None) },
            Fixup { addr: 0xffff_ffff_8100_0009, size: 8, kind: moves(Some(u16::MAX), Some(3)) },
            Fixup { addr: 0xffff_ffff_8100_0100, size: 4, kind: moves(Some(0), None) },
            Fixup { addr: 0xffff_ffff_8100_0200, size: 5, kind: FixupKind::Either { other: 0x44_1f0f } },
            Fixup { addr: u64::MAX, size: 1, kind: FixupKind::Patched },
        ];
        let bytes = pack(&fixups);
        let there = Fixups::unpack(bytes.clone(), 1 << 20).unwrap();
        assert_eq!((Vec::from(there.clone()), there.len(), there.ascend()), (fixups.clone(), 5, true));
        assert_eq!((there.packed(), &there), (&bytes[..], &Fixups::from(fixups)));
        assert_eq!(Fixups::unpack(bytes.clone(), 4 * size_of::<(u8, FixupKind)>() - 1), None, "a budget");
        assert_eq!(Fixups::unpack(pack(&[]), 0), Some(Fixups::default()));
        assert!((0..bytes.len()).all(|end| Fixups::unpack(bytes[..end].to_vec(), 1 << 20).is_none()));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Fixups::unpack(longer, 1 << 20), None);
        // A count that the bytes cannot have allocates nothing.
        assert_eq!(Fixups::unpack(vec![0, 0xff, 0xff, 0xff, 0xff, 0x0f], usize::MAX), None);
    }

    #[test]
    fn those_in_a_range_are_found() {
        let size = |at: u64| 1 + (at % 8) as u8;
        let kind = |at: u64| FixupKind::Either { other: at % 5 };
        let all: Vec<Fixup> = (0..200)
            .map(|at| Fixup { addr: 1000 + at * at / 7 * 9, size: size(at), kind: kind(at) })
            .collect();
        let there: Fixups = all.iter().copied().filter(|it| it.addr > 1000).collect::<Vec<_>>().into();
        assert!(there.ascend());
        for start in (900..53_000).step_by(7) {
            for end in [start, start + 1, start + 16, start + 3000, u64::MAX] {
                let within = |it: &&Fixup| it.addr + u64::from(it.size) > start && it.addr < end;
                let expected: Vec<Fixup> =
                    all.iter().filter(|it| it.addr > 1000).filter(within).copied().collect();
                assert_eq!(there.in_range(start, end).collect::<Vec<_>>(), expected, "{start} to {end}");
            }
        }
        let twice = vec![all[9], all[9]];
        assert!(!Fixups::from(twice).ascend());
        assert_eq!(Fixups::default().in_range(0, u64::MAX).count(), 0);
    }
}

//! Fixups as companion files have them: some 75,000 in a kernel, mostly of a few kinds and near
//! each other, so that each takes two or three bytes and is read in nanoseconds.
//!
//! Numbers are little-endian base 128 (as in postcard). First the kinds: how many, and for each the
//! size, then 0 for *patched*, or 1 and the two images, each 0 for none or its number plus one, or
//! 2 and the other form.
//! Then the fixups: how many, and for each the distance from the address before and the number of
//! its kind.

use std::collections::HashMap;

use crate::relocation::{Fixup, FixupKind};

/// Packs fixups; equal ones have equal bytes.
pub(crate) fn pack(fixups: &[Fixup]) -> Vec<u8> {
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

/// Unpacks fixups that take at most `most` bytes of memory; `None` if they are malformed or more.
pub(crate) fn unpack(mut bytes: &[u8], most: usize) -> Option<Vec<Fixup>> {
    let from = &mut bytes;
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
    let count = usize::try_from(take(from)?).ok()?;
    // Each takes two bytes at least.
    if count > from.len() / 2 || count.checked_mul(size_of::<Fixup>())? > most {
        return None;
    }
    let mut fixups = Vec::with_capacity(count);
    let mut addr = 0u64;
    for _ in 0..count {
        addr = addr.wrapping_add(take(from)?);
        let (size, kind) = *kinds.get(usize::try_from(take(from)?).ok()?)?;
        fixups.push(Fixup { addr, size, kind });
    }
    from.is_empty().then_some(fixups)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[inline]
fn byte(from: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = from.split_first()?;
    *from = rest;
    Some(first)
}

#[inline]
fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(from)?;
        if shift == 63 && next > 1 {
            return None;
        }
        number |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(number);
        }
    }
    None
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
        assert_eq!(unpack(&bytes, 1 << 20), Some(fixups.clone()));
        assert_eq!(unpack(&bytes, fixups.len() * size_of::<Fixup>() - 1), None, "a budget");
        assert_eq!(unpack(&pack(&[]), 0), Some(Vec::new()));
        assert!((0..bytes.len()).all(|end| unpack(&bytes[..end], 1 << 20).is_none()));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(unpack(&longer, 1 << 20), None);
        // A count that the bytes cannot have allocates nothing.
        assert_eq!(unpack(&[0, 0xff, 0xff, 0xff, 0xff, 0x0f], usize::MAX), None);
    }
}

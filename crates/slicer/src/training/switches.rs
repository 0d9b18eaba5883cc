//! Places where two boots show a jump and nothing, or two jumps: which of them the system takes is
//! a part of its state.
//!
//! Systems decide in this way by what the processor has and by settings, and write the decision
//! into their code when they boot, instead of looking it up each time. Where a target has the other
//! boot's form, that one is executed: both are trusted. Other code that boots show to differ does
//! the same for one processor or another, and stays training's.

use ir::relocation::{Fixup, FixupKind, RelocationTable};
use ir::{Integrity, System};
use lift::Mode;

/// Lengths of what is written: that of a jump far away, and that of one nearby.
const LENGTHS: [usize; 2] = [5, 2];

/// Adds these places to what moves of a system's code.
pub fn add(mode: Mode, system: &System, integrity: &Integrity, table: &mut RelocationTable) {
    let mut found = Vec::new();
    for variant in &integrity.variants {
        let mine: Option<Vec<u8>> = (0..variant.bytes.len() as u64)
            .map(|at| {
                let address = variant.addr.wrapping_add(at);
                system.page(address & !4095)?.get((address & 4095) as usize).copied()
            })
            .collect();
        // Data has no pages there.
        let Some(mine) = mine else { continue };
        switches(mode, variant.addr, &mine, &variant.bytes, &mut found);
    }
    // What moves or is a value in such a place is known better.
    found.retain(|fixup| table.fixups_in(fixup.addr, fixup.addr + u64::from(fixup.size)).next().is_none());
    found.extend(table.fixups.iter());
    found.sort_by_key(|fixup| fixup.addr);
    table.fixups = found.into();
}

/// The places in code at an address, of which the other boot has another form.
fn switches(mode: Mode, start: u64, mine: &[u8], theirs: &[u8], found: &mut Vec<Fixup>) {
    let mut at = 0;
    while at < mine.len() {
        let is_switch = |length: &usize| {
            let range = at..at + length;
            let (Some(mine), Some(theirs)) = (mine.get(range.clone()), theirs.get(range)) else {
                return false;
            };
            let decides = |bytes: &[u8]| lift::decision(mode, bytes).is_some();
            mine != theirs && decides(mine) && decides(theirs)
        };
        match LENGTHS.into_iter().find(is_switch) {
            Some(length) => {
                let mut other = [0; 8];
                other[..length].copy_from_slice(&theirs[at..at + length]);
                let kind = FixupKind::Either { other: u64::from_le_bytes(other) };
                found.push(Fixup { addr: start.wrapping_add(at as u64), size: length as u8, kind });
                at += length;
            }
            None => at += lift::length(mode, &mine[at..]).unwrap_or(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What differs between these bytes that two boots decide about: offset, and the other's form.
    fn found(mine: &[u8], theirs: &[u8]) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        switches(Mode::Bits64, 0x1000, mine, theirs, &mut found);
        let either = |fixup: &Fixup| match fixup.kind {
            FixupKind::Either { other } => (fixup.addr - 0x1000, other),
            _ => panic!("{fixup:?}"),
        };
        found.iter().map(either).collect()
    }

    #[test]
    fn a_jump_and_nothing_are_a_decision_and_other_instructions_are_not() {
        let (nop, jump, short) = ([0x0f, 0x1f, 0x44, 0, 0], [0xe9, 1, 2, 3, 4], [0xeb, 7, 0x0f, 0x1f, 0]);
        assert_eq!(found(&nop, &jump), [(0, 0x4_0302_01e9)]);
        assert_eq!(found(&short, &nop), [(0, 0x44_1f0f)]);
        assert_eq!(found(&jump, &short), [(0, 0x1f0f_07eb)]);
        assert_eq!(found(&[0x66, 0x90], &[0xeb, 0x10]), [(0, 0x10eb)]);
        // Linux 6.12 fills up with breakpoints.
        assert_eq!(found(&[0xeb, 0x37, 0xcc, 0xcc, 0xcc], &nop), [(0, 0x44_1f0f)]);
        assert_eq!(found(&nop, &[0xeb, 0x37, 0xcc, 0xcc, 0xcc]), [(0, 0xcc_cccc_37eb)]);
        assert_eq!(found(&nop, &[0xeb, 0x37, 0x31, 0xc0, 0xcc]), [], "that may be jumped to");
        // A call, and one that sets flags.
        assert_eq!(found(&nop, &[0xe8, 1, 2, 3, 4]), []);
        assert_eq!(found(&nop, &[0x0f, 0x01, 0xcb, 0x90, 0x90]), []);
        // Behind an instruction that differs otherwise.
        let (mine, theirs) = ([&[0x31, 0xc0][..], &nop].concat(), [&[0x33, 0xc0][..], &jump].concat());
        assert_eq!(found(&mine, &theirs), [(2, 0x4_0302_01e9)]);
    }
}

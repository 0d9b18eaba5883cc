//! What per-CPU memory holds while the processor idles.
//!
//! Code finds "the running process" through cells at a fixed distance from a segment base. While a
//! processor halts they name the idle context, which is the same at every halt. This module looks
//! at a few halts and keeps the cells that hold the same pointer into the kernel's image at each;
//! which of them matter is decided later, from what a recording reads.
//!
//! 64-bit systems have their area right above the base. In 32-bit code any distance can be part of
//! an instruction, and a base may wrap around the address space: there the pages are looked at that
//! some instruction names.

use std::collections::{BTreeMap, BTreeSet};

use machine::{PAGE_SIZE, Reg};
use trace::IdleCell;

/// How far from a segment base cells are looked for: per-CPU areas are smaller.
const REACH: u64 = 256 << 10;
/// How far from the halting instruction an address may lie and count as one of the kernel's image.
const IMAGE: u64 = 1 << 30;
/// Halts looked at; a page walk for each page of the area would slow an idling guest down
/// otherwise.
const MAX_LOOKS: u32 = 12;
/// Pages that instructions may name.
const MAX_PAGES: usize = 256;

/// The cells that all halts looked at agree on.
#[derive(Default, Debug)]
pub struct IdleCells {
    bases: Vec<(Reg, u64)>,
    cells: BTreeMap<(Reg, u32), u64>,
    halts: u32,
    looks: u32,
    /// Bits of an address in the code that halts.
    bits: u8,
    named: BTreeSet<u32>,
    /// How often each area was looked at, by its distance from the base: pages may be named when
    /// others have been looked at already.
    looked: BTreeMap<u32, u32>,
}

/// The area that holds a distance in code with addresses of `bits`.
const fn area_of(offset: u32, bits: u8) -> u32 {
    if bits == 64 { 0 } else { offset & !(PAGE_SIZE as u32 - 1) }
}

impl IdleCells {
    /// An instruction has an operand in a segment at this distance from its base.
    pub fn names(&mut self, offset: u32) {
        if self.named.len() < MAX_PAGES {
            self.named.insert(area_of(offset, 32));
        }
    }

    /// The processor halts at `pc` in code with addresses of `bits`; `bases` are its segment bases,
    /// `read` reads memory.
    pub fn halt(&mut self, pc: u64, bits: u8, bases: &[(Reg, u64)], read: impl Fn(u64) -> Option<Vec<u8>>) {
        if self.bases != bases {
            // Early code has no or another per-CPU area.
            *self = Self { bases: bases.to_vec(), named: std::mem::take(&mut self.named), ..Self::default() };
        }
        self.halts += 1;
        // Ever further apart, so that what only stands still for a moment is not taken for a
        // constant.
        if !self.halts.is_power_of_two() || self.looks >= MAX_LOOKS {
            return;
        }
        self.looks += 1;
        let mut now = BTreeMap::new();
        let area = |&page: &u32| (u64::from(page), u64::from(page) + PAGE_SIZE);
        let areas: Vec<(u64, u64)> =
            if bits == 64 { vec![(0, REACH)] } else { self.named.iter().map(area).collect() };
        for &(reg, base) in bases {
            for &(mut at, end) in &areas {
                // An area may begin amid a page of the address space.
                while at < end
                    && let Some(next) = look(&mut now, (reg, base), at, pc, bits, &read)
                {
                    at = next;
                }
            }
        }
        if bits != 64 {
            // What lies behind a named page belongs to the next one, which may not be named.
            now.retain(|cell, _| self.named.contains(&area_of(cell.1, bits)));
        }
        self.bits = bits;
        self.cells.retain(|cell, value| now.get(cell) == Some(value));
        let looked = &self.looked;
        self.cells.extend(now.into_iter().filter(|(cell, _)| !looked.contains_key(&area_of(cell.1, bits))));
        for (area, _) in areas {
            *self.looked.entry(area as u32).or_default() += 1;
        }
    }

    /// The cells of which at least two halts were looked at.
    pub fn cells(&self) -> Vec<IdleCell> {
        let twice = |offset| self.looked.get(&area_of(offset, self.bits)).is_some_and(|&looks| looks > 1);
        let cells = self.cells.iter().filter(|(cell, _)| twice(cell.1));
        cells.map(|(&(base, offset), &value)| IdleCell { base, offset, value }).collect()
    }
}

/// Looks from the distance `at` to the end of the page there; where that is.
fn look(
    cells: &mut BTreeMap<(Reg, u32), u64>,
    (reg, base): (Reg, u64),
    at: u64,
    pc: u64,
    bits: u8,
    read: &impl Fn(u64) -> Option<Vec<u8>>,
) -> Option<u64> {
    let width = usize::from(bits / 8);
    let address = base.wrapping_add(at) & (u64::MAX >> (64 - bits));
    let in_page = PAGE_SIZE - address % PAGE_SIZE;
    let bytes = read(address).filter(|bytes| bytes.len() as u64 == in_page)?;
    for (index, cell) in bytes.windows(width).enumerate().step_by(4) {
        let value = cell.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        if value.abs_diff(pc) < IMAGE {
            cells.insert((reg, (at + index as u64) as u32), value);
        }
    }
    Some(at + in_page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_8880_0000_0000;
    const PC: u64 = 0xffff_ffff_8100_0000;

    fn memory(cells: &[(u64, u64)]) -> impl Fn(u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 8192];
        for &(at, value) in cells {
            bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        }
        move |address| {
            let at = address.checked_sub(BASE)? as usize;
            bytes.get(at..(at / 4096 + 1) * 4096).map(<[u8]>::to_vec)
        }
    }

    #[test]
    fn what_all_halts_agree_on_is_kept() {
        let mut idle = IdleCells::default();
        let bases = [(Reg::GsBase, BASE)];
        let (task, stack) = (PC + 0x1000, PC + 0x2000);
        idle.halt(PC, 64, &bases, memory(&[(8, task), (20, stack), (4096, PC), (64, 5)]));
        assert!(idle.cells().is_empty(), "one halt says nothing");
        idle.halt(PC, 64, &bases, memory(&[(8, task), (20, stack), (4096, PC + 8), (64, 5)]));
        let cell = |offset, value| IdleCell { base: Reg::GsBase, offset, value };
        assert_eq!(idle.cells(), [cell(8, task), cell(20, stack)]);
        idle.halt(PC, 64, &bases, memory(&[]));
        assert_eq!(idle.cells().len(), 2, "the third halt is not looked at");
        idle.halt(PC, 64, &[(Reg::GsBase, BASE + 4096)], memory(&[]));
        assert!(idle.cells().is_empty(), "another area begins anew");
    }
    #[test]
    fn in_32_bit_code_the_pages_that_instructions_name_are_looked_at() {
        const NARROW: u64 = 0xc100_0000;
        // 0x4fff_f000 + 0xc000_1000 wraps around to 0x1000_0000.
        let base = 0x4fff_f000;
        let read = |address: u64| {
            let mut bytes = vec![0; 4096];
            bytes[8..12].copy_from_slice(&(NARROW as u32 + 0x40).to_le_bytes());
            (address == 0x1000_0000).then_some(bytes)
        };
        let mut idle = IdleCells::default();
        for _ in 0..2 {
            idle.halt(NARROW, 32, &[(Reg::FsBase, base)], read);
        }
        assert!(idle.cells().is_empty(), "nothing is named");
        let mut idle = IdleCells::default();
        idle.names(0xc000_1234);
        for _ in 0..2 {
            idle.halt(NARROW, 32, &[(Reg::FsBase, base)], read);
        }
        let cell = |offset| IdleCell { base: Reg::FsBase, offset, value: NARROW + 0x40 };
        assert_eq!(idle.cells(), [cell(0xc000_1008)]);
        // Code that names another page may run for the first time after a halt.
        let read = |address: u64| read(0x1000_0000).filter(|_| address >> 16 == 0x1000);
        idle.names(0xc000_2234);
        for _ in 2..4 {
            idle.halt(NARROW, 32, &[(Reg::FsBase, base)], read);
        }
        assert_eq!(idle.cells(), [cell(0xc000_1008)], "one halt says nothing");
        for _ in 4..8 {
            idle.halt(NARROW, 32, &[(Reg::FsBase, base)], read);
        }
        assert_eq!(idle.cells(), [cell(0xc000_1008), cell(0xc000_2008)]);
    }
}

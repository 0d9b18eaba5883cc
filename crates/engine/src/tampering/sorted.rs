//! Tables of a module that are sorted by address when it is loaded.
//!
//! Such a table also names code that is freed after the module has begun, and that lies elsewhere
//! in every boot: below the module's own code in one, above it in another. So its entries move up
//! or down by as many, though nothing of it is another. The table is the same if it is sorted, what
//! names the module or the kernel stands in the same order, and all that was freed moved alike. A
//! table of records, one for each entry, directly in front of it is sorted with it.

use std::ops::Range;

/// The fewest entries of a table: fewer may be in order by chance.
const FEWEST: usize = 8;
/// How many entries at either end may belong to something else that looks like them.
const EDGE: usize = 4;
/// Bytes of the records that are sorted with a table: those of unwinding tables.
const RECORD: usize = 6;

/// Both copies of a module's data.
pub struct Data<'d> {
    /// Where the training system and the target have it.
    pub at: [u64; 2],
    /// The bytes of both.
    pub bytes: [&'d [u8]; 2],
    /// Bytes of an address.
    pub word: usize,
    /// The target's address of something of the module or the kernel.
    pub moved: &'d dyn Fn(u64) -> Option<u64>,
    /// Whether an address of the training system may be one of memory that was freed.
    pub freed: &'d dyn Fn(u64) -> bool,
}

/// How the entries of a table name addresses.
#[derive(Clone, Copy)]
struct Entries {
    size: usize,
    /// Whether they count from where they stand.
    relative: bool,
}

impl Data<'_> {
    /// Whether each byte belongs to such a table that is the same in both.
    pub fn same(&self) -> Vec<bool> {
        let mut same = vec![false; self.bytes[0].len()];
        let absolute = Entries { size: self.word, relative: false };
        for entries in [absolute, Entries { size: 4, relative: true }] {
            for offset in 0..entries.size {
                for table in self.tables(entries, offset) {
                    self.add(entries, &table, &mut same);
                }
            }
        }
        same
    }

    /// The address that an entry at an offset has, in the training system's copy or the target's.
    fn entry(&self, entries: Entries, copy: usize, offset: usize) -> Option<u64> {
        let bytes = self.bytes[copy].get(offset..offset + entries.size)?;
        let value = ir::integrity::number(bytes);
        let here = self.at[copy].wrapping_add(offset as u64);
        Some(if entries.relative { here.wrapping_add_signed((value as u32 as i32).into()) } else { value })
    }

    /// Where entries follow each other that name the module, or what was freed, in order.
    fn tables(&self, entries: Entries, offset: usize) -> Vec<Range<usize>> {
        let (mut found, mut last): (Vec<Range<usize>>, u64) = (Vec::new(), 0);
        let mut next = offset;
        while let Some(address) = self.entry(entries, 0, next) {
            let is_one = (self.moved)(address).is_some() || (self.freed)(address);
            match found.last_mut() {
                Some(table) if is_one && table.end == next && last <= address => table.end += entries.size,
                _ if is_one => found.push(next..next + entries.size),
                _ => {}
            }
            last = address;
            next += entries.size;
        }
        let differs = |table: &Range<usize>| self.bytes[0][table.clone()] != self.bytes[1][table.clone()];
        found.retain(|table| table.len() >= FEWEST * entries.size && differs(table));
        found
    }

    /// Notes a table that is the same, and the records in front of it.
    fn add(&self, entries: Entries, table: &Range<usize>, same: &mut [bool]) {
        let trimmed = (0..EDGE * EDGE).map(|trim| {
            let (before, behind) = (trim % EDGE * entries.size, trim / EDGE * entries.size);
            table.start + before..table.end.saturating_sub(behind)
        });
        let mut parts = trimmed.filter(|part| part.len() >= FEWEST * entries.size);
        let Some((part, order)) = parts.find_map(|part| Some((part.clone(), self.order(entries, &part)?)))
        else {
            return;
        };
        same[part.clone()].fill(true);
        let Some(start) = part.start.checked_sub(order.len() * RECORD) else { return };
        let record = |copy: usize, number: usize| {
            let from = start + number * RECORD;
            &self.bytes[copy][from..from + RECORD]
        };
        if order.iter().enumerate().all(|(now, before)| record(1, now) == record(0, *before)) {
            same[start..part.start].fill(true);
        }
    }

    /// For each entry of the target's table its number in training's, if it is the same table.
    fn order(&self, entries: Entries, table: &Range<usize>) -> Option<Vec<usize>> {
        let list = |copy: usize| -> Option<Vec<u64>> {
            table.clone().step_by(entries.size).map(|at| self.entry(entries, copy, at)).collect()
        };
        let (trained, there) = (list(0)?, list(1)?);
        let (mut kept, mut freed) = (Vec::new(), Vec::new());
        for (number, &address) in trained.iter().enumerate() {
            match (self.moved)(address) {
                Some(new) => kept.push((number, new)),
                None => freed.push((number, address)),
            }
        }
        let (mut kept, mut freed) = (kept.into_iter().peekable(), freed.into_iter());
        let (mut order, mut distance) = (Vec::new(), None);
        for &address in &there {
            if let Some((number, _)) = kept.next_if(|it| it.1 == address) {
                order.push(number);
                continue;
            }
            let (number, before) = freed.next()?;
            let moved = address.wrapping_sub(before);
            if !moved.is_multiple_of(machine::PAGE_SIZE) || *distance.get_or_insert(moved) != moved {
                return None;
            }
            order.push(number);
        }
        there.is_sorted().then_some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u64 = 0xffff_ffff_c020_0000;
    const DATA: u64 = TEXT + 0x4000;
    /// What was freed lay behind the module in training, and lies before it in the target.
    const FREED: [u64; 2] = [TEXT + 0x10_0000, TEXT - 0x2_0000];
    const SLIDE: u64 = 0x3_0000;

    fn functions(copy: usize) -> Vec<u64> {
        let slide = if copy == 0 { 0 } else { SLIDE };
        let mut all: Vec<u64> = (0..20).map(|at| TEXT + slide + at * 0x50).collect();
        all.extend([0, 0x30].map(|at| FREED[copy] + at));
        all.sort_unstable();
        all
    }

    /// What a record says of a function: the same wherever it lies.
    fn record(copy: usize, function: u64) -> [u8; RECORD] {
        let base = [FREED[copy], if copy == 0 { TEXT } else { TEXT + SLIDE }];
        let at = base.iter().map(|base| function.wrapping_sub(*base)).min().unwrap_or(0);
        [at as u8, (at >> 8) as u8, 7, 5, at as u8 ^ 0x5a, 1]
    }

    /// Records and distances of functions, addresses of them at an odd place, and something else.
    fn data(copy: usize) -> Vec<u8> {
        let functions = functions(copy);
        let mut data = vec![0x77; 10];
        functions.iter().for_each(|it| data.extend(record(copy, *it)));
        for function in &functions {
            let here = DATA + if copy == 0 { 0 } else { SLIDE } + data.len() as u64;
            data.extend((function.wrapping_sub(here) as u32).to_le_bytes());
        }
        data.extend([0x77; 9]);
        functions.iter().for_each(|it| data.extend(it.to_le_bytes()));
        data.extend([0x77; 9]);
        data
    }

    /// Which bytes differ and are in no table that is the same.
    fn others(target: &[u8]) -> Vec<usize> {
        let trained = data(0);
        let inside = |address: u64| (TEXT..TEXT + 0x5000).contains(&address);
        let data = Data {
            at: [DATA, DATA + SLIDE],
            bytes: [&trained, target],
            word: 8,
            moved: &|address| inside(address).then(|| address + SLIDE),
            freed: &|address| address.abs_diff(DATA) < 64 << 20 && !inside(address),
        };
        let same = data.same();
        (0..target.len()).filter(|at| trained[*at] != target[*at] && !same[*at]).collect()
    }

    #[test]
    fn a_table_that_is_sorted_anew_is_the_same() {
        let target = data(1);
        assert!(target.iter().zip(data(0)).filter(|(a, b)| **a != *b).count() > 100);
        assert_eq!(others(&target), [0; 0]);
    }

    #[test]
    fn what_it_names_must_be_the_same() {
        let functions = functions(1).len();
        let records = 10;
        let distances = records + functions * RECORD;
        let addresses = distances + functions * 4 + 9;
        let changed = |at: usize, by: u8| {
            let mut target = data(1);
            target[at] ^= by;
            others(&target)
        };
        // A function that another one stands for, one that was freed, a record, a distance.
        assert!(!changed(addresses + 8 * 10, 0x10).is_empty());
        assert!(!changed(addresses, 0x10).is_empty());
        assert!(!changed(records + 7, 0x10).is_empty());
        assert!(!changed(distances + 4 * 10, 0x10).is_empty());
        // Two that were exchanged.
        let mut target = data(1);
        let (a, b) = (addresses + 8 * 10, addresses + 8 * 11);
        (0..8).for_each(|at| target.swap(a + at, b + at));
        assert!(!others(&target).is_empty());
    }
}

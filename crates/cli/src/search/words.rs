//! The words of the target that a whole run reads: what the search may change.
//!
//! The run's own pages, and what it wrote itself before it read it, are none. Nor are words across
//! two pages, of which there are few.

use std::collections::BTreeMap;

use engine::{Seen, Watch};
use machine::{GuestMemory, PAGE_SIZE, PhysAddr, Reg, hash};

/// A word that a run read from the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// Guest-physical address.
    pub paddr: PhysAddr,
    /// Linear address, in the target.
    pub address: u64,
    /// Bytes: 1 to 8.
    pub size: u8,
    /// What the target has there.
    pub value: u64,
    /// The instruction that read it first.
    pub by: u64,
    /// How often it was read.
    pub reads: u64,
}

impl Word {
    /// The bits that the word has.
    pub const fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.size as u32)
    }

    /// Whether both have a byte in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.paddr.0, other.paddr.0);
        a < b + other.size as u64 && b < a + self.size as u64
    }
}

/// Collects the words while a whole run is watched.
#[derive(Default)]
pub struct Reader {
    by: u64,
    words: BTreeMap<(u64, u8), Word>,
    /// Bytes that the run wrote: a bit for each of the eight in a word.
    written: hash::Map<u64, u8>,
    /// Pages of linear addresses, in the target, that it read.
    pages: hash::Set<u64>,
}

impl Reader {
    /// Whether the run wrote one of these bytes.
    fn wrote(&self, seen: &Seen) -> bool {
        seen.bytes().any(|at| self.written.get(&(at >> 3)).is_some_and(|bits| bits >> (at & 7) & 1 == 1))
    }
}

impl Watch for Reader {
    const ON: bool = true;

    fn insn(&mut self, pc: u64, _: lift::Mode, _: &[u8]) {
        self.by = pc;
    }

    fn access(&mut self, seen: Seen) {
        if seen.is_process() {
            return;
        }
        if seen.store {
            for at in seen.bytes() {
                *self.written.entry(at >> 3).or_default() |= 1 << (at & 7);
            }
            return;
        }
        self.pages.insert(seen.vaddr & !(PAGE_SIZE - 1));
        if seen.next_page.is_some() || !(1..=8).contains(&seen.size) || self.wrote(&seen) {
            return;
        }
        let word = Word {
            paddr: PhysAddr(seen.paddr),
            address: seen.vaddr,
            size: seen.size,
            value: seen.value,
            by: self.by,
            reads: 0,
        };
        self.words.entry((seen.paddr, seen.size)).or_insert(word).reads += 1;
    }

    fn registers(&mut self, _: &[(Reg, u64); 16]) {}
}

/// All words, and what they are chosen by.
#[derive(Default)]
pub struct Words {
    /// Ascending by address, then by size.
    pub all: Vec<Word>,
    /// The words, by number, that one instruction read first; one entry for each such instruction.
    pub places: Vec<Vec<usize>>,
    /// The place of each word.
    place_of: Vec<usize>,
    /// Values that are addresses in pages that the run read, each once, ascending.
    pub pointers: Vec<u64>,
}

impl Words {
    /// What was collected over `target`.
    pub fn new(reader: Reader, target: &dyn GuestMemory) -> Self {
        let Reader { words, pages, .. } = reader;
        // What a run sets before it begins, such as an idle processor's cells, is not the target's.
        let is_the_targets = |word: &Word| {
            let mut bytes = [0; 8];
            let read = target.read(word.paddr, &mut bytes[..usize::from(word.size)]);
            read.is_ok() && u64::from_le_bytes(bytes) == word.value
        };
        let all: Vec<Word> = words.into_values().filter(is_the_targets).collect();
        let leads_to_memory = |value: u64| pages.contains(&(value & !(PAGE_SIZE - 1)));
        let mut pointers: Vec<u64> = all
            .iter()
            .filter(|word| word.size >= 4 && word.value >= PAGE_SIZE && leads_to_memory(word.value))
            .map(|word| word.value)
            .collect();
        pointers.sort_unstable();
        pointers.dedup();
        Self::of(all, pointers)
    }

    /// Words, ascending by address and size, with the pointers among all that was read.
    fn of(all: Vec<Word>, pointers: Vec<u64>) -> Self {
        let mut by: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, word) in all.iter().enumerate() {
            by.entry(word.by).or_default().push(at);
        }
        let places: Vec<Vec<usize>> = by.into_values().collect();
        let mut place_of = vec![0; all.len()];
        for (place, words) in places.iter().enumerate() {
            words.iter().for_each(|&word| place_of[word] = place);
        }
        Self { all, places, place_of, pointers }
    }

    /// Only those that one of these instructions read first; they may still become any pointer.
    pub fn read_by(self, places: &[u64]) -> Self {
        let all = self.all.into_iter().filter(|word| places.contains(&word.by)).collect();
        Self::of(all, self.pointers)
    }

    /// Whether a word's value is one of the pointers.
    pub fn is_pointer(&self, word: &Word) -> bool {
        word.size >= 4 && self.pointers.binary_search(&word.value).is_ok()
    }

    /// The words that the same instruction read first, by number; this one is among them.
    pub fn alike(&self, word: usize) -> &[usize] {
        &self.places[self.place_of[word]]
    }
}

#[cfg(test)]
pub mod tests {
    use machine::memory::Mock;

    use super::*;

    /// A read of the target, one-to-one mapped above `0x8000_0000`.
    pub fn read(paddr: u64, size: u8, value: u64) -> Seen {
        Seen { store: false, vaddr: paddr + 0x8000_0000, paddr, next_page: None, size, value }
    }

    #[test]
    fn words_are_what_the_target_has_and_the_run_did_not_write() {
        let mut target = Mock::new();
        target.write_u64(PhysAddr(0x1000), 0x8000_1010);
        target.write_u64(PhysAddr(0x1008), 5);
        target.write_u64(PhysAddr(0x1010), 6);
        target.write_u64(PhysAddr(0x1018), 7);
        let mut reader = Reader::default();
        let insn = |reader: &mut Reader, pc, seen| {
            reader.insn(pc, lift::Mode::Bits64, &[]);
            reader.access(seen);
        };
        insn(&mut reader, 1, read(0x1000, 8, 0x8000_1010));
        insn(&mut reader, 2, read(0x1008, 8, 5));
        insn(&mut reader, 2, read(0x1018, 4, 7));
        insn(&mut reader, 3, read(0x1008, 8, 5));
        insn(&mut reader, 4, Seen { store: true, ..read(0x1014, 1, 0) });
        // Written in part, the process's own, not what the target has, across pages.
        insn(&mut reader, 5, read(0x1010, 8, 6));
        insn(&mut reader, 6, read((1 << 52) + 0x1000, 8, 1));
        insn(&mut reader, 7, read(0x1019, 4, 8));
        insn(&mut reader, 8, Seen { next_page: Some(0x2000), ..read(0x1ffe, 4, 0) });
        insn(&mut reader, 9, read(0x1010, 4, 6));
        let words = Words::new(reader, &target);
        let found: Vec<(u64, u8, u64, u64)> =
            words.all.iter().map(|word| (word.paddr.0, word.size, word.by, word.reads)).collect();
        assert_eq!(found, [(0x1000, 8, 1, 1), (0x1008, 8, 2, 2), (0x1010, 4, 9, 1), (0x1018, 4, 2, 1)]);
        assert_eq!(words.places, [vec![0], vec![1, 3], vec![2]]);
        assert_eq!(words.alike(3), [1, 3]);
        assert_eq!(words.pointers, [0x8000_1010]);
        assert!(words.is_pointer(&words.all[0]) && !words.is_pointer(&words.all[1]));
        let of_two = words.read_by(&[2]);
        let left: Vec<u64> = of_two.all.iter().map(|word| word.paddr.0).collect();
        assert_eq!((left.as_slice(), of_two.alike(1)), (&[0x1008, 0x1018][..], &[0, 1][..]));
        assert_eq!(of_two.pointers, [0x8000_1010], "they may become pointers that others read");
    }

    #[test]
    fn a_store_across_pages_writes_both() {
        let mut target = Mock::new();
        target.write(PhysAddr(0x1000), &[0; 0x1000]);
        target.write(PhysAddr(0x5000), &[0; 0x1000]);
        let mut reader = Reader::default();
        reader.access(Seen { store: true, next_page: Some(0x5000), ..read(0x1ffe, 8, 0) });
        for at in [0x1ffd, 0x1ffe, 0x1fff, 0x5005, 0x5006] {
            reader.access(read(at, 1, 0));
        }
        let words = Words::new(reader, &target);
        let left: Vec<u64> = words.all.iter().map(|word| word.paddr.0).collect();
        assert_eq!(left, [0x1ffd, 0x5006]);
    }
}

//! What only a comparison of a target with its training system needs: data that nobody may write,
//! the forms that the training boots show of one place, how far images reach, interrupt gates.
//!
//! Runs use none of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A page of read-only data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DataPage {
    /// The image it moves with.
    pub image: u16,
    /// Whether two boots had the same in it, apart from addresses that moved with images: then no
    /// boot writes it.
    pub steady: bool,
    /// What it holds.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Another form of a place: what another boot of the same kernel has there. A word of data with the
/// form that it has in the training system is a number, though it could be an address of something
/// that moved in that boot: 32-bit systems have such.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Variant {
    /// Its address in the training system.
    pub addr: u64,
    /// The bytes, as they would be if that boot's images were where the training system has them.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// The neighbourhood of an image: all that is mapped without a gap around its code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Extent {
    /// Its first address.
    pub start: u64,
    /// The address after its last.
    pub end: u64,
}

/// The most bytes of an interrupt descriptor table: 256 gates of 16 bytes.
pub const MAX_GATES: usize = 256 * 16;

/// What the training boots show beyond the code.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Integrity {
    /// How many boots were compared.
    pub boots: u8,
    /// The pages of code that the training system itself may write, ascending. They may be data.
    pub writable: Vec<u64>,
    /// Read-only data of images, by page address.
    pub data: BTreeMap<u64, DataPage>,
    /// Other forms of places in code and data, ascending by address.
    pub variants: Vec<Variant>,
    /// How far each image reaches, by its number.
    pub extents: Vec<Extent>,
    /// The interrupt descriptor table.
    #[serde(with = "serde_bytes")]
    pub gates: Vec<u8>,
}

impl Integrity {
    /// The variants that lie in, or reach into, a range of addresses.
    pub fn variants_in(&self, start: u64, end: u64) -> impl Iterator<Item = &Variant> {
        let first =
            self.variants.partition_point(|it| it.addr.saturating_add(it.bytes.len() as u64) <= start);
        self.variants[first..].iter().take_while(move |it| it.addr < end)
    }

    /// Whether the training boots show that a word of data is a number, though it could be an
    /// address of something that moved.
    #[must_use]
    pub fn is_number(&self, address: u64, word: &[u8]) -> bool {
        let mut variants = self.variants_in(address, address.saturating_add(1));
        variants.any(|it| it.addr == address && it.bytes == word)
    }

    /// The image that an address lies in or beside.
    #[must_use]
    pub fn image(&self, address: u64) -> Option<usize> {
        self.extents.iter().position(|it| it.start <= address && address < it.end)
    }

    /// What makes it unusable beside so many images, if anything does.
    #[must_use]
    pub fn broken(&self, images: usize) -> Option<&'static str> {
        // Addresses are looked for among all extents: there are no more than images.
        if self.extents.len() > images || self.extents.iter().any(|it| it.end < it.start) {
            return Some("an extent is of no image or ends before it starts");
        }
        if self.data.values().any(|page| usize::from(page.image) >= images) {
            return Some("a page of data is of no image");
        }
        if self.gates.len() > MAX_GATES {
            return Some("there are too many interrupt gates");
        }
        let ends = self.variants.iter().map(|it| (it.addr, it.addr.checked_add(it.bytes.len() as u64)));
        let ends: Vec<(u64, Option<u64>)> = ends.collect();
        let apart = ends.windows(2).all(|pair| pair[0].1.is_some_and(|end| end <= pair[1].0));
        if !apart || ends.last().is_some_and(|last| last.1.is_none()) {
            return Some("variants overlap or do not ascend");
        }
        if self.data.iter().any(|(addr, page)| addr % 4096 != 0 || page.bytes.len() != 4096) {
            return Some("a page of data has the wrong size or address");
        }
        (!self.writable.windows(2).all(|pair| pair[0] < pair[1]))
            .then_some("writable pages of code do not ascend")
    }
}

/// The words of `mine`, data at `from`, that are something else in `theirs`, the data at `to`: as
/// offsets. The same is what has the same bytes, and an address of something that moved where that
/// is now; `moved` gives its new address. An address has the system's word size, or is four bytes
/// that are extended or count from where they stand. `is_number` tells of the word at an offset
/// whether it is no address, whatever it looks like.
#[must_use]
pub fn differing_words(
    (from, mine): (u64, &[u8]),
    (to, theirs): (u64, &[u8]),
    size: usize,
    moved: &dyn Fn(u64) -> Option<u64>,
    is_number: &dyn Fn(usize) -> bool,
) -> Vec<usize> {
    let pair = Pair { from, mine, to, theirs, size, moved };
    let offsets = (0..mine.len().min(theirs.len())).step_by(size);
    let is_same_number = |at: usize| {
        let end = (at + size).min(mine.len()).min(theirs.len());
        mine[at..end] == theirs[at..end]
    };
    let is_same = |at: usize| if is_number(at) { is_same_number(at) } else { pair.is_same_word(at) };
    offsets.filter(|&at| !is_same(at)).collect()
}

/// Two copies of the same data.
struct Pair<'p> {
    from: u64,
    mine: &'p [u8],
    to: u64,
    theirs: &'p [u8],
    size: usize,
    moved: &'p dyn Fn(u64) -> Option<u64>,
}

impl Pair<'_> {
    fn is_same_word(&self, at: usize) -> bool {
        let end = (at + self.size).min(self.mine.len()).min(self.theirs.len());
        let (mine, theirs) = (&self.mine[at..end], &self.theirs[at..end]);
        if mine.len() == self.size
            && let Some(new) = (self.moved)(number(mine))
        {
            return *theirs == new.to_le_bytes()[..theirs.len()];
        }
        // Packed tables have addresses that are not aligned.
        let explains = |byte: usize| {
            let starts = |size: usize| (byte + 1).saturating_sub(size)..=byte;
            starts(self.size).any(|start| self.is_address(start))
                || starts(4).any(|start| self.is_short_address(start))
        };
        (at..end).all(|byte| self.mine[byte] == self.theirs[byte] || explains(byte))
    }

    /// Whether both have the same address at an offset.
    fn is_address(&self, at: usize) -> bool {
        let both = self.mine.get(at..at + self.size).zip(self.theirs.get(at..at + self.size));
        both.is_some_and(|(mine, theirs)| {
            (self.moved)(number(mine)).is_some_and(|new| *theirs == new.to_le_bytes()[..theirs.len()])
        })
    }

    /// The same for four bytes.
    fn is_short_address(&self, at: usize) -> bool {
        let Some((mine, theirs)) = self.mine.get(at..at + 4).zip(self.theirs.get(at..at + 4)) else {
            return false;
        };
        let extended = number(mine) as u32 as i32 as i64 as u64;
        let is = |value: u64| *theirs == value.to_le_bytes()[..4];
        let target = self.from.wrapping_add(at as u64).wrapping_add(extended);
        let here = self.to.wrapping_add(at as u64);
        (self.moved)(extended).is_some_and(is)
            || is((self.moved)(target).unwrap_or(target).wrapping_sub(here))
    }
}

/// A little-endian number of at most eight bytes.
#[must_use]
pub fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(addr: u64, len: usize) -> Variant {
        Variant { addr, bytes: vec![1; len] }
    }

    #[test]
    fn variants_are_found_by_any_byte_of_theirs() {
        let it = Integrity { variants: vec![variant(10, 4), variant(20, 2)], ..Integrity::default() };
        let found = |start, end| it.variants_in(start, end).map(|it| it.addr).collect::<Vec<_>>();
        assert_eq!(found(0, 10), []);
        assert_eq!(found(0, 11), [10]);
        assert_eq!(found(13, 21), [10, 20]);
        assert_eq!(found(14, 20), []);
        assert_eq!(it.broken(0), None);
    }

    #[test]
    fn what_is_broken_is_refused() {
        let variants = |list: Vec<Variant>| Integrity { variants: list, ..Integrity::default() }.broken(1);
        assert!(variants(vec![variant(10, 4), variant(13, 2)]).is_some());
        assert!(variants(vec![variant(u64::MAX, 2)]).is_some());
        let page = DataPage { image: 0, steady: true, bytes: vec![0; 4095] };
        let data = |page: DataPage| Integrity { data: [(0, page)].into(), ..Integrity::default() };
        assert!(data(page.clone()).broken(1).is_some());
        let whole = DataPage { bytes: vec![0; 4096], ..page };
        assert_eq!(data(whole.clone()).broken(1), None);
        assert!(data(whole).broken(0).is_some(), "it is of no image");
        assert!(Integrity { writable: vec![2, 1], ..Integrity::default() }.broken(1).is_some());
    }

    /// Every address of a comparison is looked for among the extents, and every gate is compared.
    #[test]
    fn there_are_no_more_extents_than_images_and_no_more_gates_than_vectors() {
        let extents = |count: usize, end: u64| Integrity {
            extents: vec![Extent { start: 1, end }; count],
            ..Integrity::default()
        };
        assert_eq!(extents(2, 2).broken(2), None);
        assert!(extents(3, 2).broken(2).is_some());
        assert!(extents(1, 0).broken(2).is_some());
        let gates = |count: usize| Integrity { gates: vec![0; count], ..Integrity::default() };
        assert_eq!(gates(MAX_GATES).broken(0), None);
        assert!(gates(MAX_GATES + 1).broken(0).is_some());
    }

    #[test]
    fn a_word_names_what_it_named() {
        const IMAGE: u64 = 0xffff_ffff_8100_0000;
        let moved = |at: u64| (IMAGE..IMAGE + 0x1000).contains(&at).then(|| at + 0x20_0000);
        let same = |word: u64, found: u64| {
            let (word, found) = (word.to_le_bytes(), found.to_le_bytes());
            differing_words((IMAGE, &word), (IMAGE + 0x20_0000, &found), 8, &moved, &|_| false).is_empty()
        };
        assert!(same(7, 7) && !same(7, 8));
        assert!(same(IMAGE + 8, IMAGE + 0x20_0008));
        assert!(!same(IMAGE + 8, IMAGE + 8), "it must move with what it names");
        // Two distances within the image; one out of it, to what stays; an address of four bytes.
        assert!(same(0x10_0000_0020, 0x10_0000_0020));
        assert!(same(0x0010_0000, 0xfff0_0000));
        assert!(same(0x8100_0010, 0x8120_0010));
        // A packed table: an address that is not aligned, and a word that differs behind it.
        let table = |address: u64, last: u8| [&[1, 2][..], &address.to_le_bytes(), &[last; 6]].concat();
        let (mine, theirs) = (table(IMAGE + 9, 1), table(IMAGE + 0x20_0009, 1));
        let differing = |theirs: &[u8]| differing_words((0, &mine), (0, theirs), 8, &moved, &|_| false);
        assert_eq!(differing(&theirs), []);
        assert_eq!(differing(&table(IMAGE + 0x20_0009, 2)), [8]);
    }

    /// Of four bytes in every so many some look like an address by chance.
    #[test]
    fn a_number_stays_though_it_looks_like_an_address() {
        let moved = |at: u64| (0xd0a0_0000..0xd0a1_0000).contains(&at).then(|| at - 0x10_0000);
        let words = |all: [u32; 2]| all.map(u32::to_le_bytes).concat();
        let mine = words([0xd0a0_6d9f, 0xd0a0_6d9f]);
        let differing = |theirs: [u32; 2]| {
            differing_words((0, &mine), (0x1000, &words(theirs)), 4, &moved, &|at| at == 0)
        };
        assert_eq!(differing([0xd0a0_6d9f, 0xd090_6d9f]), []);
        assert_eq!(differing([0xd090_6d9f, 0xd0a0_6d9f]), [0, 4]);
    }
}

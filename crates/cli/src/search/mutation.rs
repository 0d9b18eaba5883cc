//! What a case of the search changes: which words, and to what.
//!
//! Nothing is known of the system: what is likely to be another object's value is found among what
//! the same run read elsewhere.

use super::random::Random;
use super::words::Words;

/// How a word is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// All bits 0.
    Zero,
    /// All bits 1.
    Ones,
    /// One bit flipped.
    Bit,
    /// One more.
    Up,
    /// One less.
    Down,
    /// A pointer becomes another that the run read.
    Pointer,
    /// What the same instruction read elsewhere: the same field of another object, as a rule.
    Alike,
    /// One byte becomes one that ends, parts or cannot stand in names.
    Byte,
    /// A pointer moves by a few bytes, another value by one byte within its word.
    Shift,
}

/// Bytes that mean something to code that reads strings: the end, a separator, no character of any
/// encoding, white space.
const BYTES: &[u8] = &[0, b'/', 0xff, b' '];
/// Words changed in one case are this many words apart at most, where the second is chosen near the
/// first.
const NEAR: usize = 8;
/// Attempts to find a change of a word.
const ATTEMPTS: usize = 64;

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Zero,
        Self::Ones,
        Self::Bit,
        Self::Up,
        Self::Down,
        Self::Pointer,
        Self::Alike,
        Self::Byte,
        Self::Shift,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Ones => "all ones",
            Self::Bit => "one bit",
            Self::Up => "one more",
            Self::Down => "one less",
            Self::Pointer => "another pointer",
            Self::Alike => "another's value",
            Self::Byte => "one byte",
            Self::Shift => "shifted",
        }
    }

    /// The new value of a word; `None` where this kind would leave it as it is.
    fn value(self, number: usize, words: &Words, random: &mut Random) -> Option<u64> {
        let word = &words.all[number];
        let (old, mask, bytes) = (word.value, word.mask(), usize::from(word.size));
        let new = match self {
            Self::Zero => 0,
            Self::Ones => u64::MAX,
            Self::Bit => old ^ 1 << random.below(8 * bytes),
            Self::Up => old.wrapping_add(1),
            Self::Down => old.wrapping_sub(1),
            Self::Pointer if words.is_pointer(word) => *random.one(&words.pointers)?,
            Self::Pointer => return None,
            Self::Alike => {
                let other = &words.all[*random.one(words.alike(number))?];
                if other.size != word.size {
                    return None;
                }
                other.value
            }
            Self::Byte => {
                let (at, byte) = (8 * random.below(bytes), *random.one(BYTES)?);
                old & !(0xff << at) | u64::from(byte) << at
            }
            Self::Shift if words.is_pointer(word) => {
                let by = 1 << random.below(6);
                if random.below(2) == 0 { old.wrapping_add(by) } else { old.wrapping_sub(by) }
            }
            Self::Shift if bytes == 1 => return None,
            Self::Shift => {
                if random.below(2) == 0 {
                    old << 8
                } else {
                    old >> 8
                }
            }
        };
        (new & mask != old).then_some(new & mask)
    }
}

/// A word and its new value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    /// The number of the word.
    pub word: usize,
    /// What it becomes.
    pub new: u64,
    /// Number of the kind in [`Kind::ALL`].
    kind: usize,
}

impl Change {
    /// How it came about.
    pub const fn kind(&self) -> Kind {
        Kind::ALL[self.kind]
    }

    /// A change of this word.
    fn of(word: usize, words: &Words, random: &mut Random) -> Option<Self> {
        (0..ATTEMPTS).find_map(|_| {
            let kind = random.below(Kind::ALL.len());
            Some(Self { word, new: Kind::ALL[kind].value(word, words, random)?, kind })
        })
    }
}

/// What one case changes: one word, or in one case of three two.
pub fn choose(words: &Words, random: &mut Random) -> Vec<Change> {
    let Some(first) = any(words, random) else { return Vec::new() };
    let mut chosen = vec![first];
    if random.below(3) == 0 {
        let near = random.below(2) == 0;
        chosen.push(if near { neighbour(first, words, random) } else { any(words, random).unwrap_or(first) });
        // Of two that overlap the second would undo a part of the first.
        if words.all[chosen[0]].overlaps(&words.all[chosen[1]]) {
            chosen.pop();
        }
    }
    chosen.into_iter().filter_map(|word| Change::of(word, words, random)).collect()
}

/// A word: half of the time each word is as likely as any other, else each instruction that reads.
/// Without the second all cases would be about the longest lists.
fn any(words: &Words, random: &mut Random) -> Option<usize> {
    if random.below(2) == 0 {
        return (!words.all.is_empty()).then(|| random.below(words.all.len()));
    }
    let place = random.one(&words.places)?;
    random.one(place).copied()
}

/// A word that lies near another, in the same object as a rule.
fn neighbour(word: usize, words: &Words, random: &mut Random) -> usize {
    let from = word.saturating_sub(NEAR);
    let to = (word + NEAR + 1).min(words.all.len());
    from + random.below(to - from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use engine::Watch;
    use machine::PhysAddr;
    use machine::memory::Mock;

    use super::super::words::Reader;
    use super::super::words::tests::read;
    use super::*;

    /// Two pointers read by one instruction, a number, a byte.
    fn words() -> Words {
        let (mut target, mut reader) = (Mock::new(), Reader::default());
        for (by, at, size, value) in [
            (1, 0x1000, 8, 0x8000_1010),
            (1, 0x1010, 8, 0x8000_1000),
            (2, 0x1020, 4, 0x4142),
            (3, 0x1030, 1, 0),
        ] {
            target.write_u64(PhysAddr(at), value);
            reader.insn(by, lift::Mode::Bits64, &[]);
            reader.access(read(at, size, value));
        }
        Words::new(reader, &target)
    }

    /// All values that a kind gives a word.
    fn values(kind: Kind, word: usize) -> BTreeSet<u64> {
        let (words, mut random) = (words(), Random::new(1));
        (0..2000).filter_map(|_| kind.value(word, &words, &mut random)).collect()
    }

    #[test]
    fn each_kind_gives_what_it_says() {
        let set = |values: &[u64]| values.iter().copied().collect::<BTreeSet<u64>>();
        assert_eq!(values(Kind::Zero, 2), set(&[0]));
        assert_eq!(values(Kind::Zero, 3), set(&[]), "it is 0 already");
        assert_eq!(values(Kind::Ones, 2), set(&[0xffff_ffff]), "no more bits than the word has");
        assert_eq!(values(Kind::Bit, 3), set(&[1, 2, 4, 8, 16, 32, 64, 128]));
        assert_eq!(values(Kind::Up, 2), set(&[0x4143]));
        assert_eq!(values(Kind::Down, 3), set(&[0xff]));
        assert_eq!(values(Kind::Pointer, 0), set(&[0x8000_1000]));
        assert_eq!(values(Kind::Pointer, 2), set(&[]), "no pointer");
        assert_eq!(values(Kind::Alike, 1), set(&[0x8000_1010]));
        assert_eq!(values(Kind::Alike, 2), set(&[]), "nobody else's");
        assert_eq!(values(Kind::Byte, 3), set(&[0x2f, 0xff, 0x20]));
        assert!(values(Kind::Byte, 2).is_superset(&set(&[0x2f42, 0x412f, 0x4100, 0x2000_4142])));
        assert_eq!(values(Kind::Shift, 2), set(&[0x41_4200, 0x41]));
        let moved = values(Kind::Shift, 0);
        assert!(
            moved.len() == 12 && moved.contains(&0x8000_1018) && moved.contains(&0x8000_100f),
            "{moved:x?}"
        );
    }

    #[test]
    fn cases_change_one_word_or_two_and_reach_every_kind() {
        let words = words();
        let mut random = Random::new(5);
        let cases: Vec<Vec<Change>> = (0..500).map(|_| choose(&words, &mut random)).collect();
        assert!(cases.iter().all(|case| (1..=2).contains(&case.len())));
        assert!(cases.iter().any(|case| case.len() == 2) && cases.iter().any(|case| case.len() == 1));
        let changes = || cases.iter().flatten();
        assert!(
            changes()
                .all(|it| it.new != words.all[it.word].value && it.new & !words.all[it.word].mask() == 0)
        );
        let kinds: BTreeSet<&str> = changes().map(|it| it.kind().name()).collect();
        assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
        let mut again = Random::new(5);
        assert!(cases.iter().all(|case| *case == choose(&words, &mut again)), "the seed decides");
        assert!(choose(&Words::default(), &mut again).is_empty());
    }
}

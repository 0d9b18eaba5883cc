//! Which pages a kdump has: a bit for each, and how many are set before it.
//!
//! A page's descriptor is found by counting the set bits before its own. Counts are kept for every
//! 512 bits, an eighth of the bitmap's size, so that counting touches one cache line.

use std::ops::Range;

/// Bits between two kept counts.
const STEP: usize = 512;

/// A bitmap that counts.
#[derive(Debug)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    /// Set bits before each [`STEP`].
    counts: Vec<u64>,
    total: u64,
}

impl Bitmap {
    /// The first `bits` bits of `bytes`, the lowest of each byte first; bits that are not there are
    /// clear.
    pub(super) fn new(bytes: &[u8], bits: u64) -> Self {
        let words: Vec<u64> = words(bytes, bits).collect();
        let mut counts = Vec::with_capacity(words.len().div_ceil(STEP / 64));
        let mut total = 0;
        for group in words.chunks(STEP / 64) {
            counts.push(total);
            total += group.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        }
        Self { words, counts, total }
    }

    /// Set bits.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many bits are set before `bit`, if it is set itself.
    pub(super) fn rank(&self, bit: u64) -> Option<u64> {
        let bit = usize::try_from(bit).ok()?;
        let word = *self.words.get(bit / 64)?;
        let mask = 1 << (bit % 64);
        if word & mask == 0 {
            return None;
        }
        let first = bit / STEP * (STEP / 64);
        let whole: u32 = self.words[first..bit / 64].iter().map(|word| word.count_ones()).sum();
        Some(self.counts[bit / STEP] + u64::from(whole + (word & (mask - 1)).count_ones()))
    }

    /// Runs of bits that are set here or in the first `bits` of `other`; `None` if there are more
    /// than `limit`.
    pub(super) fn runs_with(&self, other: &[u8], bits: u64, limit: usize) -> Option<Vec<Range<u64>>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (i, word) in words(other, bits).enumerate() {
            let mut left = word | self.words.get(i).copied().unwrap_or(0);
            while left != 0 {
                let from = left.trailing_zeros();
                let len = (left >> from).trailing_ones();
                left &= !(u64::MAX.checked_shr(64 - len).unwrap_or(0) << from);
                let start = i as u64 * 64 + u64::from(from);
                let end = start + u64::from(len);
                let count = runs.len();
                match runs.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ if count == limit => return None,
                    _ => runs.push(start..end),
                }
            }
        }
        Some(runs)
    }
}

/// The bits as words, those from `bits` on clear.
fn words(bytes: &[u8], bits: u64) -> impl Iterator<Item = u64> {
    let len = usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX).min(bytes.len());
    bytes[..len].chunks(8).enumerate().map(move |(i, chunk)| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let left = bits - i as u64 * 64;
        u64::from_le_bytes(word) & if left < 64 { (1 << left) - 1 } else { u64::MAX }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_and_runs_are_what_counting_says(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..300),
            other in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..300),
            bits in 0u64..2500,
        ) {
            let bitmap = Bitmap::new(&bytes, bits);
            let is_set = |bytes: &[u8], bit: u64| {
                bit < bits && bytes.get(bit as usize / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
            };
            let mut before = 0;
            for bit in 0..2600 {
                let set = is_set(&bytes, bit);
                prop_assert_eq!(bitmap.rank(bit), set.then_some(before), "{}", bit);
                before += u64::from(set);
            }
            prop_assert_eq!(bitmap.total(), before);
            // The longer of the two has to be the other, as it is where this is used.
            if other.len() >= bytes.len() {
                let runs = bitmap.runs_with(&other, bits, usize::MAX).unwrap();
                for bit in 0..2600 {
                    let inside = runs.iter().any(|run| run.contains(&bit));
                    prop_assert_eq!(inside, is_set(&bytes, bit) || is_set(&other, bit), "{}", bit);
                }
                prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert_eq!(bitmap.runs_with(&other, bits, runs.len()), Some(runs));
            }
        }
    }
}

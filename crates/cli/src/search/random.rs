//! Numbers that look random and are the same for the same seed (SplitMix64: Steele, Lea and Flood
//! 2014).
//!
//! Good enough to choose by, and for nothing else.

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed; any number will do.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `count`, which must not be 0.
    pub fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "one of nothing");
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// One of them, if there is any.
    pub fn one<'i, T>(&mut self, of: &'i [T]) -> Option<&'i T> {
        if of.is_empty() { None } else { Some(&of[self.below(of.len())]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        // The first numbers of the published generator for seed 0.
        let mut random = Random::new(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
        let mut seen = [false; 5];
        (0..100).for_each(|_| seen[random.below(5)] = true);
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.one::<u8>(&[]), None);
        assert_eq!(random.one(&[3]), Some(&3));
    }
}

//! Hash maps whose keys a guest or a file chooses.
//!
//! Keys that somebody else chooses can be chosen to collide: with a hash that everybody can compute
//! in advance, a lookup then costs a walk over all of them. These maps hash with a secret that is
//! drawn once for each process. A key that is one number costs one multiplication, as with
//! unkeyed hashes; the halves of its 128-bit product are combined, so that every bit of the key
//! reaches every bit of the hash. (A secret that is only added before the multiplication would not
//! help: it cancels out of the difference between two keys.)
//!
//! The order of such a map differs from process to process: it must never show.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// A map from keys that a guest or a file chooses.
pub type Map<K, V> = HashMap<K, V, Seeded>;
/// A set of keys that a guest or a file chooses.
pub type Set<K> = HashSet<K, Seeded>;

/// The secret, which makes hashers.
#[derive(Clone, Copy, Debug)]
pub struct Seeded {
    start: u64,
    factor: u64,
}

impl Default for Seeded {
    fn default() -> Self {
        static SECRET: OnceLock<Seeded> = OnceLock::new();
        *SECRET.get_or_init(|| {
            // The standard library's keys are random, and this is its way to give them away.
            let random = RandomState::new();
            let (start, factor) = (random.hash_one(0u8), random.hash_one(1u8));
            Self { start, factor: factor | 1 }
        })
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folding;

    #[inline]
    fn build_hasher(&self) -> Folding {
        Folding { hash: self.start, factor: self.factor }
    }
}

/// Hashes by multiplication with a secret number.
#[derive(Clone, Copy, Debug)]
pub struct Folding {
    hash: u64,
    factor: u64,
}

impl Hasher for Folding {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.hash ^ number) * u128::from(self.factor);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let number = part.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
            self.write_u64(number);
        }
        self.write_u64(bytes.len() as u64);
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most keys whose hashes agree in the bits by which a table of this many chooses a place.
    fn crowd<B: BuildHasher>(build: &B, keys: &[u64]) -> usize {
        let places = keys.len().next_power_of_two() as u64;
        let mut counts = vec![0usize; places as usize];
        keys.iter().for_each(|key| counts[(build.hash_one(key) % places) as usize] += 1);
        counts.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn keys_that_collide_under_an_unkeyed_hash_do_not() {
        // Products with rustc-hash's factor that differ only where its hash ends up in high bits:
        // the keys are those products times the factor's inverse.
        const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;
        let inverse =
            (0..6).fold(FACTOR, |it: u64, _| it.wrapping_mul(2u64.wrapping_sub(FACTOR.wrapping_mul(it))));
        assert_eq!(FACTOR.wrapping_mul(inverse), 1);
        let keys: Vec<u64> = (0..4096u64).map(|n| n.wrapping_mul(inverse)).collect();
        let unkeyed = rustc_hash::FxBuildHasher;
        assert!(crowd(&unkeyed, &keys) > 2000, "{}", crowd(&unkeyed, &keys));
        assert!(crowd(&Seeded::default(), &keys) < 32, "{}", crowd(&Seeded::default(), &keys));
        // Nor do keys that guests have anyhow.
        for step in [1, 8, 4096, 1 << 32, 1 << 52] {
            let keys: Vec<u64> = (0..4096u64).map(|n| n.wrapping_mul(step)).collect();
            assert!(crowd(&Seeded::default(), &keys) < 32, "{step}");
        }
    }

    #[test]
    fn equal_keys_have_equal_hashes_and_others_do_not() {
        let seeded = Seeded::default();
        let hash = |bytes: &[u8]| seeded.hash_one((7u64, bytes));
        assert_eq!(hash(b"abcdefghi"), Seeded::default().hash_one((7u64, &b"abcdefghi"[..])));
        let texts: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"abcdefgh", b"abcdefgh\0", b"hgfedcba"];
        let all: HashSet<u64> = texts.iter().map(|text| hash(text)).collect();
        assert_eq!(all.len(), texts.len());
    }
}

//! Processors in a target's memory: places that look like per-CPU memory.
//!
//! Such a place can be a copy that whoever writes memory has made. The kernel's own image names
//! the per-CPU memory of its processors, in a table or variable, so of several places those that
//! it names are taken, if it names any.

use std::collections::BTreeMap;
use std::ops::Range;

use ir::program::SignatureWord;
use machine::{PAGE_SIZE, PhysAddr, hash};

use super::pages::each_page;
use crate::per_cpu::{Tables, aims, enough};

/// Per-CPU memory is searched for by words that point at least this many bytes away; pointers
/// within one object reach less far.
const FAR: u32 = 1024;
/// The most addresses that are compared with the whole signature: a hostile target may hold any
/// number of decoys.
const MOST_PLACES: usize = 1 << 18;

/// The bases of per-CPU memory, each with how many distinct addresses of the signature are pointed
/// to there. `image` is where the kernel's image is.
pub(super) fn processors(
    tables: Tables<'_>,
    signature: &[SignatureWord],
    image: &Range<u64>,
) -> BTreeMap<u64, usize> {
    let mut found = places(tables, signature);
    if found.len() > 1 {
        let named = named(tables, image, &found);
        if !named.is_empty() {
            found.retain(|base, _| named.contains(base));
        }
    }
    found
}

/// Those of the bases that a word of the kernel's image holds.
fn named(tables: Tables<'_>, image: &Range<u64>, bases: &BTreeMap<u64, usize>) -> hash::Set<u64> {
    let mut named = hash::Set::default();
    // As `step_by` of ranges, for images whose end wraps to 0.
    let pages = image.end.wrapping_sub(image.start) / PAGE_SIZE;
    for page in 0..pages {
        let place = tables.place(image.start.wrapping_add(page * PAGE_SIZE));
        let bytes = place.and_then(|place| tables.memory.page(place).ok());
        let words = bytes.iter().flat_map(|bytes| bytes.chunks_exact(8));
        let words = words.map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        named.extend(words.filter(|word| word >> 63 == 1 && bases.contains_key(word)));
    }
    named
}

/// All places that look like per-CPU memory.
fn places(tables: Tables<'_>, signature: &[SignatureWord]) -> BTreeMap<u64, usize> {
    // An empty list points to itself, and in a table of thousands of them any address has all such
    // words. So the search begins at words that point far.
    let far = |it: &&SignatureWord| it.offset.abs_diff(it.points) >= FAR;
    let seeds: Vec<SignatureWord> = signature.iter().filter(far).copied().collect();
    let by_distance = |it: &SignatureWord| u64::from(it.offset).wrapping_sub(it.points.into()) % PAGE_SIZE;
    let mut wanted = vec![false; PAGE_SIZE as usize];
    seeds.iter().for_each(|seed| wanted[by_distance(seed) as usize] = true);
    let all = aims(signature);
    let (mut found, mut seen) = (BTreeMap::new(), hash::Set::default());
    each_page(tables.memory, &mut |addr, page| {
        for (at, word) in page.chunks_exact(8).enumerate() {
            let (word, here) = (word.try_into().map_or(0, u64::from_le_bytes), addr.0 + at as u64 * 8);
            let distance = here.wrapping_sub(word) % PAGE_SIZE;
            if word >> 63 == 0 || !wanted[distance as usize] {
                continue;
            }
            for seed in seeds.iter().filter(|seed| by_distance(seed) == distance) {
                let base = word.wrapping_sub(seed.points.into());
                if seen.len() >= MOST_PLACES
                    || seen.contains(&base)
                    || tables.place(base.wrapping_add(seed.offset.into())) != Some(PhysAddr(here))
                {
                    continue;
                }
                seen.insert(base);
                let count = tables.count(signature, base);
                if enough(count, all) {
                    found.insert(base, count);
                }
            }
        }
    });
    found
}

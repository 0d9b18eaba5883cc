//! The cache of blocks that runs share, and what each run keeps at hand of it.

use std::sync::{Arc, PoisonError, RwLock};

use machine::hash;

use super::block::{Block, Owner};
use super::compiled::{Compiler, Machine, Translation};

/// If the blocks take more bytes than this, all are dropped before the next one: code that never
/// comes by the same place twice takes no more memory.
const MOST_BYTES: usize = 64 << 20;

#[derive(Default)]
struct Blocks {
    by_place: hash::Map<(Owner, u64), Arc<Translation>>,
    bytes: usize,
}

/// Blocks that runs share.
#[derive(Default)]
pub(crate) struct Cache {
    blocks: RwLock<Blocks>,
    compiler: Compiler,
}

impl Cache {
    /// The block of this owner at an address.
    pub fn get(&self, owner: Owner, start: u64) -> Option<Arc<Translation>> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        blocks.by_place.get(&(owner, start)).cloned()
    }

    /// Adds a block. The result is the one that is there: another run may have been faster.
    pub fn add(&self, owner: Owner, block: Block) -> Arc<Translation> {
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = blocks.by_place.get(&(owner, block.start)) {
            return Arc::clone(there);
        }
        if blocks.bytes + self.compiler.size() > MOST_BYTES {
            // Runs keep those that they are in.
            *blocks = Blocks::default();
            self.compiler.forget(true);
        }
        blocks.bytes += block.size();
        let (start, translation) = (block.start, Arc::new(Translation::new(owner, block)));
        blocks.by_place.insert((owner, start), Arc::clone(&translation));
        translation
    }

    /// Compiles what is worth it of the blocks that a run has interpreted often. What it has at
    /// hand is let go if blocks have other machine code now.
    pub fn compile(&self, often: &mut Vec<Arc<Translation>>, at_hand: &mut AtHand) {
        self.compiler.take(often);
        let generation = self.compiler.generation();
        if at_hand.generation != generation {
            at_hand.clear();
            at_hand.generation = generation;
        }
    }

    /// Bytes of machine code that blocks have.
    pub fn machine_code(&self) -> usize {
        self.compiler.size()
    }

    /// Drops all blocks, or those that may not hold in another target.
    pub fn forget(&self, all: bool) {
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        self.compiler.forget(all);
        if all {
            *blocks = Blocks::default();
            return;
        }
        blocks.by_place.retain(|_, it| !it.block.varies);
        blocks.bytes = blocks.by_place.values().map(|it| it.block.size()).sum();
    }
}

/// How many blocks a run keeps at hand.
const AT_HAND: usize = 1 << 13;

/// The blocks that a run executed last, so that it need not ask for each. Direct-mapped.
pub(crate) struct AtHand {
    near: Box<[Option<Near>]>,
    /// The compiler's, when they were put here.
    generation: u32,
}

/// A block at hand.
pub(crate) struct Near {
    start: u64,
    pub translation: Arc<Translation>,
    pub machine: Option<Arc<Machine>>,
}

impl Default for AtHand {
    fn default() -> Self {
        Self { near: std::iter::repeat_with(|| None).take(AT_HAND).collect(), generation: 0 }
    }
}

impl AtHand {
    #[inline(always)]
    const fn place(pc: u64) -> usize {
        (pc ^ pc >> 13) as usize % AT_HAND
    }

    /// The block at an address, if it is at hand.
    #[inline(always)]
    pub fn get(&self, pc: u64) -> Option<&Near> {
        self.near[Self::place(pc)].as_ref().filter(|near| near.start == pc)
    }

    /// Keeps a block at hand, and its machine code if the run may execute it.
    pub fn put(&mut self, translation: Arc<Translation>, may: impl FnOnce(&Machine) -> bool) -> &Near {
        let (start, machine) = (translation.block.start, translation.machine().filter(|it| may(it)));
        self.near[Self::place(start)].insert(Near { start, translation, machine })
    }

    /// Keeps none.
    pub fn clear(&mut self) {
        self.near.fill_with(|| None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_bounded_by_bytes() {
        let (cache, own) = (Cache::default(), Owner(0, false));
        let block = |start| Block { start, constants: vec![0; 1 << 17].into(), ..Block::default() };
        let size = block(0).size();
        let held = |count: u64| (0..count).filter(|at| cache.get(own, *at).is_some()).count();
        let most = (MOST_BYTES / size) as u64 + 1;
        (0..most).for_each(|at| drop(cache.add(own, block(at))));
        assert_eq!(held(most) as u64, most);
        cache.add(own, block(most));
        assert_eq!((held(most), cache.get(own, most).is_some()), (0, true));
    }

    #[test]
    fn each_owner_has_its_own_and_the_first_counts() {
        let cache = Cache::default();
        let (one, two) = (Owner(1, false), Owner(1, true));
        let block = |insns, varies| Block { start: 8, insns, varies, ..Block::default() };
        assert_eq!(cache.add(one, block(1, false)).block.insns, 1);
        assert_eq!(cache.add(one, block(2, false)).block.insns, 1);
        assert_eq!(cache.add(two, block(3, true)).block.insns, 3);
        cache.forget(false);
        assert_eq!((cache.get(one, 8).is_some(), cache.get(two, 8).is_some()), (true, false));
        cache.forget(true);
        assert!(cache.get(one, 8).is_none());
    }
}

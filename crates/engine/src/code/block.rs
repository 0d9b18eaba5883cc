//! Lifted code: blocks, and the cache of them that runs share.
//!
//! A block is never changed once it is made. What determines it is who it belongs to (the code of
//! the kernel at one place of one target, or a trainer's own) and its address; so whoever lifts it
//! first lifts it for all, and it does not matter who that was. What a run's own writes may have
//! decided is not put here.

use std::mem::size_of;
use std::sync::{Arc, PoisonError, RwLock};

use ir::Summary;
use machine::hash;

use crate::predecode::Predecoded;

/// If the blocks take more bytes than this, all are dropped before the next one: code that never
/// comes by the same place twice takes no more memory.
const MOST_BYTES: usize = 64 << 20;

/// Instructions that are executed one after the other.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Where it begins.
    pub start: u64,
    /// Its operations.
    pub ops: Box<[Predecoded]>,
    /// How far behind the block's beginning the instruction of each operation is.
    pub offsets: Box<[u16]>,
    /// The constants that the operations name, in the order of their slots.
    pub constants: Box<[u64]>,
    /// How many instructions it has.
    pub insns: u32,
    /// Where control goes if none of its operations decides: the address behind the last.
    pub next: u64,
    /// Whether the end mark is here; there are no instructions then.
    pub end: bool,
    /// The allocator function that is here; there are no instructions then.
    pub summary: Option<Summary>,
    /// Whether modules were looked for when it was lifted.
    pub modules: bool,
    /// Whether it may be another one in another target where the kernel lies at the same place: it
    /// has what the target's kernel wrote into its code, or modules were looked for.
    pub varies: bool,
    /// Whether the run's own memory decided what it is.
    pub private: bool,
    /// Bytes of the instructions, by offset, in a block for watched runs.
    pub bytes: Vec<(u16, Box<[u8]>)>,
}

impl Block {
    /// The bytes of the instruction that is so far behind the beginning, if it was lifted for a
    /// watched run.
    pub fn insn_bytes(&self, offset: u16) -> &[u8] {
        let found = self.bytes.binary_search_by_key(&offset, |it| it.0);
        found.map_or(&[], |at| &self.bytes[at].1)
    }

    /// What it takes of memory, with its place in the cache.
    fn size(&self) -> usize {
        self.ops.len() * (size_of::<Predecoded>() + size_of::<u16>())
            + self.constants.len() * size_of::<u64>()
            + self.bytes.len() * 64
            + size_of::<Self>()
            + 64
    }
}

/// Whose code it is, of all that share a cache: a number, and whether it is for watched runs, which
/// need every operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner(pub u32, pub bool);

#[derive(Default)]
struct Blocks {
    by_place: hash::Map<(Owner, u64), Arc<Block>>,
    bytes: usize,
}

/// Blocks that runs share.
#[derive(Default)]
pub(crate) struct Cache(RwLock<Blocks>);

impl Cache {
    /// The block of this owner at an address.
    pub fn get(&self, owner: Owner, start: u64) -> Option<Arc<Block>> {
        let blocks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        blocks.by_place.get(&(owner, start)).cloned()
    }

    /// Adds a block. The result is the one that is there: another run may have been faster.
    pub fn add(&self, owner: Owner, block: Block) -> Arc<Block> {
        let mut blocks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = blocks.by_place.get(&(owner, block.start)) {
            return Arc::clone(there);
        }
        if blocks.bytes > MOST_BYTES {
            // Runs keep those that they are in.
            *blocks = Blocks::default();
        }
        blocks.bytes += block.size();
        let block = Arc::new(block);
        blocks.by_place.insert((owner, block.start), Arc::clone(&block));
        block
    }

    /// Drops all blocks, or those that may not hold in another target.
    pub fn forget(&self, all: bool) {
        let mut blocks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all {
            *blocks = Blocks::default();
            return;
        }
        blocks.by_place.retain(|_, block| !block.varies);
        blocks.bytes = blocks.by_place.values().map(|block| block.size()).sum();
    }
}

/// How many blocks a run keeps at hand.
const AT_HAND: usize = 4096;

/// The blocks that a run executed last, so that it need not ask for each. Direct-mapped.
pub(crate) struct AtHand(Box<[Option<Arc<Block>>]>);

impl Default for AtHand {
    fn default() -> Self {
        Self(std::iter::repeat_with(|| None).take(AT_HAND).collect())
    }
}

impl AtHand {
    #[inline(always)]
    const fn place(pc: u64) -> usize {
        (pc ^ pc >> 12) as usize % AT_HAND
    }

    /// The block at an address, if it is at hand.
    #[inline(always)]
    pub fn get(&self, pc: u64) -> Option<&Block> {
        self.0[Self::place(pc)].as_deref().filter(|block| block.start == pc)
    }

    /// Keeps a block at hand.
    pub fn put(&mut self, block: Arc<Block>) -> &Block {
        let place = Self::place(block.start);
        self.0[place].insert(block)
    }

    /// Keeps none.
    pub fn clear(&mut self) {
        self.0.fill(None);
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
        assert_eq!(cache.add(one, block(1, false)).insns, 1);
        assert_eq!(cache.add(one, block(2, false)).insns, 1);
        assert_eq!(cache.add(two, block(3, true)).insns, 3);
        cache.forget(false);
        assert_eq!((cache.get(one, 8).is_some(), cache.get(two, 8).is_some()), (true, false));
        cache.forget(true);
        assert!(cache.get(one, 8).is_none());
    }
}

//! Lifted code: blocks.
//!
//! A block is never changed once it is made. What determines it is who it belongs to (the code of
//! the kernel at one place of one target, or a trainer's own) and its address; so whoever lifts it
//! first lifts it for all, and it does not matter who that was. What a run's own writes may have
//! decided is not put here.

use std::mem::size_of;

use ir::Summary;

use crate::predecode::Predecoded;

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
    pub fn size(&self) -> usize {
        self.ops.len() * (size_of::<Predecoded>() + size_of::<u16>())
            + self.constants.len() * size_of::<u64>()
            + self.bytes.len() * 64
            + size_of::<Self>()
            + 64
    }
}

/// Whose code it is, of all that share a cache: a number, and whether it is for watched runs, which
/// need every operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Owner(pub u32, pub bool);

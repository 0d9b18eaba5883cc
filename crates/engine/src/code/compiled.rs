//! Machine code for blocks that were executed often.
//!
//! Which blocks are compiled, and when, is this file's; how, the crate `jit`'s. Runs note blocks
//! that were interpreted often. Before the next run, or when a run looks at the clock, those are
//! compiled together, so that they lead to each other without coming back; and when they have
//! become as many as what was compiled together before, all are, once more: in the end most of what
//! runs execute is in one piece, and no block was compiled more than a few times. What a run does
//! and counts is the same with machine code and without.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jit::{Native, Source};

use super::block::{Block, Owner};

/// Executions of a block by the interpreter after which it is compiled.
const OFTEN: u32 = 32;
/// So many blocks are compiled at once,
const FEW: usize = 64;
/// or after so many occasions what there is.
const PATIENCE: u32 = 64;

/// A block, and its machine code where it has some.
pub(crate) struct Translation {
    pub block: Arc<Block>,
    owner: Owner,
    /// How often it was interpreted, about.
    times: AtomicU32,
    machine: RwLock<Option<Arc<Machine>>>,
}

/// The machine code of a block.
pub(crate) struct Machine {
    pub batch: Arc<Batch>,
    /// The block's number in the batch.
    pub number: u32,
    /// Whose it is.
    pub owner: Owner,
    /// Where all blocks lie that it may lead to there.
    pub range: Range<u64>,
}

/// Blocks that were compiled together.
pub(crate) struct Batch {
    pub native: Native,
    pub blocks: Vec<Arc<Block>>,
}

impl Translation {
    /// A block of this owner, not compiled.
    pub fn new(owner: Owner, block: Block) -> Self {
        Self { block: Arc::new(block), owner, times: AtomicU32::new(0), machine: RwLock::default() }
    }

    /// Counts an execution by the interpreter; whether it is time to compile the block.
    #[inline(always)]
    pub fn is_often(&self) -> bool {
        // Two threads may count one: it does not matter.
        let times = self.times.load(Ordering::Relaxed).wrapping_add(1);
        self.times.store(times, Ordering::Relaxed);
        times == OFTEN
    }

    /// Whether it can be compiled.
    fn is_plain(&self) -> bool {
        let Block { summary, end, private, .. } = &*self.block;
        // Watched runs are interpreted.
        summary.is_none() && !end && !private && !self.owner.1
    }

    /// Its machine code.
    pub fn machine(&self) -> Option<Arc<Machine>> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Blocks of one group lead to each other without a question. What may be another block in the
    /// next target is looked for each time.
    fn group(&self) -> u32 {
        self.owner.0 << 1 | u32::from(self.block.varies)
    }

    fn source(&self) -> Source<'_> {
        let Block { start, next, ops, constants, insns, modules, .. } = &*self.block;
        Source {
            start: *start,
            next: *next,
            branch: None,
            ops,
            constants,
            instructions: *insns,
            group: self.group(),
            marked: *modules,
        }
    }
}

/// What is compiled of a cache, and what is to be.
#[derive(Default)]
pub(crate) struct Compiler {
    /// Changes whenever blocks get machine code.
    generation: AtomicU32,
    /// Bytes of machine code that blocks have.
    size: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Not compiled yet.
    new: Vec<Arc<Translation>>,
    /// Compiled since all were compiled together.
    since: Vec<Arc<Translation>>,
    /// Compiled together.
    together: Vec<Arc<Translation>>,
    /// Occasions since something was compiled.
    occasions: u32,
}

impl Compiler {
    /// A number that changes whenever blocks get machine code.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Bytes of machine code that blocks have.
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Takes the blocks that a run has interpreted often, and compiles what is worth it: an
    /// occasion.
    pub fn take(&self, often: &mut Vec<Arc<Translation>>) {
        // Who compiles is done soon; what another thread noted can wait for its next occasion.
        let Ok(mut waiting) = self.waiting.try_lock() else { return };
        let Waiting { new, since, together, occasions } = &mut *waiting;
        new.extend(often.drain(..).filter(|it| it.is_plain()));
        *occasions += 1;
        if new.len() + since.len() >= FEW.max(together.len()) {
            together.append(since);
            together.append(new);
            self.size.store(compile(together), Ordering::Relaxed);
        } else if new.len() >= FEW || *occasions >= PATIENCE && !new.is_empty() {
            self.size.fetch_add(compile(new), Ordering::Relaxed);
            since.append(new);
        } else {
            return;
        }
        *occasions = 0;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Forgets all blocks, or those that may not hold in another target: the cache drops them.
    pub fn forget(&self, all: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { new, since, together, .. } = &mut *waiting;
        for blocks in [new, since, together] {
            blocks.retain(|it| !all && !it.block.varies);
        }
        if all {
            self.size.store(0, Ordering::Relaxed);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// Compiles blocks together; the bytes of machine code. Nothing happens where there is no compiler.
fn compile(blocks: &mut Vec<Arc<Translation>>) -> usize {
    blocks.sort_unstable_by_key(|it| (it.group(), it.block.start));
    blocks.dedup_by_key(|it| (it.group(), it.block.start));
    let sources: Vec<Source<'_>> = blocks.iter().map(|it| it.source()).collect();
    let Some(native) = Native::compile(&sources) else { return 0 };
    let size = native.size();
    let batch = Arc::new(Batch { native, blocks: blocks.iter().map(|it| Arc::clone(&it.block)).collect() });
    let mut number = 0;
    for group in blocks.chunk_by(|one, two| one.group() == two.group()) {
        let end = group.iter().map(|it| it.block.next.max(it.block.start)).max().unwrap_or(u64::MAX);
        let range = group[0].block.start..end.saturating_add(1);
        for translation in group {
            let (owner, range) = (translation.owner, range.clone());
            let machine = Machine { batch: Arc::clone(&batch), number, owner, range };
            *translation.machine.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(machine));
            number += 1;
        }
    }
    size
}

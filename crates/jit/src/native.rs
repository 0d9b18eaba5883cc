//! Compiled blocks: how they are made, entered and left.
//!
//! Blocks that became hot together are compiled together, into one buffer that is written before it
//! can be executed and never after. Within it one block leads to the next without coming back, as
//! long as the address is known and both are of the same group. Each block first looks whether the
//! run has to ask something: whether it waits, whether its fuel or time is over. Then, as where an
//! operation is not compiled or a page is not in the TLB, the run leaves with the place where the
//! interpreter goes on. So nothing that a run counts depends on what was compiled.

use crate::calls::{Calls, MOST_OPEN};
use crate::memory::Memory;
use crate::operation::Slots;
use crate::progress::{DYNAMIC, Exit, Inner, Progress, Resume, Source};
use crate::ways::Ways;

/// Blocks that were compiled together.
pub struct Native {
    #[cfg(target_arch = "x86_64")]
    code: dynasmrt::ExecutableBuffer,
    /// Where each block begins in it.
    entries: Vec<usize>,
    /// What the numbers mean with which code is left.
    exits: Vec<Exit>,
    /// Where code goes on behind operations.
    resumes: Vec<usize>,
    /// Code has the address of their places.
    _ways: Vec<Ways>,
}

/// Compiled code: slots, progress, memory, the block's address; the result is an exit's number.
#[cfg(target_arch = "x86_64")]
type Enter = unsafe extern "sysv64" fn(*mut u64, *mut Progress, *mut crate::memory::Hot, *const u8) -> u32;

impl Native {
    /// Compiles blocks; `None` if this host has no compiler or gives no memory for code.
    #[must_use]
    #[cfg(target_arch = "x86_64")]
    pub fn compile(blocks: &[Source<'_>]) -> Option<Self> {
        let compiled = crate::template::compile(blocks)?;
        let crate::template::Compiled { code, entries, exits, resumes, ways: _ways } = compiled;
        Some(Self { code, entries, exits, resumes, _ways })
    }

    /// Compiles blocks; `None` if this host has no compiler or gives no memory for code.
    #[must_use]
    #[cfg(not(target_arch = "x86_64"))]
    pub fn compile(_: &[Source<'_>]) -> Option<Self> {
        None
    }

    /// Bytes of code.
    #[must_use]
    pub fn size(&self) -> usize {
        #[cfg(target_arch = "x86_64")]
        return self.code.len();
        #[cfg(not(target_arch = "x86_64"))]
        0
    }

    /// Executes a block and whatever follows it here. Without `calls`, calls and returns are left
    /// to the caller; else the second result is whether one of them returned.
    ///
    /// # Panics
    /// If there is no such block.
    #[inline]
    pub fn run(
        &self,
        block: u32,
        slots: &mut Slots,
        progress: &mut Progress,
        memory: &mut Memory<'_>,
        calls: Option<&mut Calls>,
    ) -> (Exit, bool) {
        self.enter(self.entries[block as usize], slots, progress, memory, calls)
    }

    /// Goes on behind an operation that has been executed otherwise, with the same slots and
    /// memory.
    ///
    /// # Panics
    /// If there is no such place.
    #[inline]
    pub fn resume(
        &self,
        resume: Resume,
        slots: &mut Slots,
        progress: &mut Progress,
        memory: &mut Memory<'_>,
        calls: Option<&mut Calls>,
    ) -> (Exit, bool) {
        self.enter(self.resumes[resume.0 as usize], slots, progress, memory, calls)
    }

    /// Enters code at `entry`, which is the offset of a block or of what goes on in one.
    #[inline]
    fn enter(
        &self,
        entry: usize,
        slots: &mut Slots,
        progress: &mut Progress,
        memory: &mut Memory<'_>,
        mut calls: Option<&mut Calls>,
    ) -> (Exit, bool) {
        // A way whose end is known to be this very address is told apart by nothing being written.
        progress.inner = Inner { to: DYNAMIC, ..Inner::default() };
        if let Some(calls) = &mut calls {
            progress.inner.calls = calls.open.as_mut_ptr().expose_provenance() as u64;
            progress.inner.open = calls.open.len() as u64;
            progress.inner.room = calls.open.capacity().min(MOST_OPEN) as u64;
        }
        #[cfg(target_arch = "x86_64")]
        {
            let (base, slots) = (self.code.as_ptr(), slots.as_mut_ptr());
            // SAFETY: the buffer begins with a function of this type (`template::compile`), which
            // preserves what the calling convention says. It accesses `slots`, whose length covers
            // every slot's number, `progress` and `memory`, all borrowed mutably until it returns;
            // for pages see `memory`. `entry` is the offset of code in the same buffer that relies
            // on nothing else.
            let exit = unsafe {
                let enter: Enter = std::mem::transmute(base);
                enter(slots, progress, memory.hot_pointer().as_ptr(), base.add(entry))
            };
            if let Some(calls) = calls {
                // SAFETY: compiled code changes the number by one at a time, up to the room that
                // there is, and writes what it adds.
                unsafe { calls.open.set_len(progress.inner.open as usize) };
            }
            let exit = match self.exits[exit as usize] {
                Exit::Next { block, to: DYNAMIC } => Exit::Next { block, to: progress.inner.to },
                exit => exit,
            };
            (exit, progress.inner.returned != 0)
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (slots, progress, memory, calls, entry);
            (Exit::Begin { block: 0 }, false)
        }
    }
}

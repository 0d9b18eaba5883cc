//! What a whole run executes, step by step: enough to slice it like a recording.

use lift::Mode;
use machine::{PAGE_SIZE, Reg};

use crate::overlay::PROCESS_FRAMES;

/// A memory access of a watched run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Whether it wrote.
    pub store: bool,
    /// Linear address.
    pub vaddr: u64,
    /// Guest-physical address. Pages of the training process have addresses past any machine's
    /// memory.
    pub paddr: u64,
    /// Guest-physical address of the second page, where the access crosses into one.
    pub next_page: Option<u64>,
    /// How many bytes were accessed.
    pub size: u8,
    /// What was read or written.
    pub value: u64,
}

impl Seen {
    /// Whether it went to the training process's own pages, or to those of its heap, and not to the
    /// target.
    #[must_use]
    pub const fn is_process(&self) -> bool {
        self.paddr >= PROCESS_FRAMES
    }

    /// Guest-physical address of each byte.
    pub fn bytes(&self) -> impl Iterator<Item = u64> + use<> {
        let Self { paddr, next_page, size, .. } = *self;
        let here = PAGE_SIZE - paddr % PAGE_SIZE;
        (0..u64::from(size)).map(move |n| match next_page {
            Some(next) if n >= here => next + n - here,
            _ => paddr + n,
        })
    }
}

/// Sees a whole run. The calls come in the order of execution: an instruction, then its accesses.
pub trait Watch {
    /// Whether anything is watched; if not, the inner loop is compiled without it.
    const ON: bool;

    /// An instruction begins.
    fn insn(&mut self, pc: u64, mode: Mode, bytes: &[u8]);

    /// The instruction accessed memory.
    fn access(&mut self, seen: Seen);

    /// The general registers after an instruction whose result its operands do not determine.
    fn registers(&mut self, values: &[(Reg, u64); 16]);
}

/// Watches nothing.
pub struct Unwatched;

impl Watch for Unwatched {
    const ON: bool = false;

    fn insn(&mut self, _: u64, _: Mode, _: &[u8]) {}

    fn access(&mut self, _: Seen) {}

    fn registers(&mut self, _: &[(Reg, u64); 16]) {}
}

//! What goes into compiled code and what comes out: blocks, what a run counts, and exits.

use crate::operation::Predecoded;

/// A block to compile.
#[derive(Clone, Copy, Debug)]
pub struct Source<'b> {
    /// Where it begins.
    pub start: u64,
    /// Where control goes behind its last operation.
    pub next: u64,
    /// Its operations.
    pub ops: &'b [Predecoded],
    /// Where control goes instead if the value of a slot is not 0 behind the last operation.
    pub branch: Option<(u16, u64)>,
    /// The constants that they name, in the order of their slots. What further slots hold is not
    /// known here.
    pub constants: &'b [u64],
    /// How many instructions it has.
    pub instructions: u32,
    /// Blocks of different groups do not lead to each other.
    pub group: u32,
    /// What is counted in [`Progress::marked`].
    pub marked: bool,
}

/// What a run counts, and when it has to ask.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Progress {
    /// Fuel used: operations, and one more for each block.
    pub used: u64,
    /// Beyond this much, somebody has to look.
    pub due: u64,
    /// Instructions executed.
    pub instructions: u64,
    /// Blocks begun.
    pub seen: u64,
    /// At so many, somebody has to look.
    pub next: u64,
    /// The address of a block before which somebody has to look, if the rest is as here too.
    pub place: u64,
    /// What [`Memory::state`](crate::Memory::state) has to be for that.
    pub memory: u64,
    /// What the first slots have to hold for that.
    pub registers: [u64; COMPARED],
    /// Not 0 after a block that is marked.
    pub marked: u64,
    /// Of the code alone: [`Native::run`](crate::Native::run) begins it anew.
    pub inner: Inner,
}

/// What compiled code leaves for [`Native::run`](crate::Native::run).
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Inner {
    /// Where the run goes on after a way out that only the run knows.
    pub(crate) to: u64,
    /// The stack pointers of open calls: where they are,
    pub(crate) calls: u64,
    /// how many there are,
    pub(crate) open: u64,
    /// and for how many there is room. No room: calls and returns are somebody else's.
    pub(crate) room: u64,
    /// Not 0 after a return from an open call.
    pub(crate) returned: u64,
}

/// Slots that [`Progress::registers`] has.
pub const COMPARED: usize = 16;

/// A place behind an operation, at which compiled code can be entered again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume(pub(crate) u32);

/// How compiled code was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Somebody has to look before this block; nothing of it was counted or done.
    Begin {
        /// Its number among those compiled together.
        block: u32,
    },
    /// This operation of a block has to be executed otherwise. What lies before it is done, and the
    /// block is counted in full.
    Operation {
        /// The block.
        block: u32,
        /// The operation.
        at: u32,
        /// Where compiled code goes on behind it, if it can.
        resume: Option<Resume>,
    },
    /// The block is done.
    Next {
        /// The block.
        block: u32,
        /// Where the run goes on.
        to: u64,
    },
}

/// The address in an exit that only the run knows.
pub(crate) const DYNAMIC: u64 = u64::MAX;

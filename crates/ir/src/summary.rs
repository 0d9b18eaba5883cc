//! Allocator functions of the training process that runs replace: what one does, and how it is
//! called.
//!
//! Which functions these are, and by which convention their compiler calls them, is the caller's
//! knowledge; here it is data.

use serde::{Deserialize, Serialize};

use crate::op::Var;

/// What an allocator function does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Allocates: `malloc(size)`.
    Malloc,
    /// Allocates zeroed memory: `calloc(count, size)`.
    Calloc,
    /// Moves an allocation: `realloc(old, size)`.
    Realloc,
    /// Frees an allocation: `free(old)`.
    Free,
    /// Frees one and returns 1.
    Release,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 5] =
        [Action::Malloc, Action::Calloc, Action::Realloc, Action::Free, Action::Release];

    /// How many arguments it takes.
    #[must_use]
    pub const fn arity(self) -> usize {
        match self {
            Action::Calloc | Action::Realloc => 2,
            Action::Malloc | Action::Free | Action::Release => 1,
        }
    }

    /// Its word in listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Action::Malloc => "malloc",
            Action::Calloc => "calloc",
            Action::Realloc => "realloc",
            Action::Free => "free",
            Action::Release => "release",
        }
    }
}

/// Where a function finds an argument when it begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ArgumentLocation {
    /// In this register.
    Register(Var),
    /// So many bytes above the stack pointer, as a word of the process.
    Stack(u16),
}

/// An allocator function that runs replace. Its result is in the first register, and it gives all
/// others back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// What it does.
    pub action: Action,
    /// Where its arguments are; those past the action's arity are [`Summary::NO_ARG`].
    pub args: [ArgumentLocation; 2],
    /// Bytes of arguments that it takes off the stack when it returns.
    pub pops: u16,
    /// An argument, and bits of it with any of which its result is 0: what they ask for is not
    /// possible.
    pub fails: Option<(ArgumentLocation, u32)>,
}

impl Summary {
    /// No argument: there, the return address lies.
    pub const NO_ARG: ArgumentLocation = ArgumentLocation::Stack(0);

    /// The locations of its arguments.
    #[must_use]
    pub fn args(&self) -> &[ArgumentLocation] {
        &self.args[..self.action.arity()]
    }
}

//! Ids: small numbers, one type for each kind of thing they number.
//!
//! The slicer keeps steps, instructions, sites, operations, contexts and nodes of control-flow
//! graphs in dense tables, steps by the million. A 32-bit number takes half the room of a reference
//! and borrows nothing; a type for each kind keeps one from being used as another.
//! `cranelift-entity` does the same; this is the part of it that is needed here. The text form of
//! an id is a letter and the number, in dumps and in file tests alike.

use std::fmt;

/// A number that stands for a thing in a `Table`.
pub trait Id: Copy + Eq + Ord + fmt::Debug {
    /// The id of the thing at an index, which must be below 2^32.
    fn new(index: usize) -> Self;

    /// Its index in the table.
    fn index(self) -> usize;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl Id for $name {
            fn new(index: usize) -> Self {
                debug_assert!(u32::try_from(index).is_ok(), "more than 2^32 of one kind");
                Self(index as u32)
            }

            fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $letter, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $letter, self.0)
            }
        }
    };
}

id! {
    /// A step: one executed instruction of a recording, interrupted and foreign ones included.
    StepId, "t"
}
id! {
    /// A retained step, numbered among the retained steps of its recording.
    RetainedId, "r"
}
id! {
    /// A distinct instruction (address and bytes) of all recordings together.
    InsnId, "i"
}
id! {
    /// A function in its calling context.
    ContextId, "c"
}
id! {
    /// A site: an instruction in a context.
    SiteId, "s"
}
id! {
    /// An operation of a site: a node of the dependence graph.
    OpId, "o"
}
id! {
    /// A node of a context's control-flow graph.
    NodeId, "n"
}

id! {
    /// An image of the training system's code: an index into
    /// [`RelocationTable::images`](ir::relocation::RelocationTable::images).
    ImageId, "m"
}

impl ImageId {
    /// The number that program files have for it.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0 as u16
    }
}

impl StepId {
    /// The step after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The step before it; `None` for the first.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl OpId {
    /// The operation `n` places further in the same site.
    #[must_use]
    pub const fn add(self, n: usize) -> Self {
        Self(self.0 + n as u32)
    }
}

//! What defined a value: an operation of the recording, nothing since the begin mark, or something
//! foreign.

use std::fmt;

use crate::vocabulary::{Id, OpId};

/// What defined a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Definer {
    /// Nothing: the value was there at the begin mark.
    Initial,
    /// Another thread or process, a signal's handler, or a device, between the marks.
    Foreign,
    /// An operation of the recording.
    Op(OpId),
}

/// A [`Definer`] in four bytes: shadow memory holds one for each byte of every frame that was
/// stored into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PackedDefiner(u32);

impl PackedDefiner {
    /// Stands for [`Definer::Initial`].
    pub const INITIAL: Self = Self(u32::MAX);
    /// Stands for [`Definer::Foreign`].
    pub const FOREIGN: Self = Self(u32::MAX - 1);

    /// An operation. Recordings are too short for one of the two numbers above.
    #[must_use]
    pub fn op(op: OpId) -> Self {
        Self(op.index() as u32)
    }

    /// What it stands for.
    #[must_use]
    pub fn unpack(self) -> Definer {
        match self {
            Self::INITIAL => Definer::Initial,
            Self::FOREIGN => Definer::Foreign,
            Self(op) => Definer::Op(OpId::new(op as usize)),
        }
    }
}

impl fmt::Debug for PackedDefiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unpack().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing() {
        let op = OpId::new(7);
        let packed = [PackedDefiner::INITIAL, PackedDefiner::FOREIGN, PackedDefiner::op(op)];
        assert_eq!(packed.map(PackedDefiner::unpack), [Definer::Initial, Definer::Foreign, Definer::Op(op)]);
    }
}

//! Predecoded operations: the form that is executed, and where their values are.

use ir::{Kind, Width};

/// The values that operations work on, by slot: registers (0 to 255), temporaries, one slot for
/// results without a destination, constants.
pub type Slots = [u64; SLOTS];

/// How many slots there are.
pub const SLOTS: usize = 1 << 16;
/// Slots of registers.
pub const REGISTERS: usize = 256;
/// Slot of the first temporary; there are [`TEMPS`] of them.
pub const FIRST_TEMP: u16 = REGISTERS as u16;
/// Slots of temporaries.
pub const TEMPS: u16 = 2048;
/// Where results of operations without a destination go.
pub const NOWHERE: u16 = FIRST_TEMP + TEMPS;
/// Slot of the first constant.
pub const FIRST_CONST: u16 = NOWHERE + 1;

/// An operation whose operands are slots.
#[derive(Clone, Copy, Debug)]
pub struct Predecoded {
    /// What it does.
    pub kind: Kind,
    /// Its width.
    pub width: Width,
    /// Slot of the result.
    pub dst: u16,
    /// Slot of the first operand. Operands that it does not have are in the slot of 0.
    pub a: u16,
    /// Slot of the second operand.
    pub b: u16,
    /// Slot of the third operand.
    pub c: u16,
}

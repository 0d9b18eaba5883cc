//! Predecoded operations: the form that the inner loop executes.
//!
//! Registers, temporaries and constants live in one array of values that a 16-bit number indexes,
//! so that an operand needs no case distinction and no bounds check. The value of a relocated
//! constant depends on the target: it gets a slot, which the run fills.

use ir::{Arg, Kind, Op, Var, Width};
use machine::hash;

/// The values that operations work on, by slot: registers (0 to 255), temporaries, one slot for
/// results without a destination, constants.
pub(crate) type Slots = Box<[u64; SLOTS]>;

/// How many slots there are.
const SLOTS: usize = 1 << 16;
/// Slots of registers.
pub(crate) const REGISTERS: usize = 256;
/// Slot of the first temporary; there are [`TEMPS`] of them.
const FIRST_TEMP: u16 = REGISTERS as u16;
const TEMPS: u16 = 2048;
/// Where results of operations without a destination go.
const NOWHERE: u16 = FIRST_TEMP + TEMPS;
/// Slot of the first constant.
const FIRST_CONST: u16 = NOWHERE + 1;

/// An operation whose operands are slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Predecoded {
    pub kind: Kind,
    pub width: Width,
    /// Slot of the result.
    pub dst: u16,
    /// Slots of the operands. Those that the operation does not have are the slot of 0.
    pub a: u16,
    pub b: u16,
    pub c: u16,
}

/// There are more distinct constants or temporaries than slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the code has too many constants or temporaries")]
pub struct TooLarge;

/// The constants of predecoded code, each in one slot.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    /// Slots of constants, by value.
    index: hash::Map<u64, u16>,
    /// Slots of relocated constants, by their number in the program.
    relocated: hash::Map<u32, u16>,
    /// The constants in the order of their slots; 0 for relocated ones.
    values: Vec<u64>,
}

/// Slots that all hold 0.
pub(crate) fn slots() -> Slots {
    let zeroed = vec![0u64; SLOTS].into_boxed_slice();
    zeroed.try_into().unwrap_or_else(|_| Box::new([0; SLOTS]))
}

impl Pool {
    /// How many slots of constants are taken.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The slot of a variable.
    pub fn var(var: Var) -> Result<u16, TooLarge> {
        if var == Var::NONE {
            Ok(NOWHERE)
        } else if var.0 < FIRST_TEMP + TEMPS {
            Ok(var.0)
        } else {
            Err(TooLarge)
        }
    }

    /// The slot of an operand.
    pub fn arg(&mut self, arg: Arg) -> Result<u16, TooLarge> {
        match arg {
            Arg::Var(var) => Self::var(var),
            Arg::Const(value) => {
                if let Some(&slot) = self.index.get(&value) {
                    return Ok(slot);
                }
                let slot = self.add(value)?;
                self.index.insert(value, slot);
                Ok(slot)
            }
            Arg::Relocated(number) => {
                if let Some(&slot) = self.relocated.get(&number) {
                    return Ok(slot);
                }
                let slot = self.add(0)?;
                self.relocated.insert(number, slot);
                Ok(slot)
            }
        }
    }

    /// Takes the next slot.
    fn add(&mut self, value: u64) -> Result<u16, TooLarge> {
        let slot = u16::try_from(FIRST_CONST as usize + self.values.len()).map_err(|_| TooLarge)?;
        self.values.push(value);
        Ok(slot)
    }

    /// The relocated constants that operands name: number in the program, and slot; by slot.
    pub fn relocated(&self) -> Vec<(usize, usize)> {
        let named = self.relocated.iter().map(|(&number, &slot)| (number as usize, usize::from(slot)));
        let mut named: Vec<_> = named.collect();
        named.sort_unstable_by_key(|it| it.1);
        named
    }

    /// Predecodes an operation.
    pub fn op(&mut self, op: &Op) -> Result<Predecoded, TooLarge> {
        let [a, b, c] = op.args;
        Ok(Predecoded {
            kind: op.kind,
            width: op.width,
            dst: Self::var(op.dst)?,
            a: self.arg(a)?,
            b: self.arg(b)?,
            c: self.arg(c)?,
        })
    }

    /// Writes the constants into their slots, all but the first `from`.
    pub fn fill(&self, slots: &mut Slots, from: usize) {
        for (at, &value) in self.values.iter().enumerate().skip(from) {
            slots[FIRST_CONST as usize + at] = value;
        }
    }
}

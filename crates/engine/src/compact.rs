//! Operations in the form the inner loop executes.
//!
//! Registers, temporaries and constants live in one array of values that a 16-bit number indexes,
//! so that an operand needs no case distinction and no bounds check.

use ir::{Arg, Kind, Op, Var, Width};
use rustc_hash::FxHashMap;

/// Values by number: registers, then temporaries, then constants.
pub(crate) type Slots = Box<[u64; 65536]>;

/// Number of the first temporary; there are [`TEMPS`] of them.
const FIRST_TEMP: u16 = 256;
const TEMPS: u16 = 2048;
/// Where results of operations without a destination go.
const NOWHERE: u16 = FIRST_TEMP + TEMPS;
const FIRST_CONST: u16 = NOWHERE + 1;

/// An operation on slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compact {
    pub kind: Kind,
    pub width: Width,
    pub dst: u16,
    pub a: u16,
    pub b: u16,
    pub c: u16,
}

/// There are more distinct constants or temporaries than slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the code has too many constants or temporaries")]
pub struct TooLarge;

/// Gives constants their slots.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    index: FxHashMap<u64, u16>,
    moved: FxHashMap<u32, u16>,
    pub values: Vec<u64>,
}

/// Fresh slots.
pub(crate) fn slots() -> Slots {
    let zeroed = vec![0u64; 65536].into_boxed_slice();
    zeroed.try_into().unwrap_or_else(|_| Box::new([0; 65536]))
}

impl Pool {
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
                let slot = self.place(value)?;
                self.index.insert(value, slot);
                Ok(slot)
            }
            Arg::Moved(number) => {
                if let Some(&slot) = self.moved.get(&number) {
                    return Ok(slot);
                }
                let slot = self.place(0)?;
                self.moved.insert(number, slot);
                Ok(slot)
            }
        }
    }

    fn place(&mut self, value: u64) -> Result<u16, TooLarge> {
        let slot = u16::try_from(FIRST_CONST as usize + self.values.len()).map_err(|_| TooLarge)?;
        self.values.push(value);
        Ok(slot)
    }

    /// The moving constants that operands name, with their slots.
    pub fn moved(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.moved.iter().map(|(&number, &slot)| (number as usize, usize::from(slot)))
    }

    /// An operation on slots.
    pub fn op(&mut self, op: &Op) -> Result<Compact, TooLarge> {
        let [a, b, c] = op.args;
        Ok(Compact {
            kind: op.kind,
            width: op.width,
            dst: Self::var(op.dst)?,
            a: self.arg(a)?,
            b: self.arg(b)?,
            c: self.arg(c)?,
        })
    }

    /// Writes the constants from number `from` on into their slots.
    pub fn fill(&self, slots: &mut Slots, from: usize) {
        for (at, &value) in self.values.iter().enumerate().skip(from) {
            slots[FIRST_CONST as usize + at] = value;
        }
    }
}

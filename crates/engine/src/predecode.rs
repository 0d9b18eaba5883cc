//! Predecoded operations: the form that the inner loop executes.
//!
//! Registers, temporaries and constants live in one array of values that a 16-bit number indexes,
//! so that an operand needs no case distinction and no bounds check. The value of a relocated
//! constant depends on the target: it gets a slot, which the run fills.
//!
//! A slice has one pool of constants ([`Pool`]), which are in their slots from its beginning to its
//! end, relocated ones in the last slots. Lifted blocks of code each have their own
//! ([`Constants`]), which are put into the slots when the block is entered: so there may be any
//! number of blocks, and who lifted them does not matter.

use ir::{Arg, Op, Var};
pub(crate) use jit::operation::{FIRST_CONST, Predecoded, REGISTERS, Slots};
use jit::operation::{FIRST_TEMP, NOWHERE, SLOTS, TEMPS};
use machine::hash;

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
    /// The others in the order of their slots.
    values: Vec<u64>,
}

/// Slots that all hold 0.
pub(crate) fn slots() -> Box<Slots> {
    let zeroed = vec![0u64; SLOTS].into_boxed_slice();
    zeroed.try_into().unwrap_or_else(|_| Box::new([0; SLOTS]))
}

impl Pool {
    /// The slot of a variable.
    #[inline]
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
                self.room()?;
                let slot = FIRST_CONST + self.values.len() as u16;
                self.values.push(value);
                self.index.insert(value, slot);
                Ok(slot)
            }
            Arg::Relocated(number) => {
                if let Some(&slot) = self.relocated.get(&number) {
                    return Ok(slot);
                }
                self.room()?;
                let slot = (SLOTS - 1 - self.relocated.len()) as u16;
                self.relocated.insert(number, slot);
                Ok(slot)
            }
        }
    }

    /// Whether there is a slot for one more.
    fn room(&self) -> Result<(), TooLarge> {
        let all = SLOTS - FIRST_CONST as usize;
        if self.values.len() + self.relocated.len() < all { Ok(()) } else { Err(TooLarge) }
    }

    /// The constants that are the same over every target, in the order of their slots.
    pub fn values(&self) -> &[u64] {
        &self.values
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

    /// Writes the constants into their slots.
    pub fn fill(&self, slots: &mut Slots) {
        fill(slots, &self.values);
    }
}

/// Writes constants into the slots that they have by their place among them.
#[inline(always)]
pub(crate) fn fill(slots: &mut Slots, constants: &[u64]) {
    slots[FIRST_CONST as usize..][..constants.len()].copy_from_slice(constants);
}

/// Makes registers and temporaries 0, as in new slots. Constants stay: nothing reads those of a
/// block that is not entered.
pub(crate) fn clear(slots: &mut Slots) {
    slots[..FIRST_CONST as usize].fill(0);
}

/// The constants of one block, in the order of their slots.
#[derive(Default)]
pub(crate) struct Constants(pub Vec<u64>);

impl Constants {
    fn arg(&mut self, arg: Arg) -> Result<u16, TooLarge> {
        let value = match arg {
            Arg::Var(var) => return Pool::var(var),
            Arg::Const(value) => value,
            // Code has none; only programs do.
            Arg::Relocated(_) => return Err(TooLarge),
        };
        // There are few: a search is faster than a map.
        let at = self.0.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.0.push(value);
            self.0.len() - 1
        });
        u16::try_from(FIRST_CONST as usize + at).map_err(|_| TooLarge)
    }

    /// Predecodes an operation.
    pub fn op(&mut self, op: &Op) -> Result<Predecoded, TooLarge> {
        let [a, b, c] = op.args;
        let dst = Pool::var(op.dst)?;
        let [a, b, c] = [self.arg(a)?, self.arg(b)?, self.arg(c)?];
        Ok(Predecoded { kind: op.kind, width: op.width, dst, a, b, c })
    }
}

//! Sets of registers, and tables with a value for each register.

use std::ops::{Index, IndexMut};

use ir::{Arg, Op, Var};
use machine::Reg;

/// The stack pointer.
pub const STACK_POINTER: Var = Var(Reg::Rsp as u16);

/// How many general registers there are: the first ones.
pub const GENERAL: usize = 16;

/// Where an allocator function leaves its result.
pub const RESULT: Var = Var(Reg::Rax as u16);

/// How many registers there can be: all numbers below the first temporary.
const REGISTERS: usize = Var::FIRST_TEMP as usize;

/// A set of registers, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegisterSet([u64; REGISTERS / 64]);

impl RegisterSet {
    /// Every register.
    pub const ALL: RegisterSet = RegisterSet([u64::MAX; REGISTERS / 64]);

    /// Whether it holds the register.
    #[must_use]
    pub const fn has(&self, var: Var) -> bool {
        self.0[(var.0 >> 6 & 3) as usize] >> (var.0 & 63) & 1 == 1
    }

    /// Adds a register.
    pub const fn insert(&mut self, var: Var) {
        self.0[(var.0 >> 6 & 3) as usize] |= 1 << (var.0 & 63);
    }

    /// Removes a register.
    pub const fn remove(&mut self, var: Var) {
        self.0[(var.0 >> 6 & 3) as usize] &= !(1 << (var.0 & 63));
    }

    /// Adds all of another set. Returns whether that changed anything.
    pub fn union(&mut self, other: &RegisterSet) -> bool {
        let old = *self;
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
        old != *self
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &RegisterSet) -> RegisterSet {
        self.without(&RegisterSet::ALL.without(other))
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(&self, other: &RegisterSet) -> RegisterSet {
        let mut left = *self;
        for (mine, theirs) in left.0.iter_mut().zip(other.0) {
            *mine &= !theirs;
        }
        left
    }

    /// Whether the sets share a register.
    #[must_use]
    pub fn meets(&self, other: &RegisterSet) -> bool {
        self.0.iter().zip(other.0).any(|(mine, theirs)| mine & theirs != 0)
    }

    /// The registers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Var> + '_ {
        (0..REGISTERS as u16).map(Var).filter(|&var| self.has(var))
    }
}

impl FromIterator<Var> for RegisterSet {
    /// The registers among some variables; temporaries are left out.
    fn from_iter<T: IntoIterator<Item = Var>>(vars: T) -> Self {
        let mut set = RegisterSet::default();
        vars.into_iter().filter(|var| var.is_reg()).for_each(|var| set.insert(var));
        set
    }
}

/// A value for each register, such as what it holds at a point of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterValues<T = u64>([T; REGISTERS]);

impl<T: Copy> RegisterValues<T> {
    /// The same value for all registers.
    #[must_use]
    pub const fn all(value: T) -> Self {
        Self([value; REGISTERS])
    }
}

impl<T: Copy> Index<Reg> for RegisterValues<T> {
    type Output = T;

    fn index(&self, reg: Reg) -> &T {
        &self.0[reg.index()]
    }
}

impl<T: Copy> IndexMut<Reg> for RegisterValues<T> {
    fn index_mut(&mut self, reg: Reg) -> &mut T {
        &mut self.0[reg.index()]
    }
}

/// By a variable of the IR, which must be a register.
impl<T: Copy> Index<Var> for RegisterValues<T> {
    type Output = T;

    fn index(&self, var: Var) -> &T {
        &self.0[var.0 as usize % REGISTERS]
    }
}

impl<T: Copy> IndexMut<Var> for RegisterValues<T> {
    fn index_mut(&mut self, var: Var) -> &mut T {
        &mut self.0[var.0 as usize % REGISTERS]
    }
}

/// Values of an instruction's temporaries; one that was not defined is 0.
#[derive(Clone, Default, Debug)]
pub struct Temporaries(Vec<u64>);

impl Temporaries {
    /// The value of an operand: a constant, a register or a temporary.
    #[inline]
    #[must_use]
    pub fn value(&self, arg: Arg, regs: &RegisterValues) -> u64 {
        match arg {
            Arg::Const(value) => value,
            // Only programs have such operands.
            Arg::Relocated(_) => 0,
            Arg::Var(var) if var.is_reg() => regs[var],
            Arg::Var(var) => self.0.get(Self::index(var)).copied().unwrap_or(0),
        }
    }

    /// Gives what an operation defines, if it defines anything, this value.
    #[inline]
    pub fn define(&mut self, op: &Op, regs: &mut RegisterValues, value: u64) {
        let Some(var) = op.def() else { return };
        if var.is_reg() {
            regs[var] = value;
            return;
        }
        let at = Self::index(var);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = value;
    }

    const fn index(var: Var) -> usize {
        (var.0 - Var::FIRST_TEMP) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_registers() {
        let set: RegisterSet = [Var(1), Var(200), Var::temp(3)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Var(1), Var(200)], "no temporary");
        let mut other = RegisterSet::default();
        other.insert(Var(200));
        assert!(set.meets(&other) && !set.without(&other).meets(&other));
        assert_eq!(set.intersection(&other), other);
        assert!(!other.clone().union(&RegisterSet::default()), "nothing new");
        assert!(other.union(&set));
    }
}

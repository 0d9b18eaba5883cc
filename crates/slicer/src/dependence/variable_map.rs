//! Last writers of registers and temporaries.

use ir::Var;

use super::definer::PackedDefiner;
use crate::vocabulary::{OpId, RegisterValues};

/// Who defined each register, and each temporary of the running instruction.
pub struct VariableMap {
    registers: Box<RegisterValues<PackedDefiner>>,
    temps: Vec<PackedDefiner>,
}

/// The last writers of all registers at one point.
pub type RegisterDefiners = Box<RegisterValues<PackedDefiner>>;

impl VariableMap {
    /// All are as they were at the begin mark.
    #[must_use]
    pub fn new() -> Self {
        Self { registers: Box::new(RegisterValues::all(PackedDefiner::INITIAL)), temps: Vec::new() }
    }

    /// Who defined a variable last.
    #[must_use]
    pub fn definer(&self, var: Var) -> PackedDefiner {
        if var.is_reg() {
            self.registers[var]
        } else {
            self.temps.get((var.0 - Var::FIRST_TEMP) as usize).copied().unwrap_or(PackedDefiner::INITIAL)
        }
    }

    /// An operation defines a variable.
    pub fn define(&mut self, var: Var, op: OpId) {
        self.set(var, PackedDefiner::op(op));
    }

    /// Gives a variable this definer.
    pub fn set(&mut self, var: Var, definer: PackedDefiner) {
        if var.is_reg() {
            self.registers[var] = definer;
        } else {
            let at = (var.0 - Var::FIRST_TEMP) as usize;
            if self.temps.len() <= at {
                self.temps.resize(at + 1, PackedDefiner::INITIAL);
            }
            self.temps[at] = definer;
        }
    }

    /// Forgets the temporaries of the instruction before.
    pub fn clear_temps(&mut self) {
        self.temps.clear();
    }

    /// The registers' definers now.
    #[must_use]
    pub const fn registers(&self) -> &RegisterValues<PackedDefiner> {
        &self.registers
    }
}

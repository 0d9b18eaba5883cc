//! Which operations of a block are needed.

use ir::{Class, Kind, Var};
use lift::Insn;

/// Which operations of a block are needed, by instruction and operation. An operation is not needed
/// if its result is overwritten before anything reads it, as most flags are.
pub(super) fn useful(insns: &[Insn]) -> Vec<Vec<bool>> {
    let mut live = [true; 256];
    let mut kept: Vec<Vec<bool>> = insns
        .iter()
        .rev()
        .map(|insn| {
            let mut temps = vec![false; 64];
            let mut keep = vec![true; insn.ops.len()];
            for (at, op) in insn.ops.iter().enumerate().rev() {
                if op.class() == Class::Control {
                    live = [true; 256];
                }
                if op.class() == Class::Pure
                    && let Some(var) = op.def()
                {
                    let wanted = if var.is_reg() {
                        std::mem::replace(&mut live[var.0 as usize & 255], false)
                    } else {
                        temps.get((var.0 - Var::FIRST_TEMP) as usize).copied().unwrap_or(true)
                    };
                    // A division may fault, so it is needed even if nobody reads its result.
                    let faults = matches!(op.kind, Kind::DivU | Kind::DivS | Kind::RemU | Kind::RemS);
                    if !wanted && !faults {
                        keep[at] = false;
                        continue;
                    }
                }
                for var in op.uses() {
                    if var.is_reg() {
                        live[var.0 as usize & 255] = true;
                    } else {
                        let temp = (var.0 - Var::FIRST_TEMP) as usize;
                        if temps.len() <= temp {
                            temps.resize(temp + 1, true);
                        }
                        temps[temp] = true;
                    }
                }
            }
            keep
        })
        .collect();
    kept.reverse();
    kept
}

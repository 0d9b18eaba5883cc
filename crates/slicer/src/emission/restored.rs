//! Which registers each call gives back: the callee-saved ones that the program's own operations
//! change.
//!
//! Code of the callee that is in the slice may change a register while the pop that gave it back is
//! not in the slice. So a program's call saves such registers, and the return restores them; those
//! that neither the function nor what it calls changes need nothing.
//!
//! ```text
//! changed(f) = definitions in f + union of changed(g) over functions g that f may enter
//! ```
//!
//! Sets of registers ordered by inclusion, from callees to callers; a fact rises at most 256 times.

use ir::Op;
use ir::program::{Callee, FuncId, Function, Target, Terminator};

use super::simplify::each_target;
use crate::analysis::solver::{Equations, reversed, solve};
use crate::vocabulary::{Id, RegisterSet, Table};

impl Id for FuncId {
    fn new(index: usize) -> Self {
        FuncId(index as u32)
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Leaves in each function's callee-saved registers only those that it, or what it calls, changes.
pub fn restrict(functions: &mut [Function]) {
    let enters: Table<FuncId, Vec<FuncId>> = functions.iter().map(entered).collect();
    let own: Table<FuncId, RegisterSet> = functions.iter().map(defined).collect();
    let order: Vec<FuncId> = enters.ids().rev().collect();
    let mut changed = own.clone();
    solve(&Changes { own: &own, callers: reversed(&enters), enters: &enters }, &order, &mut changed);
    for (function, changed) in functions.iter_mut().zip(changed.values()) {
        function.callee_saved.retain(|&var| changed.has(var));
    }
}

struct Changes<'c> {
    own: &'c Table<FuncId, RegisterSet>,
    enters: &'c Table<FuncId, Vec<FuncId>>,
    callers: Table<FuncId, Vec<FuncId>>,
}

impl Equations for Changes<'_> {
    type Node = FuncId;
    type Fact = RegisterSet;

    fn transfer(&self, function: FuncId, facts: &Table<FuncId, RegisterSet>) -> RegisterSet {
        let mut changed = self.own[function];
        for &callee in &self.enters[function] {
            changed.union(&facts[callee]);
        }
        changed
    }

    fn readers(&self, function: FuncId, each: &mut dyn FnMut(FuncId)) {
        self.callers[function].iter().for_each(|&caller| each(caller));
    }
}

/// The registers that a function's own operations define.
fn defined(function: &Function) -> RegisterSet {
    function.blocks.iter().flat_map(|block| &block.ops).filter_map(Op::def).collect()
}

/// The functions that a function may call or go on as.
fn entered(function: &Function) -> Vec<FuncId> {
    let mut entered = Vec::new();
    for block in &function.blocks {
        each_target(&block.term, &mut |target| {
            if let Target::Tail(function) = target {
                entered.push(function);
            }
        });
        match &block.term {
            Terminator::Call { callee: Callee::Direct(function), .. } => entered.push(*function),
            Terminator::Call { callee: Callee::Indirect { arms, .. }, .. } => {
                entered.extend(arms.iter().filter_map(|arm| arm.target));
            }
            _ => {}
        }
    }
    entered.sort_unstable();
    entered.dedup();
    entered
}

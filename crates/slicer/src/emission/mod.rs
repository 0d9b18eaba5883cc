//! Writes a slice down as functions and blocks.
//!
//! Each site in the slice becomes a block, or several where an instruction branches in its middle
//! ([`body`]). A site that is not in the slice is stepped over: nothing in the slice depends on
//! which way it goes, so control goes on at its immediate post-dominator. Then blocks that only
//! follow one another are joined ([`simplify`](mod@simplify)), and of each function's callee-saved
//! registers those are kept that it, or what it calls, changes ([`restored`]).

pub mod body;
pub mod input;
pub mod restored;
pub mod simplify;
pub mod terminator;

use ir::program::{Block, FuncId, Function, Target, Terminator};

pub use input::{Emission, FunctionIds, RelocatedConstants};

use crate::vocabulary::allocator::summary_ops;
use crate::vocabulary::{ContextId, STACK_POINTER};

impl Emission<'_> {
    /// Emits all contexts that are in the slice: the entry first, then in the order of their ids.
    #[must_use]
    pub fn emit(&self, entry: ContextId) -> Vec<Function> {
        let others = self.slice.contexts.iter().filter(|&context| context != entry);
        let order: Vec<ContextId> = std::iter::once(entry).chain(others).collect();
        let ids: FunctionIds =
            order.iter().enumerate().map(|(at, &context)| (context, FuncId(at as u32))).collect();
        let mut functions: Vec<Function> =
            order.iter().map(|&context| self.function(context, context == entry, &ids)).collect();
        restored::restrict(&mut functions);
        functions
    }

    fn function(&self, context: ContextId, is_entry: bool, ids: &FunctionIds) -> Function {
        let entry = self.contexts.entry(context);
        let saved = &self.graph.contexts[context].convention.callee_saved;
        let blocks = match self.summaries.get(&entry) {
            Some(summary) if !is_entry => vec![Block {
                pc: entry.0,
                ops: summary_ops(summary, self.graph.narrow),
                term: Terminator::Goto(Target::Return),
                term_pc: entry.0,
            }],
            _ => body::blocks(self, context, ids),
        };
        let callee_saved = saved.iter().filter(|&var| var != STACK_POINTER).collect();
        Function { pc: entry.0, name: String::new(), callee_saved, blocks }
    }
}

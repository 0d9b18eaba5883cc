//! What emission reads.

use ir::program::FuncId;
use ir::relocation::RelocatedConstant;
use machine::VirtAddr;
use rustc_hash::FxHashMap;

use crate::context::Contexts;
use crate::dependence::Graph;
use crate::slicing::Slice;
use crate::vocabulary::{CodeTable, ContextId, InsnId};

/// The relocated constants of the slice's instructions.
#[derive(Default)]
pub struct RelocatedConstants {
    /// All of them, each once.
    pub all: Vec<RelocatedConstant>,
    /// By instruction and index of the operation, its relocated operands: index of the operand, and
    /// of its constant in `all`.
    pub operands: FxHashMap<(InsnId, usize), Vec<(usize, u32)>>,
}

/// What emission reads.
pub struct Emission<'e> {
    /// The dependence graph.
    pub graph: &'e Graph,
    /// The code table.
    pub code: &'e CodeTable,
    /// The relocated constants of the slice's instructions.
    pub constants: &'e RelocatedConstants,
    /// The contexts.
    pub contexts: &'e Contexts,
    /// The slice.
    pub slice: &'e Slice,
    /// The trainer's allocator functions by entry address.
    pub summaries: &'e FxHashMap<VirtAddr, ir::Summary>,
}

/// The function of the program that each context of the slice becomes.
pub type FunctionIds = FxHashMap<ContextId, FuncId>;

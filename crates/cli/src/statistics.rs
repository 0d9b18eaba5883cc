//! How large a program is.

use ir::Program;
use ir::program::{Callee, Function, PageContent, Source, Target, Terminator};
use serde::Serialize;
use serde_json::{Value, json};

use crate::format;

/// How much code a function or a program has.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The number of basic blocks.
    pub blocks: usize,
    /// The number of operations in these blocks, their ends not counted.
    pub operations: usize,
    /// Conditional branches of which training saw one side only.
    pub guards: usize,
    /// Sides of branches and jumps that lead to code no training run executed.
    pub unexplored: usize,
    /// Computed jumps and calls, which accept trained targets only.
    pub computed: usize,
}

impl Counts {
    /// Counts one function's code.
    #[must_use]
    pub fn of(function: &Function) -> Self {
        let mut counts = Self { blocks: function.blocks.len(), ..Self::default() };
        for block in &function.blocks {
            counts.operations += block.ops.len();
            counts.guards += usize::from(format::is_guard(&block.term));
            counts.computed += usize::from(matches!(
                block.term,
                Terminator::Switch { .. } | Terminator::Call { callee: Callee::Indirect { .. }, .. }
            ));
            counts.unexplored += format::targets(&block.term)
                .iter()
                .filter(|target| matches!(target, Target::Unexplored(_)))
                .count();
        }
        counts
    }

    /// Counts the code of all of a program's functions.
    #[must_use]
    pub fn total(program: &Program) -> Self {
        program.functions.iter().map(Self::of).fold(Self::default(), |sum, it| Self {
            blocks: sum.blocks + it.blocks,
            operations: sum.operations + it.operations,
            guards: sum.guards + it.guards,
            unexplored: sum.unexplored + it.unexplored,
            computed: sum.computed + it.computed,
        })
    }
}

/// How many pages of the training process a program has, by what they hold.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize)]
pub struct Pages {
    /// Pages with bytes of the training process.
    pub bytes: usize,
    /// Pages of zeros.
    pub zero: usize,
    /// Pages that are the target kernel's own, found by its address for them.
    pub kernel: usize,
}

impl Pages {
    /// Counts a program's pages.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        let mut pages = Self::default();
        for page in &program.pages {
            match page.content {
                PageContent::Bytes(_) => pages.bytes += 1,
                PageContent::Zero => pages.zero += 1,
                PageContent::Kernel(_) => pages.kernel += 1,
            }
        }
        pages
    }
}

/// The recordings of a program as JSON.
#[must_use]
pub fn sources_json(program: &Program) -> Vec<Value> {
    let source = |it: &Source| {
        json!({"trace": it.trace, "rehearsed": it.rehearsed,
        "instructions": it.instructions, "kept": it.retained, "in_slice": it.in_slice})
    };
    program.provenance.sources.iter().map(source).collect()
}

/// A recording of a program as a line.
#[must_use]
pub fn source_line(source: &Source) -> String {
    format!(
        "{}{}: {} instructions traced, {} kept, {} in the slice",
        format::plain(&source.trace),
        match source.rehearsed.as_deref() {
            None => String::new(),
            Some("") => " (rehearsed)".to_string(),
            Some(inputs) => format!(" (rehearsed with {})", format::plain(inputs)),
        },
        source.instructions,
        source.retained,
        source.in_slice
    )
}

/// The name of the file of modules that belongs to a companion file.
#[must_use]
pub fn modules_name(hash: &[u8; 32]) -> String {
    format!("{}.modules", format::digits(&hash[..8]))
}

/// The name of the companion file of a training system: the first half of a hash says enough.
#[must_use]
pub fn companion_name(hash: &[u8; 32]) -> String {
    format!("{}.system", format::digits(&hash[..8]))
}

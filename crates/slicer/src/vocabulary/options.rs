//! What the user decides about a program.

use ir::Summary;
use ir::program::PerCpuOverride;
use machine::VirtAddr;
use rustc_hash::FxHashMap;

/// What to do about branches that training saw going one way only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// They always go the same way, as in the paper of 2011. The slice is small, and silently wrong
    /// where one goes the other way.
    Assume,
    /// Those whose unseen side may matter become guards.
    #[default]
    Guard,
    /// Every branch of a context in the slice joins the slice.
    Whole,
}

impl Policy {
    /// The policy with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Policy::Assume, Policy::Guard, Policy::Whole].into_iter().find(|policy| policy.name() == name)
    }

    /// The name in program files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Assume => "assume",
            Policy::Guard => "guard",
            Policy::Whole => "whole",
        }
    }
}

/// What the user decides about a program.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// What to do about branches seen one way only.
    pub policy: Policy,
    /// The trainer's allocator functions by entry address, from its own symbols.
    pub summaries: FxHashMap<VirtAddr, Summary>,
    /// Cells of per-CPU memory that runs give these values; see
    /// [`Start::per_cpu_overrides`](crate::Start::per_cpu_overrides). Empty: the program runs in
    /// the paused processor's context.
    pub overrides: Vec<PerCpuOverride>,
}

//! Per-CPU cells by which code finds out in whose context it runs, as several recordings show them.
//!
//! What the execution context consists of belongs to the kernel and not to a program: a short
//! recording reads fewer of its cells, or changes a counter from too few places to be sure of it,
//! and a target in another state leads the same program to all of them. So the recordings of one
//! boot, whatever their trainers, are asked together.

use ir::program::PerCpuOverride;
use machine::{Reg, VirtAddr};
use trace::Header;

use super::whole_context::Pointer;

/// Cells of per-CPU memory that make an execution context, in order and each once.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ContextCells {
    /// Those in which an idle processor has a pointer of its own.
    pub(super) pointers: Vec<Pointer>,
    /// Nesting counters, with what code that runs for a process begins with.
    pub(super) counters: Vec<PerCpuOverride>,
    /// [Levels](super::levels), likewise.
    pub(super) levels: Vec<PerCpuOverride>,
}

impl ContextCells {
    /// Cells that one recording shows.
    pub(super) fn new(
        mut pointers: Vec<Pointer>,
        mut counters: Vec<PerCpuOverride>,
        mut levels: Vec<PerCpuOverride>,
    ) -> Self {
        pointers.sort_unstable();
        pointers.dedup();
        settle(&mut counters);
        settle(&mut levels);
        Self { pointers, counters, levels }
    }

    /// Those that a program overrides; `header` is that of a recording that it was built from.
    #[must_use]
    pub fn of_program(overrides: &[PerCpuOverride], header: &Header) -> Self {
        let idle = |cell: &PerCpuOverride| -> Option<Reg> {
            let found = header.idle.iter().find(|it| (it.offset, it.value) == (cell.offset, cell.value))?;
            Some(found.base)
        };
        let (levels, others): (Vec<_>, Vec<_>) = overrides.iter().copied().partition(|it| it.is_level());
        let (pointers, counters): (Vec<_>, Vec<_>) = others.into_iter().partition(|it| idle(it).is_some());
        let pointers =
            pointers.into_iter().filter_map(|cell| Some(Pointer { reg: idle(&cell)?, cell })).collect();
        Self::new(pointers, counters, levels)
    }

    /// These and others of the same boot; no counter or level that they have different values of.
    /// Such pointers stay, for a view without them would be half a one.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self::new(
            [&*self.pointers, &other.pointers].concat(),
            [&*self.counters, &other.counters].concat(),
            [&*self.levels, &other.levels].concat(),
        )
    }

    /// Those whose pointers point into the kernel's image. Where another recording shows one that
    /// does not, the view of its own program is not whole, which says nothing of others.
    pub(super) fn within(&self, in_kernel: &dyn Fn(VirtAddr) -> bool) -> Self {
        let mut cells = self.clone();
        cells.pointers.retain(|it| in_kernel(VirtAddr(it.cell.value)));
        cells
    }

    /// The small numbers that code raises and puts back, with their values at the begin mark. A
    /// program sets them whoever runs in the target.
    #[must_use]
    pub fn levels(&self) -> &[PerCpuOverride] {
        &self.levels
    }
}

/// Orders cells, each once, and drops those that have two values.
fn settle(cells: &mut Vec<PerCpuOverride>) {
    cells.sort_unstable();
    cells.dedup();
    let place = |it: &PerCpuOverride| (it.base, it.offset);
    let all = cells.clone();
    cells.retain(|it| all.iter().filter(|other| place(other) == place(it)).count() == 1);
}

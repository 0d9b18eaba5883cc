//! Whole views of an idle processor, and half ones.
//!
//! A view is whole or there is none. What was seen of an idle processor may lack a cell, or what is
//! known of the kernel's image may not reach to what a cell holds: with only some of its cells
//! overridden, code would run partly as the idle task and partly as the paused one. Where another
//! boot was recorded, its idle processor must have the same cells, moved as the kernel moved.

use ir::program::PerCpuOverride;
use machine::{Reg, VirtAddr};
use trace::IdleCell;

/// A pointer that an idle processor has in a cell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pointer {
    /// The segment base register that it is found by.
    pub reg: Reg,
    /// The cell, with what an idle processor has there.
    pub cell: PerCpuOverride,
}

/// What is known of the kernel's image, from one boot or two.
pub struct Boots<'k> {
    /// Whether an address lies in the image, so that it means the same in every boot.
    pub in_kernel: &'k dyn Fn(VirtAddr) -> bool,
    /// The other boot, where there is one.
    pub other: Option<OtherBoot<'k>>,
}

/// Another boot of the same kernel.
pub struct OtherBoot<'k> {
    /// How far what lies at an address in this boot has moved there.
    pub slide: &'k dyn Fn(u64) -> u64,
    /// How far the kernel's image has.
    pub kernel: u64,
    /// The cells of its idle processor; none if the recorder saw it idle too rarely.
    pub idle: &'k [IdleCell],
}

impl OtherBoot<'_> {
    /// What its idle processor has in the cell at an offset there.
    fn idle(&self, reg: Reg, offset: u64) -> Option<u64> {
        let found = self.idle.binary_search_by_key(&(reg, offset as u32), |cell| (cell.base, cell.offset));
        found.ok().map(|at| self.idle[at].value)
    }
}

/// The overrides that these pointers and nesting counters are, by base and offset, if they are a
/// whole view; `long` if the system is a 64-bit one.
///
/// # Errors
/// Why the view would not be whole.
pub fn whole(
    pointers: &[Pointer],
    mut counters: Vec<PerCpuOverride>,
    boots: &Boots<'_>,
    long: bool,
) -> Result<Vec<PerCpuOverride>, &'static str> {
    // Only pointers into the image count: what was allocated at run time lies elsewhere in another
    // boot.
    let (found, others): (Vec<Pointer>, Vec<Pointer>) =
        pointers.iter().copied().partition(|it| (boots.in_kernel)(VirtAddr(it.cell.value)));
    // 64-bit systems have nothing else so near to their code; in 32-bit ones all of the kernel's
    // memory is, and only the other boot tells.
    let moved_with_kernel = |it: &Pointer| {
        boots.other.as_ref().is_some_and(|other| {
            let offset = u64::from(it.cell.offset);
            [offset, offset.wrapping_add(other.kernel)]
                .iter()
                .any(|&at| other.idle(it.reg, at) == Some(it.cell.value.wrapping_add(other.kernel)))
        })
    };
    if others.iter().any(|it| long || moved_with_kernel(it)) {
        return Err("an idle processor has a pointer that is not known to move with the kernel");
    }
    let place = |it: &Pointer| (it.cell.base, it.cell.offset);
    if found.iter().enumerate().any(|(at, it)| found[..at].iter().any(|other| place(other) == place(it))) {
        return Err("an idle processor looks different in each recording");
    }
    if found.is_empty() {
        return match counters.is_empty() {
            true => Ok(counters),
            false => Err("what the recorder saw of an idle processor does not say which task runs there"),
        };
    }
    if let Some(other) = &boots.other {
        let slide = |it: &PerCpuOverride| (other.slide)(it.offset.into());
        let there = |it: &Pointer| {
            let at = u64::from(it.cell.offset).wrapping_add(slide(&it.cell));
            let value = it.cell.value.wrapping_add((other.slide)(it.cell.value));
            other.idle(it.reg, at).is_none_or(|there| there == value)
        };
        let together = counters.iter().all(|it| slide(it) == slide(&found[0].cell));
        if !together || !found.iter().all(there) {
            return Err("an idle processor's cells are others in the other boot");
        }
    }
    counters.extend(found.iter().map(|it| it.cell));
    counters.sort_unstable();
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.1 for 686-pae: its base, the segment's descriptor, and the cells that hold how often
    /// preemption is off and the running task.
    const KERNEL: u64 = 0xc400_0000;
    const DESCRIPTOR: u16 = PerCpuOverride::DESCRIPTOR | 27;
    const COUNT: u32 = 0xc4e8_07fc;
    const CURRENT: u32 = 0xc4e8_0808;
    const IDLE_TASK: u64 = 0xc4c5_f4c0;
    /// How far the other boot's kernel lies below.
    const MOVED: u64 = 0x0300_0000;

    fn count() -> Vec<PerCpuOverride> {
        vec![PerCpuOverride { base: DESCRIPTOR, offset: COUNT, size: 4, value: 0x8000_0000 }]
    }

    fn current() -> Pointer {
        let cell = PerCpuOverride { base: DESCRIPTOR, offset: CURRENT, size: 4, value: IDLE_TASK };
        Pointer { reg: Reg::FsBase, cell }
    }

    /// The view of a program whose image is known to end at `end`, after another boot whose idle
    /// processor has the task at this address.
    fn view(pointers: &[Pointer], end: u64, other: Option<u64>) -> Result<usize, &'static str> {
        let in_image = |at: u64| KERNEL <= at && at < end;
        let idle: Vec<IdleCell> = other
            .map(|value| IdleCell { base: Reg::FsBase, offset: CURRENT - MOVED as u32, value })
            .into_iter()
            .collect();
        let kernel = MOVED.wrapping_neg();
        let slide = |at: u64| if in_image(at) { kernel } else { 0 };
        let other = other.map(|_| OtherBoot { slide: &slide, kernel, idle: &idle });
        let boots = Boots { in_kernel: &|at| in_image(at.0), other };
        whole(pointers, count(), &boots, false).map(|cells| cells.len())
    }

    const ALL: u64 = KERNEL + 0x100_0000;
    /// As far as the kernel's code reaches.
    const CODE: u64 = KERNEL + 0x93_4000;

    #[test]
    fn a_view_that_does_not_say_which_task_runs_is_not_taken() {
        assert_eq!(view(&[current()], ALL, None), Ok(2));
        assert!(view(&[], ALL, None).is_err(), "only how often preemption is off");
    }

    #[test]
    fn a_pointer_that_moved_with_the_kernel_is_part_of_the_view_or_there_is_none() {
        assert_eq!(view(&[current()], ALL, Some(IDLE_TASK - MOVED)), Ok(2));
        let allocated =
            Pointer { cell: PerCpuOverride { value: 0xcf9e_2760, ..current().cell }, ..current() };
        let more = Pointer { cell: PerCpuOverride { offset: CURRENT - 8, ..allocated.cell }, ..allocated };
        assert_eq!(view(&[current(), more], ALL, Some(IDLE_TASK - MOVED)), Ok(2), "an address on the heap");
        let far = Pointer { cell: PerCpuOverride { value: CODE + 0x32_b4c0, ..current().cell }, ..current() };
        let other = far.cell.value - MOVED;
        let inside = Pointer { cell: PerCpuOverride { offset: COUNT - 4, value: KERNEL, ..far.cell }, ..far };
        assert!(
            view(&[inside, far], CODE, Some(other)).is_err(),
            "it is the kernel's, though not known to be"
        );
    }

    #[test]
    fn cells_that_do_not_move_as_the_kernel_did_are_no_view() {
        assert!(view(&[current()], ALL, Some(IDLE_TASK)).is_err(), "the task stayed where it was");
        let end = u64::from(CURRENT);
        let low = Pointer { cell: PerCpuOverride { value: KERNEL, ..current().cell }, ..current() };
        assert!(
            view(&[low], end, Some(KERNEL - MOVED)).is_err(),
            "the count moves, the task's cell does not"
        );
    }
}

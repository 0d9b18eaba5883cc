//! Allocator functions of the training process, replaced by the runtime's.

use ir::summary::{Action, Place, Summary};
use lift::Mode;
use machine::Reg;

use crate::compact::Slots;
use crate::space::{Fault, Space};
use crate::watch::{Seen, Watch};

/// Does an allocator function's work and returns to its caller, whose address is the result.
pub(crate) fn summarise(
    summary: &Summary,
    slots: &mut Slots,
    space: &mut Space<'_>,
    mode: Mode,
) -> Result<u64, Fault> {
    let word = u64::from(mode.bits()) / 8;
    let rsp = slots[Reg::Rsp.index()];
    let back = space.load(rsp, word)?;
    let mut args = [0; 2];
    for (arg, &place) in args.iter_mut().zip(summary.args()) {
        *arg = argument(place, slots, space, word)?;
    }
    let refused = match summary.fails {
        Some((place, bits)) => argument(place, slots, space, word)? & u64::from(bits) != 0,
        None => false,
    };
    let result = match summary.action {
        Action::Malloc => space.allocate(args[0]),
        Action::Calloc => args[0].checked_mul(args[1]).map_or(0, |size| space.allocate(size)),
        Action::Realloc => space.reallocate(args[0], args[1])?,
        Action::Free => slots[Reg::Rax.index()],
        Action::Release => 1,
    };
    slots[Reg::Rax.index()] = if refused { 0 } else { result };
    slots[Reg::Rsp.index()] = rsp.wrapping_add(word).wrapping_add(summary.pops.into());
    Ok(back)
}

fn argument(place: Place, slots: &Slots, space: &mut Space<'_>, word: u64) -> Result<u64, Fault> {
    match place {
        Place::Register(var) => Ok(slots[var.0 as usize]),
        Place::Stack(distance) => space.load(slots[Reg::Rsp.index()].wrapping_add(distance.into()), word),
    }
}

/// Shows an allocator function as a body of two instructions: one that leaves something
/// undetermined in the result register (`rdtsc`), and a return. They are no longer than the
/// shortest function there is, a jump to another.
pub(crate) fn show_summary<W: Watch>(
    watch: &mut W,
    (pc, summary): (u64, &Summary),
    slot: u64,
    next: u64,
    mut values: [(Reg, u64); 16],
    space: &mut Space<'_>,
    mode: Mode,
) {
    // The return itself moves the stack pointer.
    values[Reg::Rsp.index()].1 = slot;
    watch.insn(pc, mode, &[0x0f, 0x31]);
    watch.registers(&values);
    let [low, high] = summary.pops.to_le_bytes();
    let back: &[u8] = if summary.pops == 0 { &[0xc3] } else { &[0xc2, low, high] };
    watch.insn(pc.wrapping_add(2), mode, back);
    show_access(watch, false, slot, u64::from(mode.bits()) / 8, next, space);
}

/// Shows an access that was just made.
pub(crate) fn show_access<W: Watch>(
    watch: &mut W,
    store: bool,
    vaddr: u64,
    size: u64,
    value: u64,
    space: &mut Space<'_>,
) {
    // It was just made, so it is mapped.
    let Ok(paddr) = space.physical(vaddr) else { return };
    let crosses = (vaddr & 4095) + size > 4096;
    let next_page = if crosses { space.physical((vaddr & !4095).wrapping_add(4096)).ok() } else { None };
    watch.access(Seen { store, vaddr, paddr, next_page, size: size as u8, value });
}

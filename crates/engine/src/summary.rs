//! Replaces the trainer's allocator functions by the run's own allocator.

use ir::summary::{Action, ArgumentLocation, Summary};
use lift::Mode;
use machine::{Reg, VirtAddr};

use crate::overlay::{Fault, Overlay};
use crate::predecode::Slots;

/// Does what an allocator function that has just been called would do, and returns from it. The
/// result is the return address. `mode` is that of the trainer's code.
pub(crate) fn summarise(
    summary: &Summary,
    slots: &mut Slots,
    overlay: &mut Overlay<'_>,
    mode: Mode,
) -> Result<u64, Fault> {
    let word = u64::from(mode.bits()) / 8;
    let rsp = slots[Reg::Rsp.index()];
    let back = overlay.load(VirtAddr(rsp), word)?;
    let mut args = [0; 2];
    for (arg, &location) in args.iter_mut().zip(summary.args()) {
        *arg = argument(location, slots, overlay, word)?;
    }
    let refused = match summary.fails {
        Some((location, bits)) => argument(location, slots, overlay, word)? & u64::from(bits) != 0,
        None => false,
    };
    let result = match summary.action {
        Action::Malloc => overlay.allocate(args[0]).0,
        Action::Calloc => args[0].checked_mul(args[1]).map_or(0, |size| overlay.allocate(size).0),
        Action::Realloc => overlay.reallocate(VirtAddr(args[0]), args[1])?.0,
        Action::Free => slots[Reg::Rax.index()],
        Action::Release => 1,
    };
    slots[Reg::Rax.index()] = if refused { 0 } else { result };
    slots[Reg::Rsp.index()] = rsp.wrapping_add(word).wrapping_add(summary.pops.into());
    Ok(back)
}

/// An argument of a function that has just been called; words of the trainer's stack have `word`
/// bytes.
fn argument(
    location: ArgumentLocation,
    slots: &Slots,
    overlay: &mut Overlay<'_>,
    word: u64,
) -> Result<u64, Fault> {
    match location {
        ArgumentLocation::Register(var) => Ok(slots[var.0 as usize]),
        ArgumentLocation::Stack(distance) => {
            overlay.load(VirtAddr(slots[Reg::Rsp.index()]).add(distance.into()), word)
        }
    }
}

//! Shows the steps of a whole run to its [`Watch`].

use ir::{Class, Kind, Summary};
use lift::Mode;
use machine::{PAGE_SIZE, Reg, VirtAddr};

use crate::overlay::Overlay;
use crate::predecode::{Predecoded, Slots};
use crate::watch::{Seen, Watch};

/// What was shown last.
#[derive(Default)]
pub(crate) struct Show {
    /// Whether the instruction shown last has a result that its operands do not determine.
    undetermined: bool,
    /// The address of the instruction shown last, if it is in the block that is executed.
    shown: Option<u64>,
}

impl Show {
    /// A block begins, perhaps the same one again.
    pub fn block(&mut self) {
        self.shown = None;
    }

    /// Shows the instruction at `pc`, whose code is `bytes`, before its first operation; before its
    /// other operations it does nothing.
    pub fn step<W: Watch>(&mut self, watch: &mut W, pc: u64, mode: Mode, bytes: &[u8], slots: &Slots) {
        if self.shown == Some(pc) {
            return;
        }
        if std::mem::take(&mut self.undetermined) {
            watch.registers(&general_registers(slots));
        }
        self.shown = Some(pc);
        watch.insn(pc, mode, bytes);
    }

    /// Shows what an operation did to memory. `address` is what its first operand was before it:
    /// the result may be in the same slot.
    pub fn done<W: Watch>(
        &mut self,
        watch: &mut W,
        op: &Predecoded,
        address: u64,
        slots: &Slots,
        overlay: &mut Overlay<'_>,
    ) {
        self.undetermined |= op.kind.class() == Class::Nondet;
        let size = op.width.bytes();
        let value = match op.kind {
            Kind::Load => slots[op.dst as usize],
            Kind::Store => slots[op.b as usize] & op.width.mask(),
            _ => return,
        };
        show_access(watch, op.kind == Kind::Store, VirtAddr(address), size, value, overlay);
    }
}

/// Shows the allocator function at `pc`, which returned to `back`, as a body of two instructions:
/// one that leaves something undetermined in the result register (`rdtsc`), and a return. Together
/// they have at most five bytes, no more than the shortest function, which is a jump to another
/// one. `stack` is where the return address lay.
pub(crate) fn show_summary<W: Watch>(
    watch: &mut W,
    (pc, summary): (u64, &Summary),
    (stack, back): (u64, u64),
    slots: &Slots,
    overlay: &mut Overlay<'_>,
    mode: Mode,
) {
    let mut values = general_registers(slots);
    // These are the registers before the return, which moves the stack pointer.
    values[Reg::Rsp.index()].1 = stack;
    watch.insn(pc, mode, &[0x0f, 0x31]);
    watch.registers(&values);
    let [low, high] = summary.pops.to_le_bytes();
    let ret: &[u8] = if summary.pops == 0 { &[0xc3] } else { &[0xc2, low, high] };
    watch.insn(pc.wrapping_add(2), mode, ret);
    show_access(watch, false, VirtAddr(stack), u64::from(mode.bits()) / 8, back, overlay);
}

/// Shows an access that was just made.
fn show_access<W: Watch>(
    watch: &mut W,
    store: bool,
    vaddr: VirtAddr,
    size: u64,
    value: u64,
    overlay: &mut Overlay<'_>,
) {
    // It was just made, so it is mapped.
    let Ok(paddr) = overlay.physical(vaddr) else { return };
    let crosses = vaddr.offset() + size > PAGE_SIZE;
    let second = vaddr.page().add(PAGE_SIZE);
    let next_page = if crosses { overlay.physical(second).ok().map(|page| page.0) } else { None };
    watch.access(Seen { store, vaddr: vaddr.0, paddr: paddr.0, next_page, size: size as u8, value });
}

fn general_registers(slots: &Slots) -> [(Reg, u64); 16] {
    std::array::from_fn(|at| (Reg::gpr(at), slots[Reg::gpr(at).index()]))
}

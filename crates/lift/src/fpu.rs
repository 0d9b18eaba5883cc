//! The x87 and SSE state as a whole: control words and FXSAVE images.
//!
//! x87 and MMX arithmetic is not modelled. `Ftw` is the abridged tag byte (1 = valid) and the st
//! registers are relative to the top, as FXSAVE writes them (SDM vol. 1 section 10.5.1). Pending
//! x87 exceptions are not raised.

use iced_x86::Mnemonic;
use ir::{Arg, Width};
use machine::reg::Reg;

use crate::Mode;
use crate::builder::{Builder, Lifted, arg};

/// Lifts the instruction if it is one of this family.
pub(crate) fn lift(b: &mut Builder) -> Option<Lifted> {
    use Mnemonic as M;
    Some(match b.insn.mnemonic() {
        M::Fnop | M::Wait => Some(()),
        M::Fninit => {
            for (reg, value) in
                [(Reg::Fcw, 0x37f), (Reg::Fsw, 0), (Reg::Ftw, 0), (Reg::Fop, 0), (Reg::Fip, 0), (Reg::Fdp, 0)]
            {
                b.set(reg, Width::B64, value);
            }
            Some(())
        }
        M::Fnclex => {
            let status = b.and(Width::B16, arg(Reg::Fsw), 0x7f00);
            b.set(Reg::Fsw, Width::B16, status);
            Some(())
        }
        M::Emms => {
            b.set(Reg::Ftw, Width::B64, 0);
            Some(())
        }
        M::Fldcw => load(b, Reg::Fcw, Width::B16),
        M::Fnstcw => b.write(0, Width::B16, arg(Reg::Fcw)),
        M::Fnstsw => b.write(0, Width::B16, arg(Reg::Fsw)),
        M::Ldmxcsr => load(b, Reg::Mxcsr, Width::B32),
        M::Stmxcsr => b.write(0, Width::B32, arg(Reg::Mxcsr)),
        M::Fxsave | M::Fxsave64 => image(b, true),
        M::Fxrstor | M::Fxrstor64 => image(b, false),
        _ => return None,
    })
}

fn load(b: &mut Builder, reg: Reg, width: Width) -> Lifted {
    let value = b.read(0, width)?;
    b.set(reg, width, value);
    Some(())
}

/// The header of the image: offset, width, register.
const HEADER: [(u64, Width, Reg); 6] = [
    (0, Width::B16, Reg::Fcw),
    (2, Width::B16, Reg::Fsw),
    (4, Width::B16, Reg::Ftw),
    (6, Width::B16, Reg::Fop),
    (8, Width::B64, Reg::Fip),
    (16, Width::B64, Reg::Fdp),
];

fn image(b: &mut Builder, save: bool) -> Lifted {
    let start = b.memory()?;
    let mut fields = HEADER.to_vec();
    let x87 = (0..8).flat_map(|n| {
        let low = Reg::St0Lo.index() + 2 * n;
        let at = 32 + 16 * n as u64;
        [(at, Width::B64, low), (at + 8, Width::B16, low + 1)]
    });
    fields.extend(x87.filter_map(|(at, width, index)| Some((at, width, Reg::from_index(index)?))));
    fields.push((24, Width::B32, Reg::Mxcsr));
    let vectors = if b.mode == Mode::Bits64 { 16 } else { 8 };
    for n in 0..vectors {
        let at = 160 + 16 * n as u64;
        fields.push((at, Width::B64, Reg::xmm_lo(n)));
        fields.push((at + 8, Width::B64, Reg::xmm_hi(n)));
    }
    for (at, width, reg) in fields {
        let address = b.advance(start, at);
        // QEMU keeps no last instruction and operand: it saves zeros for their addresses, leaves
        // the opcode's place alone, restores none.
        let unkept = matches!(reg, Reg::Fop | Reg::Fip | Reg::Fdp);
        if save {
            if reg != Reg::Fop {
                b.store(width, address, if unkept { Arg::Const(0) } else { arg(reg) });
            }
        } else if !unkept {
            let value = b.load(width, address);
            let value = if reg == Reg::Ftw { b.narrow(Width::B8, value) } else { value };
            b.set(reg, Width::B64, value);
        }
    }
    if save {
        let mask = b.advance(start, 28);
        b.store(Width::B32, mask, Arg::Const(0xffff));
    }
    Some(())
}

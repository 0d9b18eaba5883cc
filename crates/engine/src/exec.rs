//! Executes one predecoded operation that is not a control operation.

use ir::{EvalError, Kind};
use machine::{Reg, VirtAddr};

use crate::counter::{Clock, Counter};
use crate::hpet;
use crate::outcome::{Stopped, is_clock};
use crate::overlay::Overlay;
use crate::predecode::{Predecoded, Slots};

/// Executes `op`; `at` is the address that an outcome names.
#[inline(always)]
pub(crate) fn execute(
    op: &Predecoded,
    slots: &mut Slots,
    overlay: &mut Overlay<'_>,
    counter: &mut Counter,
    at: u64,
) -> Result<(), Stopped> {
    let a = slots[op.a as usize];
    let b = slots[op.b as usize];
    let mask = op.width.mask();
    let value = match op.kind {
        // The most frequent operations first; `ir::eval` defines them, and the test below holds
        // these to it.
        Kind::Mov => a & mask,
        Kind::Add => a.wrapping_add(b) & mask,
        Kind::Sub => {
            if counter.is_seeking() {
                counter.subtracted(a & mask, b & mask, op.width.bytes());
            }
            a.wrapping_sub(b) & mask
        }
        Kind::And => a & b & mask,
        Kind::Load => match overlay.load(VirtAddr(a), op.width.bytes()) {
            Ok(value) => value,
            Err(fault) if hpet::is_main_counter(VirtAddr(a), &fault) => counter.read(Clock::Hpet, at)? & mask,
            Err(fault) => return Err(Stopped::access(at, a, &fault)),
        },
        Kind::Store => match overlay.store(VirtAddr(a), op.width.bytes(), b) {
            Ok(()) => return Ok(()),
            Err(fault) => return Err(Stopped::access(at, a, &fault)),
        },
        _ => match ir::eval(op.kind, op.width, a, b, slots[op.c as usize]) {
            Ok(value) => value,
            Err(EvalError::Divide) => return Err(Stopped::Exception { at, vector: 0 }),
            Err(EvalError::NotPure) => environment(op, a, b, slots, overlay, counter, at)?,
        },
    };
    slots[op.dst as usize] = value;
    Ok(())
}

/// Executes the operations that ask the environment: the run's allocator, the time stamp counter,
/// the state of the processor, devices.
#[cold]
fn environment(
    op: &Predecoded,
    a: u64,
    b: u64,
    slots: &Slots,
    overlay: &mut Overlay<'_>,
    counter: &mut Counter,
    at: u64,
) -> Result<u64, Stopped> {
    let device = |what: String| Err(Stopped::NeedsDevice { at, what, clock: false });
    match op.kind {
        Kind::Tsc => counter.read(Clock::TimeStamp, at),
        Kind::Alloc => Ok(overlay.allocate(a).0),
        Kind::Realloc => match overlay.reallocate(VirtAddr(a), b) {
            Ok(new) => Ok(new.0),
            Err(fault) => Err(Stopped::access(at, a, &fault)),
        },
        // Freed memory is not used again, and the overlay drops translations by itself when a page
        // table changes.
        Kind::Free | Kind::TlbFlush => Ok(0),
        Kind::Undefine => match overlay.undefine(VirtAddr(a), b) {
            Ok(()) => Ok(0),
            Err(fault) => Err(Stopped::access(at, a, &fault)),
        },
        Kind::Rdmsr => match a {
            // SDM vol. 4 table 2-2.
            0xc000_0080 => Ok(slots[Reg::Efer.index()]),
            0xc000_0100 => Ok(slots[Reg::FsBase.index()]),
            0xc000_0101 => Ok(slots[Reg::GsBase.index()]),
            0xc000_0102 => Ok(slots[Reg::KernelGsBase.index()]),
            _ => match overlay.load_msr(a) {
                Some(value) => Ok(value),
                None => device(format!("reads the model-specific register {a:#x}")),
            },
        },
        // The bases of segments, which a system sets when it switches tasks. There is nothing left
        // to do: the lifter's operations for this instruction set the registers.
        Kind::Wrmsr if matches!(a, 0xc000_0100..=0xc000_0102) => Ok(0),
        Kind::Wrmsr if overlay.store_msr(a, b) => Ok(0),
        Kind::Wrmsr => device(format!("writes the model-specific register {a:#x}")),
        Kind::In => {
            let what = format!("reads the I/O port {a:#x}");
            Err(Stopped::NeedsDevice { at, what, clock: is_clock(a) })
        }
        Kind::Out => device(format!("writes the I/O port {a:#x}")),
        Kind::Rand => device("wants a random number".to_string()),
        Kind::CpuidA | Kind::CpuidB | Kind::CpuidC | Kind::CpuidD => {
            device(format!("asks cpuid leaf {a:#x}"))
        }
        Kind::Rdpmc => device("reads a performance counter".to_string()),
        Kind::ReadDr | Kind::WriteDr => device("uses a debug register".to_string()),
        // The rights of protection keys, which a system sets when it switches tasks. Runs judge no
        // rights, so they decide nothing: 0 allows everything, and is what a reset leaves (SDM
        // vol. 3 section 2.7).
        Kind::ReadKeys | Kind::WriteKeys => Ok(0),
        kind => device(format!("executes {}", kind.name())),
    }
}

#[cfg(test)]
mod tests {
    use ir::{Op, Var, Width};
    use machine::PagingMode;
    use machine::memory::Mock;

    use super::*;
    use crate::predecode::{Pool, slots};

    #[test]
    fn the_most_frequent_operations_do_what_eval_defines() {
        let memory = Mock::new();
        let mut overlay = Overlay::new(&memory, PagingMode::Off, 0, VirtAddr(0), 0);
        let values = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x8000_0000, 1 << 63, u64::MAX, u64::MAX - 1];
        for kind in [Kind::Mov, Kind::Add, Kind::Sub, Kind::And] {
            for width in [Width::B1, Width::B8, Width::B16, Width::B32, Width::B64] {
                for (a, b) in values.into_iter().flat_map(|a| values.map(|b| (a, b))) {
                    let (mut pool, mut slots) = (Pool::default(), slots());
                    let op = Op::new(kind, width, Var(0), &[a.into(), b.into()][..kind.arity()]);
                    let op = pool.op(&op).unwrap();
                    pool.fill(&mut slots);
                    execute(&op, &mut slots, &mut overlay, &mut Counter::new([None; 2]), 0).unwrap();
                    let expected = ir::eval(kind, width, a, b, 0).unwrap();
                    assert_eq!(slots[0], expected, "{}.{} {a:#x}, {b:#x}", kind.name(), width as u8);
                }
            }
        }
    }
}

//! Compares a target with what the training boots show of code, read-only data and interrupt gates.
//!
//! Answers never depend on the target's code; this report tells whether somebody changed it.
//! Nothing counts as the kernel's own but what a training boot shows of that very place, or the
//! kernel's own tables name for it, apart from addresses of what lies elsewhere, and what comes to
//! the same: a branch through a register or a trusted thunk of that register, or a call past a
//! trampoline that leads where trusted code makes it lead. Kernels change their own code at run
//! time, in a few forms: a *switch* is a no-operation that became a jump to code
//! nearby, or the reverse, or a direct call or jump that got another target; a *trace point* is a
//! no-operation that became a call, or the reverse; a *lock* is a lock prefix that was put in or
//! taken out; a *thunk* is a call or jump that goes through a register or through trusted code for
//! that; a *value* is a constant that training boots show to vary; an *alternative* is instructions
//! that became no-operations or are jumped over, or the reverse. A change that has such a form and
//! leads to trusted code may be the kernel's or anybody's: it is *unknown*. Any other is *foreign*.
//!
//! What could not be compared is counted, down to the target's code that no trusted copy has.
//! Nothing is known of any one system.
//!
//! Page tables without an execute-disable bit do not tell code from data, and a system may map data
//! executable all the same. Of a page that the training system may both execute and write only the
//! instructions that the program itself was made from are compared.

mod acts;
mod calls;
mod code;
mod comparison;
mod data;
mod form;
mod gates;
mod known;
mod loaded;
mod modules;
mod report;
mod sorted;
mod target;
#[cfg(test)]
mod tests;

use ir::{Program, System};
use machine::{GuestMemory, Reg};

use crate::relocate::Relocation;
use code::CodePages;
use comparison::{Comparison, wide};

pub use report::{Change, Class, CodeRange, Difference, Place, Tampering, Uncompared};

/// `CR4.PAE` and `EFER.NXE`: both are needed for the execute-disable bit (SDM vol. 3 section 4.6).
const CR4_PAE: u64 = 1 << 5;
const EFER_NXE: u64 = 1 << 11;

/// Compares all that training knows with what a target has of it. `program` was made in the
/// training system; `relocation` is the system's in the target, whose modules are looked for here;
/// `tables` are the addresses of the target's interrupt descriptor tables, one for each processor.
#[must_use]
pub fn compare(
    program: &Program,
    system: &System,
    memory: &dyn GuestMemory,
    relocation: &Relocation<'_>,
    tables: &[Option<u64>],
) -> Tampering {
    let mut it = Comparison::new(system, memory, relocation);
    let mode = if wide(relocation) { lift::Mode::Bits64 } else { lift::Mode::Bits32 };
    it.find_modules(mode);
    it.find_loaded();
    let mut report = Tampering { boots: system.integrity().boots, ..Tampering::default() };
    let pages = CodePages { program, mode, tells_code: tells_code(program) };
    let mut compared = it.compare_code(&pages, &mut report);
    it.compare_loaded(mode, &mut compared, &mut report);
    report.unknown_code = it.code.unknown(memory, &compared);
    let pages: usize = report.unknown_code.iter().map(|it| it.pages).sum();
    report.uncompared.unknown = pages + usize::from(it.code.cut);
    it.compare_data(&mut report);
    it.compare_gates(tables, &mut report);
    report.differences.sort_by_key(|it| (it.place, it.address));
    report
}

/// The words of read-only data, by the training system's addresses, that somebody changed: those
/// that lead from trusted code elsewhere, and those of pages that no system writes. `relocation` is
/// as in [`compare`]. It costs a comparison of all such pages, some milliseconds.
pub(crate) fn changed_data(
    system: &System,
    memory: &dyn GuestMemory,
    relocation: &Relocation<'_>,
) -> Vec<u64> {
    let mut it = Comparison::new(system, memory, relocation);
    it.find_modules(if wide(relocation) { lift::Mode::Bits64 } else { lift::Mode::Bits32 });
    let mut report = Tampering::default();
    it.compare_data(&mut report);
    let mut changed: Vec<u64> = report.of(Class::Foreign).map(|it| it.address).collect();
    changed.sort_unstable();
    changed
}

/// Whether the program's training system used the execute-disable bit, which tells code from data.
/// It is taken to have done so if the program does not hold the registers.
fn tells_code(program: &Program) -> bool {
    let has = |reg: Reg, bit: u64| {
        program
            .registers
            .iter()
            .find(|(number, _)| *number == reg as u16)
            .is_none_or(|(_, value)| value & bit != 0)
    };
    has(Reg::Cr4, CR4_PAE) && has(Reg::Efer, EFER_NXE)
}

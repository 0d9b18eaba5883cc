//! Compares a target with what the training boots show of code, read-only data and interrupt gates.
//!
//! Answers never depend on the target's code; this report tells whether somebody changed it.
//! Nothing counts as the kernel's own but what a training boot shows of that very place, apart from
//! addresses of what lies elsewhere. Kernels change their own code at run time, in a few forms: a
//! *switch* is a no-operation that became a jump to code nearby, or the reverse, or a direct call
//! or jump that got another target; a *trace point* is a no-operation that became a call, or the
//! reverse; a *lock* is a lock prefix that was put in or taken out; a *thunk* is a call or jump
//! that goes through a register or through trusted code for that; a *value* is a constant that
//! training boots show to vary; an *alternative* is instructions that became no-operations or are
//! jumped over, or the reverse. A change that has such a form and leads to trusted code may be the
//! kernel's or anybody's: it is *unknown*. Any other is *foreign*.
//!
//! What could not be compared is counted, down to the target's code that no trusted copy has.
//! Nothing is known of any one system.
//!
//! Page tables without an execute-disable bit do not tell code from data, and a system may map data
//! executable all the same. Of a page that the training system may both execute and write only the
//! instructions that the program itself was made from are compared.

mod code;
mod data;
mod form;
mod gates;
mod modules;
mod report;
mod target;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ir::{Program, System};
use machine::{GuestMemory, PAGE_SIZE, Reg};
use rustc_hash::FxHashSet;

use crate::relocate::Relocation;
use code::CodePages;
use target::TargetCode;

pub use report::{Change, Class, CodeRange, Difference, Place, Tampering, Uncompared};

/// `CR4.PAE` and `EFER.NXE`: both are needed for the execute-disable bit (SDM vol. 3 section 4.6).
const CR4_PAE: u64 = 1 << 5;
const EFER_NXE: u64 = 1 << 11;

/// A target, and what is trusted of it.
struct Comparison<'c> {
    system: &'c System,
    memory: &'c dyn GuestMemory,
    relocation: Relocation<'c>,
    /// What the target may execute.
    code: TargetCode,
    /// The stretch of trusted code that has the interrupt handlers: whatever is there in the target
    /// is compared.
    kernel: Range<u64>,
}

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
    let code = TargetCode::find(memory, relocation.mode(), relocation.root());
    let kernel = kernel(system);
    let mut it = Comparison { system, memory, relocation: relocation.system(system), code, kernel };
    let mode = if wide(relocation) { lift::Mode::Bits64 } else { lift::Mode::Bits32 };
    it.find_modules(mode);
    let mut report = Tampering { boots: system.integrity().boots, ..Tampering::default() };
    let pages = CodePages { program, mode, tells_code: tells_code(program) };
    let compared = it.compare_code(&pages, &mut report);
    report.unknown_code = it.code.unknown(memory, &compared);
    let pages: usize = report.unknown_code.iter().map(|it| it.pages).sum();
    report.uncompared.unknown = pages + usize::from(it.code.cut);
    it.compare_data(&mut report);
    it.compare_gates(tables, &mut report);
    report.differences.sort_by_key(|it| (it.place, it.address));
    report
}

/// The contiguous code in which most interrupt gates lead; all of it where no gates are known.
fn kernel(system: &System) -> Range<u64> {
    let gates = &system.relocations().gates;
    let mut stretches: Vec<Range<u64>> = Vec::new();
    for (address, page) in system.iter() {
        let end = address.saturating_add(page.len() as u64);
        match stretches.last_mut() {
            Some(last) if last.end == address => last.end = end,
            _ => stretches.push(address..end),
        }
    }
    if gates.is_empty() {
        return 0..u64::MAX;
    }
    let count = |it: &Range<u64>| gates.iter().filter(|gate| it.contains(&gate.1)).count();
    stretches.into_iter().max_by_key(count).unwrap_or(0..0)
}

/// Whether addresses have 64 bits.
fn wide(relocation: &Relocation<'_>) -> bool {
    relocation.mode().linear_bits() > 32
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

impl Comparison<'_> {
    /// The image that an address of the training system lies in or beside.
    fn image(&self, address: u64) -> Option<usize> {
        self.system.integrity().image(address).or_else(|| self.relocation.table().image(address))
    }

    /// Where something of the training system is in the target, if it lies in an image that is
    /// there.
    fn moved(&self, address: u64) -> Option<u64> {
        let slide = self.relocation.slide_of(self.image(address)?)?;
        Some(address.wrapping_add(slide))
    }

    /// The training system's address of trusted code that the target has at an address.
    fn trusted(&self, address: u64) -> Option<u64> {
        let held = |address: u64| self.system.page(address & !(PAGE_SIZE - 1)).is_some();
        let table = self.relocation.table();
        let from_image = |image: usize| {
            let here = address.wrapping_sub(self.relocation.slide_of(image)?);
            (table.images[image].holds(here) && held(here)).then_some(here)
        };
        (0..table.images.len())
            .find_map(from_image)
            .or_else(|| (table.image(address).is_none() && held(address)).then_some(address))
    }

    /// The address by which a report names one of the target's code.
    fn reported(&self, address: u64) -> u64 {
        self.trusted(address).unwrap_or(address)
    }
}

/// Frames of the target's memory that were compared.
type Frames = FxHashSet<u64>;

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
mod target;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ir::{Program, System};
use machine::{GuestMemory, PAGE_SIZE, Reg};
use rustc_hash::FxHashSet;
use serde::Serialize;

use crate::relocate::Relocation;
use code::CodePages;
use target::TargetCode;

/// `CR4.PAE` and `EFER.NXE`: both are needed for the execute-disable bit (SDM vol. 3 section 4.6).
const CR4_PAE: u64 = 1 << 5;
const EFER_NXE: u64 = 1 << 11;

/// What a difference looks like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A training boot has this form too.
    Variant,
    /// A no-operation and a jump nearby, either way, or a direct jump or call with another target
    /// in the trusted copy.
    Switch,
    /// A no-operation and a call into the trusted copy, either way.
    TracePoint,
    /// A lock prefix and a prefix without effect, either way: kernels need no locks on one
    /// processor.
    Lock,
    /// A jump or call through a register, or a return, and a direct one into the trusted copy,
    /// either way.
    Thunk,
    /// A constant in the code, or a word of data that boots write, with a value that no training
    /// boot has.
    Value,
    /// Instructions that became no-operations or are jumped over, or the reverse for instructions
    /// that lead nowhere.
    Alternative,
    /// Anything else.
    Foreign,
}

/// What is said of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A training boot shows it.
    Known,
    /// It has a form that kernels give their own code, but no training boot shows it.
    Unknown,
    /// It is nothing that kernels do.
    Foreign,
}

impl Change {
    /// What is said of it.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Change::Variant => Class::Known,
            Change::Switch
            | Change::TracePoint
            | Change::Lock
            | Change::Thunk
            | Change::Value
            | Change::Alternative => Class::Unknown,
            Change::Foreign => Class::Foreign,
        }
    }
}

/// Where a difference is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In code.
    Code,
    /// In read-only data.
    Data,
    /// In the interrupt descriptor table.
    Gate,
}

/// A stretch of bytes that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Its address in the training system; of a gate, the target's.
    pub address: u64,
    /// What it is part of.
    pub place: Place,
    /// What it looks like.
    pub change: Change,
    /// The trusted bytes, as they would be in the target.
    pub trusted: Vec<u8>,
    /// The target's bytes.
    pub found: Vec<u8>,
    /// Where the target's instruction, pointer or gate there leads, if it leads to code: the
    /// training system's address where training has that code, else the target's.
    pub leads_to: Option<u64>,
}

/// What a comparison found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Tampering {
    /// How many training boots there were to learn from.
    pub boots: u8,
    /// Pages of 4 KiB of code that were compared.
    pub pages: usize,
    /// Pages of read-only data that were compared.
    pub data: usize,
    /// Interrupt gates that were compared.
    pub gates: usize,
    /// Words of data that every boot writes: whatever is there and leads to no code, is accepted.
    pub varying: usize,
    /// Pages of training's modules that the target does not have.
    pub missing: usize,
    /// What was not compared.
    pub uncompared: Uncompared,
    /// The target's code of which training has no copy.
    pub unknown_code: Vec<CodeRange>,
    /// The differences, ascending by address.
    pub differences: Vec<Difference>,
}

/// Contiguous pages of a target's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct CodeRange {
    /// The target's address.
    pub start: u64,
    /// How many pages of 4 KiB there are.
    pub pages: usize,
}

/// What was not compared, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Uncompared {
    /// Pages that may hold data: only the program's own instructions in them were compared.
    pub unclear: usize,
    /// Pages of the kernel that the target does not map or hold.
    pub absent: usize,
    /// Pages of the target's code of which training has no copy.
    pub unknown: usize,
    /// Words of data that differ, of which training does not tell whether boots write them.
    pub words: usize,
    /// Whether training knows no read-only data of the kernel.
    pub no_data: bool,
    /// Interrupt tables that training does not know or the target does not hold.
    pub tables: usize,
}

impl Uncompared {
    /// Whether there is anything.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl Tampering {
    /// The differences of a class.
    pub fn of(&self, class: Class) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(move |it| it.change.class() == class)
    }
}

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

//! The verifier: what every program must satisfy.
//!
//! * The entry function, and every function and block a terminator names, exists; every function
//!   has a block.
//! * Operations inside blocks move no control and have a destination exactly when their kind
//!   defines something.
//! * Register numbers are below 256, temporaries below [`MAX_TEMPS`], widths are at least a byte
//!   for memory operations.
//! * Places of operands that an operation does not take hold 0; interleaved lanes have at most 32
//!   bits, narrowed ones at least 8.
//! * Arms of computed jumps and calls ascend by address without repetition.
//! * Pages are page-aligned, at most 4096 bytes and given once; addresses of summaries, clock cells
//!   and per-CPU overrides ascend.
//! * Images are not empty and do not overlap, gates and fixups ascend, what moves names images
//!   that exist, operands relocated constants that do.
//! * Arguments of summaries are in registers, or on the stack above the return address; unused
//!   locations hold nothing.
//! * There are at most [`MAX_NAMES`] inputs and outputs, [`MAX_IMAGES`] images, [`MAX_SIGNATURE`]
//!   words of the signature, and [`MAX_SAVED`] registers that a call gives back.
//! * Dependences are of outputs, each given once, ascend without repetition, and name inputs that
//!   exist.
//! * A variable's elements have 1, 2, 4 or 8 bytes, its buffer at most [`MAX_VARIABLE`] bytes, all
//!   buffers together [`MAX_VARIABLES`].

use crate::op::{Arg, Class, Kind, Op, Var, Width};
use crate::program::{
    Callee, Dependence, Elem, Function, PageContent, PerCpuOverride, Program, Target, Terminator, Variable,
};
use crate::relocation::{FixupKind, RelocatedConstant, RelocationTable};
use crate::summary::{ArgumentLocation, Summary};

/// Temporaries of one instruction, and a few for the program's own use.
pub const MAX_TEMPS: u16 = 2048;
/// Bytes of the largest variable.
pub const MAX_VARIABLE: u64 = 16 << 20;
/// Bytes of all variables together: a run writes and reads them outside its budget of operations.
pub const MAX_VARIABLES: u64 = 64 << 20;
/// Inputs and outputs: each is looked for among all others by its name.
pub const MAX_NAMES: usize = 1024;
/// Images: each is looked for in the target's memory, and each address among all of them. A system
/// has a few hundred modules at most.
pub const MAX_IMAGES: usize = 4096;
/// Words of the per-CPU signature: each is compared at every place that may be per-CPU memory.
pub const MAX_SIGNATURE: usize = 1024;
/// Registers that a call gives back: there are no more.
pub const MAX_SAVED: usize = 256;

/// A rule a program breaks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("function {function}, block {block}: {rule}")]
pub struct VerifyError {
    /// Number of the function.
    pub function: usize,
    /// Number of the block.
    pub block: usize,
    /// The rule.
    pub rule: String,
}

/// Verifies a program.
///
/// # Errors
/// The first rule found broken.
pub fn verify(program: &Program) -> Result<(), VerifyError> {
    let whole = |rule: &str| VerifyError { function: 0, block: 0, rule: rule.to_string() };
    if program.entry.0 as usize >= program.functions.len() {
        return Err(whole("the entry function does not exist"));
    }
    if program.bits != 32 && program.bits != 64 {
        return Err(whole("addresses have neither 32 nor 64 bits"));
    }
    for (number, function) in program.functions.iter().enumerate() {
        verify_function(program, number, function)?;
    }
    let registers = program.registers.iter().map(|(reg, _)| *reg);
    let bases = program.overrides.iter().filter(|cell| cell.descriptor().is_none()).map(|cell| cell.base);
    if registers.chain(bases).any(|reg| reg >= Var::FIRST_TEMP) {
        return Err(whole("a start value belongs to no register"));
    }
    if program
        .overrides
        .iter()
        .filter_map(PerCpuOverride::descriptor)
        .any(|number| number >= 8192 || program.bits != 32)
    {
        return Err(whole("a view cell belongs to an impossible descriptor"));
    }
    if program.overrides.iter().any(|cell| !matches!(cell.size, 1 | 2 | 4 | 8)) {
        return Err(whole("a view cell has an impossible size"));
    }
    for page in &program.pages {
        let size = matches!(&page.content, PageContent::Bytes(bytes) if bytes.len() != 4096);
        if page.addr % 4096 != 0 || size {
            return Err(whole("a page has the wrong size or address"));
        }
    }
    if !ascends(program.pages.iter().map(|page| page.addr))
        || !ascends(program.clock.iter().copied())
        || !ascends(program.summaries.iter().map(|summary| summary.0))
        || !ascends(program.overrides.iter().map(|cell| u64::from(cell.base) << 32 | u64::from(cell.offset)))
        || !ascends(program.signature.iter().map(|word| word.offset.into()))
    {
        return Err(whole("pages, summaries, clock cells, view cells or anchors do not ascend"));
    }
    if !program.summaries.iter().all(|(_, summary)| callable(summary)) {
        return Err(whole("a summary's argument is in no register and not on the stack"));
    }
    if let Some(rule) = broken_relocations(&program.relocations) {
        return Err(whole(rule));
    }
    if program.inputs.len() + program.outputs.len() > MAX_NAMES {
        return Err(whole("there are too many fields"));
    }
    if program.signature.len() > MAX_SIGNATURE {
        return Err(whole("there are too many anchors"));
    }
    if let Some(rule) = broken_dependences(program) {
        return Err(whole(rule));
    }
    let mut together = 0u64;
    for variable in program.inputs.iter().chain(&program.outputs) {
        let size = variable.elem.size();
        let sized = matches!(variable.elem, Elem::Char | Elem::Byte) || matches!(size, 1 | 2 | 4 | 8);
        if !sized || variable.count.max().checked_mul(size).is_none_or(|bytes| bytes > MAX_VARIABLE) {
            return Err(whole("a field has an impossible size"));
        }
        together += variable.count.max() * size;
        if together > MAX_VARIABLES {
            return Err(whole("the fields together are too large"));
        }
    }
    Ok(())
}

/// The rule that what is said of the outputs breaks, if it does.
fn broken_dependences(program: &Program) -> Option<&'static str> {
    let is = |variables: &[Variable], name: &str| variables.iter().any(|variable| variable.name == name);
    for (at, it) in program.dependences.iter().enumerate() {
        let before = &program.dependences[..at];
        if !is(&program.outputs, &it.output) || before.iter().any(|other| other.output == it.output) {
            return Some("a dependence is of no output, or given twice");
        }
        if !it.on.is_sorted_by(|a, b| a < b) {
            return Some("what an output depends on does not ascend");
        }
        let unknown = |on: &Dependence| matches!(on, Dependence::Input(name) if !is(&program.inputs, name));
        if it.on.iter().any(unknown) {
            return Some("an output depends on an input that does not exist");
        }
    }
    None
}

/// Whether a summary's arguments are where arguments can be.
fn callable(summary: &Summary) -> bool {
    let is_possible = |location: &ArgumentLocation| match location {
        ArgumentLocation::Register(var) => var.is_reg(),
        ArgumentLocation::Stack(_) => *location != Summary::NO_ARG,
    };
    let (args, unused) = summary.args.split_at(summary.action.arity());
    let fails = summary.fails.iter().map(|(location, _)| location);
    args.iter().chain(fails).all(is_possible) && unused.iter().all(|location| *location == Summary::NO_ARG)
}

/// The rule that a relocation table breaks, if any.
#[must_use]
pub fn broken_relocations(relocations: &RelocationTable) -> Option<&'static str> {
    let image = |image: u16| usize::from(image) < relocations.images.len();
    if relocations.images.len() > MAX_IMAGES {
        return Some("there are too many images");
    }
    let mut images: Vec<(u64, u64)> =
        relocations.images.iter().map(|image| (image.start, image.end)).collect();
    images.sort_unstable();
    if images.iter().any(|(start, end)| start >= end) || images.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Some("an image is empty or overlaps another");
    }
    if !ascends(relocations.gates.iter().map(|gate| u64::from(gate.0))) || !relocations.fixups.ascend() {
        return Some("gates or code fields do not ascend");
    }
    let moves = relocations.constants.iter().all(|constant| match constant {
        RelocatedConstant::Address { image: it, .. } => image(*it),
        RelocatedConstant::Patched { len, arg, .. } => *len <= 15 && *arg < 3,
    });
    let fixups = relocations.fixups.kinds().iter().all(|(size, kind)| {
        let known = match *kind {
            FixupKind::Moves { plus, minus } => plus.is_none_or(image) && minus.is_none_or(image),
            FixupKind::Patched | FixupKind::Either { .. } => true,
        };
        known && (1..=8).contains(size)
    });
    let fixups = fixups && relocations.fixups.last().is_none_or(|last| last.checked_add(8).is_some());
    (!moves || !fixups).then_some("a moving constant or field names no image, or has an impossible size")
}

fn ascends(mut values: impl Iterator<Item = u64>) -> bool {
    let Some(mut last) = values.next() else { return true };
    values.all(|value| {
        let ok = last < value;
        last = value;
        ok
    })
}

fn verify_function(program: &Program, number: usize, function: &Function) -> Result<(), VerifyError> {
    let fail =
        |block: usize, rule: &str| Err(VerifyError { function: number, block, rule: rule.to_string() });
    if function.blocks.is_empty() {
        return fail(0, "the function has no block");
    }
    if function.callee_saved.iter().any(|var| !var.is_reg()) {
        return fail(0, "a preserved variable is no register");
    }
    if function.callee_saved.len() > MAX_SAVED {
        return fail(0, "there are too many preserved registers");
    }
    for (at, block) in function.blocks.iter().enumerate() {
        for op in &block.ops {
            if let Some(rule) = broken(op) {
                return fail(at, rule);
            }
            if !op.args().iter().all(|it| names_constant(program, it)) {
                return fail(at, NO_CONSTANT);
            }
        }
        let target = |target: &Target| match target {
            Target::Block(id) => (id.0 as usize) < function.blocks.len(),
            Target::Tail(func) => (func.0 as usize) < program.functions.len(),
            Target::Return | Target::Unexplored(_) => true,
        };
        let known = match &block.term {
            Terminator::Goto(to) => target(to),
            Terminator::Branch { cond, taken, otherwise } => arg(cond) && target(taken) && target(otherwise),
            Terminator::Switch { value, arms } => {
                arg(value)
                    && ascends(arms.iter().map(|arm| arm.value))
                    && arms.iter().all(|arm| target(&arm.target))
            }
            Terminator::Call { callee, stack, then } => {
                let func = |func: &crate::program::FuncId| (func.0 as usize) < program.functions.len();
                var(*stack)
                    && target(then)
                    && match callee {
                        Callee::Direct(callee) => func(callee),
                        Callee::Indirect { value, arms } => {
                            arg(value)
                                && ascends(arms.iter().map(|arm| arm.value))
                                && arms.iter().filter_map(|arm| arm.target.as_ref()).all(func)
                        }
                    }
            }
            Terminator::End => true,
        };
        let value = match &block.term {
            Terminator::Branch { cond: value, .. }
            | Terminator::Switch { value, .. }
            | Terminator::Call { callee: Callee::Indirect { value, .. }, .. } => Some(value),
            _ => None,
        };
        if value.is_some_and(|it| !names_constant(program, it)) {
            return fail(at, NO_CONSTANT);
        }
        if !known {
            return fail(at, "the terminator names something that does not exist, or its arms do not ascend");
        }
    }
    Ok(())
}

const NO_CONSTANT: &str = "an operand names a moving constant that does not exist";

fn names_constant(program: &Program, arg: &Arg) -> bool {
    !matches!(arg, Arg::Relocated(number) if *number as usize >= program.relocations.constants.len())
}

fn var(var: Var) -> bool {
    var.is_reg() || (var.is_temp() && var.0 - Var::FIRST_TEMP < MAX_TEMPS)
}

fn arg(arg: &Arg) -> bool {
    match arg {
        Arg::Var(it) => var(*it),
        Arg::Const(_) | Arg::Relocated(_) => true,
    }
}

/// The rule an operation breaks, if any.
#[must_use]
pub fn broken(op: &Op) -> Option<&'static str> {
    let defines = match op.class() {
        Class::Pure | Class::Load | Class::Nondet => true,
        Class::Store => false,
        Class::Effect => matches!(op.kind, Kind::Alloc | Kind::Realloc),
        Class::Control => return Some("a control operation stands inside a block"),
    };
    if defines != op.def().is_some() {
        return Some("an operation lacks a destination or has one it must not have");
    }
    if op.def().is_some_and(|it| !var(it)) || !op.args.iter().all(arg) {
        return Some("a variable's number is too large");
    }
    if matches!(op.class(), Class::Load | Class::Store) && op.width.bits() < 8 {
        return Some("a memory operation is narrower than a byte");
    }
    if op.args[op.kind.arity()..].iter().any(|arg| *arg != Arg::Const(0)) {
        return Some("an operand stands beyond those the operation takes");
    }
    if matches!(op.kind, Kind::VZipLo | Kind::VZipHi) && op.width == Width::B64
        || matches!(op.kind, Kind::VPackS | Kind::VPackU) && op.width == Width::B1
    {
        return Some("the lanes are too wide to interleave or too narrow to halve");
    }
    None
}

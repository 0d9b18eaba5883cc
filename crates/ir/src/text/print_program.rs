//! Functions and whole programs as text.

use std::fmt::Write;

use super::ROW;
use super::names::print_var;
use super::print::{print_op, print_terminator};
use crate::program::{Count, Dependence, Elem, FuncId, Function, PageContent, Program, Variable};
use crate::relocation::{FixupKind, RelocatedConstant, RelocationTable};
use crate::summary::{ArgumentLocation, Summary};

/// A function and its blocks; `id` is its number in its program.
#[must_use]
pub fn print_function(id: FuncId, function: &Function, names: &[&str]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_function(&mut text, id, function, names);
    text
}

/// A whole program; [`super::parse_program`] reads it back.
#[must_use]
pub fn print_program(program: &Program, names: &[&str]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_program(&mut text, program, names);
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

fn write_program(out: &mut String, program: &Program, names: &[&str]) -> std::fmt::Result {
    writeln!(out, "program {}", quoted(&program.name))?;
    writeln!(out, "bits {}", program.bits)?;
    writeln!(out, "entry f{}", program.entry.0)?;
    writeln!(out, "begin {:#x}", program.begin_pc)?;
    writeln!(out, "heap {:#x}", program.heap)?;
    out.push_str("system ");
    write_hex(out, &program.system)?;
    let from = &program.provenance;
    writeln!(out, "\npolicy {}", quoted(&from.policy))?;
    writeln!(out, "static {} {}", from.static_instructions, from.static_in_slice)?;
    if let Some(base) = &from.base {
        writeln!(out, "base {}", quoted(base))?;
    }
    if let Some(why) = &from.unrepeated {
        writeln!(out, "unrepeated {}", quoted(why))?;
    }
    for source in &from.sources {
        let name = quoted(&source.trace);
        write!(out, "source {name} {} {} {}", source.instructions, source.retained, source.in_slice)?;
        match &source.rehearsed {
            Some(inputs) => writeln!(out, " rehearsed {}", quoted(inputs))?,
            None => out.push('\n'),
        }
    }
    for variable in &program.inputs {
        writeln!(out, "input {}", print_variable(variable))?;
    }
    for variable in &program.outputs {
        writeln!(out, "output {}", print_variable(variable))?;
    }
    for output in &program.dependences {
        write!(out, "depends {}", quoted(&output.output))?;
        for dependence in &output.on {
            match dependence {
                Dependence::Memory => out.push_str(" memory"),
                Dependence::Registers => out.push_str(" registers"),
                Dependence::Counter => out.push_str(" counter"),
                Dependence::Device => out.push_str(" device"),
                Dependence::Input(name) => write!(out, " input {}", quoted(name))?,
            }
        }
        out.push('\n');
    }
    for (reg, value) in &program.registers {
        writeln!(out, "register {} {value:#x}", print_var(crate::Var(*reg), names))?;
    }
    for (addr, summary) in &program.summaries {
        writeln!(out, "summary {addr:#x} {}", print_summary(summary, names))?;
    }
    for addr in &program.clock {
        writeln!(out, "clock {addr:#x}")?;
    }
    for cell in &program.overrides {
        let base = match cell.descriptor() {
            Some(number) => format!("descriptor {number}"),
            None => print_var(crate::Var(cell.base), names),
        };
        writeln!(out, "view {base} {:#x} {} {:#x}", cell.offset, cell.size, cell.value)?;
    }
    for word in &program.signature {
        writeln!(out, "anchor {:#x} {:#x}", word.offset, word.points)?;
    }
    write_relocations(out, &program.relocations)?;
    for page in &program.pages {
        write!(out, "page {:#x} ", page.addr)?;
        match &page.content {
            PageContent::Zero => out.push_str("zero\n"),
            PageContent::Kernel(addr) => writeln!(out, "kernel {addr:#x}")?,
            PageContent::Bytes(bytes) => write_bytes(out, bytes)?,
        }
    }
    for range in &program.code {
        write!(out, "code {:#x} ", range.addr)?;
        write_bytes(out, &range.bytes)?;
    }
    for (number, function) in program.functions.iter().enumerate() {
        out.push('\n');
        write_function(out, FuncId(number as u32), function, names)?;
    }
    Ok(())
}

fn write_relocations(out: &mut String, relocations: &RelocationTable) -> std::fmt::Result {
    for image in &relocations.images {
        let movable = if image.movable { " movable" } else { "" };
        writeln!(out, "image {:#x} {:#x}{movable}", image.start, image.end)?;
    }
    for (vector, handler) in &relocations.gates {
        writeln!(out, "gate {vector} {handler:#x}")?;
    }
    for constant in &relocations.constants {
        match constant {
            RelocatedConstant::Address { value, image } => writeln!(out, "moved {value:#x} image {image}")?,
            RelocatedConstant::Patched { value, pc, len, op, arg } => {
                writeln!(out, "moved {value:#x} code {pc:#x} {len} op {op} arg {arg}")?;
            }
        }
    }
    for fixup in relocations.fixups.iter() {
        write!(out, "field {:#x} {}", fixup.addr, fixup.size)?;
        match fixup.kind {
            FixupKind::Patched => out.push_str(" patched"),
            FixupKind::Either { other } => write!(out, " either {other:#x}")?,
            FixupKind::Moves { plus, minus } => {
                for (word, image) in [("plus", plus), ("minus", minus)] {
                    if let Some(image) = image {
                        write!(out, " {word} {image}")?;
                    }
                }
            }
        }
        out.push('\n');
    }
    Ok(())
}

fn write_function(out: &mut String, id: FuncId, function: &Function, names: &[&str]) -> std::fmt::Result {
    write!(out, "function f{} {:#x} {}", id.0, function.pc, quoted(&function.name))?;
    if !function.callee_saved.is_empty() {
        let vars: Vec<String> = function.callee_saved.iter().map(|var| print_var(*var, names)).collect();
        write!(out, " preserved({})", vars.join(", "))?;
    }
    out.push_str(" {\n");
    for (number, block) in function.blocks.iter().enumerate() {
        write!(out, "b{number} @{:#x}", block.pc)?;
        if block.term_pc != block.pc {
            write!(out, " - {:#x}", block.term_pc)?;
        }
        out.push_str(":\n");
        for op in &block.ops {
            writeln!(out, "  {}", print_op(op, names))?;
        }
        writeln!(out, "  {}", print_terminator(&block.term, names))?;
    }
    out.push_str("}\n");
    Ok(())
}

fn print_variable(variable: &Variable) -> String {
    let elem = match variable.elem {
        Elem::Unsigned(bytes) => format!("u{}", u32::from(bytes) * 8),
        Elem::Signed(bytes) => format!("i{}", u32::from(bytes) * 8),
        Elem::Char => "char".to_string(),
        Elem::Byte => "byte".to_string(),
    };
    let count = match &variable.count {
        Count::One => String::new(),
        Count::Fixed(count) => format!("[{count}]"),
        Count::Variable { name, max } => format!("[field {} max {max}]", quoted(name)),
    };
    format!("{} {elem}{count} @{:#x}", quoted(&variable.name), variable.addr)
}

/// `malloc rdi`, or `realloc [0xc] [0x10] pops 0x10 fails [0x8] 0x10`.
fn print_summary(summary: &Summary, names: &[&str]) -> String {
    let location = |location: ArgumentLocation| match location {
        ArgumentLocation::Register(var) => print_var(var, names),
        ArgumentLocation::Stack(distance) => format!("[{distance:#x}]"),
    };
    let mut text = summary.action.name().to_string();
    for &arg in summary.args() {
        text += &format!(" {}", location(arg));
    }
    if summary.pops != 0 {
        text += &format!(" pops {:#x}", summary.pops);
    }
    if let Some((arg, bits)) = summary.fails {
        text += &format!(" fails {} {bits:#x}", location(arg));
    }
    text
}

/// Bytes in rows; rows of zeros are left out.
fn write_bytes(out: &mut String, bytes: &[u8]) -> std::fmt::Result {
    writeln!(out, "bytes {} {{", bytes.len())?;
    for (number, row) in bytes.chunks(ROW).enumerate() {
        if row.iter().any(|byte| *byte != 0) {
            write!(out, "  {:#x}: ", number * ROW)?;
            write_hex(out, row)?;
            out.push('\n');
        }
    }
    out.push_str("}\n");
    Ok(())
}

fn write_hex(out: &mut String, bytes: &[u8]) -> std::fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

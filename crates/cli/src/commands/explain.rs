//! `virtuoso explain`: a program as a readable listing.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use ir::Program;
use ir::program::{Function, Variable};
use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::statistics::{Counts, Pages, companion_name, source_line, sources_json};
use crate::symbols::Symbols;
use crate::{evidence, files, format, output};

/// Print what a program consists of
///
/// The header says where it comes from and what it reads; the table lists its functions. With
/// --function or --full their blocks follow: operations, guards (branches that training saw going
/// one way only), and the sides that lead to unexplored code.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso explain pslist.prog --symbols System.map
  virtuoso explain pslist.prog --function idr_get_next
  virtuoso explain pslist.prog --function 0xffffffff811b2f40
  virtuoso explain pslist.prog --full | less")]
pub struct ExplainArgs {
    /// The program, made by `virtuoso build`
    program: PathBuf,
    /// Only this function, whole: its name, its address (0x...) or its number (fN)
    #[arg(long, value_name = "FUNCTION")]
    function: Option<String>,
    /// All functions, whole
    #[arg(long)]
    full: bool,
    /// Everything in the text form that can be read back (docs/format-program.md), pages included
    #[arg(long, conflicts_with_all = ["function", "full", "json"])]
    text: bool,
    /// System.map or ELF file that names functions
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    /// Runs the verb.
    pub fn run(&self) -> Result<(), Failure> {
        let mut program = files::program(&self.program)?;
        if let Some(path) = &self.symbols {
            Symbols::read(path)?.name_functions(&mut program);
        }
        let mut out = output::stdout();
        if self.text {
            out.write_all(ir::text::print_program(&program, machine::Reg::NAMES).as_bytes())?;
            return Ok(out.flush()?);
        }
        let chosen = self.chosen(&program)?;
        if self.json {
            drop(out);
            return output::json(&self.object(&program, &chosen));
        }
        if self.function.is_none() {
            print_header(&mut out, &program)?;
            print_table(&mut out, &program)?;
        }
        if self.function.is_some() || self.full {
            for &number in &chosen {
                print_function(&mut out, &program, number)?;
            }
        }
        Ok(out.flush()?)
    }

    /// The numbers of the functions asked for, ascending.
    fn chosen(&self, program: &Program) -> Result<Vec<usize>, Failure> {
        let Some(wanted) = &self.function else { return Ok((0..program.functions.len()).collect()) };
        let address = wanted.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let number = wanted.strip_prefix('f').and_then(|number| number.parse().ok());
        let matches = |(at, function): &(usize, &Function)| {
            function.name == *wanted || Some(function.pc) == address || Some(*at) == number
        };
        let chosen: Vec<usize> =
            program.functions.iter().enumerate().filter(matches).map(|(at, _)| at).collect();
        if chosen.is_empty() {
            let next = "leave --function out to see them all, and give --symbols for names";
            return Err(Failure::file(&self.program, format!("it has no function {wanted}; {next}")));
        }
        Ok(chosen)
    }

    fn object(&self, program: &Program, chosen: &[usize]) -> Json {
        let from = &program.provenance;
        let listed = self.full || self.function.is_some();
        let functions: Vec<Json> =
            chosen.iter().map(|&number| function_json(program, number, listed)).collect();
        let variables = |variables: &[Variable]| variables.iter().map(format::variable).collect::<Vec<_>>();
        json!({
            "program": program.name,
            "bits": program.bits,
            "inputs": variables(&program.inputs),
            "outputs": variables(&program.outputs),
            "policy": from.policy,
            "sources": sources_json(program),
            "static_instructions": from.static_instructions,
            "static_in_slice": from.static_in_slice,
            "companion": companion_name(&program.system),
            "pages": Pages::of(program),
            "clock": program.clock,
            "depends_on": evidence::json(program),
            "view": if program.runs_idle() { "idle" } else { "paused" },
            "view_cells": program.overrides,
            "counts": Counts::total(program),
            "functions": functions,
        })
    }
}

fn function_json(program: &Program, number: usize, listed: bool) -> Json {
    let function = &program.functions[number];
    let callee_saved: Vec<&str> = function.callee_saved.iter().map(|&var| format::register(var)).collect();
    let mut object = json!({
        "number": number,
        "address": function.pc,
        "name": function.name,
        "preserved": callee_saved,
        "counts": Counts::of(function),
    });
    if listed {
        let block = |block: &ir::program::Block| {
            json!({
                "address": block.pc,
                "operations": block.ops.iter().map(format::op).collect::<Vec<_>>(),
                "end": format::terminator(&block.term, &program.functions),
            })
        };
        object["blocks"] = function.blocks.iter().map(block).collect();
    }
    object
}

fn print_header(out: &mut impl Write, program: &Program) -> Result<(), Failure> {
    let (from, counts, pages) = (&program.provenance, Counts::total(program), Pages::of(program));
    writeln!(out, "program {} ({}-bit)", format::plain(&program.name), program.bits)?;
    for (label, variables) in [("input", &program.inputs), ("output", &program.outputs)] {
        for variable in variables {
            writeln!(out, "  {label:<10} {} at {:#x}", format::variable(variable), variable.addr)?;
        }
    }
    for it in &from.sources {
        writeln!(out, "  made from  {}", source_line(it))?;
    }
    writeln!(
        out,
        "  distinct   {} instructions executed, {} in the slice",
        from.static_instructions, from.static_in_slice
    )?;
    writeln!(
        out,
        "  size       {} functions, {} blocks, {} operations",
        program.functions.len(),
        counts.blocks,
        counts.operations
    )?;
    writeln!(
        out,
        "  branches   {} guards, {} unexplored sides, {} computed jumps and calls (policy {})",
        counts.guards, counts.unexplored, counts.computed, from.policy
    )?;
    writeln!(
        out,
        "  pages      {} of the training process: {} with bytes, {} zero, {} shared by the target's kernel",
        program.pages.len(),
        pages.bytes,
        pages.zero,
        pages.kernel
    )?;
    for line in evidence::lines(program) {
        writeln!(out, "  depends    {}", format::plain(&line))?;
    }
    for (addr, summary) in &program.summaries {
        writeln!(out, "  allocator  {} at {addr:#x}", summary.action.name())?;
    }
    for cell in &program.overrides {
        let base = match cell.descriptor() {
            Some(number) => format!("segment {:#x}", number << 3),
            None => machine::Reg::from_index(cell.base.into()).map_or("?", machine::Reg::name).to_owned(),
        };
        let (kind, why) = match program.runs_idle() {
            true => ("idle ", "the view is an idle processor's"),
            false => ("level", "code puts it back, and the paused processor may be at another one"),
        };
        writeln!(out, "  {kind}      {base}+{:#x} holds {:#x}: {why}", cell.offset, cell.value)?;
    }
    for cell in &program.clock {
        writeln!(out, "  clock      time stamp counter as last read by the kernel, at {cell:#x}")?;
    }
    let code: usize = program.code.iter().map(|range| range.bytes.len()).sum();
    writeln!(out, "  kernel     recognised by {code} bytes of code in {} ranges", program.code.len())?;
    writeln!(out, "  companion  {} (only whole runs need it)", companion_name(&program.system))?;
    Ok(())
}

fn print_table(out: &mut impl Write, program: &Program) -> Result<(), Failure> {
    writeln!(
        out,
        "\n{:>5}  {:<18} {:>6} {:>6} {:>6} {:>10}  name",
        "", "address", "blocks", "ops", "guards", "unexplored"
    )?;
    for (number, function) in program.functions.iter().enumerate() {
        let it = Counts::of(function);
        let line = format!(
            "{:>5}  {:#018x} {:>6} {:>6} {:>6} {:>10}  {}",
            format!("f{number}"),
            function.pc,
            it.blocks,
            it.operations,
            it.guards,
            it.unexplored,
            format::plain(&function.name)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn print_function(out: &mut impl Write, program: &Program, number: usize) -> Result<(), Failure> {
    let function = &program.functions[number];
    let entry = if program.entry.0 as usize == number { ", the entry" } else { "" };
    let name =
        if function.name.is_empty() { String::new() } else { format!(" {}", format::plain(&function.name)) };
    writeln!(out, "\nfunction f{number} {:#x}{name}{entry}", function.pc)?;
    if !function.callee_saved.is_empty() {
        let callee_saved: Vec<&str> =
            function.callee_saved.iter().map(|&var| format::register(var)).collect();
        writeln!(out, "  gives back {}", callee_saved.join(" "))?;
    }
    for (at, block) in function.blocks.iter().enumerate() {
        writeln!(out, "  b{at} at {:#x}", block.pc)?;
        for op in &block.ops {
            writeln!(out, "    {}", format::op(op))?;
        }
        writeln!(out, "    {}", format::terminator(&block.term, &program.functions))?;
    }
    Ok(())
}

//! Whole programs from text.
//!
//! The header's lines may come in any order before the first function, and those that say one thing
//! (all but `program`) may be missing: a program is then one of 64 bits whose entry is `f0` and
//! everything else zero or empty. That keeps programs written by hand short.

use super::cursor::Cursor;
use super::error::{ParseError, Problem};
use super::names::numbered;
use super::parse_header::{constant, dependences, fixup, hex, small, summary, variable};
use super::parse_op::{Line, func, line};
use crate::program::{
    Block, CodeRange, FuncId, Function, PageContent, PerCpuOverride, Program, Provenance, SignatureWord,
    Source, UserPage,
};
use crate::relocation::{Fixup, Image, RelocationTable};

/// Bytes of all pages and code together: the size of the largest program file.
const MAX_BYTES: usize = 256 << 20;

/// The program a text stands for; `names` are the registers' names by number. It is not verified.
///
/// # Errors
/// [`ParseError`] with the line.
pub fn parse_program(text: &str, names: &[&str]) -> Result<Program, ParseError> {
    let (lines, budget) = (text.lines().enumerate(), MAX_BYTES);
    let mut parser = Parser { lines, last: 1, names, budget, seen: Vec::new(), fixups: Vec::new() };
    let mut program = Program {
        name: String::new(),
        bits: 64,
        entry: FuncId(0),
        functions: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        registers: Vec::new(),
        begin_pc: 0,
        pages: Vec::new(),
        heap: 0,
        summaries: Vec::new(),
        code: Vec::new(),
        system: [0; 32],
        clock: Vec::new(),
        overrides: Vec::new(),
        signature: Vec::new(),
        dependences: Vec::new(),
        relocations: RelocationTable::default(),
        provenance: Provenance::default(),
    };
    while let Some(cursor) = parser.next() {
        parser.item(cursor, &mut program)?;
    }
    program.relocations.fixups = std::mem::take(&mut parser.fixups).into();
    if parser.seen.contains(&"program") {
        Ok(program)
    } else {
        Err(parser.ends("the header, without a line `program`"))
    }
}

struct Parser<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    last: usize,
    names: &'a [&'a str],
    budget: usize,
    seen: Vec<&'static str>,
    /// Those of the program.
    fixups: Vec<Fixup>,
}

impl<'a> Parser<'a> {
    /// The next line with anything in it.
    fn next(&mut self) -> Option<Cursor<'a>> {
        for (at, text) in self.lines.by_ref() {
            self.last = at + 1;
            let cursor = Cursor::new(text, at + 1, self.names);
            if !cursor.at_end() {
                return Some(cursor);
            }
        }
        None
    }

    fn ends(&self, what: &'static str) -> ParseError {
        ParseError { line: self.last, problem: Problem::Ends(what) }
    }

    fn once(&mut self, cursor: &Cursor<'_>, what: &'static str) -> Result<(), ParseError> {
        if self.seen.contains(&what) {
            return Err(cursor.error(Problem::Twice(what)));
        }
        self.seen.push(what);
        Ok(())
    }

    /// One line of the header, or a whole function.
    fn item(&mut self, mut cursor: Cursor<'a>, program: &mut Program) -> Result<(), ParseError> {
        let start = cursor;
        match cursor.word("a line of a program")? {
            "program" => {
                self.once(&start, "program")?;
                program.name = cursor.string()?;
            }
            "bits" => {
                self.once(&start, "bits")?;
                program.bits = small(&mut cursor)?;
            }
            "entry" => {
                self.once(&start, "entry")?;
                program.entry = func(&mut cursor)?;
            }
            "begin" => {
                self.once(&start, "begin")?;
                program.begin_pc = cursor.number()?;
            }
            "heap" => {
                self.once(&start, "heap")?;
                program.heap = cursor.number()?;
            }
            "system" => {
                self.once(&start, "system")?;
                let bytes = hex(&mut cursor)?;
                program.system = bytes.try_into().map_err(|_| start.error(Problem::Bytes))?;
            }
            "policy" => {
                self.once(&start, "policy")?;
                program.provenance.policy = cursor.string()?;
            }
            "static" => {
                self.once(&start, "static")?;
                program.provenance.static_instructions = cursor.number()?;
                program.provenance.static_in_slice = cursor.number()?;
            }
            "base" => {
                self.once(&start, "base")?;
                program.provenance.base = Some(cursor.string()?);
            }
            "unrepeated" => {
                self.once(&start, "unrepeated")?;
                program.provenance.unrepeated = Some(cursor.string()?);
            }
            "source" => program.provenance.sources.push(Source {
                trace: cursor.string()?,
                instructions: cursor.number()?,
                retained: cursor.number()?,
                in_slice: cursor.number()?,
                rehearsed: if cursor.peek() == "rehearsed" {
                    cursor.keyword("rehearsed")?;
                    Some(cursor.string()?)
                } else {
                    None
                },
            }),
            "input" => program.inputs.push(variable(&mut cursor)?),
            "output" => program.outputs.push(variable(&mut cursor)?),
            "depends" => program.dependences.push(dependences(&mut cursor)?),
            "register" => program.registers.push((cursor.var()?.0, cursor.number()?)),
            "summary" => program.summaries.push((cursor.number()?, summary(&mut cursor)?)),
            "clock" => program.clock.push(cursor.number()?),
            "view" => {
                let base = match cursor.peek() {
                    "descriptor" => {
                        cursor.keyword("descriptor")?;
                        small::<u16>(&mut cursor)? | PerCpuOverride::DESCRIPTOR
                    }
                    _ => cursor.var()?.0,
                };
                let (offset, size) = (small(&mut cursor)?, small(&mut cursor)?);
                program.overrides.push(PerCpuOverride { base, offset, size, value: cursor.number()? });
            }
            "anchor" => {
                let offset = small(&mut cursor)?;
                program.signature.push(SignatureWord { offset, points: small(&mut cursor)? });
            }
            "image" => {
                let (start, end) = (cursor.number()?, cursor.number()?);
                let movable = cursor.peek() == "movable";
                if movable {
                    cursor.keyword("movable")?;
                }
                program.relocations.images.push(Image { start, end, movable });
            }
            "gate" => program.relocations.gates.push((small(&mut cursor)?, cursor.number()?)),
            "moved" => program.relocations.constants.push(constant(&mut cursor)?),
            "field" => self.fixups.push(fixup(&mut cursor)?),
            "page" => {
                let addr = cursor.number()?;
                let content = match cursor.peek() {
                    "zero" => cursor.keyword("zero").map(|()| PageContent::Zero)?,
                    "kernel" => {
                        cursor.keyword("kernel").and_then(|()| cursor.number()).map(PageContent::Kernel)?
                    }
                    _ => PageContent::Bytes(self.bytes(&mut cursor)?),
                };
                program.pages.push(UserPage { addr, content });
            }
            "code" => {
                program.code.push(CodeRange { addr: cursor.number()?, bytes: self.bytes(&mut cursor)? })
            }
            "function" => {
                let id = func(&mut cursor)?;
                in_order(&start, "f", program.functions.len(), id.0)?;
                program.functions.push(self.function(&mut cursor)?);
            }
            _ => return Err(start.expected("a line of a program")),
        }
        cursor.end()
    }

    /// `bytes 4096 {`, rows, `}`.
    fn bytes(&mut self, cursor: &mut Cursor<'a>) -> Result<Vec<u8>, ParseError> {
        cursor.keyword("bytes")?;
        let length = usize::try_from(cursor.number()?).unwrap_or(usize::MAX);
        self.budget = self.budget.checked_sub(length).ok_or_else(|| cursor.error(Problem::Bytes))?;
        cursor.mark("{")?;
        cursor.end()?;
        let mut bytes = vec![0; length];
        loop {
            let mut row = self.next().ok_or_else(|| self.ends("bytes"))?;
            if row.eat("}") {
                *cursor = row;
                return Ok(bytes);
            }
            let from = usize::try_from(row.number()?).unwrap_or(usize::MAX);
            row.mark(":")?;
            let given = hex(&mut row)?;
            row.end()?;
            let place = bytes.get_mut(from..).and_then(|rest| rest.get_mut(..given.len()));
            place.ok_or_else(|| row.error(Problem::Bytes))?.copy_from_slice(&given);
        }
    }

    fn function(&mut self, cursor: &mut Cursor<'a>) -> Result<Function, ParseError> {
        let mut function = Function {
            pc: cursor.number()?,
            name: cursor.string()?,
            callee_saved: Vec::new(),
            blocks: Vec::new(),
        };
        if cursor.peek() == "preserved" {
            cursor.keyword("preserved")?;
            cursor.mark("(")?;
            function.callee_saved = cursor.list(")", |cursor| cursor.var())?;
        }
        cursor.mark("{")?;
        cursor.end()?;
        loop {
            let mut header = self.next().ok_or_else(|| self.ends("a function"))?;
            if header.eat("}") {
                *cursor = header;
                return Ok(function);
            }
            function.blocks.push(self.block(header, function.blocks.len())?);
        }
    }

    /// `b0 @0x1000 - 0x1010:`, operations, a terminator.
    fn block(&mut self, mut header: Cursor<'a>, expected: usize) -> Result<Block, ParseError> {
        const WHAT: &str = "a block such as `b0 @0x1000:`";
        let start = header;
        let number = numbered(header.word(WHAT)?, "b").ok_or_else(|| start.expected(WHAT))?;
        in_order(&start, "b", expected, number)?;
        header.mark("@")?;
        let pc = header.number()?;
        let term_pc = if header.eat("-") { header.number()? } else { pc };
        header.mark(":")?;
        header.end()?;
        let mut ops = Vec::new();
        loop {
            let cursor = self.next().ok_or_else(|| self.ends("a block"))?;
            match line(cursor, self.names)? {
                Line::Op(op) => ops.push(op),
                Line::End(term) => return Ok(Block { pc, ops, term, term_pc }),
            }
        }
    }
}

fn in_order(at: &Cursor<'_>, prefix: &str, expected: usize, given: u32) -> Result<(), ParseError> {
    if given as usize == expected {
        return Ok(());
    }
    Err(at
        .error(Problem::Order { expected: format!("{prefix}{expected}"), given: format!("{prefix}{given}") }))
}

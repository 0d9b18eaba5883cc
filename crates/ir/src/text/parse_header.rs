//! What header lines are made of: variables, summaries, fixups, relocated constants, bytes in
//! hexadecimal.

use super::cursor::Cursor;
use super::error::{ParseError, Problem, excerpt};
use super::names::numbered;
use crate::program::{Count, Dependence, Elem, OutputDependences, Variable};
use crate::relocation::{Fixup, FixupKind, RelocatedConstant};
use crate::summary::{Action, ArgumentLocation, Summary};

/// `"name" u32[field "count" max 64] @0x1000`.
pub(super) fn variable(cursor: &mut Cursor<'_>) -> Result<Variable, ParseError> {
    let name = cursor.string()?;
    let elem = elem(cursor)?;
    let count = if !cursor.eat("[") {
        Count::One
    } else {
        let count = if cursor.peek() == "field" {
            cursor.keyword("field")?;
            let name = cursor.string()?;
            cursor.keyword("max")?;
            Count::Variable { name, max: cursor.number()? }
        } else {
            Count::Fixed(cursor.number()?)
        };
        cursor.mark("]")?;
        count
    };
    cursor.mark("@")?;
    Ok(Variable { name, elem, count, addr: cursor.number()? })
}

fn elem(cursor: &mut Cursor<'_>) -> Result<Elem, ParseError> {
    const WHAT: &str = "an element type: u8, u16, u32, u64, i8, i16, i32, i64, char or byte";
    let start = *cursor;
    let word = cursor.word(WHAT)?;
    match word {
        "char" => return Ok(Elem::Char),
        "byte" => return Ok(Elem::Byte),
        _ => {}
    }
    let bytes = |prefix| {
        let bits = numbered(word, prefix).filter(|bits| bits % 8 == 0)?;
        u8::try_from(bits / 8).ok()
    };
    bytes("u")
        .map(Elem::Unsigned)
        .or_else(|| bytes("i").map(Elem::Signed))
        .ok_or_else(|| start.expected(WHAT))
}

/// `"pid" memory registers input "pid"`: an output and what it depends on.
pub(super) fn dependences(cursor: &mut Cursor<'_>) -> Result<OutputDependences, ParseError> {
    const WHAT: &str = "memory, registers, counter, device or input";
    let output = cursor.string()?;
    let mut on = Vec::new();
    while !cursor.at_end() {
        let start = *cursor;
        on.push(match cursor.word(WHAT)? {
            "memory" => Dependence::Memory,
            "registers" => Dependence::Registers,
            "counter" => Dependence::Counter,
            "device" => Dependence::Device,
            "input" => Dependence::Input(cursor.string()?),
            _ => return Err(start.expected(WHAT)),
        });
    }
    Ok(OutputDependences { output, on })
}

/// `malloc rdi`, or `realloc [0xc] [0x10] pops 0x10 fails [0x8] 0x10`.
pub(super) fn summary(cursor: &mut Cursor<'_>) -> Result<Summary, ParseError> {
    const WHAT: &str = "malloc, calloc, realloc, free or release";
    let start = *cursor;
    let word = cursor.word(WHAT)?;
    let action =
        Action::ALL.into_iter().find(|action| action.name() == word).ok_or_else(|| start.expected(WHAT))?;
    let mut summary = Summary { action, args: [Summary::NO_ARG; 2], pops: 0, fails: None };
    for arg in &mut summary.args[..action.arity()] {
        *arg = location(cursor)?;
    }
    if cursor.peek() == "pops" {
        cursor.keyword("pops")?;
        summary.pops = small(cursor)?;
    }
    if cursor.peek() == "fails" {
        cursor.keyword("fails")?;
        summary.fails = Some((location(cursor)?, small(cursor)?));
    }
    Ok(summary)
}

fn location(cursor: &mut Cursor<'_>) -> Result<ArgumentLocation, ParseError> {
    if !cursor.eat("[") {
        return cursor.var().map(ArgumentLocation::Register);
    }
    let distance = small(cursor)?;
    cursor.mark("]")?;
    Ok(ArgumentLocation::Stack(distance))
}

/// A number that fits a smaller type.
pub(super) fn small<T: TryFrom<u64>>(cursor: &mut Cursor<'_>) -> Result<T, ParseError> {
    let start = *cursor;
    let value = cursor.number()?;
    T::try_from(value).map_err(|_| start.error(Problem::Number(value.to_string())))
}

/// `0xffffffff82000000 image 0`, or `0x15 code 0xffffffff81001000 4 op 0 arg 1`.
pub(super) fn constant(cursor: &mut Cursor<'_>) -> Result<RelocatedConstant, ParseError> {
    let value = cursor.number()?;
    if cursor.peek() == "image" {
        cursor.keyword("image")?;
        return Ok(RelocatedConstant::Address { value, image: small(cursor)? });
    }
    cursor.keyword("code")?;
    let (pc, len) = (cursor.number()?, small(cursor)?);
    cursor.keyword("op")?;
    let op = small(cursor)?;
    cursor.keyword("arg")?;
    Ok(RelocatedConstant::Patched { value, pc, len, op, arg: small(cursor)? })
}

/// `0xffffffff81000003 4 plus 0 minus 1` with one, both or none of the two, or `0xffffffff81000003
/// 8 patched`, or `0xffffffff81000003 2 either 0x9066`.
pub(super) fn fixup(cursor: &mut Cursor<'_>) -> Result<Fixup, ParseError> {
    let (addr, size) = (cursor.number()?, small(cursor)?);
    if cursor.peek() == "patched" {
        cursor.keyword("patched")?;
        return Ok(Fixup { addr, size, kind: FixupKind::Patched });
    }
    if cursor.peek() == "either" {
        cursor.keyword("either")?;
        return Ok(Fixup { addr, size, kind: FixupKind::Either { other: cursor.number()? } });
    }
    let mut image = |word| {
        if cursor.peek() != word {
            return Ok(None);
        }
        cursor.keyword(word)?;
        small(cursor).map(Some)
    };
    let (plus, minus) = (image("plus")?, image("minus")?);
    Ok(Fixup { addr, size, kind: FixupKind::Moves { plus, minus } })
}

/// Bytes in hexadecimal, two digits each.
pub(super) fn hex(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, ParseError> {
    let word = cursor.word("bytes in hexadecimal")?;
    let wrong = || cursor.error(Problem::Number(excerpt(word)));
    let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(wrong);
    let (pairs, rest) = word.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong());
    }
    pairs.iter().map(|&[high, low]| Ok((digit(high)? << 4 | digit(low)?) as u8)).collect()
}

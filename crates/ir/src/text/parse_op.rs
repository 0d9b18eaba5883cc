//! Operations and terminators from text.

use super::cursor::Cursor;
use super::error::{ParseError, Problem, excerpt};
use super::names::{numbered, parse_var};
use crate::op::{Arg, Kind, Op, Var, Width};
use crate::program::{Arm, BlockId, Callee, FuncId, Target, Terminator};

/// The operation a line stands for; `names` are the registers' names by number.
///
/// # Errors
/// [`ParseError`]; its line is 1.
pub fn parse_op(text: &str, names: &[&str]) -> Result<Op, ParseError> {
    match line(Cursor::new(text, 1, names), names)? {
        Line::Op(op) => Ok(op),
        Line::End(_) => Err(Cursor::new(text, 1, names).expected("an operation")),
    }
}

/// A line of a block.
pub(super) enum Line {
    /// One of its operations.
    Op(Op),
    /// Its end.
    End(Terminator),
}

/// Parses a line of a block: what has a width is an operation, anything else a terminator.
pub(super) fn line(mut cursor: Cursor<'_>, names: &[&str]) -> Result<Line, ParseError> {
    let start = cursor;
    let mut word = cursor.word("an operation")?;
    let mut dst = Var::NONE;
    if cursor.eat("=") {
        dst = parse_var(word, names).ok_or_else(|| cursor.error(Problem::UnknownVar(excerpt(word))))?;
        word = cursor.word("an operation")?;
    } else if !word.contains('.') {
        return Ok(Line::End(terminator(start)?));
    }
    let (name, width) = word.rsplit_once('.').unwrap_or((word, ""));
    let kind = Kind::ALL.iter().find(|kind| kind.name() == name);
    let kind = *kind.ok_or_else(|| cursor.error(Problem::UnknownOp(excerpt(name))))?;
    let width = numbered(width, "").and_then(Width::from_bits);
    let width = width.ok_or_else(|| cursor.error(Problem::Width(excerpt(word))))?;
    let mut args = [Arg::Const(0); 3];
    let mut given = 0;
    while !cursor.at_end() {
        if given > 0 {
            cursor.mark(",")?;
        }
        let arg = cursor.arg()?;
        if let Some(place) = args.get_mut(given) {
            *place = arg;
        }
        given += 1;
    }
    if given != kind.arity() {
        return Err(cursor.error(Problem::Arity { name: kind.name(), arity: kind.arity(), given }));
    }
    Ok(Line::Op(Op { kind, width, dst, args }))
}

fn terminator(mut cursor: Cursor<'_>) -> Result<Terminator, ParseError> {
    const WHAT: &str = "an operation with its width, or a terminator";
    let start = cursor;
    let term = match cursor.word(WHAT)? {
        "goto" => Terminator::Goto(target(&mut cursor)?),
        "return" => Terminator::Goto(Target::Return),
        "end" => Terminator::End,
        "branch" => {
            let cond = cursor.arg()?;
            cursor.mark("?")?;
            let taken = target(&mut cursor)?;
            cursor.mark(":")?;
            Terminator::Branch { cond, taken, otherwise: target(&mut cursor)? }
        }
        "switch" => {
            let value = cursor.arg()?;
            cursor.mark("[")?;
            Terminator::Switch { value, arms: arms(&mut cursor, target)? }
        }
        "call" => {
            let callee = callee(&mut cursor)?;
            cursor.keyword("stack")?;
            let stack = cursor.var()?;
            cursor.keyword("then")?;
            Terminator::Call { callee, stack, then: target(&mut cursor)? }
        }
        _ => return Err(start.expected(WHAT)),
    };
    cursor.end()?;
    Ok(term)
}

/// `f3`, or an operand with arms.
fn callee(cursor: &mut Cursor<'_>) -> Result<Callee, ParseError> {
    let mut ahead = *cursor;
    ahead.word("a function or an operand")?;
    if !ahead.eat("[") {
        return func(cursor).map(Callee::Direct);
    }
    let value = cursor.arg()?;
    cursor.mark("[")?;
    let arms = arms(cursor, |cursor| if cursor.eat("-") { Ok(None) } else { func(cursor).map(Some) })?;
    Ok(Callee::Indirect { value, arms })
}

fn arms<T>(
    cursor: &mut Cursor<'_>,
    mut item: impl FnMut(&mut Cursor<'_>) -> Result<T, ParseError>,
) -> Result<Vec<Arm<T>>, ParseError> {
    cursor.list("]", |cursor| {
        let value = cursor.number()?;
        cursor.mark("->")?;
        Ok(Arm { value, target: item(cursor)? })
    })
}

fn target(cursor: &mut Cursor<'_>) -> Result<Target, ParseError> {
    const WHAT: &str = "a block, `tail` and a function, `return`, or `unexplored` and an address";
    let start = *cursor;
    Ok(match cursor.word(WHAT)? {
        "return" => Target::Return,
        "tail" => Target::Tail(func(cursor)?),
        "unexplored" => Target::Unexplored(cursor.number()?),
        word => Target::Block(BlockId(numbered(word, "b").ok_or_else(|| start.expected(WHAT))?)),
    })
}

/// Takes the number of a function.
pub(super) fn func(cursor: &mut Cursor<'_>) -> Result<FuncId, ParseError> {
    const WHAT: &str = "a function's number such as f0";
    let start = *cursor;
    numbered(cursor.word(WHAT)?, "f").map(FuncId).ok_or_else(|| start.expected(WHAT))
}

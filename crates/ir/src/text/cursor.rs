//! A place in one line of text, and the few things that can stand there.
//!
//! A semicolon outside a string begins a comment that ends with the line.

use super::error::{ParseError, Problem, excerpt};
use super::names::{in_word, numbered, parse_var};
use crate::op::{Arg, Var};

/// A place in a line.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    line: usize,
    names: &'a [&'a str],
}

impl<'a> Cursor<'a> {
    /// The start of a line.
    pub fn new(text: &'a str, line: usize, names: &'a [&'a str]) -> Self {
        let mut cursor = Self { rest: text, line, names };
        cursor.skip();
        cursor
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim();
        if self.rest.starts_with(';') {
            self.rest = "";
        }
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.skip();
        taken
    }

    /// An error at this line.
    pub fn error(&self, problem: Problem) -> ParseError {
        ParseError { line: self.line, problem }
    }

    /// The error that something else must stand here.
    pub fn expected(&self, expected: &'static str) -> ParseError {
        self.error(Problem::Unexpected { expected, found: excerpt(self.rest) })
    }

    /// Whether nothing follows.
    pub fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow.
    pub fn end(&self) -> Result<(), ParseError> {
        if self.at_end() { Ok(()) } else { Err(self.expected("the end of the line")) }
    }

    /// Takes a punctuation mark if it stands here.
    pub fn eat(&mut self, mark: &str) -> bool {
        let here = self.rest.starts_with(mark);
        if here {
            self.advance(mark.len());
        }
        here
    }

    /// Takes a punctuation mark.
    pub fn mark(&mut self, mark: &'static str) -> Result<(), ParseError> {
        if self.eat(mark) { Ok(()) } else { Err(self.expected(mark)) }
    }

    /// The word here without taking it; empty if there is none.
    pub fn peek(&self) -> &'a str {
        let end = self.rest.find(|c| !in_word(c)).unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    /// Takes a word.
    pub fn word(&mut self, expected: &'static str) -> Result<&'a str, ParseError> {
        let length = self.peek().len();
        if length == 0 { Err(self.expected(expected)) } else { Ok(self.advance(length)) }
    }

    /// Takes this very word.
    pub fn keyword(&mut self, word: &'static str) -> Result<(), ParseError> {
        if self.peek() == word {
            self.advance(word.len());
            return Ok(());
        }
        Err(self.expected(word))
    }

    /// Takes a number, decimal or with `0x`.
    pub fn number(&mut self) -> Result<u64, ParseError> {
        let word = self.word("a number")?;
        let value = match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => word.parse(),
        };
        value.map_err(|_| self.error(Problem::Number(excerpt(word))))
    }

    /// Takes a variable.
    pub fn var(&mut self) -> Result<Var, ParseError> {
        let word = self.word("a register or temporary")?;
        parse_var(word, self.names).ok_or_else(|| self.error(Problem::UnknownVar(excerpt(word))))
    }

    /// Takes an operand.
    pub fn arg(&mut self) -> Result<Arg, ParseError> {
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.number().map(Arg::Const);
        }
        if let Some(number) = numbered(self.peek(), "moved") {
            self.word("an operand")?;
            return Ok(Arg::Relocated(number));
        }
        self.var().map(Arg::Var)
    }

    /// Takes what stands between an opening mark that was taken and `close`, separated by commas.
    pub fn list<T>(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            self.mark(",")?;
        }
    }

    /// Takes a string in quotes, with the escapes of [`char::escape_default`].
    pub fn string(&mut self) -> Result<String, ParseError> {
        const WHAT: &str = "a string in quotes";
        let wrong = *self;
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        if chars.next().is_none_or(|(_, c)| c != '"') {
            return Err(wrong.expected(WHAT));
        }
        while let Some((at, c)) = chars.next() {
            let c = match c {
                '"' => {
                    self.advance(at + 1);
                    return Ok(text);
                }
                '\\' => match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(c @ ('"' | '\'' | '\\')) => c,
                    Some('u') => {
                        let code: String = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '}').collect();
                        let digits = code.strip_prefix('{').filter(|digits| digits.len() <= 6);
                        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                        value.and_then(char::from_u32).ok_or_else(|| wrong.expected(WHAT))?
                    }
                    _ => return Err(wrong.expected(WHAT)),
                },
                c => c,
            };
            text.push(c);
        }
        Err(wrong.expected(WHAT))
    }
}

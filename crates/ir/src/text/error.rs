//! What is wrong with a text, and in which line.

/// A text that is no operation or program.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// Something else stands there than must.
    #[error("{expected} is expected, not {found}")]
    Unexpected {
        /// What must stand there.
        expected: &'static str,
        /// What stands there, cut to a readable length.
        found: String,
    },
    /// A name that is in no register table and no temporary.
    #[error("{0} is no register and no temporary")]
    UnknownVar(String),
    /// A name that no operation has.
    #[error("there is no operation {0}")]
    UnknownOp(String),
    /// A width that does not exist.
    #[error("{0} has no width; it is .1, .8, .16, .32 or .64")]
    Width(String),
    /// A number that is too large, or none.
    #[error("{0} is no number of the expected size")]
    Number(String),
    /// Too many or too few operands.
    #[error("{name} takes {arity} operands, not {given}")]
    Arity {
        /// The operation.
        name: &'static str,
        /// How many it takes.
        arity: usize,
        /// How many there are.
        given: usize,
    },
    /// Functions and blocks are numbered in their order from 0 on.
    #[error("this is {given}, but the next in order is {expected}")]
    Order {
        /// The number that must follow.
        expected: String,
        /// The number that does.
        given: String,
    },
    /// Something that a program has once.
    #[error("a second {0}")]
    Twice(&'static str),
    /// The text ends too early.
    #[error("the text ends inside {0}")]
    Ends(&'static str),
    /// Bytes that lie outside their range, or ranges that are too large altogether.
    #[error("these bytes lie outside their range, or it is too large")]
    Bytes,
}

/// A piece of the text as messages show it.
pub(super) fn excerpt(text: &str) -> String {
    const MAX: usize = 40;
    if text.is_empty() {
        return "the end of the line".to_string();
    }
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_string(),
    }
}

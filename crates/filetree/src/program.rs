//! A file program in a session: inputs by name, outputs by name.

use engine::{Inputs, Limits, Outcome, SessionProgram, Text, Value, Values};
use ir::Program;
use ir::program::{Elem, Variable};

use crate::error::Error;

/// What is asked of a guest's files, each by the program with its name.
pub const PROGRAMS: [&str; 4] = ["readdir", "stat", "readlink", "read"];

/// A program that is not the file program whose name it has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the program {program} has no {what} {name}: it is no file program as docs/files.md has it")]
pub struct Unfit {
    program: String,
    what: &'static str,
    name: String,
}

/// A value for an input.
#[derive(Clone, Copy, Debug)]
pub enum Given<'g> {
    /// Bytes, behind which a NUL is put.
    Text(&'g [u8]),
    /// A number.
    Number(u64),
}

/// What answers as a file program does: one, or what stands for the guest where a target is not to
/// be had that says such things.
pub trait Answer: Send + Sync {
    /// The outputs for these inputs.
    ///
    /// # Errors
    /// [`Error`].
    fn ask(&self, given: &[(&str, Given<'_>)]) -> Result<Values, Error>;
}

/// A file program, ready to be asked by any number of threads.
pub struct FileProgram<'p, 's> {
    program: SessionProgram<'p, 's>,
    limits: Limits,
}

impl<'p, 's> FileProgram<'p, 's> {
    /// The program in its session. Each question may use as much as `limits` says.
    ///
    /// # Errors
    /// [`Unfit`] if the program lacks an input or an output that the file program of its name has.
    pub fn new(program: SessionProgram<'p, 's>, limits: Limits) -> Result<Self, Unfit> {
        let it = program.program();
        let (inputs, outputs): (&[&str], &[&str]) = match it.name.as_str() {
            "readdir" => (&["path", "cursor"], &["rc", "next", "end", "inodes", "types", "names"]),
            "read" => (&["path", "offset", "length"], &["rc", "end", "data"]),
            "readlink" => (&["path"], &["rc", "target"]),
            "stat" => (&["path", "follow"], &["rc", "mode", "ino", "size"]),
            _ => (&["path"], &["rc"]),
        };
        let unfit = |what, name: &&str| Unfit { program: it.name.clone(), what, name: (*name).to_owned() };
        let lacks = |all: &[Variable], name: &&&str| !all.iter().any(|variable| variable.name == **name);
        if let Some(name) = inputs.iter().find(|name| lacks(&it.inputs, name)) {
            return Err(unfit("input", name));
        }
        if let Some(name) = outputs.iter().find(|name| lacks(&it.outputs, name)) {
            return Err(unfit("output", name));
        }
        Ok(Self { program, limits })
    }
}

impl Answer for FileProgram<'_, '_> {
    fn ask(&self, given: &[(&str, Given<'_>)]) -> Result<Values, Error> {
        let inputs = inputs(self.program.program(), given)?;
        let (outcome, _) = self.program.ask(&inputs, &self.limits).map_err(Error::Run)?;
        let values = match outcome {
            Outcome::Answer(values) => values,
            Outcome::Stopped(stopped) => return Err(Error::Stopped(stopped)),
        };
        match values.number("rc") {
            Some(rc) if rc < 0 => Err(match i32::try_from(-rc) {
                Ok(errno @ 1..4096) => Error::Guest(errno),
                _ => Error::Nonsense(format!("its system call returned {rc}")),
            }),
            Some(_) => Ok(values),
            None => Err(Error::Nonsense("the program has no return code".to_owned())),
        }
    }
}

/// The bytes of a program's inputs; those that are not given are 0.
fn inputs(program: &Program, given: &[(&str, Given<'_>)]) -> Result<Inputs, Error> {
    let bytes = |variable: &Variable| {
        let value = given.iter().find(|(name, _)| *name == variable.name).map(|(_, value)| *value);
        let bytes = match (value, variable.elem) {
            (Some(Given::Text(text)), Elem::Char) => [text, &[0]].concat(),
            (Some(Given::Number(number)), Elem::Unsigned(_) | Elem::Signed(_)) => {
                number.to_le_bytes()[..variable.elem.size() as usize].to_vec()
            }
            (None, _) => vec![0; variable.elem.size() as usize],
            _ => {
                return Err(Error::Nonsense(format!(
                    "the program's input {} is of another type",
                    variable.name
                )));
            }
        };
        // A name that is too long is what the guest would say of it.
        if bytes.len() as u64 > variable.count.max() * variable.elem.size() {
            return Err(Error::Guest(ENAMETOOLONG));
        }
        Ok((variable.clone(), bytes))
    };
    program.inputs.iter().map(bytes).collect()
}

/// Linux's error number for a path that is too long.
pub(crate) const ENAMETOOLONG: i32 = 36;

/// The bytes of an output.
pub(crate) fn text<'v>(values: &'v Values, name: &str) -> Result<&'v [u8], Error> {
    match values.get(name) {
        Some(Value::Text(Text(bytes))) => Ok(bytes),
        _ => Err(Error::Nonsense(format!("the program has no bytes {name}"))),
    }
}

/// The numbers of an output.
pub(crate) fn numbers<'v>(values: &'v Values, name: &str) -> Result<impl Iterator<Item = u64> + 'v, Error> {
    match values.get(name) {
        Some(Value::List(all)) => Ok(all.iter().map(|value| match value {
            Value::Unsigned(number) => *number,
            _ => 0,
        })),
        _ => Err(Error::Nonsense(format!("the program has no list {name}"))),
    }
}

/// A number of an output.
pub(crate) fn number(values: &Values, name: &str) -> Result<u64, Error> {
    let value = values.number(name).and_then(|value| u64::try_from(value).ok());
    value.ok_or_else(|| Error::Nonsense(format!("the program has no number {name}")))
}

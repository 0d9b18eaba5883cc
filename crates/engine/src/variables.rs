//! Inputs and outputs: from text to the bytes of the trainer's variables, and from those to values.

use std::collections::BTreeMap;

use ir::program::{Count, Elem, Program, Variable};
use machine::VirtAddr;

use crate::outcome::Stopped;
use crate::overlay::Overlay;
use crate::text::Text;
use crate::value::{Value, Values};

/// An input that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InputError {
    /// The program has no such input.
    #[error("there is no input named {name}; the program's inputs: {known}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names of the program's inputs, or `none`.
        known: String,
    },
    /// An input was not given.
    #[error("the input {name} is missing; give --input {name}=VALUE")]
    Missing {
        /// The input's name.
        name: String,
    },
    /// The text is no value of the input's type.
    #[error("{text:?} is no value for the input {name}: {why}")]
    Value {
        /// The input's name.
        name: String,
        /// The text that was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The bytes of each input variable, in the program's order.
pub type Inputs = Vec<(Variable, Vec<u8>)>;

/// Turns pairs of name and text into bytes for a program's inputs. Where a name is given twice, the
/// last counts.
///
/// # Errors
/// [`InputError`] for inputs that are unknown, missing, or no value of their type.
pub fn parse_inputs(program: &Program, given: &[(String, String)]) -> Result<Inputs, InputError> {
    for (name, _) in given {
        if !program.inputs.iter().any(|variable| variable.name == *name) {
            let known: Vec<&str> = program.inputs.iter().map(|variable| variable.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            return Err(InputError::Unknown { name: name.clone(), known });
        }
    }
    program
        .inputs
        .iter()
        .map(|variable| {
            let text = given.iter().rev().find(|(name, _)| *name == variable.name).map(|(_, text)| text);
            let text = text.ok_or_else(|| InputError::Missing { name: variable.name.clone() })?;
            Ok((variable.clone(), encode(variable, text)?))
        })
        .collect()
}

/// What `text` stands for: a string with its NUL, its bytes alone, a number in decimal or, after
/// `0x`, hexadecimal digits, or an array's numbers with commas between them.
fn encode(variable: &Variable, text: &str) -> Result<Vec<u8>, InputError> {
    let wrong = |why: String| InputError::Value { name: variable.name.clone(), text: text.to_string(), why };
    let max = variable.count.max();
    if matches!(variable.elem, Elem::Char | Elem::Byte) {
        let mut bytes = text.as_bytes().to_vec();
        let end = u64::from(variable.elem == Elem::Char);
        bytes.extend((0..end).map(|_| 0));
        if bytes.len() as u64 > max {
            return Err(wrong(format!("at most {} bytes fit", max.saturating_sub(end))));
        }
        return Ok(bytes);
    }
    let parts: Vec<&str> = if variable.count == Count::One { vec![text] } else { text.split(',').collect() };
    if parts.len() as u64 > max {
        return Err(wrong(format!("at most {max} elements fit")));
    }
    let mut bytes = Vec::new();
    for part in parts {
        let part = part.trim();
        let (digits, negative) = part.strip_prefix('-').map_or((part, false), |rest| (rest, true));
        let value = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        let value =
            i128::from(value.map_err(|error| wrong(error.to_string()))?) * if negative { -1 } else { 1 };
        let bits = 8 * variable.elem.size() as u32;
        let (low, high) = match variable.elem {
            Elem::Signed(_) => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
            _ => (0, (1i128 << bits) - 1),
        };
        if value < low || value > high {
            return Err(wrong(format!("it must lie between {low} and {high}")));
        }
        bytes.extend_from_slice(&(value as u64).to_le_bytes()[..variable.elem.size() as usize]);
    }
    Ok(bytes)
}

/// Zeroes the output variables, then writes the inputs: a variable may be both.
pub(crate) fn prepare(program: &Program, inputs: &Inputs, overlay: &mut Overlay<'_>) -> Result<(), Stopped> {
    let stopped = |(address, fault)| Stopped::access(program.begin_pc, address, &fault);
    for variable in &program.outputs {
        // Buffers may be large and are mostly unused.
        let size = variable.count.max() * variable.elem.size();
        overlay.clear(variable.addr, size).map_err(stopped)?;
    }
    for (variable, bytes) in inputs {
        for (at, &byte) in bytes.iter().enumerate() {
            let to = variable.addr.wrapping_add(at as u64);
            overlay.store(VirtAddr(to), 1, byte.into()).map_err(|fault| stopped((to, fault)))?;
        }
    }
    Ok(())
}

/// Reads the outputs. `end`, the end mark's address, is named as the instruction if they cannot be
/// read.
pub(crate) fn collect(program: &Program, end: u64, overlay: &mut Overlay<'_>) -> Result<Values, Stopped> {
    read(program, &mut |address: u64, size: u64| {
        overlay.load(VirtAddr(address), size).map_err(|fault| Stopped::access(end, address, &fault))
    })
}

/// The outputs of a program whose memory held these bytes, by address, at the end mark; bytes that
/// are not named are 0, as before a run, or those of the inputs.
#[must_use]
pub fn outputs_of(program: &Program, inputs: &Inputs, written: &BTreeMap<VirtAddr, u8>) -> Values {
    let mut memory: BTreeMap<u64, u8> = BTreeMap::new();
    for (variable, bytes) in inputs {
        memory.extend((variable.addr..).zip(bytes.iter().copied()));
    }
    memory.extend(written.iter().map(|(address, &byte)| (address.0, byte)));
    let mut load = |address: u64, size: u64| {
        let byte = |at: u64| u64::from(memory.get(&address.wrapping_add(at)).copied().unwrap_or(0));
        Ok((0..size).rev().fold(0, |value, at| value << 8 | byte(at)))
    };
    read(program, &mut load).unwrap_or_default()
}

/// Reads the outputs.
fn read(program: &Program, load: &mut Load<'_>) -> Result<Values, Stopped> {
    let mut values = Values::default();
    // Single values first: some are the lengths of arrays.
    for variable in program.outputs.iter().filter(|variable| variable.count == Count::One) {
        let value = element(variable, variable.addr, load)?;
        values.0.push((variable.name.clone(), value));
    }
    for variable in program.outputs.iter().filter(|variable| variable.count != Count::One) {
        let value = match variable.elem {
            Elem::Char => text(variable, load)?,
            Elem::Byte => bytes(variable, length(program, variable, &values, load)?, load)?,
            Elem::Signed(_) | Elem::Unsigned(_) => {
                list(variable, length(program, variable, &values, load)?, load)?
            }
        };
        values.0.push((variable.name.clone(), value));
    }
    let order = |name: &str| program.outputs.iter().position(|variable| variable.name == name);
    values.0.sort_by_key(|(name, _)| order(name));
    Ok(values)
}

/// Reads 1, 2, 4 or 8 bytes at an address.
type Load<'l> = dyn FnMut(u64, u64) -> Result<u64, Stopped> + 'l;

/// The number at an address, in the variable's type.
fn element(variable: &Variable, addr: u64, load: &mut Load<'_>) -> Result<Value, Stopped> {
    let size = variable.elem.size();
    let raw = load(addr, size)?;
    Ok(match variable.elem {
        Elem::Signed(_) => {
            let shift = 64 - 8 * size;
            Value::Signed((raw << shift).cast_signed() >> shift)
        }
        Elem::Unsigned(_) | Elem::Char | Elem::Byte => Value::Unsigned(raw),
    })
}

/// The string up to its NUL, or all that fits.
fn text(variable: &Variable, load: &mut Load<'_>) -> Result<Value, Stopped> {
    let mut bytes = Vec::new();
    for at in 0..variable.count.max() {
        match load(variable.addr.wrapping_add(at), 1)? as u8 {
            0 => break,
            byte => bytes.push(byte),
        }
    }
    Ok(Value::Text(Text(bytes)))
}

/// The first `count` bytes, a word at a time: a file's content may be long.
fn bytes(variable: &Variable, count: u64, load: &mut Load<'_>) -> Result<Value, Stopped> {
    let mut bytes = Vec::with_capacity(count as usize);
    for at in (0..count / 8 * 8).step_by(8) {
        bytes.extend(load(variable.addr.wrapping_add(at), 8)?.to_le_bytes());
    }
    for at in count / 8 * 8..count {
        bytes.push(load(variable.addr.wrapping_add(at), 1)? as u8);
    }
    Ok(Value::Text(Text(bytes)))
}

/// The first `count` elements.
fn list(variable: &Variable, count: u64, load: &mut Load<'_>) -> Result<Value, Stopped> {
    let elements =
        (0..count).map(|at| element(variable, variable.addr.wrapping_add(at * variable.elem.size()), load));
    Ok(Value::List(elements.collect::<Result<_, _>>()?))
}

/// How many elements an array has: what an output that was read before says, or an input.
fn length(
    program: &Program,
    variable: &Variable,
    values: &Values,
    load: &mut Load<'_>,
) -> Result<u64, Stopped> {
    Ok(match &variable.count {
        Count::Variable { name, max } => {
            let given = match values.number(name) {
                Some(number) => number.clamp(0, i128::from(*max)) as u64,
                None => match program.inputs.iter().find(|input| input.name == *name) {
                    Some(input) => load(input.addr, input.elem.size())?.min(*max),
                    None => 0,
                },
            };
            given.min(*max)
        }
        count => count.max(),
    })
}

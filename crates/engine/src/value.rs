//! The values that an answer consists of.

use ir::program::{Count, Elem, Program};
use serde::Serialize;

use crate::text::Text;

/// The value of an output. In JSON it is a number, a string (or what stands for one, [`Text`]) or
/// an array.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// An unsigned number.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// A string, or bytes that are one value.
    Text(Text),
    /// The elements of an array, as many as the variable with its length says.
    List(Vec<Value>),
}

/// The outputs by name, in the program's order. In JSON they are one object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Values(pub Vec<(String, Value)>);

impl Values {
    /// The value with this name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// The number with this name; `None` for strings and arrays.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i128> {
        match self.get(name)? {
            Value::Unsigned(value) => Some(i128::from(*value)),
            Value::Signed(value) => Some(i128::from(*value)),
            Value::Text(_) | Value::List(_) => None,
        }
    }

    /// The outputs of `program` that fill what the trainer has for them, so that there may be more:
    /// lists and bytes as long as their capacity, and strings that leave no byte free but that of a
    /// NUL.
    ///
    /// Fixed arrays always have all their elements.
    #[must_use]
    pub fn full(&self, program: &Program) -> Vec<String> {
        let is_full = |(name, value): &&(String, Value)| {
            let Some(output) = program.outputs.iter().find(|output| output.name == *name) else {
                return false;
            };
            match (value, &output.count) {
                (Value::List(items), Count::Variable { max, .. }) => items.len() as u64 >= *max,
                (Value::Text(text), Count::Variable { max, .. }) => text.0.len() as u64 >= *max,
                (Value::Text(text), count) => {
                    output.elem == Elem::Char && text.0.len() as u64 + 1 >= count.max()
                }
                _ => false,
            }
        };
        self.0.iter().filter(is_full).map(|(name, _)| name.clone()).collect()
    }
}

impl Serialize for Values {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use ir::text::parse_program;
    use machine::Reg;

    use super::*;

    #[test]
    fn what_fills_its_buffer_is_full() {
        let text = "program \"test\"\nbegin 0x100\noutput \"count\" u32 @0x5000\n\
                    output \"pids\" u32[field \"count\" max 3] @0x5010\n\
                    output \"path\" char[8] @0x5020\noutput \"both\" u32[2] @0x5030\n\
                    output \"data\" byte[field \"count\" max 3] @0x5040\n";
        let program = parse_program(text, Reg::NAMES).expect("it parses");
        let list = |length: u64| Value::List((0..length).map(Value::Unsigned).collect());
        let full = |length, path: &str| {
            let values = [("pids", list(length)), ("path", Value::Text(path.into())), ("both", list(2))];
            Values(values.map(|(name, value)| (name.to_owned(), value)).into()).full(&program)
        };
        assert!(full(2, "/bin/a").is_empty());
        assert_eq!(full(3, "/bin/a"), ["pids"]);
        // Cut by a trainer that leaves room for the NUL, and without a NUL.
        assert_eq!(full(0, "/bin/ab"), ["path"]);
        assert_eq!(full(3, "/bin/abc"), ["pids", "path"]);
        let data = |bytes: &[u8]| Values(vec![("data".to_owned(), Value::Text(Text(bytes.to_vec())))]);
        assert!(data(b"a\0").full(&program).is_empty());
        assert_eq!(data(b"a\0b").full(&program), ["data"]);
    }
}

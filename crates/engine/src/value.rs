//! The values that an answer consists of.

use serde::Serialize;

/// The value of an output. In JSON it is a number, a string or an array.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// An unsigned number.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// A string, without the NUL that ends it; bytes that are not UTF-8 are replaced by U+FFFD.
    Text(String),
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
}

impl Serialize for Values {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

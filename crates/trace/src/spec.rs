//! Specifications of inputs and outputs as trainers write them: `pid:u32`, `pids:u32[count<=4096]`,
//! `name:cstr[256]`, `data:bytes[used<=65536]`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most bytes one variable may take.
pub const MAX_VARIABLE_BYTES: u64 = 16 << 20;

/// A fixed-width little-endian integer type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in Rust")]
pub enum Scalar {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

impl Scalar {
    const ALL: [(Self, &'static str, u64); 8] = [
        (Self::U8, "u8", 1),
        (Self::U16, "u16", 2),
        (Self::U32, "u32", 4),
        (Self::U64, "u64", 8),
        (Self::I8, "i8", 1),
        (Self::I16, "i16", 2),
        (Self::I32, "i32", 4),
        (Self::I64, "i64", 8),
    ];

    /// Bytes of one value.
    #[must_use]
    pub fn size(self) -> u64 {
        Self::ALL[self as usize].2
    }

    /// The type's name in specifications.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Whether values are signed.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|entry| entry.1 == text).map(|entry| entry.0)
    }
}

/// How many elements of an array are meaningful.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Length {
    /// Always all of them.
    Fixed,
    /// As many as the declared scalar of this name says, at most the capacity.
    Field(String),
}

/// The type of an input or output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VarType {
    /// One integer.
    Scalar(Scalar),
    /// A NUL-terminated string in a buffer of this many bytes.
    CStr {
        /// Bytes of the buffer, the NUL included.
        capacity: u32,
    },
    /// Integers in a row.
    Array {
        /// Type of one of them.
        element: Scalar,
        /// How many fit into the buffer.
        capacity: u32,
        /// How many count.
        length: Length,
    },
    /// Bytes in a row that are one value: text without a NUL at its end, the content of a file.
    Bytes {
        /// How many fit into the buffer.
        capacity: u32,
        /// How many count.
        length: Length,
    },
}

impl VarType {
    /// Bytes the variable takes in the guest.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Scalar(scalar) => scalar.size(),
            Self::CStr { capacity } | Self::Bytes { capacity, .. } => u64::from(*capacity),
            Self::Array { element, capacity, .. } => element.size() * u64::from(*capacity),
        }
    }
}

impl fmt::Display for VarType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => f.write_str(scalar.name()),
            Self::CStr { capacity } => write!(f, "cstr[{capacity}]"),
            Self::Array { element, capacity, length: Length::Fixed } => {
                write!(f, "{}[{capacity}]", element.name())
            }
            Self::Array { element, capacity, length: Length::Field(field) } => {
                write!(f, "{}[{field}<={capacity}]", element.name())
            }
            Self::Bytes { capacity, length: Length::Fixed } => write!(f, "bytes[{capacity}]"),
            Self::Bytes { capacity, length: Length::Field(field) } => write!(f, "bytes[{field}<={capacity}]"),
        }
    }
}

/// Why a specification string is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("specification \"{spec}\": {reason}")]
pub struct SpecError {
    /// The string as the trainer gave it.
    pub spec: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Parses `name:type` into the name and the type.
pub fn parse_spec(spec: &str) -> Result<(String, VarType), SpecError> {
    let fail = |reason| SpecError { spec: spec.chars().take(120).collect(), reason };
    let (name, ty) = spec.split_once(':').ok_or_else(|| fail("no ':' between name and type"))?;
    if !is_name(name) {
        return Err(fail("the name must be letters, digits and '_', not beginning with a digit"));
    }
    let ty = ty.trim();
    let parsed =
        match ty.strip_suffix(']').map(|t| t.split_once('[').ok_or_else(|| fail("']' without '['"))) {
            None => VarType::Scalar(Scalar::parse(ty).ok_or_else(|| {
                fail("unknown type (u8..u64, i8..i64, cstr[N], bytes[N], T[N], T[field<=N])")
            })?),
            Some(split) => {
                let (element, length) = split?;
                let (field, capacity) = match length.split_once("<=") {
                    Some((field, capacity)) => (Some(field.trim()), capacity.trim()),
                    None if is_name(length.trim()) => {
                        return Err(fail("the buffer's capacity is missing: write T[field<=N]"));
                    }
                    None => (None, length.trim()),
                };
                let capacity: u32 = capacity.parse().map_err(|_| fail("the capacity is not a number"))?;
                if capacity == 0 {
                    return Err(fail("the capacity is 0"));
                }
                match (element, field) {
                    ("cstr", None) => VarType::CStr { capacity },
                    ("cstr", Some(_)) => return Err(fail("a cstr ends at its NUL and has no length field")),
                    (_, field) => {
                        let length = match field {
                            None => Length::Fixed,
                            Some(field) if is_name(field) => Length::Field(field.to_owned()),
                            Some(_) => return Err(fail("the length field's name is not a name")),
                        };
                        match Scalar::parse(element) {
                            Some(element) => VarType::Array { element, capacity, length },
                            None if element == "bytes" => VarType::Bytes { capacity, length },
                            None => return Err(fail("unknown element type")),
                        }
                    }
                }
            }
        };
    if parsed.size() > MAX_VARIABLE_BYTES {
        return Err(fail("the variable is larger than 16 MiB"));
    }
    Ok((name.to_owned(), parsed))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_prints_every_form() {
        let forms = ["pid:u32", "rc:i64", "name:cstr[256]", "bases:u64[64]", "pids:u32[count<=4096]"];
        for spec in forms.into_iter().chain(["id:bytes[16]", "data:bytes[used<=65536]"]) {
            let (name, ty) = parse_spec(spec).unwrap();
            assert_eq!(format!("{name}:{ty}"), spec);
        }
        assert_eq!(parse_spec("pids:u32[count<=4096]").unwrap().1.size(), 16384);
        assert_eq!(parse_spec("data:bytes[used<=65536]").unwrap().1.size(), 65536);
    }

    #[test]
    fn refuses_with_a_reason() {
        for (spec, reason) in [
            ("pid", "no ':'"),
            ("p d:u32", "the name"),
            ("9:u32", "the name"),
            ("pid:int", "unknown type"),
            ("pids:u32[count]", "capacity is missing"),
            ("pids:u32[0]", "capacity is 0"),
            ("pids:u32[x<=y]", "not a number"),
            ("name:cstr[n<=3]", "no length field"),
            ("x:u3]", "']' without"),
            ("x:u64[4000000000]", "larger than"),
            ("x:cstr", "unknown type"),
            ("x:foo[3]", "unknown element"),
            ("x:bytes", "unknown type"),
            ("x:bytes[n]", "capacity is missing"),
        ] {
            let error = parse_spec(spec).unwrap_err();
            assert!(error.reason.contains(reason), "{spec}: {error}");
        }
    }
}

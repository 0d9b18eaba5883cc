//! Text of a guest: bytes, which need not be UTF-8.
//!
//! Names in a guest are whatever somebody wrote there. They are compared and counted as the bytes
//! that they are; replacing what is no UTF-8 would make different names the same.

use std::fmt::{self, Write};
use std::path::Path;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// A string of a guest, without the NUL that ends it.
///
/// In JSON it is a string where it is UTF-8. Else it is an object: `bytes` has its bytes as
/// hexadecimal digits, and `text` the string with U+FFFD for what is no UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// The name of a file.
    #[must_use]
    pub fn of_path(path: &Path) -> Self {
        Self(path.as_os_str().as_encoded_bytes().to_vec())
    }

    /// The string, where it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        str::from_utf8(&self.0).ok()
    }

    /// The string with `valid` applied to its parts that are UTF-8, and `\xNN` for each other byte.
    #[must_use]
    pub fn shown(&self, valid: impl Fn(&str) -> String) -> String {
        let mut shown = String::new();
        for chunk in self.0.utf8_chunks() {
            shown.push_str(&valid(chunk.valid()));
            for byte in chunk.invalid() {
                // Writing to a string does not fail.
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
        shown
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

/// In quotes, with escapes as in Rust; bytes that are no UTF-8 are `\xNN`.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.shown(|text| text.escape_debug().to_string()))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = self.as_str() {
            return serializer.serialize_str(text);
        }
        let bytes: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut object = serializer.serialize_struct("Text", 2)?;
        object.serialize_field("bytes", &bytes)?;
        object.serialize_field("text", &String::from_utf8_lossy(&self.0))?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_utf8_is_shown_byte_by_byte() {
        assert_eq!(format!("{:?}", Text::from("a\\\"ä\u{9b}")), r#""a\\\"ä\u{9b}""#);
        assert_eq!(format!("{:?}", Text(b"a\xff\\xff\xc3".to_vec())), r#""a\xff\\xff\xc3""#);
        assert_eq!(Text(b"a\xffb".to_vec()).as_str(), None);
        assert_eq!(Text::of_path(Path::new("/a")).as_str(), Some("/a"));
    }
}

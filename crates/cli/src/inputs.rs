//! Inputs of programs on the command line.
//!
//! Only their names are told from their values here; whether a program has such an input, and what
//! its bytes are, [`engine::parse_inputs`] says.

use crate::training::InputTexts;

/// An input as `NAME=VALUE`.
pub fn parse_input(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give the input as NAME=VALUE, for example pid=1")?;
    Ok((name.to_string(), value.to_string()))
}

/// The inputs of a rehearsal as `NAME=VALUE[,..]`; a program keeps them separated by spaces.
pub fn parse_rehearsal(text: &str) -> Result<InputTexts, String> {
    if text.contains(char::is_whitespace) {
        return Err("values with white space cannot be rehearsed".to_string());
    }
    text.split(',').map(parse_input).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_names_and_values() {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(parse_input("path=/a=b"), Ok(pair("path", "/a=b")));
        assert!(parse_input("pid").is_err());
        assert_eq!(parse_rehearsal("pid=1,limit=4"), Ok(vec![pair("pid", "1"), pair("limit", "4")]));
        assert!(parse_rehearsal("pid=1, limit=4").unwrap_err().contains("white space"));
        assert!(parse_rehearsal("pid=1,").is_err());
    }
}

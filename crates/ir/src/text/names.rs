//! Names of registers and temporaries, both ways.
//!
//! `t7` is the seventh temporary, `%200` the variable with that number. A table's name is used only
//! where it reads back as the same register: it is a word that is neither a number nor a temporary,
//! and the table's first of that name.

use crate::op::Var;

/// Whether words consist of this character.
pub(super) const fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '%')
}

fn usable(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts
        && name.chars().all(in_word)
        && !name.contains('%')
        && temp(name).is_none()
        && !name.starts_with("moved")
}

/// The number after a prefix, in its only spelling.
pub(super) fn numbered(word: &str, prefix: &str) -> Option<u32> {
    let digits = word.strip_prefix(prefix)?;
    let plain = digits == "0" || digits.starts_with(|c: char| matches!(c, '1'..='9'));
    if plain && digits.bytes().all(|c| c.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn temp(word: &str) -> Option<Var> {
    let number = u16::try_from(numbered(word, "t")?).ok()?.checked_add(Var::FIRST_TEMP)?;
    Some(Var(number)).filter(|var| var.is_temp())
}

/// The name of a variable.
pub(super) fn print_var(var: Var, names: &[&str]) -> String {
    if var.is_temp() {
        return format!("t{}", var.0 - Var::FIRST_TEMP);
    }
    let index = usize::from(var.0);
    match names.get(index) {
        Some(name)
            if var.is_reg()
                && usable(name)
                && names.iter().position(|other| other == name) == Some(index) =>
        {
            (*name).to_string()
        }
        _ => format!("%{}", var.0),
    }
}

/// The variable with a name.
pub(super) fn parse_var(word: &str, names: &[&str]) -> Option<Var> {
    if let Some(number) = numbered(word, "%") {
        return u16::try_from(number).ok().map(Var);
    }
    if let Some(var) = temp(word) {
        return Some(var);
    }
    let index = names.iter().position(|name| *name == word).filter(|_| usable(word))?;
    u16::try_from(index).ok().map(Var).filter(|var| var.is_reg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_has_a_name_that_reads_back() {
        let tables: [&[&str]; 4] =
            [&[], &["rax", "rcx"], &["t0", "7", "", "a b", "x", "x", "%3", "if"], &["r"; 300]];
        for names in tables {
            for number in 0..=u16::MAX {
                let text = print_var(Var(number), names);
                assert_eq!(parse_var(&text, names), Some(Var(number)), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for word in ["", "t", "t00", "t65279", "t99999999999", "%", "%65536", "%+1", "rbx", "0x1", "T1"] {
            assert_eq!(parse_var(word, &["rax", "0x1"]), None, "{word}");
        }
    }
}

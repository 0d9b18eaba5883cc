//! Tables of text: columns as wide as what is in them.

use std::io::Write;

use crate::failure::Failure;
use crate::{format, output};

/// A table. The last column is as long as its text.
pub struct Columns {
    heads: Vec<&'static str>,
    /// Which columns are numbers, which end below each other.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A table with these heads; those of numbers begin with `>`.
    #[must_use]
    pub fn new(heads: &[&'static str]) -> Self {
        let right = heads.iter().map(|head| head.starts_with('>')).collect();
        let heads = heads.iter().map(|head| head.trim_start_matches('>')).collect();
        Self { heads, right, rows: Vec::new() }
    }

    /// Adds a row. What a terminal would obey is escaped, ends of lines too.
    pub fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| format::plain(&cell).into_owned()).collect());
    }

    /// Prints the heads and all rows.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&self) -> Result<(), Failure> {
        let mut out = output::stdout();
        self.write(&mut out)?;
        Ok(out.flush()?)
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let heads: Vec<String> = self.heads.iter().map(|&head| head.to_owned()).collect();
        let width = |at: usize| {
            let cells = self.rows.iter().chain([&heads]).filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        for row in [&heads].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let width = widths.get(at).copied().unwrap_or(0);
                match (at + 1 == row.len(), self.right.get(at)) {
                    (_, Some(true)) => line += &format!("{cell:>width$}"),
                    (true, _) => line += cell,
                    (false, _) => line += &format!("{cell:width$}"),
                }
                line += if at + 1 == row.len() { "" } else { "  " };
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut columns = Columns::new(&[">PID", "NAME", "COMMAND"]);
        columns.add(vec!["1".into(), "ä\n".into(), "/init a".into()]);
        columns.add(vec!["20000".into(), "b".into(), "-".into()]);
        let mut out = Vec::new();
        columns.write(&mut out).expect("it writes");
        let expected = "  PID  NAME  COMMAND\n    1  ä\\n   /init a\n20000  b     -\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}

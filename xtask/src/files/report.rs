//! Rows of the comparison as JSON lines, and their sums as a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use testkit::layout;

use crate::outcome::{Failure, Outcome};

/// Rows that an earlier run wrote.
pub fn read(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Writes all rows.
pub fn write(path: &Path, rows: &[Value]) -> Outcome {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    Ok(layout::write(path, text.as_bytes())?)
}

fn number(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or(0)
}

/// Outcomes by exit code.
fn outcomes(sums: &Value) -> String {
    let mut codes: BTreeMap<u64, u64> = BTreeMap::new();
    for (code, count) in sums["outcomes"].as_object().into_iter().flatten() {
        *codes.entry(code.parse().unwrap_or(0)).or_default() += count.as_u64().unwrap_or(0);
    }
    let text: Vec<String> = codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
    if text.is_empty() { "-".to_owned() } else { text.join(", ") }
}

/// How many of those asked are equal; of what is explained nothing is expected.
fn part(sums: &Value) -> String {
    let asked = number(sums, "asked").saturating_sub(number(sums, "explained"));
    if asked == 0 {
        return "-".to_owned();
    }
    // Cut off, not rounded: 100.00 % is all.
    let part = number(sums, "equal").saturating_mul(10_000) / asked;
    format!("{}.{:02}", part / 100, part % 100)
}

/// A target's sums for people.
pub fn line(sums: &Value) -> String {
    format!(
        "{} of {} asked in {:.0} s, {} equal ({} %), outcomes {}, {} explained, {} wrong",
        number(sums, "asked"),
        number(sums, "stable"),
        sums["seconds"].as_f64().unwrap_or(0.0),
        number(sums, "equal"),
        part(sums),
        outcomes(sums),
        number(sums, "explained"),
        number(sums, "wrong")
    )
}

/// All targets' sums as a table in Markdown.
pub fn table(rows: &[Value]) -> String {
    const TITLES: [&str; 10] = [
        "target",
        "what it is",
        "stable",
        "asked",
        "equal",
        "%",
        "outcomes by exit code",
        "explained",
        "wrong",
        "s",
    ];
    let mut text = format!("| {} |\n|{}\n", TITLES.join(" | "), " --- |".repeat(TITLES.len()));
    for sums in rows.iter().filter(|row| row["kind"] == "sums") {
        let about = sums["about"].as_str().unwrap_or_default();
        let name = sums["target"].as_str().unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| `{name}` | {about} | {} | {} | {} | {} | {} | {} | {} | {:.0} |",
            number(sums, "stable"),
            number(sums, "asked"),
            number(sums, "equal"),
            part(sums),
            outcomes(sums),
            number(sums, "explained"),
            number(sums, "wrong"),
            sums["seconds"].as_f64().unwrap_or(0.0)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums_are_a_line_of_the_table() {
        let sums = json!({
            "kind": "sums", "target": "t", "about": "a", "stable": 10, "asked": 9, "equal": 6,
            "explained": 1, "wrong": 0, "outcomes": { "17": 1, "4": 1 }, "seconds": 1.5,
        });
        let rows = [sums.clone(), json!({ "kind": "wrong", "target": "t" })];
        assert_eq!(
            table(&rows).lines().last(),
            Some("| `t` | a | 10 | 9 | 6 | 75.00 | 4: 1, 17: 1 | 1 | 0 | 2 |")
        );
        assert!(line(&sums).contains("6 equal (75.00 %)"));
        assert_eq!(part(&json!({ "asked": 30_000, "equal": 29_999 })), "99.99");
    }
}

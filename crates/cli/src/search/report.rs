//! What a search found, as text and as JSON.

use std::io::{self, Write};

use engine::{Text, Value, Values};
use serde_json::{Value as Json, json};

use super::{Counts, Finding, Found, Unchanged};
use crate::format;
use crate::ways::Ways;

/// Findings that the text has; JSON has them all.
const MOST_PRINTED: usize = 20;
/// Characters of a text, and elements of a list, that are printed around where two answers part.
const BEFORE: usize = 16;
const AFTER: usize = 48;

/// Prints what was found.
pub fn print(out: &mut impl Write, unchanged: &Unchanged, found: &Found, seconds: f64) -> io::Result<()> {
    let counts = &found.counts;
    let left = if found.exhausted { ", and nothing new left to try" } else { "" };
    writeln!(
        out,
        "{} in {seconds:.1} s{left}; the whole run reads {} of the target by {}",
        format::counted(counts.cases as usize, "case"),
        format::counted(unchanged.words(), "word"),
        format::counted(unchanged.places(), "instruction"),
    )?;
    writeln!(
        out,
        "{:9} equal, {} of them with another answer than the unchanged target",
        counts.equal, counts.equal_and_new
    )?;
    for (count, what) in [
        (counts.slice_stopped, "slice stopped"),
        (counts.whole_stopped, "whole run stopped"),
        (counts.both_stopped, "both stopped"),
        (counts.refused, "refused: no longer the training system"),
        (counts.changed, "two answers about read-only data that was changed, as `run` says then"),
        (counts.different, "different"),
    ] {
        writeln!(out, "{count:9} {what}")?;
    }
    for finding in found.findings.iter().take(MOST_PRINTED) {
        print_finding(out, finding)?;
    }
    match found.findings.len().saturating_sub(MOST_PRINTED) {
        0 => Ok(()),
        more => writeln!(out, "and {more} more, which --json has"),
    }
}

fn print_finding(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let outputs: Vec<_> = finding.outputs.iter().map(|name| format::plain(name)).collect();
    let times = format::counted(finding.times as usize, "case");
    writeln!(out, "\ndifferent in {} ({times} like this one)", outputs.join(", "))?;
    for (word, kind, new) in &finding.changes {
        writeln!(
            out,
            "  {:#x} (physical {:#x}, {}): {:#x} -> {new:#x} ({kind}); read {}, first by {:#x}",
            word.address,
            word.paddr.0,
            format::counted(usize::from(word.size), "byte"),
            word.value,
            format::counted(word.reads as usize, "time"),
            word.by,
        )?;
    }
    print_differing(out, &finding.outputs, &finding.slice, &finding.whole)?;
    writeln!(out, "  again: --cases 1 --seed {:#x}", finding.seed)
}

/// Prints two answers where they differ.
pub fn print_differing(
    out: &mut impl Write,
    outputs: &[String],
    slice: &Values,
    whole: &Values,
) -> io::Result<()> {
    for name in outputs {
        let (Some(a), Some(b)) = (slice.get(name), whole.get(name)) else { continue };
        let (a, b) = excerpts(a, b);
        let name = format::plain(name);
        writeln!(out, "  {name} by slice: {a}\n  {name} by whole run: {b}")?;
    }
    Ok(())
}

/// Two values where they part: long texts and lists around the first difference.
fn excerpts(a: &Value, b: &Value) -> (String, String) {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => {
            let show = |part: &[String]| format!("\"{}\"", part.concat());
            around(&characters(a), &characters(b), "characters", show)
        }
        (Value::List(a), Value::List(b)) => {
            let show = |part: &[Value]| {
                let items: Vec<String> = part.iter().map(|item| format::value(item, 0)).collect();
                format!("[{}]", items.join(" "))
            };
            around(a, b, "elements", show)
        }
        _ => (format::value(a, 0), format::value(b, 0)),
    }
}

/// The characters of a text as they are printed, each byte that is no UTF-8 for itself.
fn characters(text: &Text) -> Vec<String> {
    let chunks = text.0.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(|c| c.escape_debug().to_string());
        valid.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")))
    });
    chunks.collect()
}

fn around<T: PartialEq>(a: &[T], b: &[T], what: &str, show: impl Fn(&[T]) -> String) -> (String, String) {
    let first = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let from = first.saturating_sub(BEFORE);
    let excerpt = |all: &[T]| {
        let part = &all[from..all.len().min(first + AFTER)];
        let cut = if part.len() < all.len() {
            format!(" ({} of {} {what}, from {from})", part.len(), all.len())
        } else {
            String::new()
        };
        show(part) + &cut
    };
    (excerpt(a), excerpt(b))
}

/// Everything that was found. `found` is `None` where the unchanged target has two answers already.
pub fn json(unchanged: &Unchanged, found: Option<&Found>) -> Json {
    let ways = &unchanged.ways;
    let none = Found::default();
    let Found { counts, findings, exhausted } = found.unwrap_or(&none);
    let Counts { cases, equal, equal_and_new, slice_stopped, whole_stopped, both_stopped, .. } = counts;
    json!({
        "unchanged": unchanged_json(ways),
        "words": unchanged.words(),
        "places": unchanged.places(),
        "cases": cases,
        "equal": equal,
        "equal_and_new": equal_and_new,
        "slice_stopped": slice_stopped,
        "whole_stopped": whole_stopped,
        "both_stopped": both_stopped,
        "refused": counts.refused,
        "changed": counts.changed,
        "different": counts.different,
        "slice_stops": counts.slice_stops,
        "whole_stops": counts.whole_stops,
        "exhausted": exhausted,
        "differences": findings.iter().map(finding_json).collect::<Vec<Json>>(),
    })
}

fn unchanged_json(ways: &Ways) -> Json {
    json!({
        "slice_outcome": crate::report::outcome(ways.slice.as_ref()),
        "whole_outcome": crate::report::outcome(ways.whole.as_ref()),
        "differing": ways.differing(),
    })
}

/// A finding as a JSON object.
pub fn finding_json(finding: &Finding) -> Json {
    let changes: Vec<Json> = finding
        .changes
        .iter()
        .map(|(word, kind, new)| {
            json!({
                "address": hex(word.address), "physical": hex(word.paddr.0), "size": word.size,
                "old": hex(word.value), "new": hex(*new), "kind": kind, "read_by": hex(word.by),
                "reads": word.reads,
            })
        })
        .collect();
    let differing = |values: &Values| -> Json {
        let part = finding.outputs.iter().filter_map(|name| Some((name.clone(), json!(values.get(name)?))));
        Json::Object(part.collect())
    };
    json!({
        "seed": hex(finding.seed),
        "times": finding.times,
        "changes": changes,
        "differing": finding.outputs,
        "slice_outputs": differing(&finding.slice),
        "whole_outputs": differing(&finding.whole),
    })
}

/// Numbers of 64 bits do not fit what most readers of JSON take for numbers.
fn hex(number: u64) -> String {
    format!("{number:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_shown_where_they_part() {
        let text = |end: &str| Value::Text(("a".repeat(100) + end).into());
        let (a, b) = excerpts(&text("\x1b[31m\n"), &text("b"));
        assert_eq!(a, format!("\"{}\\u{{1b}}[31m\\n\" (22 of 106 characters, from 84)", "a".repeat(16)));
        assert_eq!(b, format!("\"{}b\" (17 of 101 characters, from 84)", "a".repeat(16)));
        let list = |last: u64| Value::List((0..100).chain([last]).map(Value::Unsigned).collect());
        let (a, b) = excerpts(&list(7), &list(8));
        assert!(a.starts_with("[84 85 ") && a.ends_with(" 99 7] (17 of 101 elements, from 84)"), "{a}");
        assert!(b.ends_with(" 99 8] (17 of 101 elements, from 84)"), "{b}");
        assert_eq!(excerpts(&Value::Unsigned(1), &Value::Signed(-1)), ("1".into(), "-1".into()));
        let short = |text: &str| Value::Text(text.into());
        assert_eq!(excerpts(&short("x"), &short("")), ("\"x\"".into(), "\"\"".into()));
    }
}

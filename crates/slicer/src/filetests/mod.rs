//! File tests: small cases as text, each with what a stage or an analysis must make of it.
//!
//! `tests/files/*.txt` hold cases that begin with `=== name`, then comments (`#`) that say which
//! rule the case is about, a line with the question, the input, a line `---`, and what must come
//! out. There are two kinds of input: a dependence graph in the text form of dumps ([`graph`]), and
//! machine code that a small machine runs and records ([`small_machine`]). `VIRTUOSO_BLESS=1`
//! rewrites what must come out; read the difference. docs/file-tests.md has the questions and the
//! forms.

mod case;
mod code;
mod graph;
mod memory;
mod question;
mod small_machine;

use std::path::{Path, PathBuf};

use case::{Case, parse, print};

/// Anything that makes a case unusable: it names the line.
type Unusable = String;

/// The files, in the order of their names.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "txt")).collect();
    files.sort_unstable();
    files
}

/// What comes out of a case, without spaces at the ends of lines.
fn answer(case: &Case) -> String {
    let answer = question::answer(case).unwrap_or_else(|why| format!("unusable: {why}\n"));
    answer.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The lines from the first to the last that differ: what must come out with `-`, what comes out
/// with `+`, after the line before them.
fn difference(expected: &str, answer: &str) -> String {
    let (must, is): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), answer.lines().collect());
    let same = must.iter().zip(&is).take_while(|(a, b)| a == b).count();
    let (must, is) = (&must[same..], &is[same..]);
    let tail = must.iter().rev().zip(is.iter().rev()).take_while(|(a, b)| a == b).count();
    let mut text = format!("line {} of what comes out:\n", same + 1);
    text.extend(expected.lines().nth(same.wrapping_sub(1)).map(|line| format!("  {line}\n")));
    text.extend(must[..must.len() - tail].iter().map(|line| format!("- {line}\n")));
    text.extend(is[..is.len() - tail].iter().map(|line| format!("+ {line}\n")));
    text
}

#[test]
fn a_difference_is_what_lies_between_equal_lines() {
    assert_eq!(difference("a\nb\nc\n", "a\nx\ny\nc\n"), "line 2 of what comes out:\n  a\n- b\n+ x\n+ y\n");
    assert_eq!(difference("a\n", ""), "line 1 of what comes out:\n- a\n");
}

#[test]
fn every_case_comes_out_as_written() {
    let bless = std::env::var_os("VIRTUOSO_BLESS").is_some();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files() {
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (head, mut cases) = parse(&text);
        for case in &mut cases {
            count += 1;
            let answer = answer(case);
            if answer.starts_with("unusable") {
                wrong.push(format!("{}: {}: {answer}", file.display(), case.name));
            } else if answer != case.expected && !bless {
                let difference = difference(&case.expected, &answer);
                wrong.push(format!("{}: {}\n{difference}", file.display(), case.name));
            }
            case.expected = answer;
        }
        if bless && wrong.is_empty() {
            std::fs::write(&file, print(&head, &cases)).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nVIRTUOSO_BLESS=1 rewrites what must come out", wrong.join("\n"));
    assert!(count >= 60, "only {count} cases were found");
}

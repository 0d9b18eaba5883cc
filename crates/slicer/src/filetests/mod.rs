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
                let (name, expected) = (&case.name, &case.expected);
                wrong.push(format!("{}: {name}\nmust be\n{expected}\nand is\n{answer}", file.display()));
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

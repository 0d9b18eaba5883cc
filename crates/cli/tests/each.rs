//! One question to many targets: what is printed, and how an interrupted command goes on.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use support::{Folder, Slice, companion, companion_name, program, target};

/// A folder with a program, two targets and a file that is none.
fn ready(test: &str) -> Folder {
    let folder = Folder::new(test);
    folder.file("p.prog", program(&Slice::Right).to_bytes().expect("it encodes"));
    folder.file(&companion_name(), companion());
    target(&folder);
    for name in ["a.raw", "b.raw"] {
        for end in ["", ".cpu.json"] {
            let (from, to) = (format!("guest.raw{end}"), format!("{name}{end}"));
            fs::copy(folder.path(&from), folder.path(&to)).expect("a copy");
        }
    }
    folder.file("bad.elf", b"\x7fELF, and nothing else");
    folder
}

/// The lines, and by target how many rows it has and its exit code.
fn lines(text: &str) -> (Vec<Value>, BTreeMap<String, (u64, Value)>) {
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ends = all.iter().filter(|line| line["rows"].is_number());
    let name = |line: &Value| line["target"].as_str().expect("a name").to_owned();
    let ended = |line: &Value| (line["rows"].as_u64().expect("a number"), line["code"].clone());
    let by_target = ends.map(|line| (name(line), ended(line))).collect();
    (all, by_target)
}

const QUESTION: [&str; 6] = ["--", "run", "p.prog", "{}", "--input", "n=41"];

fn words<'w>(first: &[&'w str]) -> Vec<&'w str> {
    [&["each"], first, &QUESTION].concat()
}

#[test]
fn each_target_has_its_rows_and_a_line_behind_them() {
    let folder = ready("each");
    let ended = folder.virtuoso(&words(&["--jobs", "2", "a.raw", "bad.elf", "b.raw", "a.raw"]));
    let (all, by_target) = lines(&ended.out());
    assert_eq!(ended.code(), 1, "{}", ended.err());
    let expected = [("a.raw", (1, json!(0))), ("b.raw", (1, json!(0))), ("bad.elf", (0, json!(1)))];
    assert_eq!(by_target, expected.map(|(name, end)| (name.to_owned(), end)).into());
    assert_eq!(all.len(), 5, "a target that is named twice is asked once: {}", ended.out());
    let rows: Vec<&Value> = all.iter().filter(|line| line["row"].is_object()).collect();
    assert!(rows.iter().all(|line| line["row"]["outputs"] == json!({ "next": 42 })), "{rows:?}");
    let bad = all.iter().find(|line| line["target"] == "bad.elf").expect("a line");
    assert!(bad["messages"].as_str().is_some_and(|text| text.contains("bad.elf")), "{bad}");
}

#[test]
fn targets_may_come_from_a_file() {
    let folder = ready("each-from");
    folder.file("list", "a.raw\n\nb.raw\n");
    let ended = folder.virtuoso(&words(&["--from", "list"]));
    assert_eq!((ended.code(), lines(&ended.out()).1.len()), (0, 2), "{}", ended.err());
    folder.file("list", "\n");
    folder.virtuoso(&words(&["--from", "list"])).fails(1, &["no target"]);
}

#[test]
fn an_interrupted_command_goes_on() {
    let folder = ready("each-resumed");
    let all = words(&["a.raw", "bad.elf", "b.raw", "-o", "out"]);
    let ended = folder.virtuoso(&all);
    assert_eq!((ended.code(), ended.out().as_str()), (1, ""), "{}", ended.err());
    let whole = fs::read(folder.path("out")).expect("the file");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (_, expected) = lines(&text(&whole));
    assert_eq!(expected.len(), 3);
    let ended = folder.virtuoso(&all);
    assert!(ended.code() == 0 && ended.err().contains("3 targets already"), "{}", ended.err());
    assert_eq!(fs::read(folder.path("out")).expect("the file"), whole, "nobody is asked again");

    // Wherever it was interrupted, but in the line that says what the question is.
    let begin = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    for at in (begin..whole.len()).step_by(97) {
        folder.file("out", &whole[..at]);
        folder.virtuoso(&all);
        let (lines, by_target) = lines(&text(&fs::read(folder.path("out")).expect("the file")));
        assert_eq!((by_target, lines.len()), (expected.clone(), 6), "after {at} bytes");
    }
    let again = words(&["a.raw", "bad.elf", "b.raw", "-o", "out", "--again"]);
    folder.file("bad.elf", b"now something else");
    let ended = folder.virtuoso(&again);
    assert!(ended.err().contains("2 targets already"), "{}", ended.err());
    let (lines, _) = lines(&text(&fs::read(folder.path("out")).expect("the file")));
    assert_eq!(lines.iter().filter(|line| line["target"] == "bad.elf").count(), 2);
}

#[test]
fn a_file_of_somebody_else_stays() {
    let folder = ready("each-else");
    for content in ["my notes", "my notes\n", "{\"target\": \"a\", \"rows\": 1}\n"] {
        folder.file("out", content);
        folder.virtuoso(&words(&["a.raw", "-o", "out"])).fails(1, &["no answers of `each`"]);
        assert_eq!(fs::read_to_string(folder.path("out")).expect("the file"), content);
    }
    folder.file("out", "");
    assert_eq!(folder.virtuoso(&words(&["a.raw", "-o", "out"])).code(), 0);
    let other = ["each", "a.raw", "-o", "out", "--", "run", "p.prog", "{}", "--input", "n=1"];
    folder.virtuoso(&other).fails(1, &["answers to", "n=41"]);
}

#[test]
fn what_asks_no_target_is_refused() {
    let folder = ready("each-none");
    folder.virtuoso(&["each", "a.raw", "--", "explain", "p.prog"]).fails(1, &["asks no target"]);
    folder.virtuoso(&["each", "a.raw", "--", "sing"]).fails(1, &["sing is no verb"]);
}

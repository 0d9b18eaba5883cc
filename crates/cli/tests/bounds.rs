//! Hostile programs and names, through the command: what a file makes of memory and time is in
//! proportion to it, and what it is called does nothing to a terminal or to a reader of JSON.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use std::time::{Duration, Instant};

use ir::program::{Count, Dependence, Elem, Function, PageContent, UserPage, Variable};
use ir::{Kind, Op, Var, Width};
use serde_json::Value as Json;
use support::{Ended, Folder, Slice, program, target};

/// Characters that steer a terminal, or what shows a line.
const HOSTILE: &str = "a\x1b[31m\u{9b}31m\x7f\u{202e}\u{2066}\u{2028}\r";

fn is_obeyed(c: char) -> bool {
    c.is_control() && c != '\n'
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}')
}

/// Runs `p.prog` over the small target by its slice.
fn run(folder: &Folder, program: &ir::Program, words: &[&str]) -> Ended {
    folder.file("p.prog", program.to_bytes().expect("it encodes"));
    folder.virtuoso(&[&["run", "p.prog", target(folder), "--slice"], words].concat())
}

#[test]
fn pages_of_a_program_count_before_they_are_made() {
    let folder = Folder::new("pages");
    let mut hostile = program(&Slice::Right);
    let zero = |number: u64| UserPage { addr: 0x1000_0000 + (number << 12), content: PageContent::Zero };
    hostile.pages.extend((0..500_000).map(zero));
    let begin = Instant::now();
    let ended = run(&folder, &hostile, &["--input", "n=1"]);
    ended.fails(18, &["500002 pages", "a run may have 65536", "; "]);
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn a_small_program_does_not_become_a_large_one() {
    let folder = Folder::new("bomb");
    let mut hostile = program(&Slice::Right);
    let none = Function { pc: 0, name: String::new(), callee_saved: Vec::new(), blocks: Vec::new() };
    hostile.functions.extend(vec![none; 4 << 20]);
    let bytes = hostile.to_bytes().expect("it encodes");
    assert!(bytes.len() < 64 << 10, "{}", bytes.len());
    folder.file("p.prog", bytes);
    let words = ["run", "p.prog", target(&folder), "--slice", "--input", "n=1"];
    folder.virtuoso(&words).fails(1, &["p.prog", "take more memory", "build it again"]);
}

#[test]
fn names_of_a_program_do_nothing_to_a_terminal() {
    let folder = Folder::new("names");
    let mut hostile = program(&Slice::Right);
    hostile.name = HOSTILE.into();
    hostile.functions[0].name = HOSTILE.into();
    hostile.provenance.policy = HOSTILE.into();
    hostile.provenance.unrepeated = Some(HOSTILE.into());
    for variable in hostile.inputs.iter_mut().chain(&mut hostile.outputs) {
        variable.name += HOSTILE;
    }
    for it in &mut hostile.dependences {
        it.output += HOSTILE;
        for on in &mut it.on {
            if let Dependence::Input(name) = on {
                *name += HOSTILE;
            }
        }
    }
    let input = format!("n{HOSTILE}=1");
    let harmless = |what: &str, ended: &Ended, code: i32| {
        for text in [ended.out(), ended.err()] {
            assert!(!text.contains(is_obeyed), "{what}: {text:?}");
        }
        assert_eq!(ended.code(), code, "{what}: {}", ended.err());
    };
    harmless("run", &run(&folder, &hostile, &["--input", &input]), 0);
    let ended = run(&folder, &hostile, &["--input", &input, "--json"]);
    harmless("run --json", &ended, 0);
    let object: Json = serde_json::from_str(&ended.out()).expect("JSON");
    assert_eq!(object["program"], HOSTILE);
    assert_eq!(object["outputs"][format!("next{HOSTILE}")], 2);
    harmless("no input", &run(&folder, &hostile, &[]), 1);
    harmless("a wrong input", &run(&folder, &hostile, &["--input", "m=1"]), 1);
    folder.file(&support::companion_name(), support::companion());
    let words = ["run", "p.prog", target(&folder), "--whole", "--json", "--input", &input];
    harmless("unrepeated", &folder.virtuoso(&words), 25);
    for words in
        [&["explain", "p.prog"][..], &["explain", "p.prog", "--full"], &["explain", "p.prog", "--json"]]
    {
        harmless("explain", &folder.virtuoso(words), 0);
    }
    harmless("a usage", &folder.virtuoso(&["run", "p.prog", "guest.raw", HOSTILE]), 2);
    harmless("a file", &folder.virtuoso(&["run", "p.prog", HOSTILE]), 1);
    // What explain prints as text is still the program.
    let ended = folder.virtuoso(&["explain", "p.prog", "--text"]);
    harmless("explain --text", &ended, 0);
    assert_eq!(ir::text::parse_program(&ended.out(), machine::Reg::NAMES), Ok(hostile));
}

#[test]
fn names_that_are_no_utf8_survive_in_json() {
    let folder = Folder::new("utf8");
    let mut named = program(&Slice::Right);
    named.inputs.clear();
    named.dependences.clear();
    let text =
        |name: &str, addr| Variable { name: name.into(), elem: Elem::Char, count: Count::Fixed(8), addr };
    named.outputs = vec![text("odd", 0x2000), text("plain", 0x2010)];
    let store =
        |addr: u64, value: u64| Op::new(Kind::Store, Width::B64, Var::NONE, &[addr.into(), value.into()]);
    named.functions[0].blocks[0].ops = vec![
        store(0x2000, u64::from_le_bytes(*b"\xff\\xff\xe4\0\0")),
        store(0x2010, u64::from_le_bytes(*b"\xc3\xa4\\xff\0\0")),
    ];
    let ended = run(&folder, &named, &["--json"]);
    assert_eq!(ended.code(), 0, "{}", ended.err());
    let object: Json = serde_json::from_str(&ended.out()).expect("JSON");
    let odd = serde_json::json!({ "bytes": "ff5c786666e4", "text": "\u{fffd}\\xff\u{fffd}" });
    assert_eq!(object["outputs"], serde_json::json!({ "odd": odd, "plain": "ä\\xff" }));
    // People see which byte is which, too.
    let ended = run(&folder, &named, &[]);
    assert_eq!(ended.out(), "odd = \"\\xff\\\\xff\\xe4\"\nplain = \"ä\\\\xff\"\n");
}

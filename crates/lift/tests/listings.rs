//! Listings of lifted instructions in `files/*.txt`, for all modes.
//!
//! A case is a line `bits address bytes` followed by indented lines: the disassembly and the
//! operations. With `VIRTUOSO_BLESS=1` everything but the case lines is rewritten. Lines that start
//! with `#` stay.

mod support;

use support::{parse_hex, print_op};
use virtuoso_lift as lift;

fn listing(case: &str) -> String {
    let mut words = case.split_whitespace();
    let bits = words.next().and_then(|word| word.parse().ok()).expect("bits");
    let mode = lift::Mode::from_bits(bits).expect("16, 32 or 64");
    let pc = words
        .next()
        .and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
        .expect("address");
    let bytes = parse_hex(&words.collect::<String>());
    let mut text = format!("{case}\n    {}\n", lift::disassemble(mode, pc, &bytes));
    match lift::lift(mode, pc, &bytes) {
        Err(error) => text.push_str(&format!("        error: {error}\n")),
        Ok(insn) => {
            for op in &insn.ops {
                text.push_str(&format!("        {}\n", print_op(op)));
            }
            text.push_str(&format!("        -> {:?}\n", lift::flow(&insn)));
        }
    }
    text
}

#[test]
fn match_the_files() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("text");
        let mut should = String::new();
        for line in text.lines().filter(|line| !line.starts_with(' ')) {
            if line.is_empty() || line.starts_with('#') {
                should.push_str(&format!("{line}\n"));
            } else {
                should.push_str(&listing(line));
            }
        }
        if std::env::var_os("VIRTUOSO_BLESS").is_some() {
            std::fs::write(&path, should).expect("write");
        } else if text != should {
            let at = text.lines().zip(should.lines()).position(|(old, new)| old != new);
            let at = at.unwrap_or_else(|| text.lines().count().min(should.lines().count()));
            let new = should.lines().nth(at).unwrap_or("end");
            panic!("{}:{}: is now\n{new}\nVIRTUOSO_BLESS=1 accepts", path.display(), at + 1);
        }
    }
}

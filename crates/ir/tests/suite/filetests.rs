//! Programs as text files: what the parser makes of them, printed again, and what the verifier
//! says.
//!
//! A file of `tests/files` holds a text, a line `---`, and what comes out. `VIRTUOSO_BLESS=1`
//! writes the second part anew.

use ir::text::{parse_program, print_program};

const NAMES: &[&str] = &[
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15", "cf", "zf",
];

fn result(text: &str) -> String {
    match parse_program(text, NAMES) {
        Err(error) => format!("{error}\n"),
        Ok(program) => {
            let printed = print_program(&program, NAMES);
            assert_eq!(
                parse_program(&printed, NAMES),
                Ok(program.clone()),
                "what was printed reads back differently"
            );
            match ir::verify::verify(&program) {
                Ok(()) => printed,
                Err(error) => format!("{printed}; refused: {error}\n"),
            }
        }
    }
}

#[test]
fn files() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    paths.sort();
    assert!(!paths.is_empty());
    let mut wrong = Vec::new();
    for path in paths {
        let content = std::fs::read_to_string(&path).unwrap();
        let (text, expected) = content.split_once("---\n").unwrap_or((&content, ""));
        let found = result(text);
        if found == expected {
            continue;
        }
        if std::env::var_os("VIRTUOSO_BLESS").is_some() {
            std::fs::write(&path, format!("{text}---\n{found}")).unwrap();
        } else {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "other results (bless with VIRTUOSO_BLESS=1):\n{}", wrong.join("\n"));
}

//! The text form reads back as what was printed, and no text makes the parser panic.

use crate::generate::{NAMES, Random};
use ir::text::{Problem, parse_op, parse_program, print_function, print_op, print_program};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn operations_read_back(seed: u64, wild: bool) {
        let op = Random::new(seed, wild).op();
        for names in [NAMES, &[]] {
            let text = print_op(&op, names);
            prop_assert_eq!(parse_op(&text, names), Ok(op), "{}", text);
        }
    }

    #[test]
    fn any_text_is_an_operation_or_an_error(text in "\\PC{0,40}") {
        let _ = parse_op(&text, NAMES);
        let _ = parse_program(&text, NAMES);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn programs_read_back(seed: u64, wild: bool) {
        let program = Random::new(seed, wild).program();
        let text = print_program(&program, NAMES);
        let read = parse_program(&text, NAMES);
        prop_assert_eq!(read.as_ref(), Ok(&program), "{}", text);
        for (number, function) in program.functions.iter().enumerate() {
            prop_assert!(text.contains(&print_function(ir::program::FuncId(number as u32), function, NAMES)));
        }
    }

    #[test]
    fn changed_programs_do_not_panic(seed: u64, places in prop::collection::vec((any::<u64>(),
        any::<u64>()), 1..4)) {
        let mut text: Vec<char> = print_program(&Random::new(seed, false).program(), NAMES).chars().collect();
        for (at, what) in places {
            let at = at as usize % text.len();
            match what % 3 {
                0 => { text.remove(at); }
                1 => text.insert(at, char::from(what as u8)),
                _ => text.truncate(at + 1),
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(program) = parse_program(&text, NAMES) {
            prop_assert_eq!(parse_program(&print_program(&program, NAMES), NAMES), Ok(program));
        }
    }
}

#[test]
fn bytes_are_bounded() {
    let text = "program \"x\"\npage 0 bytes 268435456 {\n}\npage 0 bytes 1 {\n}\n";
    let error = parse_program(text, NAMES).unwrap_err();
    assert_eq!((error.line, error.problem), (4, Problem::Bytes));
    assert!(parse_program("program \"x\"\ncode 0 bytes 18446744073709551615 {\n}\n", NAMES).is_err());
}

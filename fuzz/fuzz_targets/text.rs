//! Any text is a program or an error; what is one prints and parses to the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let Ok(program) = ir::text::parse_program(data, machine::Reg::NAMES) else { return };
    let text = ir::text::print_program(&program, machine::Reg::NAMES);
    assert_eq!(ir::text::parse_program(&text, machine::Reg::NAMES).expect("it was printed"), program);
    let _ = ir::verify::verify(&program);
});

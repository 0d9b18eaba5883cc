//! A program, however it came about, is the same after it was written as text and as a file, and
//! its file has one form.
#![no_main]

use ir::Program;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let program = if kind & 1 == 0 {
        std::str::from_utf8(rest)
            .ok()
            .and_then(|text| ir::text::parse_program(text, machine::Reg::NAMES).ok())
    } else {
        postcard::from_bytes::<Program>(rest).ok()
    };
    let Some(program) = program.filter(|program| ir::verify::verify(program).is_ok()) else { return };
    let text = ir::text::print_program(&program, machine::Reg::NAMES);
    assert_eq!(ir::text::parse_program(&text, machine::Reg::NAMES).expect("it was printed"), program);
    let bytes = program.to_bytes().expect("it encodes");
    let read = Program::from_bytes(&bytes).expect("it was written");
    assert_eq!(read, program);
    assert_eq!(read.to_bytes().expect("it encodes"), bytes);
});

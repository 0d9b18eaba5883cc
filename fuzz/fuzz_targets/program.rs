//! Any bytes are a program or an error; what is one prints, parses back, and is as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ir::Program::from_bytes(data);
    // Behind the checksum, which a fuzzer does not guess.
    let Ok(program) = postcard::from_bytes::<ir::Program>(data) else { return };
    if ir::verify::verify(&program).is_ok() {
        let text = ir::text::print_program(&program, machine::Reg::NAMES);
        let back = ir::text::parse_program(&text, machine::Reg::NAMES).expect("it was printed");
        assert_eq!(back, program);
    }
});

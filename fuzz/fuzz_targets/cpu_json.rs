//! Any bytes are a processor state or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(cpus) = machine::target::parse_cpus(data) {
        let text = machine::target::cpus_json(&cpus);
        machine::target::parse_cpus(text.as_bytes()).expect("it was printed");
    }
});

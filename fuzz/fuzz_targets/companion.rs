//! Any bytes are a companion file or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(system) = ir::System::from_bytes(data) {
        // Under a fuzzer checksums say nothing, so the name may be another one.
        if let Ok(bytes) = system.to_bytes() {
            assert!(ir::System::from_bytes(&bytes).is_ok_and(|again| again.iter().eq(system.iter())));
        }
    }
    // The index alone, in a file that has no more.
    if let Ok(file) = ir::system::with_index(data) {
        let _ = ir::System::from_bytes(&file);
    }
});

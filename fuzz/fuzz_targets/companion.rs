//! Any bytes are a companion file or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(system) = ir::System::from_bytes(data) {
        let again = system.to_bytes().and_then(|bytes| ir::System::from_bytes(&bytes));
        assert!(again.is_ok_and(|again| again == system));
    }
    // The index alone, in a file that has no more.
    if let Ok(file) = ir::system::with_index(data) {
        let _ = ir::System::from_bytes(&file);
    }
});

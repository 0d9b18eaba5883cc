//! Any bytes are a companion file or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ir::System::from_bytes(data);
    if let Ok(system) = postcard::from_bytes::<ir::System>(data) {
        let _ = system.hash();
    }
});

//! Any bytes are a trace or an error: all of it is read, both ways.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(trace) = trace::Trace::from_bytes(data) else { return };
    let _ = trace.verify();
    let _ = trace.for_each_event(|_| Ok::<(), trace::TraceError>(()));
    for page in trace.snapshot().pages().take(64) {
        let _ = page;
    }
});

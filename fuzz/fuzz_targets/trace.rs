//! Any bytes are a trace or an error: all of it is read, both ways. Checksums are not compared
//! under cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(trace) = trace::Trace::from_bytes(data) else { return };
    let verified = trace.verify().is_ok();
    // What is wrong with one block ends the iteration there: both ways agree where there is nothing
    // wrong.
    let forward: Result<Vec<_>, _> = trace.events().collect();
    let backward: Result<Vec<_>, _> = trace.events_rev().collect();
    assert_eq!(forward.is_ok(), backward.is_ok());
    if let (Ok(forward), Ok(mut backward)) = (forward, backward) {
        backward.reverse();
        assert!(forward == backward, "the same events both ways");
        let mut at = 0;
        let visited = trace.for_each_event(|event| {
            assert!(*event == forward[at]);
            at += 1;
            Ok::<(), trace::TraceError>(())
        });
        assert!(visited.is_ok() && at == forward.len());
        if verified {
            let insns = forward.iter().filter(|event| matches!(event, trace::Event::Insn(_))).count();
            assert_eq!(trace.end().instructions, insns as u64);
        }
    }
    let _ = trace.sizes();
    for page in trace.snapshot().pages().take(64) {
        let _ = page;
    }
});

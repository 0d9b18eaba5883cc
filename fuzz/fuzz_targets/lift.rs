//! Any bytes lift or are an error, in every mode, in bounds.
#![no_main]

use lift::Mode;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for mode in [Mode::Bits16, Mode::Bits32, Mode::Bits64] {
        if let Ok(insn) = lift::lift(mode, 0xffff_ffff_8100_0000, data) {
            assert!(usize::from(insn.len) <= data.len() && insn.len <= 15);
            assert!(insn.ops.len() <= 512, "{} operations", insn.ops.len());
            let _ = lift::flow(&insn);
        }
        lift::names(mode, 0x1000, data, &mut |_| {});
    }
});

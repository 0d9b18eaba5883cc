//! Any file is a target or an error; page tables in it may be anything.
#![no_main]

use std::ops::ControlFlow;

use machine::paging::{self, PagingMode};
use machine::{Reg, Target, TargetOptions, VirtAddr};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("virtuoso-fuzz-{}", std::process::id()));
    if std::fs::write(&path, data).is_err() {
        return;
    }
    let target = Target::open(&path, &TargetOptions::default());
    if let Ok(target) = &target {
        for range in target.mem.ranges().into_iter().take(16) {
            let _ = target.mem.page(range.start);
        }
        for cpu in target.cpus.iter().take(4) {
            if let (Ok(mode), Some(root)) = (PagingMode::from_regs(&cpu.regs), cpu.regs.get(Reg::Cr3)) {
                let _ = paging::translate(&*target.mem, mode, root, VirtAddr(0xffff_ffff_8100_0000));
                let all = VirtAddr(0)..=VirtAddr(u64::MAX);
                paging::walk(&*target.mem, mode, root, all, 10_000, &mut |_| ControlFlow::Continue(()));
            }
        }
    }
    drop(target);
    let _ = std::fs::remove_file(&path);
});

//! Any file is a target or an error; its pages and page tables may be anything.
#![no_main]

use std::ops::ControlFlow;

use machine::paging::{self, PagingMode};
use machine::{Cpu, PhysAddr, Reg, Target, VirtAddr};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // A processor, so that formats without any are opened too.
    let mut cpu = Cpu::default();
    for (reg, value) in [(Reg::Rip, 0), (Reg::Cr0, 0x8000_0001), (Reg::Cr3, 0x1000), (Reg::Cr4, 0x20)] {
        cpu.regs.set(reg, value);
    }
    for cpus in [None, Some(vec![cpu])] {
        let Ok(target) = Target::from_bytes(data.to_vec(), "fuzz", cpus) else { continue };
        for range in target.mem.ranges().into_iter().take(16) {
            assert!(range.start < range.end);
            let _ = target.mem.page(PhysAddr(range.end.0 - 1));
            for page in (range.start.0..range.end.0).step_by(4096).take(64) {
                let _ = target.mem.page(PhysAddr(page));
            }
        }
        for cpu in target.cpus.iter().take(4) {
            if let (Ok(mode), Some(root)) = (PagingMode::from_regs(&cpu.regs), cpu.regs.get(Reg::Cr3)) {
                let _ = paging::translate(&*target.mem, mode, root, VirtAddr(0xffff_ffff_8100_0000));
                let all = VirtAddr(0)..=VirtAddr(u64::MAX);
                paging::walk(&*target.mem, mode, root, all, 10_000, &mut |_| ControlFlow::Continue(()));
            }
        }
    }
});

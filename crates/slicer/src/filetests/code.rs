//! Code that nobody executed, as a case gives it.

use machine::VirtAddr;
use rustc_hash::FxHashMap;

use crate::vocabulary::CodeSource;

/// Instructions by address.
#[derive(Default)]
pub struct UnseenCode(FxHashMap<VirtAddr, lift::Insn>);

impl UnseenCode {
    pub fn insert(&mut self, insn: lift::Insn) {
        self.0.insert(VirtAddr(insn.pc), insn);
    }
}

impl CodeSource for UnseenCode {
    fn insn(&self, _: lift::Mode, pc: VirtAddr) -> Option<lift::Insn> {
        self.0.get(&pc).cloned()
    }

    fn bytes(&self, _: VirtAddr, count: usize) -> Option<Vec<u8>> {
        Some(vec![0x90; count])
    }
}

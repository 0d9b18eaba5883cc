//! Which words of a target could be locks, found by how code uses them, and the target with one of
//! them changed. Shared with `tests/locks.rs`.

use std::collections::{BTreeMap, VecDeque};

use engine::{Seen, Watch};
use machine::{GuestMemory, PhysAddr, Reg};
use virtuoso_cli::{ChangeError, Changed};

/// A word that could be a lock.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    pub paddr: u64,
    pub size: u8,
    pub value: u64,
    /// How it is used.
    pub kind: &'static str,
    /// The first instruction that does.
    pub pc: u64,
}

/// Finds such words in a whole run.
#[derive(Default)]
pub struct Finder {
    pc: u64,
    kind: Option<&'static str>,
    insns: u64,
    loads: Vec<Seen>,
    recent: VecDeque<(u64, u64, Seen)>,
    /// By physical address.
    pub words: BTreeMap<u64, Word>,
}

impl Finder {
    fn found(&mut self, seen: Seen, kind: &'static str, pc: u64) {
        if !seen.is_process() && seen.next_page.is_none() {
            let word = Word { paddr: seen.paddr, size: seen.size, value: seen.value, kind, pc };
            self.words.entry(seen.paddr).or_insert(word);
        }
    }
}

impl Watch for Finder {
    const ON: bool = true;

    fn insn(&mut self, pc: u64, _: lift::Mode, bytes: &[u8]) {
        (self.pc, self.kind) = (pc, atomic(bytes));
        self.insns += 1;
        self.loads.clear();
        while self.recent.front().is_some_and(|(at, ..)| at + 4 < self.insns) {
            self.recent.pop_front();
        }
        if tests_oddness(bytes) {
            for (_, pc, seen) in std::mem::take(&mut self.recent) {
                self.found(seen, "odd", pc);
            }
        }
    }

    fn access(&mut self, seen: Seen) {
        if !seen.store {
            self.loads.push(seen);
            if seen.size == 4 && seen.value & 1 == 0 {
                self.recent.push_back((self.insns, self.pc, seen));
            }
        } else if let (Some(kind), Some(load)) =
            (self.kind, self.loads.iter().find(|load| load.paddr == seen.paddr))
        {
            self.found(*load, kind, self.pc);
        }
    }

    fn registers(&mut self, _: &[(Reg, u64); 16]) {}
}

/// The bytes after the prefixes, and whether one of them is `lock` or what a kernel on one
/// processor makes of it (`ds`).
fn opcode(bytes: &[u8]) -> (bool, &[u8]) {
    let is_prefix =
        |byte: &u8| matches!(byte, 0xf0 | 0x3e | 0x2e | 0x26 | 0x64..=0x67 | 0xf2 | 0xf3 | 0x40..=0x4f);
    let count = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    (bytes[..count].iter().any(|byte| matches!(byte, 0xf0 | 0x3e)), &bytes[count..])
}

/// The name of an instruction that changes memory in one access.
fn atomic(bytes: &[u8]) -> Option<&'static str> {
    match opcode(bytes) {
        (_, [0x0f, 0xb0 | 0xb1 | 0xc7, ..]) => Some("cmpxchg"),
        (_, [0x0f, 0xc0 | 0xc1, ..]) => Some("xadd"),
        (_, [0x86 | 0x87, ..]) => Some("xchg"),
        (true, [0x0f, 0xab | 0xb3 | 0xbb | 0xba, ..]) => Some("lock bit"),
        (true, _) => Some("lock other"),
        _ => None,
    }
}

/// Whether an instruction tests a register for being odd.
fn tests_oddness(bytes: &[u8]) -> bool {
    match opcode(bytes).1 {
        [0xa8 | 0x24, 1] | [0xa9 | 0x25, 1, 0, 0, 0] => true,
        [0xf6, modrm, 1] | [0xf7, modrm, 1, 0, 0, 0] => modrm >> 3 == 0o30,
        [0x83, modrm, 1] => modrm >> 3 == 0o34,
        _ => false,
    }
}

/// The target with another value of one word.
pub fn changed<'t>(target: &'t dyn GuestMemory, word: &Word, value: u64) -> Result<Changed<'t>, ChangeError> {
    let mut memory = Changed::new(target);
    memory.write(PhysAddr(word.paddr), &value.to_le_bytes()[..usize::from(word.size.min(8))])?;
    Ok(memory)
}

/// What a held lock may look like.
pub fn patterns(word: &Word) -> Vec<(&'static str, u64)> {
    if word.kind == "odd" {
        return vec![("odd", word.value | 1)];
    }
    vec![("1", 1), ("0xff", 0xff), ("0x101", 0x101), ("all ones", u64::MAX)]
}

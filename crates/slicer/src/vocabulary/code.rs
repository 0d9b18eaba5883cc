//! Distinct instructions, and the source of those that nobody executed.

use ir::{Arg, Kind, Op};
use machine::VirtAddr;
use rustc_hash::FxHashMap;

use super::ids::InsnId;
use super::table::Table;

/// A distinct instruction.
#[derive(Clone, Debug)]
pub struct Code {
    /// Its lifted form.
    pub insn: lift::Insn,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How it is decoded: as 16, 32 or 64-bit code.
    pub mode: lift::Mode,
}

impl Code {
    /// Its address.
    #[must_use]
    pub const fn pc(&self) -> VirtAddr {
        VirtAddr(self.insn.pc)
    }

    /// The address behind it, where control goes on unless it decides otherwise.
    #[must_use]
    pub const fn fallthrough(&self) -> VirtAddr {
        VirtAddr(self.insn.pc.wrapping_add(self.insn.len as u64))
    }

    /// Whether it is a string instruction that branches to itself while there is more to do.
    #[must_use]
    pub fn repeats_itself(&self) -> bool {
        let itself = |op: &Op| op.kind == Kind::BranchIf && op.args[1] == Arg::Const(self.insn.pc);
        self.insn.ops.iter().any(itself)
    }
}

/// The distinct instructions of all recordings, and those that static path completion adds.
/// Instructions with the same address and bytes have one id.
#[derive(Clone, Default)]
pub struct CodeTable {
    index: FxHashMap<(VirtAddr, Vec<u8>), InsnId>,
    code: Table<InsnId, Code>,
}

impl CodeTable {
    /// The id of an instruction, which may be new.
    pub fn add(&mut self, code: Code) -> InsnId {
        *self.index.entry((code.pc(), code.bytes.clone())).or_insert_with(|| self.code.push(code))
    }

    /// The instruction of an id.
    #[must_use]
    pub fn get(&self, insn: InsnId) -> &Code {
        &self.code[insn]
    }

    /// All instructions with their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (InsnId, &Code)> {
        self.code.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.code.len()
    }
}

/// The ids that the instructions of one recording have in the common table, by their number in
/// the trace.
pub struct Interned(Vec<InsnId>);

impl Interned {
    /// Adds a recording's instructions, in the order of the trace, to the common table.
    pub fn add(table: &mut CodeTable, code: &[Code]) -> Self {
        Self(code.iter().map(|code| table.add(code.clone())).collect())
    }

    /// The id of the trace's instruction.
    #[must_use]
    pub fn of(&self, insn: trace::InsnId) -> InsnId {
        self.0[insn.0 as usize]
    }
}

/// The training system's code, executed or not.
pub trait CodeSource {
    /// The instruction at an address, in the given mode; `None` if there is no code.
    fn insn(&self, mode: lift::Mode, pc: VirtAddr) -> Option<lift::Insn>;

    /// The bytes at an address; `None` if they are not all known.
    fn bytes(&self, pc: VirtAddr, count: usize) -> Option<Vec<u8>>;
}

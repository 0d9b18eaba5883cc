//! What a comparison found: differences, what is said of each, and what was not compared.

use serde::Serialize;

/// What a difference looks like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A training boot has this form too.
    Variant,
    /// The system's own tables name this form for this very place.
    Listed,
    /// A branch through a register, or a return, and one to trusted code that comes to the same,
    /// either way; or two ways to do nothing; or a constant that the system's read-only data has
    /// too.
    Equal,
    /// A no-operation and a jump nearby, either way, or a direct jump or call with another target
    /// in the trusted copy.
    Switch,
    /// A no-operation and a call into the trusted copy, either way.
    TracePoint,
    /// A lock prefix and a prefix without effect, either way: kernels need no locks on one
    /// processor.
    Lock,
    /// A jump or call through a register, or a return, and a direct one into the trusted copy of
    /// which it is not known what it comes to, either way.
    Thunk,
    /// A constant in the code, or a word of data that boots write, with a value that no training
    /// boot has.
    Value,
    /// Instructions that became no-operations or are jumped over, or the reverse for instructions
    /// that lead nowhere.
    Alternative,
    /// Anything else.
    Foreign,
}

/// What is said of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A training boot or the system's tables show it, or it comes to the same.
    Known,
    /// It has a form that kernels give their own code, but no training boot shows it.
    Unknown,
    /// It is nothing that kernels do.
    Foreign,
}

impl Change {
    /// What is said of it.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Change::Variant | Change::Listed | Change::Equal => Class::Known,
            Change::Switch
            | Change::TracePoint
            | Change::Lock
            | Change::Thunk
            | Change::Value
            | Change::Alternative => Class::Unknown,
            Change::Foreign => Class::Foreign,
        }
    }
}

/// Where a difference is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In code.
    Code,
    /// In read-only data.
    Data,
    /// In the interrupt descriptor table.
    Gate,
}

/// A stretch of bytes that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Its address in the training system; of a gate, the target's.
    pub address: u64,
    /// What it is part of.
    pub place: Place,
    /// What it looks like.
    pub change: Change,
    /// The trusted bytes, as they would be in the target.
    pub trusted: Vec<u8>,
    /// The target's bytes.
    pub found: Vec<u8>,
    /// Where the target's instruction, pointer or gate there leads, if it leads to code: the
    /// training system's address where training has that code, else the target's.
    pub leads_to: Option<u64>,
}

/// What a comparison found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Tampering {
    /// How many training boots there were to learn from.
    pub boots: u8,
    /// Pages of 4 KiB of code that were compared.
    pub pages: usize,
    /// Modules that were compared with the pack's files of them.
    pub modules: usize,
    /// Pages of read-only data that were compared.
    pub data: usize,
    /// Interrupt gates that were compared.
    pub gates: usize,
    /// Words of data that every boot writes: whatever is there and leads to no code, is accepted.
    pub varying: usize,
    /// Pages of training's modules that the target does not have.
    pub missing: usize,
    /// What was not compared.
    pub uncompared: Uncompared,
    /// The target's code of which training has no copy.
    pub unknown_code: Vec<CodeRange>,
    /// The differences, ascending by address.
    pub differences: Vec<Difference>,
}

/// Contiguous pages of a target's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct CodeRange {
    /// The target's address.
    pub start: u64,
    /// How many pages of 4 KiB there are.
    pub pages: usize,
}

/// What was not compared, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Uncompared {
    /// Pages that may hold data: only the program's own instructions in them were compared.
    pub unclear: usize,
    /// Pages of the kernel that the target does not map or hold.
    pub absent: usize,
    /// Pages of the target's code of which training has no copy.
    pub unknown: usize,
    /// Words of data that differ, of which training does not tell whether boots write them.
    pub words: usize,
    /// Whether training knows no read-only data of the kernel.
    pub no_data: bool,
    /// Interrupt tables that training does not know or the target does not hold.
    pub tables: usize,
}

impl Uncompared {
    /// Whether there is anything.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl Tampering {
    /// The differences of a class.
    pub fn of(&self, class: Class) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(move |it| it.change.class() == class)
    }
}

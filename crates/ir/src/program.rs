//! Programs: what a slice is turned into.
//!
//! A program is a set of functions made of basic blocks of operations. Calls and returns are
//! structural: a call pushes a frame that remembers where to go on and which registers to give
//! back, a return takes it. What training did not see is written down as [`Target::Unexplored`], so
//! that a run can say where it left the known paths. Programs know addresses of the training
//! system, but hold no kernel memory of it: only pages of the training process.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::op::{Arg, Op, Var};
use crate::relocation::RelocationTable;
use crate::summary::Summary;

/// A function of a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FuncId(pub u32);

/// A block of a function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BlockId(pub u32);

/// Where a branch side leads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Target {
    /// To a block of the same function.
    Block(BlockId),
    /// On as another function in the same frame.
    Tail(FuncId),
    /// Back to the caller.
    Return,
    /// Into code that no training run executed; the address is where it would have gone.
    Unexplored(u64),
}

/// What a call or a computed jump may reach, by the address it computes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Arm<T> {
    /// The address in the training system.
    pub value: u64,
    /// What is there.
    pub target: T,
}

/// Whom a call calls.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Callee {
    /// Always this function.
    Direct(FuncId),
    /// The function at the computed address; `None` where the callee has nothing in the slice.
    Indirect {
        /// The computed address.
        value: Arg,
        /// The trained targets, ascending by address.
        arms: Vec<Arm<Option<FuncId>>>,
    },
}

/// How a block ends.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Terminator {
    /// Always there.
    Goto(Target),
    /// One of two ways.
    Branch {
        /// Taken when not 0.
        cond: Arg,
        /// Where to when taken.
        taken: Target,
        /// Where to otherwise.
        otherwise: Target,
    },
    /// A computed jump among trained targets; any other address is unexplored.
    Switch {
        /// The computed address.
        value: Arg,
        /// The trained targets, ascending by address.
        arms: Vec<Arm<Target>>,
    },
    /// A call; the frame gives `restore` and the stack pointer back when it ends.
    Call {
        /// Who is called.
        callee: Callee,
        /// Holds the stack pointer that the caller has again when the frame ends.
        stack: Var,
        /// Where to go on.
        then: Target,
    },
    /// The end mark: the outputs are ready.
    End,
}

/// A basic block.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Block {
    /// Address of the training system's instruction at which the block begins.
    pub pc: u64,
    /// Its operations, none of them control.
    pub ops: Vec<Op>,
    /// How it ends.
    pub term: Terminator,
    /// Address of the instruction that ends it.
    pub term_pc: u64,
}

/// A function.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Function {
    /// Address of its entry in the training system.
    pub pc: u64,
    /// Its name where a symbol was at hand; may be empty.
    pub name: String,
    /// Registers that every training run found unchanged after it: a call gives them back.
    pub callee_saved: Vec<Var>,
    /// Its blocks; the first is the entry.
    pub blocks: Vec<Block>,
}

/// The element type of an input or output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Elem {
    /// Unsigned, this many bytes (1, 2, 4, 8).
    Unsigned(u8),
    /// Signed, this many bytes.
    Signed(u8),
    /// Characters of a NUL-terminated string; the count is the capacity with the NUL.
    Char,
    /// Bytes that are one value and may have any content: as many as the count says.
    Byte,
}

impl Elem {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Elem::Unsigned(n) | Elem::Signed(n) => n as u64,
            Elem::Char | Elem::Byte => 1,
        }
    }
}

/// How many elements a variable has.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Count {
    /// One value, not an array.
    One,
    /// Always this many.
    Fixed(u64),
    /// As many as another variable says, at most `max`.
    Variable {
        /// The other variable's name.
        name: String,
        /// The capacity of the buffer in elements.
        max: u64,
    },
}

impl Count {
    /// The most elements there can be.
    #[must_use]
    pub const fn max(&self) -> u64 {
        match self {
            Count::One => 1,
            Count::Fixed(n) => *n,
            Count::Variable { max, .. } => *max,
        }
    }
}

/// A named input or output of the training program.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub elem: Elem,
    /// How many.
    pub count: Count,
    /// Where it lies in the training process.
    pub addr: u64,
}

/// Something of which an output's value is made, or by which it was decided.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Dependence {
    /// Memory of the target.
    Memory,
    /// A register that belongs to the target's system, as a segment base of the kernel's.
    Registers,
    /// The target's time stamp counter, or another one of its processor.
    Counter,
    /// A device of the target, which no run can ask.
    Device,
    /// The input with this name.
    Input(String),
}

impl Dependence {
    /// Whether another target may give another value.
    #[must_use]
    pub const fn is_of_target(&self) -> bool {
        !matches!(self, Self::Input(_))
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Registers => f.write_str("registers"),
            Self::Counter => f.write_str("counter"),
            Self::Device => f.write_str("device"),
            Self::Input(name) => write!(f, "input {name}"),
        }
    }
}

/// What an output depends on, through data and through the branches that decide.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct OutputDependences {
    /// The output's name.
    pub output: String,
    /// What it depends on, ascending; nothing for a constant.
    pub on: Vec<Dependence>,
}

/// A page of the training process.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct UserPage {
    /// Its page-aligned address in the training process.
    pub addr: u64,
    /// What it holds.
    pub content: PageContent,
}

/// What a page of the training process holds when a run begins.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum PageContent {
    /// These 4096 bytes.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Nothing but zeros.
    Zero,
    /// The target's kernel data at this kernel address: a page the kernel shares with its
    /// processes.
    Kernel(u64),
}

impl Program {
    /// Whether it runs in the context of an idle processor, whatever the paused one executes: some
    /// cell is given a pointer.
    #[must_use]
    pub fn runs_idle(&self) -> bool {
        self.overrides.iter().any(|cell| !cell.is_level())
    }
}

/// A cell of per-CPU memory by which code finds out in which context it runs: what it holds in an
/// idle one, or for a *level* (a small number that code raises and puts back) what it held at the
/// begin mark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PerCpuOverride {
    /// The segment base it is found by, the kernel's own: a register's number, or in 32-bit systems
    /// [`PerCpuOverride::DESCRIPTOR`] and the number of a segment in the global descriptor table.
    pub base: u16,
    /// Its distance from there in bytes.
    pub offset: u32,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// What it holds.
    pub value: u64,
}

impl PerCpuOverride {
    /// The bit in [`PerCpuOverride::base`] that says it is a descriptor's. A table has at most
    /// 8,192 descriptors.
    pub const DESCRIPTOR: u16 = 0x8000;
    /// Levels are below this number, and pointers are not.
    pub const LEVELS: u64 = 32;

    /// Whether it is a level: a small number.
    #[must_use]
    pub const fn is_level(&self) -> bool {
        self.value < Self::LEVELS
    }

    /// The descriptor's number, if the base is one's.
    #[must_use]
    pub fn descriptor(&self) -> Option<u16> {
        (self.base & Self::DESCRIPTOR != 0).then_some(self.base & !Self::DESCRIPTOR)
    }
}

/// A word of per-CPU memory that holds an address in that same memory: by a few of them, its
/// signature, it is recognised in a target whose registers nobody kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SignatureWord {
    /// The word's distance from the kernel's own segment base in bytes.
    pub offset: u32,
    /// What it holds, as a distance from there.
    pub points: u32,
}

/// A stretch of trusted machine code that the program was made from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct CodeRange {
    /// Its address in the training system.
    pub addr: u64,
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// A recording that went into a program.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Source {
    /// The trace file's name without its folder.
    pub trace: String,
    /// Set if not the recording itself was sliced but a whole run over the memory it began in: its
    /// inputs (`pid=1`) where they were others than the recorded ones, else empty.
    pub rehearsed: Option<String>,
    /// Instructions traced.
    pub instructions: u64,
    /// Instructions left after interrupts, faults and allocators were cut.
    pub retained: u64,
    /// Of those, how many belong to the slice.
    pub in_slice: u64,
}

/// Where a program comes from and how large it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The recordings, in the order they were merged.
    pub sources: Vec<Source>,
    /// Distinct machine instructions executed in training.
    pub static_instructions: u64,
    /// Of those, how many belong to the slice.
    pub static_in_slice: u64,
    /// The name for one-sided branches: `assume`, `guard` or `whole`.
    pub policy: String,
    /// The trace of another boot that told what moves.
    pub base: Option<String>,
    /// How a whole run over the training system's own memory ended, if not at the end mark:
    /// elsewhere one that reaches it does not give the trainer's answer.
    pub unrepeated: Option<String>,
}

/// An introspection program.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The training program's name.
    pub name: String,
    /// Bits of an address in the training process: 32 or 64.
    pub bits: u8,
    /// The function that begins at the begin mark.
    pub entry: FuncId,
    /// Its functions.
    pub functions: Vec<Function>,
    /// Inputs, written before a run.
    pub inputs: Vec<Variable>,
    /// Outputs, zeroed before a run and read after it.
    pub outputs: Vec<Variable>,
    /// Registers at the begin mark, by register number.
    pub registers: Vec<(u16, u64)>,
    /// Address of the instruction after the begin mark, where a whole run begins.
    pub begin_pc: u64,
    /// Pages of the training process.
    pub pages: Vec<UserPage>,
    /// First free address in the training process for run-time allocations.
    pub heap: u64,
    /// Trainer functions that are replaced in whole runs: address and which.
    pub summaries: Vec<(u64, Summary)>,
    /// Kernel code the slice was made from: tells whether a target runs the same kernel.
    pub code: Vec<CodeRange>,
    /// What of it all is another in another boot.
    pub relocations: RelocationTable,
    /// Hash of the training system's companion file, which whole runs need.
    pub system: [u8; 32],
    /// Addresses, in the training system, of cells that hold the time stamp counter as the kernel
    /// last read it: the code subtracts or compares their value with the counter's. Where a capture
    /// has no counter a run takes the largest of them plus one.
    pub clock: Vec<u64>,
    /// Cells of per-CPU memory that are given these values before a run, by base and offset. With
    /// pointers among them the program runs in the context of an idle processor, whatever the
    /// paused one executes ([`Program::runs_idle`]).
    pub overrides: Vec<PerCpuOverride>,
    /// Words by which per-CPU memory is found, by offset.
    pub signature: Vec<SignatureWord>,
    /// What outputs depend on. Empty where that is not known, as in programs written by hand.
    pub dependences: Vec<OutputDependences>,
    /// Where it comes from.
    pub provenance: Provenance,
}

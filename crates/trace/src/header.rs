//! The trace's header: who recorded what, where, and with which inputs and outputs.

use machine::{PhysAddr, Reg, VirtAddr};
use serde::{Deserialize, Serialize};

use crate::spec::{SpecError, VarType, parse_spec};

/// What is known before the first instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The recorder and its version.
    pub producer: String,
    /// The emulator and its version, e.g. `QEMU 10.0.2`.
    pub emulator: String,
    /// The emulated architecture as QEMU names it, e.g. `x86_64`.
    pub arch: String,
    /// The trainer's program name from its begin mark.
    pub program: String,
    /// Version of the marker protocol the trainer was built with.
    pub marker_abi: u32,
    /// The virtual CPU that was recorded, and how many the guest has.
    pub vcpu: u32,
    /// How many virtual CPUs the guest has.
    pub vcpus: u32,
    /// Code size at the begin mark: 16, 32 or 64.
    pub mode_bits: u8,
    /// What the event stream contains.
    pub recorded: Recorded,
    /// Declared inputs and outputs in order.
    pub variables: Vec<Variable>,
    /// Bytes of guest RAM.
    pub ram_size: u64,
    /// Where RAM lies in the guest-physical address space; the snapshot covers exactly these
    /// ranges.
    pub ram_ranges: Vec<RamRange>,
    /// Cells that held the same pointer into the kernel's image whenever the processor idled before
    /// the begin mark, ascending; empty if it was not seen to.
    pub idle: Vec<IdleCell>,
    /// A whole run made it, not a guest: it has no snapshot, and nothing in it is an interruption.
    pub whole_run: bool,
}

/// A cell of per-CPU memory and what it holds while the processor idles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdleCell {
    /// The segment base it is found by: [`Reg::GsBase`] or [`Reg::FsBase`], as the kernel has it.
    pub base: Reg,
    /// Its distance from there in bytes.
    pub offset: u32,
    /// What it holds: as many bytes as an address has.
    pub value: u64,
}

impl Header {
    /// The declared inputs in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter().filter(|v| v.direction == Direction::Input)
    }

    /// The declared outputs in order.
    pub fn outputs(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter().filter(|v| v.direction == Direction::Output)
    }
}

/// Which kinds of event the recorder wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Registers that are read at each translation block's start. A register not listed here never
    /// occurs in `Regs` events, and its value after the begin mark is known only by replaying.
    pub block_registers: Vec<Reg>,
    /// Accesses carry their value.
    pub access_values: bool,
    /// Accesses carry their physical address.
    pub physical_addresses: bool,
}

/// A contiguous piece of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamRange {
    /// First byte.
    pub start: PhysAddr,
    /// Bytes; a multiple of the page size.
    pub size: u64,
}

impl RamRange {
    /// Whether the address lies inside.
    #[must_use]
    pub const fn contains(&self, addr: PhysAddr) -> bool {
        addr.0 >= self.start.0 && addr.0 - self.start.0 < self.size
    }
}

/// Whether a variable goes into the program or comes out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Set before the run.
    Input,
    /// Read after the run.
    Output,
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// In or out.
    pub direction: Direction,
    /// Its name, unique among the trace's variables.
    pub name: String,
    /// Its type.
    pub ty: VarType,
    /// Its linear address in the trainer.
    pub addr: VirtAddr,
    /// Bytes it takes there.
    pub size: u64,
}

impl Variable {
    /// A variable from its specification string and address.
    pub fn from_spec(direction: Direction, spec: &str, addr: VirtAddr) -> Result<Self, SpecError> {
        let (name, ty) = parse_spec(spec)?;
        let size = ty.size();
        Ok(Self { direction, name, ty, addr, size })
    }
}

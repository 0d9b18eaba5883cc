//! The index at the file's end and the end record.

use machine::RegFile;
use serde::{Deserialize, Serialize};

use crate::chunk::ChunkRef;
use crate::header::Header;

/// Content of the header chunk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    pub header: Header,
    pub begin_regs: RegFile,
}

/// Content of the index chunk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Index {
    pub events: Vec<BlockRef>,
    pub insns: Vec<InsnsRef>,
    pub pages: Vec<PagesRef>,
    pub end: EndRecord,
}

/// One block of events.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BlockRef {
    pub chunk: ChunkRef,
    pub events: u32,
    pub insns: u32,
}

/// One part of the static instruction table.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct InsnsRef {
    pub chunk: ChunkRef,
    pub count: u32,
}

/// Some snapshot pages: their page numbers, each as the difference from the one before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PagesRef {
    pub chunk: ChunkRef,
    pub page_deltas: Vec<u64>,
}

/// What is known only when the recording ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// Executed instructions (`Insn` events).
    pub instructions: u64,
    /// Data accesses.
    pub accesses: u64,
    /// `Regs` events.
    pub register_events: u64,
    /// Registers at the end mark; `Rip` is the end mark's own address.
    pub regs: Option<RegFile>,
}

//! Reads traces, in both directions.

use std::path::Path;
use std::sync::Arc;

use machine::{Reg, RegFile, VirtAddr};

use crate::checksum::xxh64;
use crate::chunk::{
    Allowance, ChunkRef, END_MAGIC, EVENT_BYTES, FORMAT_VERSION, HEAD_LEN, HEADER_BYTES, INDEX_BYTES,
    INSN_BYTES, INSN_EVENTS, Kind, MAGIC, MAX_RAW, OTHER_EVENTS, PREFIX_LEN, Source, TRAILER_LEN,
    is_checksum,
};
use crate::codec::{BlockDecoder, BlockLimits, DecodeStop, MAX_BLOCK_EVENTS, MAX_BLOCK_RAW};
use crate::error::TraceError;
use crate::event::{Access, Event, InsnId, StaticInsn};
use crate::header::Header;
use crate::index::{BlockRef, EndRecord, Index, InsnsRef, Start};
use crate::snapshot::Snapshot;
use crate::varint::Cursor;

/// An opened trace. Opening reads the header, the index and the static instructions; events and
/// snapshot pages are read when they are asked for.
#[derive(Debug)]
pub struct Trace {
    source: Arc<Source>,
    start: Start,
    header_chunk: ChunkRef,
    index_chunk: ChunkRef,
    blocks: Vec<BlockRef>,
    insn_parts: Vec<InsnsRef>,
    insns: Vec<StaticInsn>,
    end: EndRecord,
    snapshot: Snapshot,
}

impl Trace {
    /// Opens a trace file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        Self::from_source(Source::open(path.as_ref())?)
    }

    /// Opens a trace that lies in memory.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, TraceError> {
        Self::from_source(Source::Memory(bytes.into()))
    }

    fn from_source(source: Source) -> Result<Self, TraceError> {
        let header_chunk = check_prefix(&source)?;
        let index_chunk = check_trailer(&source)?;
        let most = |limit: u64, most: u32| u32::try_from(limit).map_or(most, |limit| limit.min(most));
        let stored = header_chunk.stored_len.into();
        let start: Start =
            decode(&source, Kind::Header, header_chunk, most(HEADER_BYTES.of(stored), 16 << 20))?;
        let index: Index =
            decode(&source, Kind::Index, index_chunk, most(INDEX_BYTES.of(source.len()), MAX_RAW))?;
        check_layout(header_chunk, &index, index_chunk)?;
        check_sizes(&index, index_chunk, source.len())?;
        let mut insns = Vec::new();
        for part in &index.insns {
            read_insns(&source, *part, &mut insns)?;
        }
        let source = Arc::new(source);
        let snapshot = Snapshot::new(Arc::clone(&source), start.header.ram_ranges.clone(), index.pages)?;
        Ok(Self {
            source,
            start,
            header_chunk,
            index_chunk,
            blocks: index.events,
            insn_parts: index.insns,
            insns,
            end: index.end,
            snapshot,
        })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.start.header
    }

    /// Registers at the begin mark; `Rip` is the address after the mark.
    #[must_use]
    pub const fn begin_regs(&self) -> &RegFile {
        &self.start.begin_regs
    }

    /// Registers at the end mark; `Rip` is the end mark's address.
    #[must_use]
    pub const fn end_regs(&self) -> Option<&RegFile> {
        self.end.regs.as_ref()
    }

    /// Counts and registers at the end.
    #[must_use]
    pub const fn end(&self) -> &EndRecord {
        &self.end
    }

    /// The static instruction table, indexed by [`InsnId`].
    #[must_use]
    pub fn insns(&self) -> &[StaticInsn] {
        &self.insns
    }

    /// RAM at the begin mark.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// All events in execution order.
    pub fn events(&self) -> Events<'_> {
        Events { trace: self, block: 0, current: Block::default(), position: 0, decoder: BlockDecoder::new() }
    }

    /// All events, last one first.
    pub fn events_rev(&self) -> EventsRev<'_> {
        EventsRev {
            trace: self,
            block: self.blocks.len(),
            current: Block::default(),
            decoder: BlockDecoder::new(),
        }
    }

    /// Visits all events in execution order, reusing one event: the fastest way through a trace. An
    /// error of the visitor ends the visit.
    pub fn for_each_event<E: From<TraceError>>(
        &self,
        mut visit: impl FnMut(&Event) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut decoder = BlockDecoder::new();
        let mut scratch = Vec::new();
        for block in &self.blocks {
            let raw = self.source.chunk(Kind::Events, block.chunk, MAX_BLOCK_RAW)?;
            decoder.decode(&raw, self.limits(block), &mut scratch, &mut visit).map_err(
                |stop| match stop {
                    DecodeStop::Damaged(what) => TraceError::damaged(block.chunk.offset, what).into(),
                    DecodeStop::Visitor(error) => error,
                },
            )?;
        }
        Ok(())
    }

    /// Reads the whole file once and checks every checksum, number and count.
    pub fn verify(&self) -> Result<(), TraceError> {
        let mut end = EndRecord { regs: self.end.regs.clone(), ..EndRecord::default() };
        self.for_each_event(|event| {
            match event {
                Event::Insn(_) => end.instructions += 1,
                Event::Access(_) => end.accesses += 1,
                Event::Regs(_) => end.register_events += 1,
            }
            Ok::<(), TraceError>(())
        })?;
        if end != self.end {
            return Err(TraceError::damaged(
                self.index_chunk.offset,
                "the end record's counts differ from the events",
            ));
        }
        self.snapshot.verify()
    }

    /// Sizes and counts, for reports.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let events = self.blocks.iter().map(|block| block.chunk);
        let insns = self.insn_parts.iter().map(|part| part.chunk);
        let sum = |chunks: &mut dyn Iterator<Item = ChunkRef>| {
            chunks.fold((0, 0), |(raw, stored), chunk| {
                (raw + u64::from(chunk.raw_len), stored + u64::from(chunk.stored_len) + HEAD_LEN)
            })
        };
        let (event_raw, event_stored) = sum(&mut events.into_iter());
        let (insn_raw, insn_stored) = sum(&mut insns.into_iter());
        let (snapshot_raw, snapshot_stored) = sum(&mut self.snapshot.chunks().iter().copied());
        Sizes {
            event_raw,
            event_stored,
            insn_raw,
            insn_stored,
            snapshot_raw,
            snapshot_stored,
            header_stored: u64::from(self.header_chunk.stored_len),
            file: self.source.len(),
        }
    }

    fn limits(&self, block: &BlockRef) -> BlockLimits {
        BlockLimits { events: block.events, insns: block.insns, static_insns: self.insns.len() as u32 }
    }

    fn load(&self, index: usize, decoder: &mut BlockDecoder, out: &mut Block) -> Result<(), TraceError> {
        let block = &self.blocks[index];
        out.clear();
        let raw = self.source.chunk(Kind::Events, block.chunk, MAX_BLOCK_RAW)?;
        let mut scratch = Vec::new();
        decoder
            .decode(&raw, self.limits(block), &mut scratch, |event| {
                out.push(event);
                Ok::<(), std::convert::Infallible>(())
            })
            .map_err(|stop| match stop {
                DecodeStop::Damaged(what) => TraceError::damaged(block.chunk.offset, what),
                DecodeStop::Visitor(never) => match never {},
            })
    }
}

/// Bytes of a trace's parts, before compression (`raw`) and in the file (`stored`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the struct's description covers them")]
pub struct Sizes {
    pub event_raw: u64,
    pub event_stored: u64,
    pub insn_raw: u64,
    pub insn_stored: u64,
    pub snapshot_raw: u64,
    pub snapshot_stored: u64,
    pub header_stored: u64,
    pub file: u64,
}

fn check_prefix(source: &Source) -> Result<ChunkRef, TraceError> {
    let have = source.len().min(8) as usize;
    let begin = source.read(0, have)?;
    if begin != MAGIC[..have] || begin.is_empty() {
        return Err(TraceError::NotATrace);
    }
    if source.len() < PREFIX_LEN + HEAD_LEN {
        return Err(TraceError::Truncated { missing: "the header is not complete" });
    }
    let prefix = source.read(0, (PREFIX_LEN + HEAD_LEN) as usize)?;
    let version = u32_at(&prefix, 8);
    if version != FORMAT_VERSION {
        return Err(TraceError::Version { found: version, supported: FORMAT_VERSION });
    }
    let (raw_len, stored_len) =
        (u32_at(&prefix, PREFIX_LEN as usize + 4), u32_at(&prefix, PREFIX_LEN as usize + 8));
    if u32_at(&prefix, 12) != stored_len {
        return Err(TraceError::damaged(12, "the header's size is given twice and differs"));
    }
    Ok(ChunkRef { offset: PREFIX_LEN, raw_len, stored_len })
}

fn check_trailer(source: &Source) -> Result<ChunkRef, TraceError> {
    const CUT: &str = "its end is missing (a recording that did not finish, or an incomplete copy)";
    let offset = source.len().checked_sub(TRAILER_LEN).filter(|&offset| offset >= PREFIX_LEN);
    let offset = offset.ok_or(TraceError::Truncated { missing: CUT })?;
    let trailer = source.read(offset, TRAILER_LEN as usize)?;
    if trailer[32..] != END_MAGIC {
        return Err(TraceError::Truncated { missing: CUT });
    }
    if !is_checksum(&trailer[24..32], xxh64(&trailer[..24], 0)) {
        return Err(TraceError::damaged(offset, "the trailer's checksum does not match"));
    }
    let index = ChunkRef {
        offset: u64::from_le_bytes(trailer[..8].try_into().unwrap_or_default()),
        raw_len: u32_at(&trailer, 8),
        stored_len: u32_at(&trailer, 12),
    };
    if index.end() != offset {
        return Err(TraceError::Truncated { missing: "the file is shorter or longer than its index says" });
    }
    Ok(index)
}

/// Every byte between the header and the index belongs to exactly one part.
fn check_layout(header: ChunkRef, index: &Index, index_chunk: ChunkRef) -> Result<(), TraceError> {
    let mut parts: Vec<ChunkRef> = index.events.iter().map(|block| block.chunk).collect();
    parts.extend(index.insns.iter().map(|part| part.chunk));
    parts.extend(index.pages.iter().map(|part| part.chunk));
    parts.push(index_chunk);
    parts.sort_unstable_by_key(|part| part.offset);
    let mut offset = header.end();
    for part in parts {
        if part.offset != offset {
            return Err(TraceError::damaged(offset, "the parts named by the index overlap or leave a gap"));
        }
        offset = part.end();
    }
    if index.events.iter().any(|block| block.events > MAX_BLOCK_EVENTS || block.insns > block.events) {
        return Err(TraceError::damaged(
            index_chunk.offset,
            "an event block is larger than the format allows",
        ));
    }
    Ok(())
}

/// What events and instructions take in memory is in proportion to the file.
fn check_sizes(index: &Index, index_chunk: ChunkRef, len: u64) -> Result<(), TraceError> {
    let sum = |parts: &mut dyn Iterator<Item = u64>| parts.fold(0, u64::saturating_add);
    let blocks = || index.events.iter();
    let insns = || index.insns.iter();
    let stored = sum(&mut insns().map(|part| part.chunk.stored_len.into()));
    let limits: [(u64, Allowance, u64); 4] = [
        (sum(&mut blocks().map(|block| block.insns.into())), INSN_EVENTS, len),
        (sum(&mut blocks().map(|block| u64::from(block.events - block.insns))), OTHER_EVENTS, len),
        (sum(&mut blocks().map(|block| block.chunk.raw_len.into())), EVENT_BYTES, len),
        (sum(&mut insns().map(|part| part.chunk.raw_len.into())), INSN_BYTES, stored),
    ];
    if limits.iter().any(|(claimed, allowance, bytes)| *claimed > allowance.of(*bytes)) {
        return Err(TraceError::damaged(
            index_chunk.offset,
            "it claims more instructions or events than a file of its size can hold",
        ));
    }
    Ok(())
}

fn decode<T: serde::de::DeserializeOwned>(
    source: &Source,
    kind: Kind,
    chunk: ChunkRef,
    max: u32,
) -> Result<T, TraceError> {
    let raw = source.chunk(kind, chunk, max)?;
    match postcard::take_from_bytes(&raw) {
        Ok((value, [])) => Ok(value),
        _ => Err(TraceError::damaged(chunk.offset, "a header or index cannot be decoded")),
    }
}

fn read_insns(source: &Source, part: InsnsRef, out: &mut Vec<StaticInsn>) -> Result<(), TraceError> {
    let damaged = || TraceError::damaged(part.chunk.offset, "the static instruction table is inconsistent");
    let raw = source.chunk(Kind::Insns, part.chunk, MAX_BLOCK_RAW)?;
    let mut cursor = Cursor::new(&raw);
    let mut expected = VirtAddr(0);
    for _ in 0..part.count {
        let code = cursor.byte().ok_or_else(damaged)?;
        let pc = VirtAddr(expected.0.wrapping_add(cursor.signed().ok_or_else(damaged)? as u64));
        let bytes = cursor.take(usize::from(code & 15)).ok_or_else(damaged)?;
        let mode_bits = [16, 32, 64].get(usize::from(code >> 4)).ok_or_else(damaged)?;
        let insn = StaticInsn::new(pc, *mode_bits, bytes).ok_or_else(damaged)?;
        expected = insn.next_pc();
        out.push(insn);
    }
    if cursor.number() != Some(u64::from(part.count))
        || !cursor.is_empty()
        || u32::try_from(out.len()).is_err()
    {
        return Err(damaged());
    }
    Ok(())
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// One decoded block in compact form.
#[derive(Default)]
struct Block {
    slots: Vec<Slot>,
    accesses: Vec<Access>,
    regs: Vec<(Reg, u64)>,
}

#[derive(Clone, Copy)]
enum Slot {
    Insn(InsnId),
    Access,
    /// So many registers.
    Regs(u16),
}

impl Block {
    fn clear(&mut self) {
        self.slots.clear();
        self.accesses.clear();
        self.regs.clear();
    }

    fn push(&mut self, event: &Event) {
        self.slots.push(match event {
            Event::Insn(id) => Slot::Insn(*id),
            Event::Access(access) => {
                self.accesses.push(*access);
                Slot::Access
            }
            Event::Regs(changed) => {
                self.regs.extend_from_slice(changed);
                Slot::Regs(changed.len() as u16)
            }
        });
    }
}

/// Iterator of [`Trace::events`]. After an error it ends.
pub struct Events<'a> {
    trace: &'a Trace,
    block: usize,
    current: Block,
    /// Next slot; accesses and registers are consumed in step.
    position: usize,
    decoder: BlockDecoder,
}

impl Iterator for Events<'_> {
    type Item = Result<Event, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.position == self.current.slots.len() {
            if self.block >= self.trace.blocks.len() {
                return None;
            }
            let index = self.block;
            self.block += 1;
            self.position = 0;
            if let Err(error) = self.trace.load(index, &mut self.decoder, &mut self.current) {
                self.block = self.trace.blocks.len();
                self.current.clear();
                return Some(Err(error));
            }
            // Reversed, so that both lists can be consumed from their ends.
            self.current.accesses.reverse();
            self.current.regs.reverse();
        }
        let slot = self.current.slots[self.position];
        self.position += 1;
        Some(Ok(match slot {
            Slot::Insn(id) => Event::Insn(id),
            Slot::Access => Event::Access(self.current.accesses.pop()?),
            Slot::Regs(count) => {
                let rest = self.current.regs.len().saturating_sub(usize::from(count));
                Event::Regs(self.current.regs.drain(rest..).rev().collect())
            }
        }))
    }
}

/// Iterator of [`Trace::events_rev`]. After an error it ends.
pub struct EventsRev<'a> {
    trace: &'a Trace,
    /// Blocks before this one are still to come.
    block: usize,
    current: Block,
    decoder: BlockDecoder,
}

impl Iterator for EventsRev<'_> {
    type Item = Result<Event, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(slot) = self.current.slots.pop() {
                return Some(Ok(match slot {
                    Slot::Insn(id) => Event::Insn(id),
                    Slot::Access => Event::Access(self.current.accesses.pop()?),
                    Slot::Regs(count) => {
                        let rest = self.current.regs.len().saturating_sub(usize::from(count));
                        Event::Regs(self.current.regs.split_off(rest))
                    }
                }));
            }
            self.block = self.block.checked_sub(1)?;
            if let Err(error) = self.trace.load(self.block, &mut self.decoder, &mut self.current) {
                self.block = 0;
                self.current.clear();
                return Some(Err(error));
            }
        }
    }
}

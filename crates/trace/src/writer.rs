//! Writes traces: the recorder's, and small ones built by tests.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use machine::{PAGE_SIZE, PhysAddr, Reg, RegFile, VirtAddr};

use crate::chunk::{self, ChunkRef, FORMAT_VERSION, Kind, MAGIC, PREFIX_LEN};
use crate::codec::BlockEncoder;
use crate::error::TraceError;
use crate::event::{Access, Event, InsnId, StaticInsn};
use crate::header::Header;
use crate::index::{BlockRef, EndRecord, Index, InsnsRef, PagesRef, Start};
use crate::snapshot::PAGES_PER_CHUNK;
use crate::varint::{put, put_signed};

/// Compression of events and instructions; measured in docs/format-trace.md.
const EVENT_LEVEL: i32 = 3;
/// Compression of the snapshot, which is large and written while the guest stands still.
const PAGE_LEVEL: i32 = 1;
/// Static instructions in one part of their table.
const INSNS_PER_CHUNK: usize = 1 << 16;

/// What was written, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Executed instructions.
    pub instructions: u64,
    /// Data accesses.
    pub accesses: u64,
    /// Entries of the static instruction table.
    pub static_insns: u64,
    /// Bytes of events and static instructions before compression.
    pub raw_bytes: u64,
    /// The same after compression.
    pub stored_bytes: u64,
    /// Bytes of the compressed snapshot.
    pub snapshot_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

enum Sink {
    File { file: BufWriter<File>, partial: PathBuf, path: PathBuf, finished: bool },
    Memory(Vec<u8>),
}

/// Writes one trace. The file appears under its name only when [`TraceWriter::finish`] succeeds; a
/// writer that is dropped earlier removes what it has written.
pub struct TraceWriter {
    sink: Sink,
    offset: u64,
    header: Header,
    encoder: BlockEncoder,
    index: Index,
    insns: Vec<StaticInsn>,
    insn_ids: HashMap<StaticInsn, InsnId>,
    pages: Vec<u8>,
    page_numbers: Vec<u64>,
    summary: Summary,
}

impl TraceWriter {
    /// Starts a trace file. Until it is finished it is called `PATH.partial`.
    pub fn create(path: &Path, header: Header, begin_regs: RegFile) -> Result<Self, TraceError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(TraceError::io("creating", &partial))?;
        let sink = Sink::File {
            file: BufWriter::with_capacity(1 << 18, file),
            partial,
            path: path.to_path_buf(),
            finished: false,
        };
        Self::start(sink, header, begin_regs)
    }

    /// Starts a trace in memory; [`TraceWriter::finish_in_memory`] returns its bytes.
    pub fn in_memory(header: Header, begin_regs: RegFile) -> Result<Self, TraceError> {
        Self::start(Sink::Memory(Vec::new()), header, begin_regs)
    }

    fn start(sink: Sink, header: Header, begin_regs: RegFile) -> Result<Self, TraceError> {
        for range in &header.ram_ranges {
            if range.start.offset() != 0
                || range.size % PAGE_SIZE != 0
                || range.start.0.checked_add(range.size).is_none()
            {
                return Err(TraceError::Unrecordable(format!(
                    "RAM range {:#x}+{:#x}",
                    range.start, range.size
                )));
            }
        }
        let mut writer = Self {
            sink,
            offset: 0,
            header,
            encoder: BlockEncoder::new(),
            index: Index::default(),
            insns: Vec::new(),
            insn_ids: HashMap::new(),
            pages: Vec::new(),
            page_numbers: Vec::new(),
            summary: Summary::default(),
        };
        let start = Start { header: writer.header.clone(), begin_regs };
        let raw = encode(&start)?;
        let (sealed, stored_len) = chunk::seal(Kind::Header, &raw, EVENT_LEVEL)?;
        let mut prefix = [0; PREFIX_LEN as usize];
        prefix[..8].copy_from_slice(&MAGIC);
        prefix[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        // The header chunk's size, so that a reader that knows only the prefix can find the rest.
        prefix[12..].copy_from_slice(&stored_len.to_le_bytes());
        writer.put(&prefix)?;
        writer.put(&sealed)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        match &mut self.sink {
            Sink::File { file, partial, .. } => {
                file.write_all(bytes).map_err(TraceError::io("writing", partial))?
            }
            Sink::Memory(out) => out.extend_from_slice(bytes),
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn put_chunk(&mut self, kind: Kind, raw: &[u8], level: i32) -> Result<ChunkRef, TraceError> {
        let (sealed, stored_len) = chunk::seal(kind, raw, level)?;
        let chunk = ChunkRef { offset: self.offset, raw_len: raw.len() as u32, stored_len };
        self.put(&sealed)?;
        Ok(chunk)
    }

    /// The header as given.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Executed instructions so far.
    #[must_use]
    pub const fn instructions(&self) -> u64 {
        self.summary.instructions
    }

    /// The number of this instruction in the static table; equal instructions share one.
    pub fn insn_id(&mut self, pc: VirtAddr, mode_bits: u8, bytes: &[u8]) -> Result<InsnId, TraceError> {
        let insn = StaticInsn::new(pc, mode_bits, bytes).ok_or_else(|| {
            TraceError::Unrecordable(format!(
                "an instruction of {} bytes in {mode_bits}-bit code at {pc}",
                bytes.len()
            ))
        })?;
        if let Some(&id) = self.insn_ids.get(&insn) {
            return Ok(id);
        }
        let id = u32::try_from(self.insns.len())
            .map(InsnId)
            .map_err(|_| TraceError::Unrecordable("more than 2^32 static instructions".to_owned()))?;
        self.insns.push(insn);
        self.insn_ids.insert(insn, id);
        Ok(id)
    }

    /// An instruction starts executing.
    pub fn insn(&mut self, id: InsnId) -> Result<(), TraceError> {
        if id.0 as usize >= self.insns.len() {
            return Err(TraceError::Unrecordable(format!("instruction number {} is not in the table", id.0)));
        }
        self.summary.instructions += 1;
        self.encoder.insn(id);
        self.close_full_block()
    }

    /// The last instruction accessed memory.
    pub fn access(&mut self, access: &Access) -> Result<(), TraceError> {
        if access.next_page.is_some_and(|page| page.offset() != 0 || !access.crosses_page()) {
            return Err(TraceError::Unrecordable(format!(
                "a second page for the access at {}",
                access.vaddr
            )));
        }
        self.summary.accesses += 1;
        self.encoder.access(access);
        self.close_full_block()
    }

    /// Registers changed. Readers get the general registers first and in order, then the others as
    /// given; each register may occur once.
    pub fn regs(&mut self, changed: &[(Reg, u64)]) -> Result<(), TraceError> {
        self.index.end.register_events += 1;
        self.encoder.regs(changed);
        self.close_full_block()
    }

    /// Any event.
    pub fn event(&mut self, event: &Event) -> Result<(), TraceError> {
        match event {
            Event::Insn(id) => self.insn(*id),
            Event::Access(access) => self.access(access),
            Event::Regs(changed) => self.regs(changed),
        }
    }

    fn close_full_block(&mut self) -> Result<(), TraceError> {
        if self.encoder.is_full() { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), TraceError> {
        let (events, insns) = (self.encoder.events(), self.encoder.insns());
        if events == 0 {
            return Ok(());
        }
        let raw = self.encoder.take();
        let chunk = self.put_chunk(Kind::Events, &raw, EVENT_LEVEL)?;
        self.count(chunk);
        self.index.events.push(BlockRef { chunk, events, insns });
        Ok(())
    }

    fn count(&mut self, chunk: ChunkRef) {
        self.summary.raw_bytes += u64::from(chunk.raw_len);
        self.summary.stored_bytes += u64::from(chunk.stored_len) + chunk::HEAD_LEN;
    }

    /// Adds one page of the start snapshot, at most once each and in any order, also before or
    /// after the events. All-zero pages are left out.
    pub fn page(&mut self, addr: PhysAddr, bytes: &[u8]) -> Result<(), TraceError> {
        if addr.offset() != 0 || bytes.len() != PAGE_SIZE as usize {
            return Err(TraceError::Unrecordable(format!("{} bytes at {addr} are not a page", bytes.len())));
        }
        if !self.header.ram_ranges.iter().any(|range| range.contains(addr)) {
            return Err(TraceError::Unrecordable(format!("page {addr} lies outside RAM")));
        }
        if is_zero(bytes) {
            return Ok(());
        }
        self.pages.extend_from_slice(bytes);
        self.page_numbers.push(addr.0 / PAGE_SIZE);
        if self.page_numbers.len() == PAGES_PER_CHUNK { self.close_pages() } else { Ok(()) }
    }

    fn close_pages(&mut self) -> Result<(), TraceError> {
        if self.page_numbers.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut self.pages);
        let chunk = self.put_chunk(Kind::Pages, &raw, PAGE_LEVEL)?;
        self.pages = raw;
        self.pages.clear();
        self.summary.snapshot_bytes += u64::from(chunk.stored_len) + chunk::HEAD_LEN;
        let mut last = 0;
        let page_deltas = self
            .page_numbers
            .drain(..)
            .map(|number| number.wrapping_sub(std::mem::replace(&mut last, number)))
            .collect();
        self.index.pages.push(PagesRef { chunk, page_deltas });
        Ok(())
    }

    fn close_insns(&mut self) -> Result<(), TraceError> {
        let insns = std::mem::take(&mut self.insns);
        for part in insns.chunks(INSNS_PER_CHUNK) {
            let raw = encode_insns(part);
            let chunk = self.put_chunk(Kind::Insns, &raw, EVENT_LEVEL)?;
            self.count(chunk);
            self.index.insns.push(InsnsRef { chunk, count: part.len() as u32 });
        }
        self.summary.static_insns = insns.len() as u64;
        Ok(())
    }

    fn close(&mut self, end_regs: Option<RegFile>) -> Result<Summary, TraceError> {
        self.close_block()?;
        self.close_insns()?;
        self.close_pages()?;
        let mut index = std::mem::take(&mut self.index);
        index.end = EndRecord {
            instructions: self.summary.instructions,
            accesses: self.summary.accesses,
            register_events: index.end.register_events,
            regs: end_regs,
        };
        let raw = encode(&index)?;
        let chunk = self.put_chunk(Kind::Index, &raw, EVENT_LEVEL)?;
        self.put(&chunk::trailer(chunk))?;
        self.summary.file_bytes = self.offset;
        Ok(self.summary)
    }

    /// Ends the recording and gives the file its name.
    pub fn finish(mut self, end_regs: Option<RegFile>) -> Result<Summary, TraceError> {
        let summary = self.close(end_regs)?;
        if let Sink::File { file, partial, path, finished } = &mut self.sink {
            file.flush().map_err(TraceError::io("writing", partial))?;
            file.get_ref().sync_all().map_err(TraceError::io("writing", partial))?;
            fs::rename(&*partial, &*path).map_err(TraceError::io("renaming", partial))?;
            *finished = true;
        }
        Ok(summary)
    }

    /// Ends a trace begun with [`TraceWriter::in_memory`]; a trace in a file is read back.
    pub fn finish_in_memory(mut self, end_regs: Option<RegFile>) -> Result<Vec<u8>, TraceError> {
        if let Sink::File { path, .. } = &self.sink {
            let path = path.clone();
            self.finish(end_regs)?;
            return fs::read(&path).map_err(TraceError::io("reading", &path));
        }
        self.close(end_regs)?;
        match &mut self.sink {
            Sink::Memory(bytes) => Ok(std::mem::take(bytes)),
            Sink::File { .. } => Ok(Vec::new()),
        }
    }
}

impl Drop for TraceWriter {
    fn drop(&mut self) {
        if let Sink::File { partial, finished: false, .. } = &self.sink {
            // Nobody can be told; a leftover `.partial` is recognisable by its name.
            drop(fs::remove_file(partial));
        }
    }
}

/// Whether every byte is zero.
fn is_zero(bytes: &[u8]) -> bool {
    let head = bytes.chunks_exact(64);
    head.clone().all(|block| block.iter().fold(0, |or, byte| or | byte) == 0)
        && head.remainder().iter().all(|&byte| byte == 0)
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, TraceError> {
    postcard::to_stdvec(value).map_err(|error| TraceError::Unrecordable(error.to_string()))
}

fn encode_insns(insns: &[StaticInsn]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(insns.len() * 6);
    let mut expected = VirtAddr(0);
    for insn in insns {
        raw.push(mode_code(insn.mode_bits) << 4 | insn.bytes().len() as u8);
        put_signed(&mut raw, insn.pc.0.wrapping_sub(expected.0) as i64);
        raw.extend_from_slice(insn.bytes());
        expected = insn.next_pc();
    }
    put(&mut raw, insns.len() as u64);
    raw
}

const fn mode_code(mode_bits: u8) -> u8 {
    match mode_bits {
        16 => 0,
        32 => 1,
        _ => 2,
    }
}

//! The event stream's encoding: one block of events to bytes and back.
//!
//! A block stands alone: every prediction starts from nothing, so blocks can be decoded in any
//! order. Inside a block encoder and decoder keep the same [`Predictor`]; only differences from its
//! predictions are stored, in one byte stream per kind of number so that equal things lie together
//! for the compressor. `docs/format-trace.md` describes the layout.

use machine::{PhysAddr, Reg, VirtAddr};

use crate::event::{Access, Event, InsnId};
use crate::varint::{Cursor, put, put_signed};

/// Events after which a block is closed.
pub const BLOCK_EVENTS: u32 = 1 << 16;
/// Raw bytes after which a block is closed.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Most raw bytes and events a reader accepts in a block.
pub const MAX_BLOCK_RAW: u32 = 4 << 20;
/// Most events a reader accepts in a block.
pub const MAX_BLOCK_EVENTS: u32 = 1 << 17;

const TAG_RUN: u8 = 0;
const TAG_JUMP: u8 = 1;
const TAG_ACCESS: u8 = 2;
const TAG_REGS: u8 = 3;

const ACCESS_STORE: u8 = 1;
const ACCESS_IO: u8 = 2;
const ACCESS_NEW_PAGE: u8 = 4;
const SIZES: [u8; 7] = [1, 2, 4, 8, 16, 32, 64];
const SIZE_OTHER: u8 = 7;
/// Payload of a run's operation byte that says "63 plus a number that follows".
const LONG_RUN: u8 = 63;
const STREAMS: usize = 7;
const GPRS: usize = 16;

/// A changed register's source byte: the number stream has the difference from its last value.
const SOURCE_DELTA: u8 = 0;
/// It has the value, or the address, of one of the last accesses before this event.
const SOURCE_VALUE: u8 = 1;
const SOURCE_ADDR: u8 = SOURCE_VALUE + RECENT as u8;
/// It has what a general register had at the event before.
const SOURCE_REG: u8 = SOURCE_ADDR + RECENT as u8;
const SOURCES: u8 = SOURCE_REG + GPRS as u8;
/// Accesses that are looked at.
const RECENT: usize = 16;

const SUCCESSORS: usize = 4096;
const ADDRESSES: usize = 8192;
const VALUES: usize = 8192;
const PAGES: usize = 512;
const PAGE_BITS: u32 = 12;

/// What both sides expect next.
struct Predictor {
    last: u32,
    accesses: usize,
    last_addr: u64,
    successor: Vec<u32>,
    address: Vec<u64>,
    value: Vec<u64>,
    page: Vec<(u64, u64)>,
    regs: [u64; Reg::COUNT],
    /// Addresses and values of the last accesses, a ring.
    recent: [(u64, u64); RECENT],
    recent_next: usize,
    /// General registers at the last register event.
    before: [u64; GPRS],
}

impl Predictor {
    fn new() -> Self {
        Self {
            last: 0,
            accesses: 0,
            last_addr: 0,
            successor: vec![0; SUCCESSORS],
            address: vec![0; ADDRESSES],
            value: vec![0; VALUES],
            page: vec![(u64::MAX, 0); PAGES],
            regs: [0; Reg::COUNT],
            recent: [(0, 0); RECENT],
            recent_next: 0,
            before: [0; GPRS],
        }
    }

    fn reset(&mut self) {
        self.last = 0;
        self.accesses = 0;
        self.last_addr = 0;
        self.successor.fill(0);
        self.address.fill(0);
        self.value.fill(0);
        self.page.fill((u64::MAX, 0));
        self.regs = [0; Reg::COUNT];
        self.recent = [(0, 0); RECENT];
        self.recent_next = 0;
        self.before = [0; GPRS];
    }

    #[inline]
    fn note_access(&mut self, addr: u64, value: u64) {
        self.recent[self.recent_next % RECENT] = (addr, value);
        self.recent_next = self.recent_next.wrapping_add(1);
    }

    /// The `n`th last access.
    #[inline]
    fn recent(&self, n: usize) -> (u64, u64) {
        self.recent[self.recent_next.wrapping_sub(n + 1) % RECENT]
    }

    /// The value a source byte stands for.
    #[inline]
    fn source(&self, source: u8) -> Option<u64> {
        match source {
            SOURCE_VALUE..SOURCE_ADDR => Some(self.recent(usize::from(source - SOURCE_VALUE)).1),
            SOURCE_ADDR..SOURCE_REG => Some(self.recent(usize::from(source - SOURCE_ADDR)).0),
            SOURCE_REG..SOURCES => Some(self.before[usize::from(source - SOURCE_REG)]),
            _ => None,
        }
    }

    /// The first source that has this value.
    fn find_source(&self, value: u64) -> Option<u8> {
        (SOURCE_VALUE..SOURCES).find(|&source| self.source(source) == Some(value))
    }

    /// A register event begins.
    #[inline]
    fn begin_regs(&mut self) {
        self.before.copy_from_slice(&self.regs[..GPRS]);
    }

    /// The successor last seen after the last instruction, else the next number.
    #[inline]
    fn next_id(&self) -> u32 {
        let seen = self.successor[self.last as usize % SUCCESSORS];
        if seen == 0 { self.last.wrapping_add(1) } else { self.last.wrapping_add(seen) }
    }

    #[inline]
    fn insn(&mut self, id: u32) {
        self.successor[self.last as usize % SUCCESSORS] = id.wrapping_sub(self.last);
        self.last = id;
        self.accesses = 0;
    }

    /// Where this access of the last instruction was the last time.
    #[inline]
    fn addr_slot(&mut self) -> (usize, u64) {
        let slot = (self.last as usize * 2 + (self.accesses & 1)) % ADDRESSES;
        self.accesses += 1;
        let seen = self.address[slot];
        (slot, if seen == 0 { self.last_addr } else { seen })
    }

    #[inline]
    fn addr_update(&mut self, slot: usize, addr: u64) {
        self.address[slot] = addr;
        self.last_addr = addr;
    }

    #[inline]
    fn value_slot(addr: u64) -> usize {
        (addr ^ addr >> 13) as usize % VALUES
    }
}

fn size_code(size: u8) -> u8 {
    SIZES.iter().position(|&s| s == size).map_or(SIZE_OTHER, |code| code as u8)
}

/// Collects events until the block is full.
pub struct BlockEncoder {
    predictor: Predictor,
    ops: Vec<u8>,
    ids: Vec<u8>,
    addrs: Vec<u8>,
    pages: Vec<u8>,
    values: Vec<u8>,
    regs: Vec<u8>,
    sources: Vec<u8>,
    run: u64,
    events: u32,
    insns: u32,
}

impl BlockEncoder {
    pub fn new() -> Self {
        Self {
            predictor: Predictor::new(),
            ops: Vec::new(),
            ids: Vec::new(),
            addrs: Vec::new(),
            pages: Vec::new(),
            values: Vec::new(),
            regs: Vec::new(),
            sources: Vec::new(),
            run: 0,
            events: 0,
            insns: 0,
        }
    }

    pub const fn events(&self) -> u32 {
        self.events
    }

    pub const fn insns(&self) -> u32 {
        self.insns
    }

    /// The block should be closed.
    pub fn is_full(&self) -> bool {
        self.events >= BLOCK_EVENTS || self.ops.len() + self.addrs.len() + self.values.len() >= BLOCK_BYTES
    }

    fn flush_run(&mut self) {
        let Some(extra) = self.run.checked_sub(1) else { return };
        if extra < u64::from(LONG_RUN) {
            self.ops.push(TAG_RUN | (extra as u8) << 2);
        } else {
            self.ops.push(TAG_RUN | LONG_RUN << 2);
            put(&mut self.ops, extra - u64::from(LONG_RUN));
        }
        self.run = 0;
    }

    pub fn insn(&mut self, id: InsnId) {
        self.events += 1;
        self.insns += 1;
        if self.predictor.next_id() == id.0 {
            self.run += 1;
        } else {
            self.flush_run();
            self.ops.push(TAG_JUMP);
            put_signed(&mut self.ids, i64::from(id.0) - i64::from(self.predictor.last));
        }
        self.predictor.insn(id.0);
    }

    pub fn access(&mut self, access: &Access) {
        self.events += 1;
        self.flush_run();
        let addr = access.vaddr.0;
        let (slot, predicted) = self.predictor.addr_slot();
        put_signed(&mut self.addrs, addr.wrapping_sub(predicted) as i64);
        self.predictor.addr_update(slot, addr);

        let (vpage, ppage) = (addr >> PAGE_BITS, access.paddr.0.wrapping_sub(addr & 0xfff));
        let entry = &mut self.predictor.page[vpage as usize % PAGES];
        let mut flags = 0;
        if *entry != (vpage, ppage) {
            *entry = (vpage, ppage);
            flags |= ACCESS_NEW_PAGE;
            put(&mut self.pages, ppage.rotate_right(PAGE_BITS));
        }
        if access.crosses_page() {
            put(&mut self.pages, access.next_page.map_or(0, |page| (page.0 >> PAGE_BITS) + 1));
        }
        if access.store {
            flags |= ACCESS_STORE;
        }
        if access.io {
            flags |= ACCESS_IO;
        }
        let size = size_code(access.size);
        self.ops.push(TAG_ACCESS | (flags | size << 3) << 2);
        if size == SIZE_OTHER {
            self.ops.push(access.size);
        }
        let slot = Predictor::value_slot(addr);
        self.value(slot, access.value as u64);
        if access.size > 8 {
            self.value((slot + 8) % VALUES, (access.value >> 64) as u64);
        }
        self.predictor.note_access(addr, access.value as u64);
    }

    fn value(&mut self, slot: usize, value: u64) {
        let seen = &mut self.predictor.value[slot];
        put_signed(&mut self.values, value.wrapping_sub(*seen) as i64);
        *seen = value;
    }

    pub fn regs(&mut self, changed: &[(Reg, u64)]) {
        self.events += 1;
        self.flush_run();
        let general = |&&(reg, _): &&(Reg, u64)| reg.index() < GPRS;
        let gprs = changed.iter().filter(general).fold(0, |mask, (reg, _)| mask | 1 << reg.index());
        let others = changed.len() - changed.iter().filter(general).count();
        self.ops.push(TAG_REGS | (others.min(usize::from(LONG_RUN)) as u8) << 2);
        if others >= usize::from(LONG_RUN) {
            put(&mut self.ops, (others - usize::from(LONG_RUN)) as u64);
        }
        put(&mut self.regs, gprs);
        self.predictor.begin_regs();
        if changed.is_sorted_by_key(|&(reg, _)| reg.index().min(GPRS)) {
            changed.iter().filter(general).for_each(|&(reg, value)| self.reg_value(reg.index(), value));
        } else {
            for index in 0..GPRS {
                if let Some(&(_, value)) = changed.iter().find(|(reg, _)| reg.index() == index) {
                    self.reg_value(index, value);
                }
            }
        }
        for &(reg, value) in changed.iter().filter(|(reg, _)| reg.index() >= GPRS) {
            self.regs.push(reg.index() as u8);
            self.reg_value(reg.index(), value);
        }
    }

    fn reg_value(&mut self, index: usize, value: u64) {
        let delta = value.wrapping_sub(self.predictor.regs[index]) as i64;
        self.predictor.regs[index] = value;
        let source = if (-64..64).contains(&delta) { None } else { self.predictor.find_source(value) };
        self.sources.push(source.unwrap_or(SOURCE_DELTA));
        if source.is_none() {
            put_signed(&mut self.regs, delta);
        }
    }

    /// The block's bytes; the encoder is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        self.flush_run();
        let mut raw = Vec::new();
        let streams = [
            &mut self.ops,
            &mut self.ids,
            &mut self.addrs,
            &mut self.pages,
            &mut self.values,
            &mut self.regs,
            &mut self.sources,
        ];
        for stream in &streams {
            put(&mut raw, stream.len() as u64);
        }
        for stream in streams {
            raw.append(stream);
        }
        self.predictor.reset();
        self.events = 0;
        self.insns = 0;
        raw
    }
}

/// Decodes blocks; keeps its tables between blocks.
pub struct BlockDecoder {
    predictor: Predictor,
}

/// What a block claims to hold, from the index.
#[derive(Clone, Copy)]
pub struct BlockLimits {
    pub events: u32,
    pub insns: u32,
    /// Entries of the static instruction table.
    pub static_insns: u32,
}

/// What went wrong while decoding: the data, or the visitor wants no more.
pub enum DecodeStop<E> {
    Damaged(&'static str),
    Visitor(E),
}

impl BlockDecoder {
    pub fn new() -> Self {
        Self { predictor: Predictor::new() }
    }

    /// Hands every event of the block to `visit`, in order. The event is reused.
    pub fn decode<E>(
        &mut self,
        raw: &[u8],
        limits: BlockLimits,
        scratch: &mut Vec<(Reg, u64)>,
        mut visit: impl FnMut(&Event) -> Result<(), E>,
    ) -> Result<(), DecodeStop<E>> {
        let ends = || DecodeStop::Damaged("an event block ends early");
        self.predictor.reset();
        let predictor = &mut self.predictor;
        let mut cursor = Cursor::new(raw);
        let mut lens = [0usize; STREAMS];
        for len in &mut lens {
            *len = cursor.number().and_then(|n| usize::try_from(n).ok()).ok_or_else(ends)?;
        }
        let mut streams = [Cursor::new(&[]); STREAMS];
        for (stream, len) in streams.iter_mut().zip(lens) {
            *stream = Cursor::new(cursor.take(len).ok_or_else(ends)?);
        }
        if !cursor.is_empty() {
            return Err(DecodeStop::Damaged("an event block has bytes after its streams"));
        }
        let [mut ops, mut ids, mut addrs, mut pages, mut values, mut regs, mut sources] = streams;
        let (mut events_left, mut insns_left) = (u64::from(limits.events), u64::from(limits.insns));
        let mut event = Event::Regs(std::mem::take(scratch));
        let mut list = Vec::new();

        while let Some(op) = ops.byte() {
            let payload = op >> 2;
            match op & 3 {
                TAG_RUN => {
                    let mut count = u64::from(payload) + 1;
                    if payload == LONG_RUN {
                        count = ops.number().and_then(|n| n.checked_add(count)).ok_or_else(ends)?;
                    }
                    if count > insns_left || count > events_left {
                        return Err(DecodeStop::Damaged("an event block has more instructions than it says"));
                    }
                    insns_left -= count;
                    events_left -= count;
                    for _ in 0..count {
                        let id = predictor.next_id();
                        if id >= limits.static_insns {
                            return Err(DecodeStop::Damaged("an instruction number beyond the table"));
                        }
                        predictor.insn(id);
                        set(&mut event, &mut list, Event::Insn(InsnId(id)));
                        visit(&event).map_err(DecodeStop::Visitor)?;
                    }
                }
                TAG_JUMP => {
                    if insns_left == 0 || events_left == 0 {
                        return Err(DecodeStop::Damaged("an event block has more instructions than it says"));
                    }
                    insns_left -= 1;
                    events_left -= 1;
                    let delta = ids.signed().ok_or_else(ends)?;
                    let id = i64::from(predictor.last)
                        .checked_add(delta)
                        .and_then(|id| u32::try_from(id).ok())
                        .filter(|&id| id < limits.static_insns)
                        .ok_or(DecodeStop::Damaged("an instruction number beyond the table"))?;
                    predictor.insn(id);
                    set(&mut event, &mut list, Event::Insn(InsnId(id)));
                    visit(&event).map_err(DecodeStop::Visitor)?;
                }
                TAG_ACCESS => {
                    events_left = events_left
                        .checked_sub(1)
                        .ok_or(DecodeStop::Damaged("more events than the block says"))?;
                    let (slot, predicted) = predictor.addr_slot();
                    let addr = predicted.wrapping_add(addrs.signed().ok_or_else(ends)? as u64);
                    predictor.addr_update(slot, addr);
                    let vpage = addr >> PAGE_BITS;
                    let entry = &mut predictor.page[vpage as usize % PAGES];
                    if payload & ACCESS_NEW_PAGE != 0 {
                        *entry = (vpage, pages.number().ok_or_else(ends)?.rotate_left(PAGE_BITS));
                    } else if entry.0 != vpage {
                        return Err(DecodeStop::Damaged("an access to a page whose translation is missing"));
                    }
                    let ppage = entry.1;
                    let size = match SIZES.get(usize::from(payload >> 3)) {
                        Some(&size) => size,
                        None => ops.byte().ok_or_else(ends)?,
                    };
                    let slot = Predictor::value_slot(addr);
                    let mut value = |slot: usize| {
                        let seen = &mut predictor.value[slot];
                        *seen = seen.wrapping_add(values.signed().ok_or_else(ends)? as u64);
                        Ok(*seen)
                    };
                    let mut wide = u128::from(value(slot)?);
                    if size > 8 {
                        wide |= u128::from(value((slot + 8) % VALUES)?) << 64;
                    }
                    let mut access = Access {
                        store: payload & ACCESS_STORE != 0,
                        vaddr: VirtAddr(addr),
                        paddr: PhysAddr(ppage.wrapping_add(addr & 0xfff)),
                        next_page: None,
                        size,
                        value: wide,
                        io: payload & ACCESS_IO != 0,
                    };
                    predictor.note_access(addr, wide as u64);
                    if access.crosses_page() {
                        let number = pages.number().ok_or_else(ends)?;
                        access.next_page = number.checked_sub(1).map(|page| PhysAddr(page << PAGE_BITS));
                    }
                    set(&mut event, &mut list, Event::Access(access));
                    visit(&event).map_err(DecodeStop::Visitor)?;
                }
                _ => {
                    events_left = events_left
                        .checked_sub(1)
                        .ok_or(DecodeStop::Damaged("more events than the block says"))?;
                    let mut others = u64::from(payload);
                    if payload == LONG_RUN {
                        others = ops.number().and_then(|n| n.checked_add(others)).ok_or_else(ends)?;
                    }
                    let gprs = regs.number().ok_or_else(ends)?;
                    predictor.begin_regs();
                    if gprs >> GPRS != 0 || others > Reg::COUNT as u64 {
                        return Err(DecodeStop::Damaged("an impossible set of registers"));
                    }
                    let mut changed = match std::mem::replace(&mut event, Event::Insn(InsnId(0))) {
                        Event::Regs(changed) => changed,
                        _ => std::mem::take(&mut list),
                    };
                    changed.clear();
                    let mut read = |regs: &mut Cursor<'_>, index: usize| {
                        let reg = Reg::from_index(index)
                            .ok_or(DecodeStop::Damaged("an unknown register number"))?;
                        let value = match sources.byte().ok_or_else(ends)? {
                            SOURCE_DELTA => {
                                predictor.regs[index].wrapping_add(regs.signed().ok_or_else(ends)? as u64)
                            }
                            source => predictor
                                .source(source)
                                .ok_or(DecodeStop::Damaged("an unknown value source"))?,
                        };
                        predictor.regs[index] = value;
                        changed.push((reg, value));
                        Ok(())
                    };
                    for index in (0..GPRS).filter(|index| gprs >> index & 1 != 0) {
                        read(&mut regs, index)?;
                    }
                    for _ in 0..others {
                        let index = usize::from(regs.byte().ok_or_else(ends)?);
                        read(&mut regs, index)?;
                    }
                    event = Event::Regs(changed);
                    visit(&event).map_err(DecodeStop::Visitor)?;
                }
            }
        }
        *scratch = match event {
            Event::Regs(changed) => changed,
            _ => list,
        };
        let rest = [ids, addrs, pages, values, regs, sources];
        if events_left != 0 || insns_left != 0 || rest.iter().any(|stream| !stream.is_empty()) {
            return Err(DecodeStop::Damaged("an event block's contents do not match its counts"));
        }
        Ok(())
    }
}

/// Replaces the event, keeping the register list's allocation.
#[inline]
fn set(event: &mut Event, list: &mut Vec<(Reg, u64)>, new: Event) {
    if let Event::Regs(changed) = event {
        *list = std::mem::take(changed);
    }
    *event = new;
}

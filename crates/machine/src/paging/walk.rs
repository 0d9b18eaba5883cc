//! Enumerates every page that a set of page tables maps in a range of linear addresses.
//!
//! Used to collect the user pages of a process, the supervisor aliases of a physical page, and all
//! supervisor code. Tables may be cyclic (Windows maps its own tables by one self-reference) or
//! hostile (tables that all point at each other describe 2^36 pages in 4 KiB): the work is bounded
//! by a budget and not by detecting cycles, for a repeated table is legal. Broken entries and
//! unreadable tables are skipped and counted, since a capture of a running machine has some.

use std::ops::{ControlFlow, RangeInclusive};

use super::entry::{self, Entry, Rights};
use super::{PagingMode, TranslateError};
use crate::addr::{PhysAddr, VirtAddr};
use crate::memory::GuestMemory;

/// A budget that covers any real address space: 64 GiB in 4 KiB pages, a few seconds of walking at
/// most.
pub const DEFAULT_WALK_LIMIT: u64 = 1 << 24;

/// One mapped page, large or small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First linear address of the page (it may lie before the range asked for).
    pub vaddr: VirtAddr,
    /// First physical address of the page.
    pub paddr: PhysAddr,
    /// Bytes: 4 KiB, 2 MiB, 4 MiB or 1 GiB.
    pub size: u64,
    /// Every level allows user-mode access.
    pub user: bool,
    /// Every level allows writes.
    pub writable: bool,
    /// No level has the no-execute bit.
    pub executable: bool,
    /// The leaf's global bit.
    pub global: bool,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkEnd {
    /// Everything in the range was visited.
    Complete,
    /// The limit was reached: there may be more.
    LimitReached,
    /// The visitor asked to stop.
    Stopped,
}

/// What a walk did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkSummary {
    /// How it ended.
    pub end: WalkEnd,
    /// Pages visited.
    pub pages: u64,
    /// Tables read.
    pub tables: u64,
    /// Tables that could not be read and entries with reserved bits, all skipped.
    pub skipped: u64,
    /// The first of those.
    pub first_skipped: Option<TranslateError>,
}

/// Visits every page mapped in `range` in ascending order of linear addresses, at most `limit`
/// pages and tables.
///
/// The whole address space is `VirtAddr(0)..=VirtAddr(u64::MAX)`. With paging off there are no
/// tables and nothing is visited. A limit reached is no error: [`WalkSummary::end`] tells.
pub fn walk(
    mem: &dyn GuestMemory,
    mode: PagingMode,
    cr3: u64,
    range: RangeInclusive<VirtAddr>,
    limit: u64,
    visit: &mut dyn FnMut(&Mapping) -> ControlFlow<()>,
) -> WalkSummary {
    let summary =
        WalkSummary { end: WalkEnd::Complete, pages: 0, tables: 0, skipped: 0, first_skipped: None };
    let mut walker = Walker { mem, mode, range, limit, visit, summary };
    if mode.levels() != 0
        && let ControlFlow::Break(end) = walker.table(mode.levels(), mode.root(cr3), 0, Rights::ALL)
    {
        walker.summary.end = end;
    }
    walker.summary
}

struct Walker<'a> {
    mem: &'a dyn GuestMemory,
    mode: PagingMode,
    range: RangeInclusive<VirtAddr>,
    limit: u64,
    visit: &'a mut dyn FnMut(&Mapping) -> ControlFlow<()>,
    summary: WalkSummary,
}

impl Walker<'_> {
    /// Walks one table; `base` is the linear address of its first entry before sign extension.
    fn table(&mut self, level: u8, table: PhysAddr, base: u64, rights: Rights) -> ControlFlow<WalkEnd> {
        self.spend()?;
        self.summary.tables += 1;
        let mode = self.mode;
        let span = entry::span(mode, level);
        let page = match self.mem.page(table) {
            Ok(page) => page,
            Err(source) => {
                self.skip(TranslateError::Memory { vaddr: mode.canonical(base), level, source });
                return ControlFlow::Continue(());
            }
        };
        for i in 0..entry::count(mode, level) {
            let low = base + i * span;
            let vaddr = mode.canonical(low);
            if vaddr > *self.range.end() {
                break;
            }
            if vaddr.0 + (span - 1) < self.range.start().0 {
                continue;
            }
            let entry_addr = table.add(i * entry::size(mode));
            let raw = entry::get(mode, page, entry_addr.offset());
            match entry::decode(mode, level, raw) {
                Entry::Absent => {}
                Entry::Reserved => self.skip(TranslateError::ReservedBit { vaddr, level, entry_addr }),
                Entry::Table(next) => {
                    self.table(level - 1, next, low, rights.and(entry::rights(mode, level, raw)))?;
                }
                Entry::Page(paddr) => {
                    let Rights { writable, user, executable } = rights.and(entry::rights(mode, level, raw));
                    let global = entry::is_global(raw);
                    self.page(&Mapping { vaddr, paddr, size: span, user, writable, executable, global })?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn page(&mut self, mapping: &Mapping) -> ControlFlow<WalkEnd> {
        self.spend()?;
        self.summary.pages += 1;
        (self.visit)(mapping).map_break(|()| WalkEnd::Stopped)
    }

    fn spend(&self) -> ControlFlow<WalkEnd> {
        if self.summary.pages + self.summary.tables < self.limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(WalkEnd::LimitReached)
        }
    }

    fn skip(&mut self, error: TranslateError) {
        self.summary.skipped += 1;
        self.summary.first_skipped.get_or_insert(error);
    }
}

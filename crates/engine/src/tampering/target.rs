//! What a target's kernel may execute, by its own page tables.

use std::ops::ControlFlow;

use machine::paging::{self, DEFAULT_WALK_LIMIT, PagingMode, WalkEnd};
use machine::{GuestMemory, PAGE_SIZE, PhysAddr, VirtAddr};

use super::report::CodeRange;

/// Frames of the target's memory that were compared.
pub type Frames = machine::hash::Set<u64>;

/// A larger executable mapping is one of all memory: its pages are counted, not looked at.
const LARGEST: u64 = 64 << 20;
/// The most pages that are looked at: half a gigabyte of code. Hostile page tables may map one page
/// any number of times.
const MOST: usize = 1 << 17;

/// The target's executable pages for the supervisor.
#[derive(Default)]
pub struct TargetCode {
    /// Linear and physical addresses of pages, ascending.
    pages: Vec<(u64, u64)>,
    /// Mappings of all memory.
    larger: Vec<CodeRange>,
    /// Whether there was more than is looked at.
    pub cut: bool,
}

impl TargetCode {
    /// Walks the page tables at `root`.
    pub fn find(memory: &dyn GuestMemory, mode: PagingMode, root: u64) -> Self {
        let mut found = Self::default();
        let all = VirtAddr(0)..=VirtAddr(u64::MAX);
        let summary = paging::walk(memory, mode, root, all, DEFAULT_WALK_LIMIT, &mut |mapping| {
            if !mapping.user && mapping.executable && mapping.size <= LARGEST {
                let offsets = (0..mapping.size).step_by(PAGE_SIZE as usize);
                found
                    .pages
                    .extend(offsets.map(|at| (mapping.vaddr.0.wrapping_add(at), mapping.paddr.0 + at)));
            } else if !mapping.user && mapping.executable {
                let pages = (mapping.size / PAGE_SIZE) as usize;
                found.larger.push(CodeRange { start: mapping.vaddr.0, pages });
            }
            let full = found.pages.len() > MOST || found.larger.len() > MOST;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found.pages.truncate(MOST);
        found.cut = summary.end != WalkEnd::Complete;
        found
    }

    /// The pages: linear and physical address, ascending.
    pub fn pages(&self) -> &[(u64, u64)] {
        &self.pages
    }

    /// Whether the kernel may execute what is at a linear address.
    pub fn holds(&self, address: u64) -> bool {
        let page = address & !(PAGE_SIZE - 1);
        self.pages.binary_search_by_key(&page, |it| it.0).is_ok()
    }

    /// Where there is code that was not compared, pages without any instruction left out.
    pub fn unknown(&self, memory: &dyn GuestMemory, compared: &Frames) -> Vec<CodeRange> {
        let is_empty = |frame: u64| {
            let page = memory.page(PhysAddr(frame));
            page.is_ok_and(|page| page.iter().all(|byte| lift::is_padding(*byte)))
        };
        let mut ranges: Vec<CodeRange> = Vec::new();
        let others = self.pages.iter().filter(|(_, frame)| !compared.contains(frame) && !is_empty(*frame));
        for &(start, _) in others {
            match ranges.last_mut() {
                Some(last) if last.start.wrapping_add(last.pages as u64 * PAGE_SIZE) == start => {
                    last.pages += 1
                }
                _ => ranges.push(CodeRange { start, pages: 1 }),
            }
        }
        ranges.extend(self.larger.iter().copied());
        ranges
    }
}

//! What a target's kernel may execute, by its own page tables.

use std::ops::ControlFlow;

use machine::paging::{self, DEFAULT_WALK_LIMIT, PagingMode, WalkEnd};
use machine::{GuestMemory, PAGE_SIZE, PhysAddr, VirtAddr};

use super::Frames;

/// A larger executable mapping is one of all memory: its pages are counted, not looked at.
const LARGEST: u64 = 64 << 20;

/// The target's executable pages for the supervisor.
#[derive(Default)]
pub struct TargetCode {
    /// Linear and physical addresses of pages, ascending.
    pages: Vec<(u64, u64)>,
    /// Pages of mappings of all memory, and one if there was more than could be walked.
    rest: usize,
}

impl TargetCode {
    /// Walks the page tables at `root`.
    pub fn find(memory: &dyn GuestMemory, mode: PagingMode, root: u64) -> Self {
        let mut found = Self::default();
        let all = VirtAddr(0)..=VirtAddr(u64::MAX);
        let summary = paging::walk(memory, mode, root, all, DEFAULT_WALK_LIMIT, &mut |mapping| {
            if !mapping.user && mapping.executable && mapping.size <= LARGEST {
                let offsets = (0..mapping.size).step_by(PAGE_SIZE as usize);
                found.pages.extend(offsets.map(|at| (mapping.vaddr.0.wrapping_add(at), mapping.paddr.0 + at)));
            } else if !mapping.user && mapping.executable {
                found.rest += (mapping.size / PAGE_SIZE) as usize;
            }
            ControlFlow::Continue(())
        });
        found.rest += usize::from(summary.end != WalkEnd::Complete);
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

    /// How many pages were not compared, apart from those in which no instruction is.
    pub fn unknown(&self, memory: &dyn GuestMemory, compared: &Frames) -> usize {
        let is_empty = |frame: u64| {
            let page = memory.page(PhysAddr(frame));
            page.is_ok_and(|page| page.iter().all(|byte| lift::is_padding(*byte)))
        };
        let others = self.pages.iter().filter(|(_, frame)| !compared.contains(frame));
        others.filter(|(_, frame)| !is_empty(*frame)).count() + self.rest
    }
}

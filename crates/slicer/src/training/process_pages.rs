//! What a program holds of the training process: its pages, and room for run-time allocations.

use ir::program::{PageContent, UserPage};
use machine::{PAGE_SIZE, VirtAddr};
use rustc_hash::FxHashSet;

use super::address_space::AddressSpace;
use crate::filter::Retained;
use crate::recording::Recording;

/// Bytes left free between the process's highest page near its code and run-time allocations.
const HEAP_GAP: u64 = 256 << 20;

/// Pages at least this many bytes from the process's code are not around it.
const NEAR: u64 = 1 << 30;

/// All pages of the process, those it gained after the begin mark included, ascending.
#[must_use]
pub fn process_pages(recording: &Recording, space: &AddressSpace<'_>, retained: &Retained) -> Vec<UserPage> {
    let mut pages: Vec<UserPage> = Vec::new();
    for &page in space.user.keys() {
        let content = match space.shared.get(&page) {
            Some(alias) => PageContent::Kernel(alias.0),
            None => {
                let bytes = space.read(page, PAGE_SIZE as usize);
                if bytes.len() != PAGE_SIZE as usize {
                    continue;
                }
                content(bytes)
            }
        };
        pages.push(UserPage { addr: page.0, content });
    }
    for (&page, late) in &retained.late_pages {
        let alias = space.shown(recording, page, late);
        let content =
            alias.map_or_else(|| content(late.content.to_vec()), |alias| PageContent::Kernel(alias.0));
        pages.push(UserPage { addr: page.0, content });
    }
    // Output buffers may lie on pages that training never touched.
    let present: FxHashSet<u64> = pages.iter().map(|page| page.addr).collect();
    let mut missing = FxHashSet::default();
    for variable in &recording.trace.header().variables {
        let (start, end) = (variable.addr.page().0, variable.addr.0.saturating_add(variable.size));
        missing.extend((start..end).step_by(PAGE_SIZE as usize).filter(|page| !present.contains(page)));
    }
    pages.extend(missing.into_iter().map(|addr| UserPage { addr, content: PageContent::Zero }));
    pages.sort_unstable_by_key(|page| page.addr);
    pages.dedup_by_key(|page| page.addr);
    pages
}

fn content(bytes: Vec<u8>) -> PageContent {
    if bytes.iter().all(|&byte| byte == 0) { PageContent::Zero } else { PageContent::Bytes(bytes) }
}

/// The address where run-time allocations begin: above the pages around the process's code, in
/// which `begin` lies.
#[must_use]
pub fn heap(pages: &[UserPage], begin: VirtAddr) -> u64 {
    let near = pages.iter().map(|page| page.addr).filter(|addr| addr.abs_diff(begin.0) < NEAR).max();
    let behind = near.unwrap_or(begin.page().0) + PAGE_SIZE;
    let start = behind + HEAP_GAP;
    let above = pages.iter().map(|page| page.addr).find(|&addr| addr >= start);
    match above {
        Some(next) if next - start < HEAP_GAP => behind,
        _ => start,
    }
}

//! Last writers of memory, by guest-physical byte.
//!
//! Physical bytes, because one page is often mapped twice. A user page that is moved to another
//! frame (copy on write) takes its writers along.

use machine::{PAGE_SIZE, PhysAddr, VirtAddr, hash};

use super::definer::PackedDefiner;
use crate::recording::replay::MemRef;

type Writers = [PackedDefiner; PAGE_SIZE as usize];

/// Who stored each byte last.
#[derive(Default)]
pub struct ShadowMemory {
    frames: hash::Map<PhysAddr, Box<Writers>>,
    /// The frame in which each page of the process was last seen.
    user_frames: hash::Map<VirtAddr, PhysAddr>,
}

impl ShadowMemory {
    /// Who stored a byte last.
    #[must_use]
    pub fn writer(&self, at: PhysAddr) -> PackedDefiner {
        self.writers(at.page()).map_or(PackedDefiner::INITIAL, |frame| frame[at.offset() as usize])
    }

    /// The writers of a frame; `None` if nobody stored into it.
    #[must_use]
    pub fn writers(&self, frame: PhysAddr) -> Option<&Writers> {
        self.frames.get(&frame).map(|frame| &**frame)
    }

    /// Notes who stored a byte.
    pub fn set(&mut self, at: PhysAddr, writer: PackedDefiner) {
        let new = || Box::new([PackedDefiner::INITIAL; PAGE_SIZE as usize]);
        self.frames.entry(at.page()).or_insert_with(new)[at.offset() as usize] = writer;
    }

    /// Follows user pages that an access shows into new frames.
    pub fn follow(&mut self, mem: &MemRef) {
        for (page, frame) in mem.pages() {
            if let Some(old) = self.user_frames.insert(page, frame)
                && old != frame
                && let Some(writers) = self.frames.get(&old).cloned()
            {
                self.frames.insert(frame, writers);
            }
        }
    }

    /// The frame of a user page as known so far; if none is known, `frame` from now on.
    pub fn frame_or(&mut self, page: VirtAddr, frame: PhysAddr) -> PhysAddr {
        *self.user_frames.entry(page).or_insert(frame)
    }

    /// The physical address of a byte of the process that was accessed.
    #[must_use]
    pub fn user_byte(&self, vaddr: VirtAddr) -> Option<PhysAddr> {
        self.user_frames.get(&vaddr.page()).map(|frame| frame.add(vaddr.offset()))
    }
}

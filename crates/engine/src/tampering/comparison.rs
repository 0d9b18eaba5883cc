//! A target beside its training system: which addresses of both belong together.

use std::ops::Range;

use ir::System;
use machine::GuestMemory;

use super::target::TargetCode;
use crate::loaded::{Fetched, Loaded};
use crate::relocate::Relocation;

/// A target, and what is trusted of it.
pub struct Comparison<'c> {
    /// The training system.
    pub system: &'c System,
    /// The target's memory.
    pub memory: &'c dyn GuestMemory,
    /// Where the training system's images are in the target.
    pub relocation: Relocation<'c>,
    /// What the target may execute.
    pub code: TargetCode,
    /// The modules that the target has loaded and training had not, where the pack has any.
    pub loaded: Option<Loaded<'c>>,
    /// The stretch of trusted code that has the interrupt handlers: whatever is there in the target
    /// is compared.
    pub kernel: Range<u64>,
}

/// The contiguous code in which most interrupt gates lead; all of it where no gates are known.
fn kernel(system: &System) -> Range<u64> {
    let gates = &system.relocations().gates;
    let mut stretches: Vec<Range<u64>> = Vec::new();
    for (address, page) in system.iter() {
        let end = address.saturating_add(page.len() as u64);
        match stretches.last_mut() {
            Some(last) if last.end == address => last.end = end,
            _ => stretches.push(address..end),
        }
    }
    if gates.is_empty() {
        return 0..u64::MAX;
    }
    let count = |it: &Range<u64>| gates.iter().filter(|gate| it.contains(&gate.1)).count();
    stretches.into_iter().max_by_key(count).unwrap_or(0..0)
}

/// Whether addresses have 64 bits.
pub fn wide(relocation: &Relocation<'_>) -> bool {
    relocation.mode().linear_bits() > 32
}

impl<'c> Comparison<'c> {
    /// `relocation` is a program's of that system. Modules are not looked for yet.
    pub fn new(system: &'c System, memory: &'c dyn GuestMemory, relocation: &Relocation<'_>) -> Self {
        let code = TargetCode::find(memory, relocation.mode(), relocation.root());
        let relocated = relocation.system(system);
        Self { system, memory, relocation: relocated, code, loaded: None, kernel: kernel(system) }
    }
}

impl Comparison<'_> {
    /// The image that an address of the training system lies in or beside.
    pub fn image(&self, address: u64) -> Option<usize> {
        self.system.integrity().image(address).or_else(|| self.relocation.table().image(address))
    }

    /// Where something of the training system is in the target, if it lies in an image that is
    /// there.
    pub fn moved(&self, address: u64) -> Option<u64> {
        let slide = self.relocation.slide_of(self.image(address)?)?;
        Some(address.wrapping_add(slide))
    }

    /// The training system's address of trusted code that the target has at an address; of a module
    /// that training had not loaded, the target's.
    pub fn trusted(&self, address: u64) -> Option<u64> {
        let held = |address: u64| self.system.has_code(address);
        let table = self.relocation.table();
        let from_image = |image: usize| {
            let here = address.wrapping_sub(self.relocation.slide_of(image)?);
            (table.images[image].holds(here) && held(here)).then_some(here)
        };
        (0..table.images.len())
            .find_map(from_image)
            .or_else(|| (table.image(address).is_none() && held(address)).then_some(address))
            .or_else(|| self.loaded.as_ref()?.holds(address).then_some(address))
    }

    /// Trusted code at an address of the target, as it should be there; nothing where there is
    /// none.
    pub fn trusted_code(&self, address: u64, count: usize) -> Vec<u8> {
        // Of a module its file says more than what training had of it.
        if let Some(loaded) = self.loaded.as_ref().filter(|loaded| loaded.holds(address)) {
            return match loaded.fetch(address, count, self.relocation.deadline()) {
                Fetched::Code(code) => code,
                Fetched::Nothing | Fetched::Late => Vec::new(),
            };
        }
        let Some(trained) = self.trusted(address) else { return Vec::new() };
        self.relocation.trusted(self.system, trained, count, self.memory)
    }

    /// The address by which a report names one of the target's code.
    pub fn reported(&self, address: u64) -> u64 {
        self.trusted(address).unwrap_or(address)
    }
}

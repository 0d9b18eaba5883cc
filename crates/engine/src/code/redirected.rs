//! Pointers in read-only data that led to trusted code in training, and lead to other code in the
//! target: redirected, as who wants to change what a system call or a file's operation does
//! redirects them.
//!
//! A run never executes the code that they lead to. It could end there; but what the table held is
//! known as well as the code is, so a run may have the trusted pointers back and answer as the
//! kernel itself would. That is done where a run came to such code, and is always reported.
//!
//! A pointer counts as redirected if the target's kernel may execute what it points to, and no
//! trusted code is there, of an image or of a module whose file is known. One that leads to other
//! trusted code may be the kernel's own choice, one that leads nowhere is no code's: both stay.

use ir::integrity::{DataPage, number};
use ir::{Program, System};
use machine::paging;
use machine::{GuestMemory, VirtAddr};

use crate::limits::Deadline;
use crate::loaded::{Fetched, Loaded};
use crate::outcome::Stopped;
use crate::overlay::Overlay;
use crate::per_cpu::Tables;
use crate::relocate::Relocation;
use crate::variables::Inputs;

/// The most that are restored: more is no kernel of training's.
const MOST: usize = 4096;

/// A redirected pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Redirected {
    /// Where it is in the target.
    pub address: u64,
    /// The same in the training system.
    pub trained: u64,
    /// What it is without the change.
    pub trusted: u64,
    /// Its size in bytes.
    pub size: usize,
}

/// What a run is given beside the target.
#[derive(Clone, Copy)]
pub(crate) struct Given<'i> {
    pub inputs: &'i Inputs,
    /// Pointers of the target that it has as training knows them.
    pub restored: &'i [Redirected],
}

/// Gives a run of a program these pointers as training knows them.
///
/// # Errors
/// [`Stopped`] where one cannot be written: the run has too few pages for it.
pub(crate) fn restore(
    restored: &[Redirected],
    program: &Program,
    overlay: &mut Overlay<'_>,
) -> Result<(), Stopped> {
    restored.iter().try_for_each(|it| {
        let written = overlay.overwrite(VirtAddr(it.address), &it.trusted.to_le_bytes()[..it.size]);
        written.map_err(|fault| Stopped::access(program.begin_pc, it.address, &fault))
    })
}

/// Where redirected pointers are looked for.
pub(super) struct Search<'k, 's> {
    pub system: &'s System,
    pub memory: &'s dyn GuestMemory,
    pub relocation: &'k Relocation<'s>,
    pub loaded: Option<&'k Loaded<'s>>,
    pub deadline: Deadline,
}

impl Search<'_, '_> {
    /// All of them, ascending by training's address.
    pub fn all(&self) -> Vec<Redirected> {
        let tables = self.relocation.tables(self.memory);
        let size = self.relocation.word_bytes();
        let mut found = Vec::new();
        for (&addr, page) in &self.system.integrity().data {
            if found.len() < MOST && !self.deadline.is_over() {
                self.page((addr, page), tables, size, &mut found);
            }
        }
        found.truncate(MOST);
        found
    }

    fn page(
        &self,
        (addr, page): (u64, &DataPage),
        tables: Tables<'_>,
        size: usize,
        found: &mut Vec<Redirected>,
    ) {
        let Some(slide) = self.relocation.slide_of(page.image.into()) else { return };
        let to = addr.wrapping_add(slide);
        let Some(theirs) = tables.place(to).and_then(|place| self.memory.page(place.page()).ok()) else {
            return;
        };
        let words = page.bytes.chunks_exact(size).zip(theirs.chunks_exact(size)).enumerate();
        for (at, (mine, theirs)) in words.filter(|(_, (mine, theirs))| mine != theirs) {
            let (at, trained, theirs) = ((at * size) as u64, number(mine), number(theirs));
            let trusted = self.relocation.to_target(trained);
            if theirs != trusted
                && self.system.has_code(trained)
                && !self.system.integrity().is_number(addr + at, mine)
                && self.is_foreign(theirs, tables)
            {
                found.push(Redirected { address: to + at, trained: addr + at, trusted, size });
            }
        }
    }

    /// Whether the target's kernel may execute what is at an address, and that is not trusted.
    fn is_foreign(&self, address: u64, tables: Tables<'_>) -> bool {
        let mapped = paging::translate(self.memory, tables.mode, tables.root, VirtAddr(address));
        let trusted = || {
            let held = self.relocation.to_training(address).is_some_and(|it| self.system.has_code(it));
            let loaded = |it: &Loaded<'_>| matches!(it.fetch(address, 1, self.deadline), Fetched::Code(_));
            held || self.loaded.is_some_and(loaded)
        };
        mapped.is_ok_and(|it| it.executable && !it.user) && !trusted()
    }
}

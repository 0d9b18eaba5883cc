//! The trusted kernel code as it is in one target.
//!
//! It depends on nothing but the companion file, where its images are in the target, and what the
//! target's own kernel wrote into its code before the pause: all of it is the same for every run
//! over that target, in any order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ir::System;
use ir::relocation::FixupKind;
use machine::GuestMemory;

use super::departures::Departures;
use super::redirected::{Redirected, Search};
use crate::counter::Known;
use crate::limits::Deadline;
use crate::loaded::{Fetched, Loaded, Space};
use crate::relocate::Relocation;

/// The most bytes of an instruction (SDM vol. 2 section 2.3.11).
pub(super) const INSN_BYTES: usize = 15;
/// How many bytes are read at once: more than most blocks have.
const WINDOW: usize = 96;
/// How long decisions are that nobody lists: a jump far away, and one nearby; the longest first.
const DECISIONS: [usize; 2] = [5, 2];

/// The trusted kernel code as it is in one target.
pub(crate) struct Kernel<'s> {
    system: &'s System,
    memory: &'s dyn GuestMemory,
    /// The mode of its code.
    mode: lift::Mode,
    /// Where the companion file's first image is.
    first: Relocation<'s>,
    /// Where all of them are, once a run reached one.
    all: Mutex<Option<Arc<Relocation<'s>>>>,
    /// What the kernel has loaded since, as far as the companion file knows it.
    loaded: Option<Loaded<'s>>,
    /// The pointers that lead elsewhere than to its code, once a run came to where one leads.
    redirected: OnceLock<Vec<Redirected>>,
    /// Decisions, by the training system's address, that the target has otherwise
    /// ([`Kernel::note`]).
    overruled: Mutex<BTreeSet<u64>>,
    /// Code that read clocks which answers have as of the last reading, and those readings. All
    /// later runs have the first ones: what is answered is as of one moment.
    clocks: Mutex<(BTreeSet<u64>, Known)>,
}

/// Bytes of code, and what was looked at to tell them. What a run executes next is often near.
#[derive(Default)]
pub(crate) struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// What the target has there, where it was asked.
    theirs: Option<Vec<Option<u8>>>,
    /// Whether modules were looked for.
    pub modules: bool,
    /// Whether bytes are among them that the target's kernel wrote.
    pub patched: bool,
}

impl<'s> Kernel<'s> {
    /// The code in a companion file; `program` is the relocation of a program that was made in its
    /// system.
    pub fn new(system: &'s System, memory: &'s dyn GuestMemory, program: &Relocation<'_>) -> Self {
        let space = Space { tables: program.tables(memory), slide: program.slide() };
        let mode = space.code();
        let loaded = system.modules().map(|modules| Loaded::new(modules, space));
        Self {
            system,
            memory,
            mode,
            first: program.system(system),
            all: Mutex::default(),
            loaded,
            redirected: OnceLock::new(),
            overruled: Mutex::default(),
            clocks: Mutex::default(),
        }
    }

    /// Whether the code that it has is in a file of which a piece is damaged.
    pub fn damage(&self) -> Option<ir::FileError> {
        self.system.damage()
    }

    /// Where all images are. They are looked for once; `None` if the time was over before they were
    /// found, and then the next run looks again.
    fn all(&self, deadline: Deadline) -> Option<Arc<Relocation<'s>>> {
        // Who comes while another run looks for them waits for the result.
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*all {
            return Some(Arc::clone(found));
        }
        let mut found = self.first.until(deadline);
        found.find_modules(self.system, self.memory);
        (!found.is_late()).then(|| Arc::clone(all.insert(Arc::new(found))))
    }

    /// The address by which a report names one of the target: the training system's, if it has that
    /// code. `modules` says whether the run reached code outside of the kernel's own image.
    pub fn reported(&self, address: u64, modules: bool) -> u64 {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.as_ref().filter(|_| modules).map_or(&self.first, |all| all).reported(address)
    }

    /// The pointers of the target's read-only data that lead elsewhere than to trusted code. They
    /// are looked for once; none if the time is over before, and then the next run looks again.
    pub fn redirected(&self, deadline: Deadline) -> &[Redirected] {
        if let Some(found) = self.redirected.get() {
            return found;
        }
        let Some(all) = self.all(deadline) else { return &[] };
        let loaded = self.loaded.as_ref();
        let search = Search { system: self.system, memory: self.memory, relocation: &all, loaded, deadline };
        let found = search.all();
        if deadline.is_over() { &[] } else { self.redirected.get_or_init(|| found) }
    }

    /// Of what object the code at an address is that the target has otherwise than trusted, in
    /// words.
    pub fn object_at(&self, address: u64) -> Option<String> {
        let (name, sections) = self.loaded.as_ref()?.object_at(address)?;
        Some(format!(
            ": in {name}, whose code lies at {}, there are other bytes there than in its file",
            sections
                .iter()
                .map(|it| format!("{:#x} to {:#x}", it.start, it.end))
                .collect::<Vec<_>>()
                .join(" and ")
        ))
    }

    /// Code bytes at an address of the target: up to 15, fewer at the end of what is known. `None`
    /// if the time is over.
    pub fn fetch<'w>(&self, pc: u64, window: &'w mut Window, deadline: Deadline) -> Option<&'w [u8]> {
        let wanted = |window: &Window| {
            let at = usize::try_from(pc.checked_sub(window.start)?).ok()?;
            // The window may end where the code does, which is found out by the next.
            (at.checked_add(INSN_BYTES)? <= window.bytes.len()).then_some(at)
        };
        let at = match wanted(window) {
            Some(at) => at,
            None => {
                self.read(pc, window, deadline)?;
                0
            }
        };
        let rest = window.bytes.get(at..).unwrap_or(&[]);
        Some(&rest[..rest.len().min(INSN_BYTES)])
    }

    /// Makes the window begin at `pc`.
    fn read(&self, pc: u64, window: &mut Window, deadline: Deadline) -> Option<()> {
        let table = self.first.table();
        let in_kernel = |address: &u64| table.images.first().is_some_and(|image| image.holds(*address));
        let from = self.first.to_training(pc).filter(in_kernel);
        *window = Window { start: pc, ..Window::default() };
        // What reaches in from before counts, and what is read beyond the end.
        let fixups = |from: u64| table.fixups_in(from, from.saturating_add((WINDOW + 2 * INSN_BYTES) as u64));
        // The kernel's own code may have addresses of modules.
        let of_modules = |from: u64| {
            let other = |image: Option<u16>| image.is_some_and(|image| image != 0);
            fixups(from).any(|fixup| match fixup.kind {
                FixupKind::Moves { plus, minus } => other(plus) || other(minus),
                FixupKind::Patched | FixupKind::Either { .. } => false,
            })
        };
        let (from, relocation) = match from {
            Some(from) if !of_modules(from) => (from, None),
            _ => {
                window.modules = true;
                if from.is_none()
                    && let Some(loaded) = &self.loaded
                {
                    match loaded.fetch(pc, WINDOW, deadline) {
                        Fetched::Code(bytes) => {
                            window.bytes = bytes;
                            return Some(());
                        }
                        Fetched::Late => return None,
                        Fetched::Nothing => {}
                    }
                }
                let all = self.all(deadline)?;
                let Some(from) = all.to_training(pc) else { return Some(()) };
                (from, Some(all))
            }
        };
        let written = |kind| matches!(kind, FixupKind::Patched | FixupKind::Either { .. });
        window.patched = fixups(from).any(|fixup| written(fixup.kind));
        let relocation = relocation.as_deref().unwrap_or(&self.first);
        // An instruction that begins in the window lies where its beginning does.
        let count = relocation.steady(pc, from).min(WINDOW as u64) as usize + INSN_BYTES - 1;
        // A place that the system writes may reach beyond the window.
        let sites = self.system.decisions(from, from.saturating_add(count as u64));
        let reach = sites.map(|site| site.address.saturating_add(site.len.into()).saturating_sub(from));
        let longer = reach.max().map_or(count, |reach| count.max(reach as usize));
        window.bytes = relocation.trusted(self.system, from, longer, self.memory);
        window.patched |= self.decide(from, &mut window.bytes, relocation);
        window.bytes.truncate(count);
        Some(())
    }

    /// Gives `bytes`, the code at an address of the training system, the target's decisions: where
    /// the system's tables list a place, and both the code there and the target's form of it are a
    /// jump or nothing, the target's, if it is one that they list. Whether there are such places.
    fn decide(&self, from: u64, bytes: &mut [u8], relocation: &Relocation<'_>) -> bool {
        let (mode, mut any) = (self.mode, false);
        for site in self.system.decisions(from, from.saturating_add(bytes.len() as u64)) {
            // What begins before is not executed from its beginning.
            let Some(at) = site.address.checked_sub(from).map(|at| at as usize) else { continue };
            let Some(mine) = bytes.get_mut(at..at + usize::from(site.len)) else { continue };
            let Some(decided) = lift::decision(mode, mine) else { continue };
            any = true;
            let theirs = relocation.bytes(self.memory, site.address, mine.len());
            let Some(theirs) = theirs.into_iter().collect::<Option<Vec<u8>>>() else { continue };
            let listed = || site.forms().any(|form| lift::is_form(mode, form, &theirs));
            if lift::decision(mode, &theirs).is_some_and(|it| it != decided) && listed() {
                mine.copy_from_slice(&theirs);
            }
        }
        any
    }

    /// Notes whether an instruction, the code at an address of the target which the window has, is
    /// a decision that the target's kernel made otherwise, and nothing says that it may: a run
    /// follows training's.
    pub fn note(&self, pc: u64, window: &mut Window) {
        let in_kernel =
            |address: &u64| self.first.table().images.first().is_some_and(|it| it.holds(*address));
        let Some(trained) = self.first.to_training(pc).filter(in_kernel) else { return };
        let Window { start, bytes, theirs, .. } = window;
        let at = pc.wrapping_sub(*start);
        let theirs = theirs
            .get_or_insert_with(|| self.first.bytes(self.memory, trained.wrapping_sub(at), bytes.len()));
        let (Some(mine), Some(theirs)) = (bytes.get(at as usize..), theirs.get(at as usize..)) else {
            return;
        };
        let mine = &mine[..mine.len().min(DECISIONS[0])];
        // Nearly all of the code is as trusted.
        if mine.iter().zip(theirs).all(|(mine, theirs)| Some(*mine) == *theirs) {
            return;
        }
        let overrules = |length: usize| {
            let decided = lift::decision(self.mode, mine.get(..length)?)?;
            let theirs: Vec<u8> = theirs[..length].iter().copied().collect::<Option<_>>()?;
            lift::decision(self.mode, &theirs).filter(|it| *it != decided)
        };
        if DECISIONS.into_iter().any(|length| overrules(length).is_some()) {
            self.overruled.lock().unwrap_or_else(PoisonError::into_inner).insert(trained);
        }
    }

    /// Notes that an answer has the clock which code at an address reads as of the last reading,
    /// and what it took for known.
    pub fn note_clock(&self, at: u64, last: Known) {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.0.insert(at);
        for (mine, last) in clocks.1.iter_mut().zip(last) {
            *mine = mine.or(last);
        }
    }

    /// The last readings of clocks that earlier runs had.
    pub fn last_readings(&self) -> Known {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Where runs over the target did not follow it.
    pub fn departures(&self) -> Departures {
        let overruled = self.overruled.lock().unwrap_or_else(PoisonError::into_inner);
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        Departures {
            restored: self.redirected.get().into_iter().flatten().map(|it| it.trained).collect(),
            overruled: overruled.iter().copied().collect(),
            clocks: clocks.0.iter().copied().collect(),
        }
    }
}

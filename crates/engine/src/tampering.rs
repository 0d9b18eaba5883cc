//! Compares the target's kernel code with the trusted copy of it.
//!
//! Answers never depend on the target's code; this report tells whether somebody changed it.
//! Kernels change their own code too. A *switch* is a no-operation that became a jump to code
//! nearby, or the reverse, or a direct call or jump that got another target; a *trace point* is a
//! no-operation that became a call, or the reverse; a *lock* is a lock prefix that was put in or
//! taken out. All jumps and calls among them lead to code of the trusted copy. What leads
//! elsewhere, or is anything else, is *foreign*. Regions that hold other code altogether (modules
//! loaded elsewhere) are counted and not compared. Nothing is known of any one system: the forms
//! are those of the instruction set.
//!
//! Page tables without an execute-disable bit do not tell code from data. Of a page that the kernel
//! may write in such a system only the instructions that the program itself was made from are
//! compared.

use ir::{Program, System};
use machine::paging;
use machine::{GuestMemory, PAGE_SIZE, Page, Reg, VirtAddr};
use serde::Serialize;

use crate::relocate::Relocation;

/// How far a switch may lead, in bytes: within one function and its cold part.
const NEAR: u64 = 1 << 20;
/// `CR4.PAE` and `EFER.NXE`: both are needed for the execute-disable bit (SDM vol. 3 section 4.6).
const CR4_PAE: u64 = 1 << 5;
const EFER_NXE: u64 = 1 << 11;
/// Unequal bytes at most this many bytes apart are one difference.
const GAP: usize = 8;

/// What a difference looks like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A no-operation and a jump nearby, either way, or a direct jump or call with another target
    /// in the trusted copy.
    Switch,
    /// A no-operation and a call into the trusted copy, either way.
    TracePoint,
    /// A lock prefix and a prefix without effect, either way: kernels need no locks on one
    /// processor.
    Lock,
    /// Anything else.
    Foreign,
}

/// A stretch of code that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Its address in the training system.
    pub address: u64,
    /// What it looks like.
    pub change: Change,
    /// The trusted bytes.
    pub trusted: Vec<u8>,
    /// The target's bytes.
    pub found: Vec<u8>,
    /// Where the target's instruction there leads, if it is a direct jump or call: the training
    /// system's address where training has that code, else the target's.
    pub leads_to: Option<u64>,
}

/// What a comparison found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Tampering {
    /// Pages of 4 KiB that were compared.
    pub pages: usize,
    /// Pages that may hold data: only the program's own instructions in them were compared.
    pub unclear: usize,
    /// Pages that are not mapped for the supervisor, or not in the target's memory.
    pub absent: usize,
    /// Pages where the target has other code altogether.
    pub other: usize,
    /// The differences, ascending by address.
    pub differences: Vec<Difference>,
}

impl Tampering {
    /// The differences that no self-patching explains.
    pub fn foreign(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|it| it.change == Change::Foreign)
    }
}

/// Contiguous pages of the trusted copy, and what the target has there.
#[derive(Default)]
struct Region {
    pages: Vec<CodePage>,
}

/// A page of code.
struct CodePage {
    /// Its address in the training system.
    address: VirtAddr,
    /// The trusted copy, with its fixups applied for this target.
    trusted: Vec<u8>,
    /// What the target has; `None` if it is not there.
    found: Option<Page>,
}

/// Whether the program's training system used the execute-disable bit, which tells code from data.
/// It is taken to have done so if the program does not hold the registers.
fn tells_code(program: &Program) -> bool {
    let has = |reg: Reg, bit: u64| {
        program
            .registers
            .iter()
            .find(|(number, _)| *number == reg as u16)
            .is_none_or(|(_, value)| value & bit != 0)
    };
    has(Reg::Cr4, CR4_PAE) && has(Reg::Efer, EFER_NXE)
}

/// Overwrites the trusted copy of the page at `address` with what was found, except for the
/// program's instructions, so that only they can differ.
fn only_instructions(program: &Program, address: VirtAddr, trusted: &mut [u8], found: &Page) {
    let mut known = [false; PAGE_SIZE as usize];
    for range in &program.code {
        for at in range.addr..range.addr.saturating_add(range.bytes.len() as u64) {
            if let Some(known) = at.checked_sub(address.0).and_then(|at| known.get_mut(at as usize)) {
                *known = true;
            }
        }
    }
    for (byte, (found, _)) in trusted.iter_mut().zip(found.iter().zip(known)).filter(|it| !it.1.1) {
        *byte = *found;
    }
}

/// Compares all code of a training system with what a target has of it. `program` was made in that
/// system; `relocation` is the system's in the target, with its modules found.
#[must_use]
pub fn compare(
    program: &Program,
    system: &System,
    memory: &dyn GuestMemory,
    relocation: &Relocation<'_>,
) -> Tampering {
    let tells_code = tells_code(program);
    let mut report = Tampering::default();
    let mut region = Region::default();
    for (address, trusted) in system.iter().map(|(address, trusted)| (VirtAddr(address), trusted)) {
        if region.pages.last().is_some_and(|last| last.address.add(PAGE_SIZE) != address) {
            report.region(system, relocation, &std::mem::take(&mut region));
        }
        let mut trusted = if relocation.moves() {
            relocation.trusted(system, address.0, PAGE_SIZE as usize, memory)
        } else {
            trusted.to_vec()
        };
        let there = VirtAddr(relocation.to_target(address.0));
        let mapped = paging::translate(memory, relocation.mode(), relocation.root(), there);
        let mapped = mapped.ok().filter(|found| !found.user);
        let found = mapped.and_then(|found| memory.page(found.paddr.page()).ok().copied());
        if let (false, Some(found)) = (tells_code || mapped.is_none_or(|found| !found.writable), &found) {
            only_instructions(program, address, &mut trusted, found);
            report.unclear += 1;
        }
        region.pages.push(CodePage { address, trusted, found });
    }
    report.region(system, relocation, &region);
    report
}

impl Tampering {
    /// Adds what a region shows.
    fn region(&mut self, system: &System, relocation: &Relocation<'_>, region: &Region) {
        self.absent += region.pages.iter().filter(|page| page.found.is_none()).count();
        let (mut equal, mut all) = (0usize, 0usize);
        for CodePage { trusted, found, .. } in &region.pages {
            for (a, b) in trusted
                .iter()
                .zip(found.iter().flatten())
                .filter(|(a, b)| !lift::is_padding(**a) || !lift::is_padding(**b))
            {
                equal += usize::from(a == b);
                all += 1;
            }
        }
        if equal * 2 < all {
            // This is not the same code with changes, but other code, or none.
            self.other += region.pages.iter().filter(|page| page.found.is_some()).count();
            return;
        }
        let (mut start, mut trusted, mut found) = (0, Vec::new(), Vec::new());
        for CodePage { address, trusted: page, found: copy } in &region.pages {
            let Some(copy) = copy else {
                self.stretch(
                    system,
                    relocation,
                    start,
                    &std::mem::take(&mut trusted),
                    &std::mem::take(&mut found),
                );
                continue;
            };
            if trusted.is_empty() {
                start = address.0;
            }
            self.pages += 1;
            trusted.extend_from_slice(page);
            found.extend_from_slice(copy);
        }
        self.stretch(system, relocation, start, &trusted, &found);
    }

    /// Adds the differences of a contiguous stretch of code that begins at `start`.
    fn stretch(
        &mut self,
        system: &System,
        relocation: &Relocation<'_>,
        start: u64,
        trusted: &[u8],
        found: &[u8],
    ) {
        let mut at = 0;
        while let Some(first) = (at..trusted.len()).find(|&at| trusted[at] != found[at]) {
            let (mut last, mut next) = (first, first + 1);
            while next < trusted.len() && next - last <= GAP {
                if trusted[next] != found[next] {
                    last = next;
                }
                next += 1;
            }
            at = last + 1;
            let form = patch(system, start, trusted, found, first, last);
            let (from, to, change, leads_to) = form.unwrap_or((first, last + 1, Change::Foreign, None));
            let address = start + from as u64;
            let slide = relocation.to_target(address).wrapping_sub(address);
            let leads_to = leads_to
                .or_else(|| target(&found[from..], address))
                .map(|to| relocation.reported(to.wrapping_add(slide)));
            self.differences.push(Difference {
                address,
                change,
                trusted: trusted[from..to].to_vec(),
                found: found[from..to].to_vec(),
                leads_to,
            });
        }
    }
}

/// Recognises a patch that covers the unequal bytes `first..=last`: where it begins and ends, what
/// it is, and where it leads.
fn patch(
    system: &System,
    start: u64,
    trusted: &[u8],
    found: &[u8],
    first: usize,
    last: usize,
) -> Option<(usize, usize, Change, Option<u64>)> {
    let mut foreign = None;
    let lock = |at: usize| matches!((trusted[at], found[at]), (0xf0, 0x3e) | (0x3e, 0xf0));
    if (first..=last).all(|at| trusted[at] == found[at] || lock(at)) {
        return Some((first, last + 1, Change::Lock, None));
    }
    for length in [5usize, 2] {
        for from in first.saturating_sub(length - 1)..=first {
            let to = from + length;
            if to <= last || to > trusted.len() {
                continue;
            }
            let address = start + from as u64;
            let (Some(old), Some(new)) = (form(&trusted[from..to], address), form(&found[from..to], address))
            else {
                continue;
            };
            let inside = |target: u64| system.page(VirtAddr(target).page().0).is_some();
            let near = |target: u64| inside(target) && target.abs_diff(address) < NEAR;
            let change = match (old, new) {
                (Form::Nothing, Form::Jump(to)) | (Form::Jump(to), Form::Nothing) if near(to) => {
                    Change::Switch
                }
                (Form::Nothing, Form::Call(to)) | (Form::Call(to), Form::Nothing) if inside(to) => {
                    Change::TracePoint
                }
                (Form::Call(_), Form::Call(to)) | (Form::Jump(_), Form::Jump(to)) if inside(to) => {
                    Change::Switch
                }
                _ => {
                    // Both are such instructions, but the change is not one of these, or leads too
                    // far or out of the trusted code.
                    foreign = foreign.or(Some((from, to, Change::Foreign, target(&found[from..], address))));
                    continue;
                }
            };
            return Some((from, to, change, target(&found[from..], address)));
        }
    }
    foreign
}

/// The instructions that kernels patch in place.
#[derive(Clone, Copy)]
enum Form {
    /// A no-operation.
    Nothing,
    /// A direct jump to this address.
    Jump(u64),
    /// A direct call of this address.
    Call(u64),
}

/// The form of exactly these bytes at `address` (SDM vol. 2: NOP, JMP, CALL); `None` for any other
/// instruction.
fn form(bytes: &[u8], address: u64) -> Option<Form> {
    match bytes {
        [0x0f, 0x1f, 0x44, 0x00, 0x00] | [0x66, 0x90] => Some(Form::Nothing),
        [0xe8, ..] if bytes.len() == 5 => target(bytes, address).map(Form::Call),
        [0xe9, ..] if bytes.len() == 5 => target(bytes, address).map(Form::Jump),
        // A short jump may be followed by padding.
        [0xeb, _] | [0xeb, _, 0x0f, 0x1f, 0x00] => target(bytes, address).map(Form::Jump),
        _ => None,
    }
}

/// Where a direct jump or call at the beginning of `bytes` leads.
fn target(bytes: &[u8], address: u64) -> Option<u64> {
    match bytes {
        [0xe8 | 0xe9, a, b, c, d, ..] => {
            let distance = i64::from(i32::from_le_bytes([*a, *b, *c, *d]));
            Some(address.wrapping_add(5).wrapping_add_signed(distance))
        }
        [0xeb, distance, ..] => {
            Some(address.wrapping_add(2).wrapping_add_signed(i64::from(distance.cast_signed())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_ffff_8100_0000;

    fn changes(edit: impl Fn(&mut [u8])) -> Vec<(u64, Change)> {
        let mut page = [0x55; 4096];
        page[100..105].copy_from_slice(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
        page[200..205].copy_from_slice(&[0xe8, 1, 0, 0, 0]);
        page[300..302].copy_from_slice(&[0x66, 0x90]);
        page[401] = 0xf0;
        let mut system = System::default();
        system.insert(BASE, &page);
        let mut found = page;
        edit(&mut found);
        let mut report = Tampering::default();
        let relocation = Relocation::unmoved(system.relocations());
        report.region(
            &system,
            &relocation,
            &Region {
                pages: vec![CodePage { address: VirtAddr(BASE), trusted: page.to_vec(), found: Some(found) }],
            },
        );
        report.differences.iter().map(|it| (it.address - BASE, it.change)).collect()
    }

    #[test]
    fn self_patching_is_told_from_the_rest() {
        assert_eq!(changes(|_| {}), []);
        assert_eq!(
            changes(|page| page[100..105].copy_from_slice(&[0xe9, 9, 0, 0, 0])),
            [(100, Change::Switch)]
        );
        assert_eq!(
            changes(|page| page[100..105].copy_from_slice(&[0xe8, 9, 0, 0, 0])),
            [(100, Change::TracePoint)]
        );
        assert_eq!(
            changes(|page| page[200..205].copy_from_slice(&[0xe8, 9, 0, 0, 0])),
            [(200, Change::Switch)]
        );
        assert_eq!(changes(|page| page[300..302].copy_from_slice(&[0xeb, 9])), [(300, Change::Switch)]);
        // Out of the trusted copy: the first five bytes of a hook.
        assert_eq!(
            changes(|page| page[100..105].copy_from_slice(&[0xe9, 0, 0, 1, 0])),
            [(100, Change::Foreign)]
        );
        assert_eq!(
            changes(|page| page[200..205].copy_from_slice(&[0xe8, 0, 0, 1, 0])),
            [(200, Change::Foreign)]
        );
        assert_eq!(
            changes(|page| page[100..105].copy_from_slice(&[0xeb, 9, 0x0f, 0x1f, 0])),
            [(100, Change::Switch)]
        );
        assert_eq!(changes(|page| page[401] = 0x3e), [(401, Change::Lock)]);
        assert_eq!(changes(|page| page[50] = 0xcc), [(50, Change::Foreign)]);
    }

    #[test]
    fn of_unclear_pages_only_instructions_count() {
        let code = vec![ir::program::CodeRange { addr: 0xc000_0ffe, bytes: vec![0x55; 4] }];
        let mut program = ir::text::parse_program("program \"test\"", Reg::NAMES).unwrap();
        (program.code, program.registers) =
            (code, vec![(Reg::Cr4 as u16, CR4_PAE), (Reg::Efer as u16, EFER_NXE)]);
        assert!(tells_code(&program));
        program.registers = vec![(Reg::Cr4 as u16, 0x10), (Reg::Efer as u16, 0)];
        assert!(!tells_code(&program));
        program.registers.clear();
        assert!(tells_code(&program));
        let (mut first, mut second) = (vec![0x55; 4096], vec![0x55; 4096]);
        only_instructions(&program, VirtAddr(0xc000_0000), &mut first, &[7; 4096]);
        only_instructions(&program, VirtAddr(0xc000_1000), &mut second, &[7; 4096]);
        assert_eq!((first[4093], first[4094], second[1], second[2]), (7, 0x55, 0x55, 7));
    }

    #[test]
    fn other_code_is_not_compared() {
        let mut system = System::default();
        system.insert(BASE, &[0x55; 4096]);
        let relocation = Relocation::unmoved(system.relocations());
        let page = |found| Region {
            pages: vec![CodePage { address: VirtAddr(BASE), trusted: vec![0x55; 4096], found }],
        };
        let mut report = Tampering::default();
        report.region(&system, &relocation, &page(Some([0; 4096])));
        assert_eq!((report.pages, report.other, report.differences.len()), (0, 1, 0));
        let mut report = Tampering::default();
        report.region(&system, &relocation, &page(None));
        assert_eq!((report.absent, report.other), (1, 0));
    }
}

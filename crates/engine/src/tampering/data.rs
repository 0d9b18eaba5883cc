//! Read-only data: tables of pointers to code, and everything else that nobody writes.
//!
//! A page that two boots show alike, and that is as in the system's image, is nobody's to write,
//! and any difference in it is foreign. In others each boot writes something of its own; what must
//! hold there is that what led to trusted code leads to the same, and that what led to no code
//! still does not.

use ir::integrity::{DataPage, differing_words, number};
use machine::paging;
use machine::{PAGE_SIZE, VirtAddr};

use super::comparison::Comparison;
use super::report::{Change, Difference, Place, Tampering};
use super::sorted::Data;

/// How far from a module what it had while it was loaded may have been, in bytes.
const NEAR: u64 = 64 << 20;

/// Contiguous pages of data of one image.
struct Run<'r> {
    start: u64,
    image: usize,
    pages: Vec<&'r DataPage>,
}

impl Comparison<'_> {
    /// Compares the data of all images that are in the target.
    pub(super) fn compare_data(&self, report: &mut Tampering) {
        let mut runs: Vec<Run<'_>> = Vec::new();
        for (&addr, page) in &self.system.integrity().data {
            let image = usize::from(page.image);
            match runs.last_mut() {
                Some(last)
                    if last.start + last.pages.len() as u64 * PAGE_SIZE == addr && last.image == image =>
                {
                    last.pages.push(page);
                }
                _ => runs.push(Run { start: addr, image, pages: vec![page] }),
            }
        }
        report.uncompared.no_data = !runs.iter().any(|run| run.image == 0);
        for run in &runs {
            match self.relocation.slide_of(run.image) {
                Some(slide) => self.compare_run(run, slide, report),
                None => report.missing += run.pages.len(),
            }
        }
    }

    fn compare_run(&self, run: &Run<'_>, slide: u64, report: &mut Tampering) {
        let mine: Vec<u8> = run.pages.iter().flat_map(|page| page.bytes.iter().copied()).collect();
        let to = run.start.wrapping_add(slide);
        let (mode, root) = (self.relocation.mode(), self.relocation.root());
        let found = paging::read_mapped(self.memory, mode, root, VirtAddr(to), mine.len());
        let page_bytes = PAGE_SIZE as usize;
        let absent = found.chunks(page_bytes).filter(|page| page[0].is_none()).count();
        report.data += run.pages.len() - absent;
        report.uncompared.absent += absent;
        // What is not there was counted.
        let found: Vec<u8> = found.iter().zip(&mine).map(|(found, mine)| found.unwrap_or(*mine)).collect();
        let size = self.relocation.word_bytes();
        let integrity = self.system.integrity();
        let is_number =
            |at: usize| integrity.is_number(run.start + at as u64, &mine[at..(at + size).min(mine.len())]);
        let mut words =
            differing_words((run.start, &mine), (to, &found), size, &|at| self.moved(at), &is_number);
        if run.image != 0 && !words.is_empty() {
            let own = |address: u64| self.moved(address).filter(|_| self.is_own(run, address));
            let data = Data {
                at: [run.start, to],
                bytes: [&mine, &found],
                word: size,
                moved: &own,
                freed: &|address| self.may_be_freed(run, address),
            };
            let same = data.same();
            words.retain(|&at| {
                let mut differing = (at..at + size).filter(|at| mine[*at] != found[*at]).peekable();
                let explained = differing.peek().is_some() && differing.all(|at| same[at]);
                !explained && !same[at..at + size].iter().all(|it| *it)
            });
        }
        let freed = self.freed(run, &mine, &found, &words);
        report.varying += freed.iter().filter(|it| **it == Some(true)).count();
        report.uncompared.words += freed.iter().filter(|it| **it == Some(false)).count();
        for at in words.into_iter().zip(freed).filter(|(_, freed)| freed.is_none()).map(|(at, _)| at) {
            let page = run.pages[at / page_bytes];
            self.word(run.start + at as u64, &mine[at..at + size], &found[at..at + size], page, report);
        }
    }

    /// Whether an address is the module's own or the kernel's.
    fn is_own(&self, run: &Run<'_>, address: u64) -> bool {
        self.image(address).is_some_and(|image| image == 0 || image == run.image)
    }

    /// Whether what is at an address of the training system may have been the module's only while
    /// it was loaded.
    fn may_be_freed(&self, run: &Run<'_>, address: u64) -> bool {
        address.abs_diff(run.start) < NEAR && !self.is_own(run, address)
    }

    /// For each word that differs, whether it names memory that is neither the module's nor the
    /// kernel's: what a module had only while it was loaded, and what lay there was freed. Then
    /// whether another such word of the module moved alike. What the kernel's own data names is
    /// never freed.
    fn freed(&self, run: &Run<'_>, mine: &[u8], found: &[u8], words: &[usize]) -> Vec<Option<bool>> {
        if run.image == 0 {
            return vec![None; words.len()];
        }
        let named: Vec<Vec<u64>> = words.iter().map(|&at| self.distances(run, mine, found, at)).collect();
        let mut words_by = machine::hash::Map::<u64, usize>::default();
        named.iter().flatten().for_each(|distance| *words_by.entry(*distance).or_default() += 1);
        let alike = |distance: &u64| words_by.get(distance).is_some_and(|words| *words > 1);
        let size = self.relocation.word_bytes();
        let judged = |(&at, distances): (&usize, &Vec<u64>)| {
            // What was not moved is as good as where it was.
            let still = mine[at..at + size] == found[at..at + size];
            (still || !distances.is_empty()).then(|| still || distances.iter().any(alike))
        };
        words.iter().zip(&named).map(judged).collect()
    }

    /// By how many bytes an address that a word holds, or part of one, may have moved, if it names
    /// memory that is neither the module's nor the kernel's: whole pages.
    fn distances(&self, run: &Run<'_>, mine: &[u8], found: &[u8], at: usize) -> Vec<u64> {
        let size = self.relocation.word_bytes();
        let slide = self.relocation.slide_of(run.image).unwrap_or(0);
        let outside = |address: u64| self.may_be_freed(run, address);
        let differs = |start: usize, size: usize| {
            let end = (start + size).min(at + 8).min(mine.len());
            (start.max(at)..end).any(|byte| mine[byte] != found[byte])
        };
        let mut distances = Vec::new();
        // A pointer to what is the module's or the kernel's is one.
        if self.is_own(run, number(&mine[at..at + size])) {
            return distances;
        }
        let mut add = |from: u64, to: u64| {
            let distance = to.wrapping_sub(from);
            if outside(from) && distance != 0 && distance.is_multiple_of(PAGE_SIZE) {
                distances.push(distance);
            }
        };
        for start in at.saturating_sub(size - 1)..at + size {
            if let Some((mine, found)) = mine.get(start..start + size).zip(found.get(start..start + size))
                && differs(start, size)
            {
                add(number(mine), number(found));
            }
        }
        // Tables of distances are packed, but not at odd addresses.
        for start in (at.saturating_sub(2)..at + size).step_by(2) {
            if let Some((mine, found)) = mine.get(start..start + 4).zip(found.get(start..start + 4))
                && differs(start, 4)
            {
                let from = run.start.wrapping_add(start as u64);
                let distance = |bytes: &[u8]| number(bytes) as u32 as i32 as i64 as u64;
                let to = from.wrapping_add(slide).wrapping_add(distance(found));
                add(from.wrapping_add(distance(mine)), to);
            }
        }
        // A word counts once.
        distances.sort_unstable();
        distances.dedup();
        distances
    }

    /// Whether the system writes a page of its data before it makes it read-only.
    fn is_written(&self, address: u64) -> bool {
        let page = address & !(PAGE_SIZE - 1);
        self.system.modules().is_some_and(|it| it.own().written.binary_search(&page).is_ok())
    }

    /// Whether nothing of the system lies where bytes of a word of its data differ.
    fn is_unused(&self, address: u64, mine: &[u8], found: &[u8]) -> bool {
        let differs = |at: &usize| mine[*at] != found[*at];
        let Some(first) = (0..mine.len()).find(differs) else { return false };
        let end = (0..mine.len()).rfind(differs).map_or(first, |last| last + 1);
        let (start, end) = (address + first as u64, address + end as u64);
        self.system.modules().is_some_and(|it| it.own().is_unused(start, end))
    }

    /// Whether a number that training shows to vary, `trained` there, is also in the system's
    /// read-only data, and the target has the same `found` there.
    pub(super) fn is_also_data(&self, trained: u64, found: u64) -> bool {
        let integrity = self.system.integrity();
        let (mode, root) = (self.relocation.mode(), self.relocation.root());
        integrity.variants.iter().any(|variant| {
            let page = variant.addr & !(PAGE_SIZE - 1);
            let bytes = integrity.data.get(&page).map(|data| &data.bytes[(variant.addr - page) as usize..]);
            let Some(word) = bytes.and_then(|bytes| bytes.get(..variant.bytes.len())) else { return false };
            number(word) == trained
                && self.moved(variant.addr).is_some_and(|at| {
                    let there = paging::read_mapped(self.memory, mode, root, VirtAddr(at), word.len());
                    let there: Option<Vec<u8>> = there.into_iter().collect();
                    there.is_some_and(|bytes| number(&bytes) == found)
                })
        })
    }

    /// Adds what a word of data that differs shows.
    fn word(&self, address: u64, mine: &[u8], found: &[u8], page: &DataPage, report: &mut Tampering) {
        let integrity = self.system.integrity();
        let (trusted, value) = (number(mine), number(found));
        let variant = integrity.variants_in(address, address + 1).find(|it| it.addr == address);
        let is = |bytes: &[u8]| {
            bytes == found
                || bytes != mine
                    && self.moved(number(bytes)).is_some_and(|it| found == &it.to_le_bytes()[..bytes.len()])
        };
        let is_number = integrity.is_number(address, mine);
        let to_code = |value: u64| !is_number && self.system.has_code(value);
        let leads = self.code.holds(value);
        let steady = page.steady && !self.is_written(address);
        // What is the address of a page in every boot is one here, whatever lies there.
        let is_page = |it: u64| it != 0 && it.is_multiple_of(PAGE_SIZE);
        let pages = is_page(trusted) && variant.is_some_and(|it| is_page(number(&it.bytes)));
        // What moved with a module may have done so because that lay behind it in both boots.
        let outside = self.image(trusted).is_some_and(|image| image != 0 && page.image == 0);
        let beside = is_page(trusted) && variant.is_none() && outside && integrity.boots > 1;
        let to_page = is_page(value) && self.trusted(value).is_none();
        let unused = !leads && self.is_unused(address, mine, found);
        if unused || pages && to_page {
            report.varying += 1;
            return;
        }
        let change = if variant.is_some_and(|it| is(&it.bytes)) {
            Change::Variant
        } else if beside && to_page {
            Change::Value
        } else if to_code(trusted) {
            // One boot shows one form of every place.
            let among_trusted = integrity.boots > 1 && !steady && self.trusted(value).is_some();
            if among_trusted { Change::Value } else { Change::Foreign }
        } else if leads || steady {
            Change::Foreign
        } else if integrity.boots < 2 {
            report.uncompared.words += 1;
            return;
        } else if variant.is_some() && !is_number {
            report.varying += 1;
            return;
        } else {
            Change::Value
        };
        let expected = self
            .moved(trusted)
            .filter(|_| !is_number)
            .map_or(mine.to_vec(), |it| it.to_le_bytes()[..mine.len()].to_vec());
        report.differences.push(Difference {
            address,
            place: Place::Data,
            change,
            trusted: expected,
            found: found.to_vec(),
            leads_to: leads.then(|| self.reported(value)),
        });
    }
}

//! Damaged and hostile targets: page tables that go round, holes in RAM, dumps cut off or with
//! flipped bits. No test needs QEMU.
//!
//! Every run must end within its limits, as counted and not as timed. Where something is only
//! missing or refused, the answer is the right one or there is none. Where memory was made to say
//! something else, as by tables that lead elsewhere, a run can only be held to its limits; none of
//! the cases here has an answer that differs, and the tests keep it so.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod case;
#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use case::{Failure, case, frames, listed, options, processors, recording};
use engine::{Environment, Limits, Outcome, Run, SliceProgram, WholeProgram};
use machine::memory::ZERO_PAGE;
use machine::paging::{self, PagingMode};
use machine::{GuestMemory, MemoryError, Page, PhysAddr, Reg, RegFile, Target, TargetOptions, VirtAddr};
use slicer::{Policy, Start};
use support::Folder;

/// Enough for the undamaged case, with room.
const LIMITS: Limits = Limits {
    fuel: 3_000_000,
    pages: 1024,
    depth: 256,
    time: std::time::Duration::from_secs(60),
    machine_code: true,
};

/// Memory that can be damaged, and counts how often it is asked.
#[derive(Default)]
struct Ram {
    pages: BTreeMap<u64, Box<Page>>,
    /// RAM ends here; below it pages that are not listed are zero.
    zeros: u64,
    /// Pages that are not there.
    gone: BTreeSet<u64>,
    /// Nothing from here on is there.
    above: Option<u64>,
    reads: AtomicU64,
}

impl Clone for Ram {
    fn clone(&self) -> Self {
        let Self { pages, zeros, gone, above, .. } = self;
        Self {
            pages: pages.clone(),
            zeros: *zeros,
            gone: gone.clone(),
            above: *above,
            reads: AtomicU64::new(0),
        }
    }
}

impl GuestMemory for Ram {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let page = addr.page().0;
        if self.gone.contains(&page) || self.above.is_some_and(|end| page >= end) {
            return Err(MemoryError::Absent(addr));
        }
        match self.pages.get(&page) {
            Some(bytes) => Ok(bytes),
            None if page < self.zeros => Ok(&ZERO_PAGE),
            None => Err(MemoryError::Hole(addr)),
        }
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.pages.keys().map(|&start| PhysAddr(start)..PhysAddr(start + 4096)).collect()
    }
}

impl Ram {
    fn entries(&self, table: u64) -> Vec<u64> {
        let bytes = self.pages.get(&table).map_or(&ZERO_PAGE[..], |page| &page[..]);
        bytes
            .chunks_exact(8)
            .map(|entry| entry.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte)))
            .collect()
    }

    fn set(&mut self, table: u64, index: usize, entry: u64) {
        let page = self.pages.entry(table).or_insert_with(|| Box::new(ZERO_PAGE));
        page[8 * index..8 * index + 8].copy_from_slice(&entry.to_le_bytes());
    }

    /// The tables below a root by level: 4 is the root.
    fn tables(&self, root: u64) -> [BTreeSet<u64>; 5] {
        let mut tables: [BTreeSet<u64>; 5] = Default::default();
        tables[4].insert(root);
        for level in (2..=4).rev() {
            for table in tables[level].clone() {
                let entries = self.entries(table);
                let lower = entries.iter().filter(|&&entry| entry & 0x81 == 1).map(|entry| entry & ADDRESS);
                tables[level - 1].extend(lower.filter(|table| self.pages.contains_key(table)));
            }
        }
        tables
    }
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Runs: the outcome where the run could begin, and what it used.
type Ask<'p> = dyn Fn(&Run<'_>) -> (Option<Outcome>, u64) + 'p;

/// A way to run, and what it answers where nothing is damaged.
struct Scene<'p> {
    memory: Ram,
    regs: RegFile,
    truth: Vec<u64>,
    ask: Box<Ask<'p>>,
}

impl Scene<'_> {
    /// Runs over this memory, within the limits; the PIDs, where there are any.
    fn answer(&self, memory: &Ram, regs: &RegFile) -> Option<Vec<u64>> {
        let before = memory.reads.load(Ordering::Relaxed);
        let run = Run { memory, regs, env: Environment::default(), limits: LIMITS };
        let (outcome, used) = (self.ask)(&run);
        // One block past the limit; instructions that leave no operation count once a block.
        assert!(used <= LIMITS.fuel + 4096, "{used} operations");
        let reads = memory.reads.load(Ordering::Relaxed) - before;
        // An operation needs two pages at most, each of them five steps of translation; the
        // comparison of code comes on top.
        assert!(reads <= 10 * used + 1_000_000, "{reads} pages read for {used} operations");
        match outcome? {
            Outcome::Stopped(_) => None,
            outcome => Some(listed(&outcome)),
        }
    }

    /// The same, where the answer may be missing and not wrong. Whether there was one.
    #[track_caller]
    fn right_or_none(&self, memory: &Ram, what: &str) -> bool {
        let answer = self.answer(memory, &self.regs);
        assert!(answer.as_ref().is_none_or(|pids| *pids == self.truth), "{what}: {answer:?}");
        answer.is_some()
    }
}

/// Calls `test` with a slice over another guest, and with a whole run over the training guest's
/// memory.
fn scenes(test: &dyn Fn(&str, &Scene<'_>)) -> Result<(), Failure> {
    let case = case(Policy::Guard, false)?;
    let slice = SliceProgram::new(&case.built.program)?;
    let mut memory = Ram::default();
    for (addr, bytes) in frames()? {
        memory.pages.insert(addr, Box::new(bytes.as_slice().try_into()?));
    }
    let ask = |run: &Run<'_>| {
        slice.run(run, &Vec::new()).map_or((None, 0), |(outcome, used)| (Some(outcome), used))
    };
    test("slice", &Scene { memory, regs: case.regs.clone(), truth: case.pids.clone(), ask: Box::new(ask) });

    let recording = recording()?;
    let start = Start::new(&recording)?;
    let program = start.program(&options(Policy::Guard)?);
    let mut memory = Ram::default();
    for page in recording.trace.snapshot().pages() {
        let (addr, bytes) = page?;
        memory.pages.insert(addr.0, Box::new(bytes));
    }
    memory.zeros =
        recording.trace.header().ram_ranges.iter().map(|range| range.start.0 + range.size).max().unwrap_or(0);
    let ask = |run: &Run<'_>| {
        let ended = WholeProgram::new(&program, start.system()).run(run, &Vec::new());
        ended.map_or((None, 0), |(outcome, report)| (Some(outcome), report.instructions))
    };
    let mut scene = Scene { memory, regs: start.registers().clone(), truth: Vec::new(), ask: Box::new(ask) };
    scene.truth =
        scene.answer(&scene.memory, &scene.regs).ok_or("the whole run answers over its own memory")?;
    assert!(scene.truth.len() > 50, "{:?}", scene.truth);
    test("whole", &scene);
    Ok(())
}

/// What is done to every present entry of the tables of one level: `(entry, its table, the root)`.
type Change = fn(u64, u64, u64) -> u64;

/// Changes of entries.
const CHANGES: &[(&str, Change)] = &[
    ("leads to its own table", |entry, table, _| table | entry & !ADDRESS & !0x80),
    ("leads to the root", |entry, _, root| root | entry & !ADDRESS & !0x80),
    ("is a large page", |entry, _, _| entry | 0x80),
    ("is a large page of everything", |entry, _, _| entry & !ADDRESS | 0x80),
    ("leads into a hole", |entry, _, _| entry & !ADDRESS | 0x7_ffff_f000),
    ("leads past all physical addresses", |entry, _, _| entry | ADDRESS),
    ("is all ones", |_, _, _| u64::MAX),
    ("is absent", |entry, _, _| entry & !1),
];

#[test]
fn page_tables_that_go_round_or_lead_nowhere() -> Result<(), Failure> {
    scenes(&|way, scene| {
        let root = scene.regs.get_or_zero(Reg::Cr3) & ADDRESS;
        let tables = scene.memory.tables(root);
        assert!(tables[1..].iter().all(|tables| !tables.is_empty()), "four levels: {tables:?}");
        let mut stopped = 0;
        for (level, tables) in tables.iter().enumerate().skip(1) {
            for (name, change) in CHANGES {
                let mut memory = scene.memory.clone();
                for &table in tables {
                    for (index, entry) in scene.memory.entries(table).into_iter().enumerate() {
                        if entry & 1 != 0 {
                            memory.set(table, index, change(entry, table, root));
                        }
                    }
                }
                stopped +=
                    usize::from(!scene.right_or_none(&memory, &format!("{way}: level {level} {name}")));
                bounded_walk(&memory, &scene.regs);
            }
            let mut memory = scene.memory.clone();
            memory.gone = tables.clone();
            stopped +=
                usize::from(!scene.right_or_none(&memory, &format!("{way}: level {level} tables are gone")));
            bounded_walk(&memory, &scene.regs);
        }
        assert!(stopped > 20, "{way}: {stopped}");
        // One entry of the root at a time leads to the root: a self-reference as Windows has one.
        for (index, entry) in
            scene.memory.entries(root).into_iter().enumerate().filter(|(_, entry)| entry & 1 != 0)
        {
            let mut memory = scene.memory.clone();
            memory.set(root, index, root | entry & !ADDRESS);
            scene.right_or_none(&memory, &format!("{way}: entry {index} is the root"));
            bounded_walk(&memory, &scene.regs);
        }
    })
}

/// Enumerating what such tables map has its budget too.
fn bounded_walk(memory: &Ram, regs: &RegFile) {
    let mode = PagingMode::from_regs(regs).expect("a mode");
    let all = VirtAddr(0)..=VirtAddr(u64::MAX);
    let root = regs.get_or_zero(Reg::Cr3);
    let summary = paging::walk(memory, mode, root, all, 20_000, &mut |_| ControlFlow::Continue(()));
    assert!(summary.pages + summary.tables <= 20_000, "{summary:?}");
}

#[test]
fn a_root_that_is_no_table() -> Result<(), Failure> {
    scenes(&|way, scene| {
        let frames: Vec<u64> = scene.memory.pages.keys().copied().collect();
        let roots =
            frames.iter().step_by(frames.len() / 8).copied().chain([0, 0xfff, 1 << 40, ADDRESS, u64::MAX]);
        for root in roots.filter(|root| root & ADDRESS != scene.regs.get_or_zero(Reg::Cr3) & ADDRESS) {
            let mut regs = scene.regs.clone();
            regs.set(Reg::Cr3, root);
            assert_eq!(scene.answer(&scene.memory, &regs), None, "{way}: {root:#x} is the root of no tables");
        }
    })
}

#[test]
fn holes_in_ram() -> Result<(), Failure> {
    scenes(&|way, scene| {
        let frames: Vec<u64> = scene.memory.pages.keys().copied().collect();
        let (mut answered, mut stopped) = (0, 0);
        let mut damage = |what: String, hurt: &dyn Fn(&mut Ram)| {
            let mut memory = scene.memory.clone();
            hurt(&mut memory);
            if scene.right_or_none(&memory, &what) { answered += 1 } else { stopped += 1 }
        };
        for (every, skip) in [(2, 0), (2, 1), (3, 0), (7, 3), (31, 11), (101, 50)] {
            let gone: BTreeSet<u64> = frames.iter().skip(skip).step_by(every).copied().collect();
            damage(format!("{way}: every {every}th page is gone"), &|memory| memory.gone = gone.clone());
        }
        for &end in frames.iter().step_by(frames.len() / 12) {
            damage(format!("{way}: nothing from {end:#x} on"), &|memory| memory.above = Some(end));
        }
        for &frame in frames.iter().skip(5).step_by(frames.len() / 60) {
            damage(format!("{way}: {frame:#x} is gone"), &|memory| memory.gone.extend([frame]));
        }
        assert!(stopped > 20, "{way}: {stopped} stopped, {answered} answered");
        // Pages that nothing needs may be missing.
        assert!(way == "slice" || answered > 0, "{way}: {stopped} stopped, {answered} answered");
    })
}

/// A dump in a file, nearly all of it a hole.
struct Dump {
    file: File,
    len: u64,
}

impl Dump {
    fn new(path: &Path, header: &[u8], at: impl Fn(u64) -> Option<u64>, len: u64) -> Result<Self, Failure> {
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        file.set_len(len)?;
        file.write_all_at(header, 0)?;
        for (addr, bytes) in frames()? {
            file.write_all_at(&bytes, at(addr).ok_or("a frame outside RAM")?)?;
        }
        Ok(Self { file, len })
    }
}

/// The end of the guest's RAM.
const RAM: u64 = 192 << 20;
/// Where an ELF core's first segment begins in the file.
const FIRST: u64 = 0x1000;
/// The hole below 1 MiB.
const LEGACY: Range<u64> = 0xa_0000..0x10_0000;
/// Bytes of the ELF headers and the processor's note.
const HEADERS: usize = 64 + 3 * 56 + 460;

/// The headers of an ELF core as QEMU's `dump-guest-memory` writes it: a note for the processor,
/// and RAM in two segments.
fn elf_headers(regs: &RegFile) -> Vec<u8> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let halves = |halves: &[u32]| halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>();
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
    out.extend(words(&[0, 64, 0]));
    out.extend([0, 0, 0, 0, 64, 0, 56, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let mut segment = |kind: u32, offset: u64, start: u64, size: u64| {
        out.extend(halves(&[kind, 0]));
        out.extend(words(&[offset, 0, start, size, size, 0]));
    };
    segment(4, 64 + 3 * 56, 0, 460);
    segment(1, FIRST, 0, LEGACY.start);
    segment(1, FIRST + LEGACY.start, LEGACY.end, RAM - LEGACY.end);
    out.extend(halves(&[5, 440, 0]));
    out.extend(b"QEMU\0\0\0\0");
    out.extend(halves(&[1, 440]));
    // arch_dump.c of QEMU: general registers, RIP, RFLAGS, ten segments, CR0 to CR4, the kernel's
    // GS base.
    let order = [0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15].map(Reg::gpr);
    out.extend(words(&order.map(|reg| regs.get_or_zero(reg))));
    out.extend(words(&[regs.get_or_zero(Reg::Rip), 2]));
    let segment = |selector, limit, flags, base| {
        let number = |reg: Option<Reg>| reg.map_or(0, |reg| regs.get_or_zero(reg));
        let head = halves(&[selector, Some(limit), flags, None].map(|reg| number(reg) as u32));
        [head, words(&[regs.get_or_zero(base)])].concat()
    };
    use Reg as R;
    out.extend(segment(Some(R::Cs), R::CsLimit, Some(R::CsFlags), R::CsBase));
    out.extend([0; 4 * 24]);
    out[64 + 3 * 56 + 20 + 8 + 18 * 8 + 4 * 24..].copy_from_slice(&segment(
        Some(R::Gs),
        R::GsLimit,
        None,
        R::GsBase,
    ));
    out.extend([0; 2 * 24]);
    out.extend(segment(Some(R::Tr), R::TrLimit, Some(R::TrFlags), R::TrBase));
    out.extend(segment(None, R::GdtrLimit, None, R::GdtrBase));
    out.extend(segment(None, R::IdtrLimit, None, R::IdtrBase));
    out.extend(words(
        &[R::Cr0, R::Cr8, R::Cr2, R::Cr3, R::Cr4, R::KernelGsBase].map(|reg| regs.get_or_zero(reg)),
    ));
    out
}

/// Bytes of the core.
const CORE: u64 = FIRST + RAM - (LEGACY.end - LEGACY.start);

/// Where a physical address lies in the core.
fn in_core(addr: u64) -> Option<u64> {
    match addr {
        _ if addr < LEGACY.start => Some(FIRST + addr),
        _ if (LEGACY.end..RAM).contains(&addr) => Some(FIRST + addr - LEGACY.end + LEGACY.start),
        _ => None,
    }
}

/// What came of a dump.
#[derive(PartialEq, Eq, Debug)]
enum Came {
    /// It was refused when it was opened.
    Refused,
    /// The run stopped or could not begin.
    Stopped,
    /// The right answer.
    Right,
}

fn come(path: &Path, slice: &SliceProgram<'_>, truth: &[u64]) -> Came {
    let Ok(target) = Target::open(path, &TargetOptions::default()) else { return Came::Refused };
    let Some(cpu) = target.cpus.first() else { return Came::Refused };
    let run = Run { memory: &*target.mem, regs: &cpu.regs, env: Environment::default(), limits: LIMITS };
    match slice.run(&run, &Vec::new()) {
        Err(_) | Ok((Outcome::Stopped(_), _)) => Came::Stopped,
        Ok((outcome, used)) => {
            assert!(used <= LIMITS.fuel && listed(&outcome) == truth, "{outcome:?}");
            Came::Right
        }
    }
}

#[test]
fn a_dump_that_is_cut_off() -> Result<(), Failure> {
    let case = case(Policy::Guard, false)?;
    let slice = SliceProgram::new(&case.built.program)?;
    let folder = Folder::new("cut");
    folder.file("p.prog", case.built.program.to_bytes()?);
    folder.file("cut.raw.cpu.json", processors()?);
    let [raw, elf] = ["cut.raw", "cut.elf"].map(|name| folder.file(name, ""));

    // Every page that a run needs lies before some of these ends and behind others.
    let dump = Dump::new(&raw, &[], Some, RAM)?;
    assert_eq!(come(&raw, &slice, &case.pids), Came::Right);
    let last = frames()?.last().ok_or("frames")?.0 + 4096;
    let mut seen = [0, 0];
    let step = (last / 40) & !4095;
    for end in (0..40).map(|n| last - n * step).chain([4096]) {
        for (len, refused) in [(end + 4095, true), (end + 8, true), (end + 1, true), (end, false)] {
            dump.file.set_len(len)?;
            let came = come(&raw, &slice, &case.pids);
            assert_eq!(came == Came::Refused, refused, "{len:#x}");
            seen[usize::from(came == Came::Right)] += usize::from(!refused);
        }
        if end % (4 * 4096) == 0 {
            check_command(&folder, "cut.raw", &case.pids);
        }
    }
    assert!(seen[0] > 20 && seen[1] > 0, "{seen:?}");

    // An ELF core says how long it is: all of it or nothing.
    let headers = elf_headers(&case.regs);
    assert_eq!(headers.len(), HEADERS);
    let dump = Dump::new(&elf, &headers, in_core, CORE)?;
    assert_eq!(come(&elf, &slice, &case.pids), Came::Right);
    check_command(&folder, "cut.elf", &case.pids);
    let sample = (0..100).map(|n| dump.len - 1 - n * (dump.len / 100));
    for len in sample.chain((0..=HEADERS as u64 + 64).rev()) {
        dump.file.set_len(len)?;
        assert_eq!(come(&elf, &slice, &case.pids), Came::Refused, "{len:#x}");
        if len % 64 == 5 {
            check_command(&folder, "cut.elf", &case.pids);
        }
    }
    Ok(())
}

/// The command gives the right PIDs with code 0, or nothing with a documented code that is not a
/// bug's.
fn check_command(folder: &Folder, target: &str, truth: &[u64]) {
    let ended = folder.virtuoso(&["run", "p.prog", target, "--slice", "--json", "--fuel", "3000000"]);
    if ended.code() == 0 {
        let object: serde_json::Value = serde_json::from_str(&ended.out()).expect("JSON");
        let pids =
            object["outputs"]["pids"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64);
        assert_eq!(pids.collect::<BTreeSet<_>>(), truth.iter().copied().collect());
    } else {
        assert!([1, 20].contains(&ended.code()) || (10..=18).contains(&ended.code()), "{}", ended.err());
        assert!(ended.err().contains("; ") && !ended.err().contains("panicked"), "{}", ended.err());
    }
}

#[test]
fn a_dump_with_flipped_bits_in_its_headers() -> Result<(), Failure> {
    let case = case(Policy::Guard, false)?;
    let slice = SliceProgram::new(&case.built.program)?;
    let folder = Folder::new("flipped");
    folder.file("p.prog", case.built.program.to_bytes()?);
    let path = folder.file("flipped.elf", "");
    let headers = elf_headers(&case.regs);
    let dump = Dump::new(&path, &headers, in_core, CORE)?;
    let mut seen = [0; 3];
    for bit in 0..HEADERS * 8 {
        // A sample that meets every byte; of the processor's registers a thinner one, since most do
        // not matter to a run.
        if bit % if bit / 8 > 64 + 3 * 56 + 28 { 31 } else { 3 } != 0 {
            continue;
        }
        let changed = headers[bit / 8] ^ 1 << (bit % 8);
        dump.file.write_all_at(&[changed], bit as u64 / 8)?;
        seen[come(&path, &slice, &case.pids) as usize] += 1;
        if bit % 293 == 0 {
            check_command(&folder, "flipped.elf", &case.pids);
        }
        dump.file.write_all_at(&headers[bit / 8..=bit / 8], bit as u64 / 8)?;
    }
    assert!(seen.iter().all(|&count| count > 20), "refused, stopped, right: {seen:?}");
    Ok(())
}

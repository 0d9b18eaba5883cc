//! Allocator functions by other conventions than Linux's, without a system that has them: small machine code that calls a heap of its own
//! is executed, written down as a recording, built with and without its allocators being known, and asked with another input.
//!
//! `microsoft64.txt` has arguments in rcx, rdx, r8 and r9; `stdcall.txt` has them on the stack, and the functions take them off, those that
//! allocate and others. `marks.txt` begins and ends in functions, as trainers do that MSVC compiled. Both allocating ones call one function through a jump, as compilers do that do not know that it is imported.

#![forbid(unsafe_code)]

use std::path::Path;

use engine::{Environment, Limits, Outcome, Run, SliceProgram, Value, WholeProgram, parse_inputs};
use ir::program::{PageContent, Program, UserPage};
use ir::{Summary, System};
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile, VirtAddr};
use slicer::{BuildOptions, Recording};
use trace::{Access, Direction, Event, Header, RamRange, Trace, TraceWriter, Variable};
use virtuoso_cli::allocators::of_windows;
use virtuoso_cli::training::{Wishes, record_whole, train};

type Failure = Box<dyn std::error::Error>;

const CODE: u64 = 0x1000;
const SLOTS: usize = 0x200;
const DATA: u64 = 0x3000;
const HEAP: u64 = 0x5000;
const STACK: u64 = 0x8000;
const TABLES: u64 = 0x2_0000;
const RAM: u64 = 0x4_0000;

/// The code page of a listing: address, bytes, a bar, and what they are.
fn code(name: &str, wide: bool) -> Result<Vec<u8>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conventions").join(name);
    let mut page = vec![0; 4096];
    for line in std::fs::read_to_string(path)?.lines().filter(|line| !line.starts_with('#')) {
        let (bytes, _) = line.split_once('|').ok_or("no bar")?;
        let (address, bytes) = bytes.split_once(':').ok_or("no address")?;
        let at = (u64::from_str_radix(address, 16)? - CODE) as usize;
        for (n, byte) in bytes.split_whitespace().enumerate() {
            page[at + n] = u8::from_str_radix(byte, 16)?;
        }
    }
    let word = if wide { 8 } else { 4 };
    for (n, function) in [0x1100u64, 0x1130, 0x1180].into_iter().enumerate() {
        page[SLOTS + n * word..][..word].copy_from_slice(&function.to_le_bytes()[..word]);
    }
    Ok(page)
}

/// A machine in which that page runs: the process has the first sixteen pages, each at its own address.
struct Guest {
    wide: bool,
    pages: Vec<(u64, Vec<u8>)>,
    regs: RegFile,
}

impl Guest {
    fn new(name: &str, wide: bool) -> Result<Self, Failure> {
        let mut data = vec![0; 4096];
        data[..4].copy_from_slice(&1u32.to_le_bytes());
        data[0x20..0x28].copy_from_slice(&HEAP.to_le_bytes());
        let mut pages = vec![(CODE, code(name, wide)?), (DATA, data)];
        // Two registers that a function of marks saved, and where it was called.
        let mut stack = vec![0; 4096];
        stack[0x810..0x818].copy_from_slice(&0x1020u64.to_le_bytes());
        pages.extend([(HEAP, vec![0; 4096]), (STACK, stack)]);
        let entry = |value: u64| value.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec();
        let levels = if wide { 4 } else { 2 };
        for level in 0..levels {
            let table = TABLES + level * 4096;
            let mut bytes: Vec<u8> = if level + 1 < levels {
                entry((table + 4096) | 7)
            } else {
                (0..16u64).flat_map(|page| entry(page << 12 | 7)).collect()
            };
            bytes.resize(4096, 0);
            pages.push((table, bytes));
        }
        let mut regs = RegFile::new();
        (0..16).for_each(|at| regs.set(Reg::gpr(at), 0));
        let (cr4, efer) = if wide { (0x20, 0x500) } else { (0, 0) };
        for (reg, value) in [
            (Reg::Rip, CODE),
            (Reg::Rsp, STACK + 0x800),
            (Reg::Cr0, 0x8000_0011),
            (Reg::Cr3, TABLES),
            (Reg::Cr4, cr4),
            (Reg::Efer, efer),
            (Reg::Cs, 0x33),
            (Reg::GsBase, 0),
            (Reg::KernelGsBase, 1 << 63),
        ] {
            regs.set(reg, value);
        }
        Ok(Self { wide, pages, regs })
    }

    fn memory(&self) -> Mock {
        let mut memory = Mock::new();
        for (addr, bytes) in &self.pages {
            memory.write(PhysAddr(*addr), bytes);
        }
        memory
    }

    fn header(&self) -> Result<Header, Failure> {
        let output = |spec: &str, at: u64| Variable::from_spec(Direction::Output, spec, VirtAddr(DATA + at));
        let ram = RamRange { start: PhysAddr(0), size: RAM };
        Ok(Header {
            program: "heap".into(),
            arch: "x86_64".into(),
            vcpus: 1,
            mode_bits: if self.wide { 64 } else { 32 },
            variables: vec![
                Variable::from_spec(Direction::Input, "n:u32", VirtAddr(DATA))?,
                output("sum:u32", 0x10)?,
                output("in_place:u32", 0x14)?,
                output("freed:u32", 0x18)?,
            ],
            ram_size: RAM,
            ram_ranges: vec![ram],
            ..Header::default()
        })
    }

    /// What an emulator would have recorded: a run of the code as it is, over this machine's memory.
    fn recording(&self) -> Result<Recording, Failure> {
        let process = self.pages.iter().filter(|(addr, _)| *addr < TABLES);
        let program = Program {
            begin_pc: CODE,
            bits: if self.wide { 64 } else { 32 },
            registers: self.regs.known().map(|(reg, value)| (reg as u16, value)).collect(),
            pages: process
                .map(|(addr, bytes)| UserPage { addr: *addr, content: PageContent::Bytes(bytes.clone()) })
                .collect(),
            ..empty()
        };
        let (memory, system) = (self.memory(), System::default());
        let run = Run { memory: &memory, regs: &self.regs, env: Environment::default(), limits: Limits::default() };
        let (outcome, bytes) = record_whole(&self.header()?, &program, &system, &run, &[])?;
        assert!(matches!(outcome, Outcome::Answer(_)), "{outcome:?}");
        let ran = Trace::from_bytes(bytes)?;
        let mut writer = TraceWriter::in_memory(
            Header { recorded: ran.header().recorded.clone(), ..self.header()? },
            self.regs.clone(),
        )?;
        for (addr, bytes) in &self.pages {
            writer.page(PhysAddr(*addr), bytes)?;
        }
        ran.for_each_event(|event| match event {
            Event::Regs(changed) => writer.regs(changed),
            Event::Insn(id) => {
                let insn = &ran.insns()[id.0 as usize];
                let id = writer.insn_id(insn.pc, insn.mode_bits, insn.bytes())?;
                writer.insn(id)
            }
            Event::Access(access) => writer.access(&Access { paddr: PhysAddr(access.vaddr.0), ..*access }),
        })?;
        Ok(Recording::load("heap.trace", Trace::from_bytes(writer.finish_in_memory(None)?)?)?)
    }
}

/// A program with nothing in it.
fn empty() -> Program {
    let text = "program \"heap\"\nfunction f0 0x1000 \"\" {\nb0 @0x1000 - 0x1000:\nend\n}\n";
    ir::text::parse_program(text, Reg::NAMES).expect("a program")
}

/// Builds from one recording in which `n` was 1, and asks with 20, by the slice and by the whole run: each output and whether the slice
/// allocates by itself.
fn ask(guest: &Guest, summaries: &[(u64, &str)]) -> Result<(Vec<(String, Value)>, bool), Failure> {
    let known = |&(address, name): &(u64, &str)| Some((address, of_windows(name, guest.wide)?));
    let summaries: Vec<(u64, Summary)> = summaries.iter().filter_map(known).collect();
    let options = BuildOptions { summaries: summaries.into_iter().collect(), ..BuildOptions::default() };
    let recordings = [guest.recording()?];
    let trained = train(&recordings, &Wishes { options, paused: true, ..Wishes::default() })?;
    let text = ir::text::print_program(&trained.program, Reg::NAMES);
    let memory = guest.memory();
    let run = Run { memory: &memory, regs: &guest.regs, env: Environment::default(), limits: Limits::default() };
    let inputs = parse_inputs(&trained.program, &[("n".into(), "20".into())])?;
    let slice = SliceProgram::new(&trained.program)?.run(&run, &inputs)?.0;
    let whole = WholeProgram::new(&trained.program, &trained.system).run(&run, &inputs)?.0;
    assert_eq!(slice, whole, "{text}");
    let Outcome::Answer(values) = slice else { return Err(format!("{slice:?}\n{text}").into()) };
    let value = |name: &str| Some((name.to_string(), values.get(name)?.clone()));
    Ok((["sum", "in_place", "freed"].into_iter().filter_map(value).collect(), text.contains("alloc.64")))
}

fn expected(sum: u64) -> Vec<(String, Value)> {
    [("sum", sum), ("in_place", 0), ("freed", 1)].map(|(name, value)| (name.into(), Value::Unsigned(value))).into()
}

const HEAP_FUNCTIONS: [(u64, &str); 4] =
    [(0x1100, "HeapAlloc"), (0x1120, "HeapReAlloc"), (0x1130, "HeapReAlloc"), (0x1180, "HeapFree")];

#[test]
fn windows_64() -> Result<(), Failure> {
    let guest = Guest::new("microsoft64.txt", true)?;
    assert_eq!(ask(&guest, &[])?, (expected(40), false));
    assert_eq!(ask(&guest, &HEAP_FUNCTIONS)?, (expected(40), true));
    Ok(())
}

#[test]
fn windows_32() -> Result<(), Failure> {
    let guest = Guest::new("stdcall.txt", false)?;
    assert_eq!(ask(&guest, &[])?, (expected(145), false));
    assert_eq!(ask(&guest, &HEAP_FUNCTIONS)?, (expected(145), true));
    Ok(())
}

#[test]
fn marks_in_functions_of_their_own() -> Result<(), Failure> {
    assert_eq!(ask(&Guest::new("marks.txt", true)?, &[])?, (expected(40), false));
    Ok(())
}

#[test]
fn words_of_the_process_are_read() -> Result<(), Failure> {
    for (name, wide, word) in [("microsoft64.txt", true, 8), ("stdcall.txt", false, 4)] {
        let recording = Guest::new(name, wide)?.recording()?;
        let slot = |n: u64| slicer::process_word(&recording, CODE + SLOTS as u64 + n * word as u64, word);
        assert_eq!((slot(0)?, slot(1)?, slot(2)?), (Some(0x1100), Some(0x1130), Some(0x1180)));
        assert_eq!(slicer::process_word(&recording, 0x9_0000, word)?, None);
    }
    Ok(())
}

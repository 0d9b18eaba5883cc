//! A machine made by hand, in which a page of machine code runs: what it does is written down as an
//! emulator would have recorded it.

use std::path::Path;

use engine::{Environment, Limits, Outcome, Run};
use ir::System;
use ir::program::{PageContent, Program, UserPage};
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile, VirtAddr};
use trace::{Access, Direction, Event, Header, RamRange, Trace, TraceWriter, Variable};
use virtuoso_cli::training::record_whole;

/// Anything that fails a test.
pub type Failure = Box<dyn std::error::Error>;

pub const CODE: u64 = 0x1000;
pub const SLOTS: usize = 0x200;
pub const DATA: u64 = 0x3000;
const HEAP: u64 = 0x5000;
const STACK: u64 = 0x8000;
const TABLES: u64 = 0x8_0000;
const RAM: u64 = 0x10_0000;

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

/// A machine in which that page runs: the process has the first 64 pages, each at its own address.
pub struct Guest {
    /// 64-bit code.
    pub wide: bool,
    /// What its memory holds.
    pub pages: Vec<(u64, Vec<u8>)>,
    /// Its processor.
    pub regs: RegFile,
    /// Inputs and outputs.
    pub variables: Vec<Variable>,
}

impl Guest {
    /// One whose code is a listing in `conventions`.
    pub fn new(name: &str, wide: bool) -> Result<Self, Failure> {
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
                (0..64u64).flat_map(|page| entry(page << 12 | 7)).collect()
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
        let output = |spec: &str, at: u64| Variable::from_spec(Direction::Output, spec, VirtAddr(DATA + at));
        let variables = vec![
            Variable::from_spec(Direction::Input, "n:u32", VirtAddr(DATA))?,
            output("sum:u32", 0x10)?,
            output("in_place:u32", 0x14)?,
            output("freed:u32", 0x18)?,
        ];
        Ok(Self { wide, pages, regs, variables })
    }

    /// Its memory.
    pub fn memory(&self) -> Mock {
        let mut memory = Mock::new();
        for (addr, bytes) in &self.pages {
            memory.write(PhysAddr(*addr), bytes);
        }
        memory
    }

    fn header(&self) -> Header {
        let ram = RamRange { start: PhysAddr(0), size: RAM };
        Header {
            program: "heap".into(),
            arch: "x86_64".into(),
            vcpus: 1,
            mode_bits: if self.wide { 64 } else { 32 },
            variables: self.variables.clone(),
            ram_size: RAM,
            ram_ranges: vec![ram],
            ..Header::default()
        }
    }

    /// What an emulator would have recorded: a run of the code as it is, over this machine's
    /// memory.
    pub fn recording(&self) -> Result<Vec<u8>, Failure> {
        self.recorded(false)
    }

    /// The same, and at its end an interrupt whose handler executes the end mark.
    #[allow(dead_code, reason = "not every test that has this module needs it")]
    pub fn interrupted_recording(&self) -> Result<Vec<u8>, Failure> {
        self.recorded(true)
    }

    fn recorded(&self, interrupted: bool) -> Result<Vec<u8>, Failure> {
        let process = self.pages.iter().filter(|(addr, _)| *addr < TABLES);
        let program = Program {
            begin_pc: self.regs.get_or_zero(Reg::Rip),
            bits: if self.wide { 64 } else { 32 },
            registers: self.regs.known().map(|(reg, value)| (reg as u16, value)).collect(),
            pages: process
                .map(|(addr, bytes)| UserPage { addr: *addr, content: PageContent::Bytes(bytes.clone()) })
                .collect(),
            ..empty()
        };
        let (memory, system) = (self.memory(), System::default());
        let run =
            Run { memory: &memory, regs: &self.regs, env: Environment::default(), limits: Limits::default() };
        let (outcome, bytes) = record_whole(&self.header(), &program, &system, &run, &[])?;
        assert!(matches!(outcome, Outcome::Answer(_)), "{outcome:?}");
        let ran = Trace::from_bytes(bytes)?;
        let mut writer = TraceWriter::in_memory(
            Header { recorded: ran.header().recorded.clone(), ..self.header() },
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
        if interrupted {
            let handler = &ran.insns()[0];
            let id = writer.insn_id(handler.pc, handler.mode_bits, handler.bytes())?;
            writer.insn(id)?;
        }
        Ok(writer.finish_in_memory(None)?)
    }
}

/// A program with nothing in it.
fn empty() -> Program {
    let text = "program \"heap\"\nfunction f0 0x1000 \"\" {\nb0 @0x1000 - 0x1000:\nend\n}\n";
    ir::text::parse_program(text, Reg::NAMES).expect("a program")
}

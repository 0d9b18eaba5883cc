//! A small machine that runs machine code and writes down what it does, as a recorder would.
//!
//! ```text
//! regs rsp=0x7ff8 rdi=0x5000
//! output x:u64 0x5000
//! code 0x1000
//!   48 89 07 | mov %rax,(%rdi)
//! data 0x5000 01 02
//! map 0x6000 to 0x9000                   a page to a frame
//! map 0x6000 to 0x9000 read-only         the same, the process may only read it
//! map 0x6000 to 0x9000 before 0x1003     the same, but not before that instruction
//! interrupt before 0x1003 to 0xffff800000001000
//! fault at 0x1003 to 0xffff800000001000
//! others store 0x5000 7 before 0x1003    another processor or a device does
//! device 0x7000                          a device's registers are on this page
//! garbled at 0x1003                      what this instruction stores is written down wrong
//! allocator 0x2000 malloc
//! idle 0x10 0xffff800000001234           what an idle processor has there above its GS base
//! run 0x1000 to 0x1010
//! another                                the lines that follow are added for one more recording
//! ```
//!
//! `0x1003#2` instead of `0x1003` means its second execution.
//!
//! Code and data are mapped where they are, the system's are those above the middle of the address
//! space. What the processor itself stores when it interrupts is not written down, as QEMU shows it
//! to no recorder.

use ir::summary::{Action, ArgumentLocation, Summary};
use ir::{Class, Kind, Var};
use machine::{PAGE_SIZE, PhysAddr, Reg, RegFile, VirtAddr};
use rustc_hash::FxHashMap;
use trace::{Access, Direction, Header, IdleCell, RamRange, Recorded, Trace, TraceWriter, Variable};

use super::Unusable;
use super::graph::{address, number};
use super::memory::{Memory, RAM, ROOT, SYSTEM, Use};
use crate::error::Error;
use crate::recording::Recording;
use crate::training::start::Start;
use crate::vocabulary::{BuildOptions, Policy, RegisterValues, Temporaries};
use crate::{Form, Stage};

/// Steps at most.
const MAX_STEPS: usize = 10_000;
/// Where the processor's stack for interruptions of the process begins.
const INTERRUPT_STACK: u64 = SYSTEM + 0x2_1000;
/// The process's selector of its code, and the system's.
const CODE_SELECTORS: (u64, u64) = (0x33, 0x10);

/// Something that happens before an instruction is executed.
enum Happening {
    /// The processor goes to a handler.
    Interrupt(VirtAddr),
    /// It begins the instruction, cannot finish it, and goes to a handler.
    Fault(VirtAddr),
    /// A page is mapped to a frame.
    Map(VirtAddr, PhysAddr),
    /// Somebody else stores eight bytes.
    Store(VirtAddr, u64),
}

/// Something that happens before an instruction that was executed so often already.
struct Due {
    pc: VirtAddr,
    executions: u64,
    what: Happening,
}

/// What a case says.
struct Script {
    memory: Memory,
    regs: RegFile,
    code: FxHashMap<VirtAddr, Vec<u8>>,
    variables: Vec<Variable>,
    idle: Vec<IdleCell>,
    summaries: FxHashMap<VirtAddr, Summary>,
    happenings: Vec<Due>,
    devices: Vec<VirtAddr>,
    /// Instructions whose stores are written down wrong.
    garbled: Vec<VirtAddr>,
    from: VirtAddr,
    to: VirtAddr,
}

/// What a stage makes of the recordings.
pub fn answer(lines: &[String], stage: Stage, policy: Policy) -> Result<String, Unusable> {
    ask(lines, policy, |start, recordings, options| {
        crate::dump(start, recordings, options, stage, Form::Text)
    })
}

/// Asks something of the recordings.
pub fn ask(
    lines: &[String],
    policy: Policy,
    question: impl FnOnce(&Start<'_>, &[&Recording], &BuildOptions) -> Result<String, Error>,
) -> Result<String, Unusable> {
    let (recordings, summaries) = recordings(lines)?;
    let all: Vec<&Recording> = recordings.iter().collect();
    let shown = || {
        let start = Start::new(all[0])?;
        question(&start, &all, &BuildOptions { policy, summaries, ..BuildOptions::default() })
    };
    Ok(shown().unwrap_or_else(|error| format!("refused: {error}\n")))
}

/// What the check of the lifter says of the recording.
pub fn check(lines: &[String]) -> Result<String, Unusable> {
    let report = crate::check(&recordings(lines)?.0[0]);
    let (agreed, all, cut) = (report.agreed, report.instructions, report.interruptions);
    let mut text = format!("{agreed} of {all} instructions agree, {cut} interruptions\n");
    for it in &report.disagreements {
        text += &format!("{:#x}: {}\n", it.pc, it.what);
    }
    Ok(text)
}

type Allocators = FxHashMap<VirtAddr, Summary>;

/// All recordings, each of the common lines and its own, and the allocators.
fn recordings(lines: &[String]) -> Result<(Vec<Recording>, Allocators), Unusable> {
    let mut parts = lines.split(|line| line.trim() == "another");
    let common = parts.next().unwrap_or_default();
    let own = std::iter::once(Default::default()).chain(parts);
    let (mut recordings, mut summaries) = (Vec::new(), Allocators::default());
    for (at, own) in own.enumerate() {
        let script = Script::parse(common.iter().chain(own))?;
        summaries.extend(script.summaries.iter().map(|(&at, &summary)| (at, summary)));
        let bytes = Machine::new(script)?.run()?;
        let trace = Trace::from_bytes(bytes).map_err(|error| error.to_string())?;
        let name = if at == 0 { "case.trace".to_owned() } else { format!("another{at}.trace") };
        recordings.push(Recording::load(&name, trace).map_err(|error| error.to_string())?);
    }
    Ok((recordings, summaries))
}

impl Script {
    fn parse<'l>(lines: impl Iterator<Item = &'l String>) -> Result<Self, Unusable> {
        let mut script = Self {
            memory: Memory::new(),
            regs: begin_regs(),
            code: FxHashMap::default(),
            variables: Vec::new(),
            idle: Vec::new(),
            summaries: FxHashMap::default(),
            happenings: Vec::new(),
            devices: Vec::new(),
            garbled: Vec::new(),
            from: VirtAddr(0),
            to: VirtAddr(0),
        };
        let mut at = VirtAddr(0);
        for line in lines.map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((bytes, _)) = line.split_once('|') {
                at = script.instruction(at, bytes)?;
            } else if let Some(place) = line.strip_prefix("code ") {
                at = address(place)?;
            } else {
                script.line(line)?;
            }
        }
        let stack = VirtAddr(script.regs.get_or_zero(Reg::Rsp));
        for below in [8, PAGE_SIZE] {
            script.memory.map_default(VirtAddr(stack.0.wrapping_sub(below)), Use::Data);
            script.memory.map_default(VirtAddr(INTERRUPT_STACK - below), Use::Data);
        }
        script.regs.set(Reg::Rip, script.from.0);
        Ok(script)
    }

    fn instruction(&mut self, at: VirtAddr, bytes: &str) -> Result<VirtAddr, Unusable> {
        let bytes = hex(bytes)?;
        self.memory.map_default(at, Use::Code);
        self.memory.store(at, &bytes)?;
        let next = at.add(bytes.len() as u64);
        self.code.insert(at, bytes);
        Ok(next)
    }

    fn line(&mut self, line: &str) -> Result<(), Unusable> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut happens = |place: &str, what| {
            let (pc, nth) = place.split_once('#').unwrap_or((place, "1"));
            let executions = number(nth)?.saturating_sub(1);
            self.happenings.push(Due { pc: address(pc)?, executions, what });
            Ok(())
        };
        match words.as_slice() {
            ["regs", rest @ ..] => rest.iter().try_for_each(|word| {
                let (name, value) = word.split_once('=').ok_or(format!("{word}: no value"))?;
                let reg = Reg::ALL.iter().find(|reg| reg.name() == name);
                self.regs.set(*reg.ok_or(format!("{name} is no register"))?, number(value)?);
                Ok(())
            }),
            [direction @ ("output" | "input"), spec, at] => {
                let direction = if *direction == "input" { Direction::Input } else { Direction::Output };
                self.memory.map_default(address(at)?, Use::Data);
                let variable = Variable::from_spec(direction, spec, address(at)?);
                self.variables.push(variable.map_err(|error| format!("{spec}: {error:?}"))?);
                Ok(())
            }
            ["data", at, bytes @ ..] => {
                self.memory.map_default(address(at)?, Use::Data);
                self.memory.store(address(at)?, &hex(&bytes.join(" "))?)
            }
            ["map", page, "to", frame] => {
                self.memory.map(address(page)?, PhysAddr(number(frame)?), Use::Data);
                Ok(())
            }
            ["map", page, "to", frame, "read-only"] => {
                self.memory.map(address(page)?, PhysAddr(number(frame)?), Use::Reading);
                Ok(())
            }
            ["map", page, "to", frame, "before", pc] => {
                happens(pc, Happening::Map(address(page)?, PhysAddr(number(frame)?)))
            }
            // A window of the system's onto the table that maps a page.
            ["table", window, "maps", page] => {
                let table = self.memory.entry(address(page)?).page();
                self.memory.map(address(window)?, table, Use::Data);
                Ok(())
            }
            ["interrupt", "before", pc, "to", handler] => {
                happens(pc, Happening::Interrupt(address(handler)?))
            }
            ["fault", "at", pc, "to", handler] => happens(pc, Happening::Fault(address(handler)?)),
            ["others", "store", at, value, "before", pc] => {
                happens(pc, Happening::Store(address(at)?, number(value)?))
            }
            ["device", page] => {
                self.memory.map_default(address(page)?, Use::Data);
                self.devices.push(address(page)?);
                Ok(())
            }
            ["garbled", "at", pc] => {
                self.garbled.push(address(pc)?);
                Ok(())
            }
            ["allocator", at, name] => {
                self.summaries.insert(address(at)?, allocator(name)?);
                Ok(())
            }
            ["idle", offset, value] => {
                let (offset, value) = (number(offset)? as u32, number(value)?);
                self.idle.retain(|cell| cell.offset != offset);
                self.idle.push(IdleCell { base: Reg::GsBase, offset, value });
                Ok(())
            }
            ["run", from, "to", to] => {
                (self.from, self.to) = (address(from)?, address(to)?);
                Ok(())
            }
            _ => Err(format!("{line}: not understood")),
        }
    }
}

fn hex(text: &str) -> Result<Vec<u8>, Unusable> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).map_err(|_| format!("{byte} is no byte")))
        .collect()
}

/// An allocator function as compilers call it on System V.
fn allocator(name: &str) -> Result<Summary, Unusable> {
    let action = Action::ALL.into_iter().find(|action| action.name() == name);
    let register = |reg: Reg| ArgumentLocation::Register(Var(reg as u16));
    let action = action.ok_or(format!("{name} is no allocator"))?;
    Ok(Summary { action, args: [register(Reg::Rdi), register(Reg::Rsi)], pops: 0, fails: None })
}

fn begin_regs() -> RegFile {
    let mut regs = RegFile::new();
    Reg::ALL.iter().for_each(|&reg| regs.set(reg, 0));
    for (reg, value) in [
        (Reg::Cr0, 0x8000_0011),
        (Reg::Cr3, ROOT.0),
        (Reg::Cr4, 0x20),
        (Reg::Efer, 0xd00),
        (Reg::Cs, CODE_SELECTORS.0),
        (Reg::Cpl, 3),
        (Reg::Star, 0x23_0010 << 32),
        (Reg::Lstar, SYSTEM + 0x1000),
    ] {
        regs.set(reg, value);
    }
    regs
}

struct Machine {
    script: Script,
    regs: RegisterValues,
    temps: Temporaries,
    writer: TraceWriter,
    /// The registers as last written down.
    recorded: RegisterValues,
    /// The processor changed registers by itself: they are written down next.
    changed: bool,
}

impl Machine {
    fn new(script: Script) -> Result<Self, Unusable> {
        let ram = RamRange { start: PhysAddr(0), size: RAM };
        let header = Header {
            program: "case".into(),
            mode_bits: 64,
            vcpus: 1,
            variables: script.variables.clone(),
            ram_size: RAM,
            ram_ranges: vec![ram],
            idle: script.idle.clone(),
            recorded: Recorded { block_registers: Reg::ALL.to_vec(), ..Recorded::default() },
            ..Header::default()
        };
        let mut writer =
            TraceWriter::in_memory(header, script.regs.clone()).map_err(|error| error.to_string())?;
        for (at, page) in script.memory.pages() {
            writer.page(at, &page).map_err(|error| error.to_string())?;
        }
        let mut regs = RegisterValues::all(0);
        script.regs.known().for_each(|(reg, value)| regs[reg] = value);
        Ok(Self { script, regs, temps: Temporaries::default(), writer, recorded: regs, changed: false })
    }

    /// Runs to the end and returns the trace.
    fn run(mut self) -> Result<Vec<u8>, Unusable> {
        let mut pc = self.script.from;
        for _ in 0..MAX_STEPS {
            if pc == self.script.to {
                return self.writer.finish_in_memory(None).map_err(|error| error.to_string());
            }
            if let Some(at) = self.script.happenings.iter().position(|it| it.pc == pc && it.executions == 0) {
                let due = self.script.happenings.remove(at);
                pc = self.happens(pc, &due.what)?;
                continue;
            }
            for due in self.script.happenings.iter_mut().filter(|it| it.pc == pc) {
                due.executions -= 1;
            }
            pc = self.step(pc)?;
        }
        Err(format!("it does not come to {:#x}", self.script.to))
    }

    fn happens(&mut self, pc: VirtAddr, happening: &Happening) -> Result<VirtAddr, Unusable> {
        match *happening {
            Happening::Map(page, frame) => self.script.memory.map(page, frame, Use::Data),
            Happening::Store(at, value) => self.script.memory.store(at, &value.to_le_bytes())?,
            Happening::Interrupt(handler) => return self.interrupt(pc, handler),
            Happening::Fault(handler) => {
                self.note_insn(pc)?;
                return self.interrupt(pc, handler);
            }
        }
        Ok(pc)
    }

    /// Goes to a handler in the way of 64-bit mode (SDM vol. 3 section 6.14.2).
    fn interrupt(&mut self, pc: VirtAddr, handler: VirtAddr) -> Result<VirtAddr, Unusable> {
        let flags = [
            (Reg::Cf, 0),
            (Reg::Pf, 2),
            (Reg::Af, 4),
            (Reg::Zf, 6),
            (Reg::Sf, 7),
            (Reg::If, 9),
            (Reg::Of, 11),
        ];
        let image = flags.iter().fold(2, |image, &(reg, bit)| image | self.regs[reg] << bit);
        let old = [self.regs[Reg::Ss], self.regs[Reg::Rsp], image, self.regs[Reg::Cs], pc.0];
        let top = if self.regs[Reg::Cpl] == 3 { INTERRUPT_STACK } else { self.regs[Reg::Rsp] & !15 };
        for (n, value) in old.iter().enumerate() {
            self.script.memory.store(VirtAddr(top - 8 * (n as u64 + 1)), &value.to_le_bytes())?;
        }
        self.regs[Reg::Rsp] = top - 40;
        for (reg, value) in [(Reg::Cs, CODE_SELECTORS.1), (Reg::Ss, 0), (Reg::Cpl, 0), (Reg::If, 0)] {
            self.regs[reg] = value;
        }
        self.changed = true;
        Ok(handler)
    }

    /// Writes down that an instruction begins.
    fn note_insn(&mut self, pc: VirtAddr) -> Result<lift::Insn, Unusable> {
        let bytes = self.script.code.get(&pc).ok_or(format!("there is no code at {pc:#x}"))?;
        let mode = lift::Mode::Bits64;
        let insn = if pc.0 < SYSTEM {
            lift::lift_process(mode, true, pc.0, bytes, &mut |_| false)
        } else {
            lift::lift(mode, pc.0, bytes)
        };
        let insn = insn.map_err(|error| error.to_string())?;
        let changed: Vec<(Reg, u64)> = match std::mem::take(&mut self.changed) {
            true => Reg::ALL.iter().map(|&reg| (reg, self.regs[reg])).collect(),
            false => Vec::new(),
        };
        let changed: Vec<(Reg, u64)> =
            changed.into_iter().filter(|&(reg, value)| self.recorded[reg] != value).collect();
        changed.iter().for_each(|&(reg, value)| self.recorded[reg] = value);
        let mut write = || {
            if !changed.is_empty() {
                self.writer.regs(&changed)?;
            }
            let id = self.writer.insn_id(pc, 64, bytes)?;
            self.writer.insn(id)
        };
        write().map_err(|error| error.to_string())?;
        Ok(insn)
    }

    /// Executes an instruction once; a repeated one is there again.
    fn step(&mut self, pc: VirtAddr) -> Result<VirtAddr, Unusable> {
        let insn = self.note_insn(pc)?;
        let next = pc.add(u64::from(insn.len));
        for op in &insn.ops {
            let [a, b, c] = op.args.map(|arg| self.temps.value(arg, &self.regs));
            match op.class() {
                Class::Pure => {
                    let value = ir::eval(op.kind, op.width, a, b, c).map_err(|error| format!("{error:?}"))?;
                    self.temps.define(op, &mut self.regs, value);
                }
                Class::Load => {
                    let value = self.script.memory.load(VirtAddr(a), op.width.bytes())?;
                    self.note_access(false, VirtAddr(a), op.width.bytes(), value)?;
                    self.temps.define(op, &mut self.regs, value);
                }
                Class::Store => {
                    let (bytes, value) = (op.width.bytes(), b & op.width.mask());
                    let garbled = u64::from(self.script.garbled.contains(&pc));
                    self.note_access(true, VirtAddr(a), bytes, value + garbled)?;
                    self.script.memory.store(VirtAddr(a), &value.to_le_bytes()[..bytes as usize])?;
                }
                Class::Nondet => {
                    self.temps.define(op, &mut self.regs, 0);
                    self.changed = true;
                }
                Class::Effect => {}
                Class::Control => match op.kind {
                    Kind::BranchIf if a == 0 => {}
                    Kind::BranchIf => return Ok(VirtAddr(b)),
                    Kind::Jump | Kind::Call | Kind::Ret | Kind::SysEnter | Kind::SysExit => {
                        return Ok(VirtAddr(a));
                    }
                    kind => return Err(format!("{pc:#x}: {} has no handler", kind.name())),
                },
            }
        }
        Ok(next)
    }

    fn note_access(&mut self, store: bool, vaddr: VirtAddr, size: u64, value: u64) -> Result<(), Unusable> {
        let paddr = self.script.memory.translate(vaddr)?;
        let last = vaddr.add(size - 1);
        let next_page = match last.page() == vaddr.page() {
            true => None,
            false => Some(self.script.memory.translate(last.page())?),
        };
        let (value, io) = (u128::from(value), self.script.devices.contains(&vaddr.page()));
        let access = Access { store, vaddr, paddr, next_page, size: size as u8, value, io };
        self.writer.access(&access).map_err(|error| error.to_string())
    }
}

//! Recordings: declarations, begin, end, and what can go wrong with them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use machine::paging::root_page;
use machine::{PhysAddr, Reg, RegFile, VirtAddr};
use trace::{
    Access, Direction, Header, IdleCell, InsnId, RamRange, Recorded, TraceError, TraceWriter, Variable,
};

use crate::config::Config;
use crate::ram;
use crate::status::{Status, StatusFile};

/// The marker protocol this recorder speaks.
pub const MARKER_ABI: u64 = 1;
/// A recording that gets longer has lost its end mark: the trainer died, or loops.
const MAX_INSTRUCTIONS: u64 = 1 << 30;
/// Most declarations of one program.
const MAX_VARIABLES: usize = 256;

/// Registers read at each block's start: the general ones, then system registers, then vector
/// registers.
pub const BLOCK_REGS: [Reg; 68] = {
    let mut regs = [Reg::Cs; 68];
    let mut i = 0;
    while i < 16 {
        regs[i] = Reg::ALL[i];
        regs[36 + 2 * i] = Reg::ALL[Reg::Xmm0Lo as usize + 2 * i];
        regs[37 + 2 * i] = Reg::ALL[Reg::Xmm0Lo as usize + 2 * i + 1];
        i += 1;
    }
    let others = [
        Reg::Es,
        Reg::Cs,
        Reg::Ss,
        Reg::Ds,
        Reg::Fs,
        Reg::Gs,
        Reg::FsBase,
        Reg::GsBase,
        Reg::KernelGsBase,
        Reg::Cr0,
        Reg::Cr2,
        Reg::Cr3,
        Reg::Cr4,
        Reg::Efer,
        Reg::Cpl,
        Reg::EsBase,
        Reg::CsBase,
        Reg::SsBase,
        Reg::DsBase,
        Reg::Mxcsr,
    ];
    let mut i = 0;
    while i < others.len() {
        regs[16 + i] = others[i];
        i += 1;
    }
    regs
};

/// Where the system registers lie in [`BLOCK_REGS`].
pub const SYSTEM_REGS: Range<usize> = 16..31;
/// Where the bases that QEMU does not show lie in [`BLOCK_REGS`]: of ES, CS, SS and DS, as
/// [`SELECTORS`].
pub const BASE_REGS: Range<usize> = 31..35;
/// The selectors of these bases.
pub const SELECTORS: [Reg; 4] = [Reg::Es, Reg::Cs, Reg::Ss, Reg::Ds];
/// Where MXCSR and the vector registers lie in [`BLOCK_REGS`].
pub const VECTOR_REGS: Range<usize> = 35..68;

/// Why a mark was refused or a recording given up. The first word goes into the status file for
/// programs.
#[derive(Debug)]
pub struct Refusal {
    pub kind: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<TraceError> for Refusal {
    fn from(error: TraceError) -> Self {
        Self::new("write", error.to_string())
    }
}

/// The recording that is running.
struct Recording {
    writer: TraceWriter,
    ram: ram::Copy,
    vcpu: u32,
    space: u64,
    program: String,
    path: PathBuf,
    started: Instant,
    last: [Option<u64>; BLOCK_REGS.len()],
    changed: Vec<(Reg, u64)>,
}

/// The machine at a begin mark.
pub struct Start {
    /// Code size: 16, 32 or 64.
    pub mode_bits: u8,
    pub regs: RegFile,
    /// What is known of the idle processor.
    pub idle: Vec<IdleCell>,
}

/// What a program declared before its begin mark.
#[derive(Default)]
struct Declared {
    variables: Vec<Variable>,
    /// A declaration was refused; a recording without it would mislead.
    incomplete: bool,
}

/// Everything about recordings in this QEMU process.
pub struct Session {
    config: Config,
    arch: String,
    vcpus: u32,
    status: StatusFile,
    /// Declarations by address space (the physical address in CR3), until their program begins.
    declared: HashMap<u64, Declared>,
    counts: HashMap<String, u32>,
    serial: u32,
    recording: Option<Recording>,
}

impl Session {
    /// Nothing recorded yet.
    pub fn new(config: Config, arch: String, vcpus: u32) -> Self {
        let mut status = StatusFile::open(&config.status);
        status.put(&Status::Loaded { version: env!("CARGO_PKG_VERSION") });
        Self {
            config,
            arch,
            vcpus,
            status,
            declared: HashMap::new(),
            counts: HashMap::new(),
            serial: 0,
            recording: None,
        }
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Number of the current or last recording, counted from 1.
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// Reports something that went wrong.
    pub fn report(&mut self, refusal: &Refusal) {
        let program = self.recording.as_ref().map(|recording| recording.program.as_str());
        self.status.put(&Status::Error { kind: refusal.kind, program, message: &refusal.message });
    }

    /// An input or output mark in the address space of this CR3.
    pub fn declare(&mut self, cr3: u64, direction: Direction, spec: &str, addr: u64) -> Result<(), Refusal> {
        let declared = self.declared.entry(space(cr3)).or_default();
        let variable = Variable::from_spec(direction, spec, VirtAddr(addr)).map_err(|error| {
            declared.incomplete = true;
            Refusal::new("specification", error.to_string())
        })?;
        // The same name again: the program was started anew.
        declared.variables.retain(|other| other.name != variable.name);
        if declared.variables.len() >= MAX_VARIABLES {
            declared.incomplete = true;
            return Err(Refusal::new(
                "specification",
                format!("more than {MAX_VARIABLES} inputs and outputs"),
            ));
        }
        declared.variables.push(variable);
        Ok(())
    }

    /// A begin mark: starts a recording. A recording that is already running is given up.
    pub fn begin(
        &mut self,
        vcpu: u32,
        name: &str,
        abi: u64,
        start: Start,
        ram: impl FnOnce() -> Result<ram::Copy, Refusal>,
    ) -> Result<(), Refusal> {
        if let Some(running) = self.recording.take() {
            return Err(Refusal::new(
                "nested_begin",
                format!(
                    "begin mark of \"{name}\" inside the recording of \"{}\": one at a time",
                    running.program
                ),
            ));
        }
        if abi & 0xffff_ffff != MARKER_ABI {
            let message =
                format!("\"{name}\" was built for marker protocol {abi}, this recorder speaks {MARKER_ABI}");
            return Err(Refusal::new("protocol", message));
        }
        if name.is_empty()
            || name.len() > 64
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        {
            let message = format!("program name {name:?}: use 1 to 64 letters, digits, '_' or '-'");
            return Err(Refusal::new("specification", message));
        }
        let Start { mode_bits, regs, idle } = start;
        in_process(name, "begin", &regs)?;
        let space = space(regs.get_or_zero(Reg::Cr3));
        let Declared { variables, incomplete } = self.declared.remove(&space).unwrap_or_default();
        if incomplete {
            let message =
                format!("\"{name}\" is not recorded because one of its inputs or outputs was refused");
            return Err(Refusal::new("specification", message));
        }
        check_lengths(name, &variables)?;
        let header = Header { idle, ..self.header(vcpu, name, abi, mode_bits, variables) };
        let ram = ram()?;
        let file = self.free_name(name);
        let path = self.config.out.join(&file);
        let mut last = [None; BLOCK_REGS.len()];
        for (last, &reg) in last.iter_mut().zip(&BLOCK_REGS) {
            *last = regs.get(reg);
        }
        let writer = TraceWriter::create(&path, header, regs)?;
        self.status.put(&Status::Begin { program: name, file: &file });
        self.serial += 1;
        self.recording = Some(Recording {
            writer,
            ram,
            vcpu,
            space,
            program: name.to_owned(),
            path,
            started: Instant::now(),
            last,
            changed: Vec::new(),
        });
        Ok(())
    }

    /// The first of NAME-0001.trace, NAME-0002.trace, ... that does not exist yet.
    fn free_name(&mut self, name: &str) -> String {
        let count = self.counts.entry(name.to_owned()).or_default();
        loop {
            *count += 1;
            let file = format!("{name}-{count:04}.trace");
            if !self.config.out.join(&file).exists() {
                return file;
            }
        }
    }

    fn header(&self, vcpu: u32, name: &str, abi: u64, mode_bits: u8, variables: Vec<Variable>) -> Header {
        Header {
            producer: concat!("virtuoso-recorder ", env!("CARGO_PKG_VERSION")).to_owned(),
            emulator: self.config.emulator.clone(),
            arch: self.arch.clone(),
            program: name.to_owned(),
            marker_abi: abi as u32,
            vcpu,
            vcpus: self.vcpus,
            mode_bits,
            recorded: Recorded {
                block_registers: BLOCK_REGS.to_vec(),
                access_values: true,
                physical_addresses: true,
            },
            variables,
            ram_size: self.config.ram_size,
            ram_ranges: self
                .config
                .ranges
                .iter()
                .map(|range| RamRange { start: PhysAddr(range.start), size: range.size })
                .collect(),
            idle: Vec::new(),
            whole_run: false,
        }
    }

    /// An end mark: writes the file. `Ok(false)`: it belongs to another program, the recording goes
    /// on.
    pub fn end(&mut self, vcpu: u32, regs: RegFile) -> Result<bool, Refusal> {
        let space = space(regs.get_or_zero(Reg::Cr3));
        match &self.recording {
            None => {
                return Err(Refusal::new(
                    "unmatched_end",
                    "end mark without a begin mark: call virtuoso_begin before virtuoso_end",
                ));
            }
            Some(recording) if recording.space != space => {
                let message =
                    format!("end mark of another process during the recording of \"{}\"", recording.program);
                self.report(&Refusal::new("unmatched_end", message));
                return Ok(false);
            }
            Some(recording) if recording.vcpu != vcpu => {
                let message = format!(
                    "\"{}\" moved from CPU {} to CPU {vcpu} while it was recorded; use -smp 1 or pin the \
                     program",
                    recording.program, recording.vcpu
                );
                return Err(Refusal::new("migrated", message));
            }
            Some(recording) => in_process(&recording.program, "end", &regs)?,
        }
        let Some(mut recording) = self.recording.take() else { return Ok(false) };
        write_out(&mut recording.writer, &recording.ram)?;
        let summary = recording.writer.finish(Some(regs))?;
        let file = recording.path.to_string_lossy();
        self.status.put(&Status::Saved {
            file: &file,
            program: &recording.program,
            instructions: summary.instructions,
            accesses: summary.accesses,
            static_insns: summary.static_insns,
            raw_bytes: summary.raw_bytes,
            stored_bytes: summary.stored_bytes,
            snapshot_bytes: summary.snapshot_bytes,
            file_bytes: summary.file_bytes,
            seconds: recording.started.elapsed().as_secs_f64(),
        });
        Ok(true)
    }

    /// A block begins with these registers: indices into [`BLOCK_REGS`], ascending, and values.
    /// Registers left out are known not to have changed.
    pub fn block(&mut self, values: &[(usize, u64)]) -> Result<(), Refusal> {
        let Some(recording) = &mut self.recording else { return Ok(()) };
        recording.changed.clear();
        for &(index, value) in values {
            if recording.last[index] != Some(value) {
                recording.last[index] = Some(value);
                recording.changed.push((BLOCK_REGS[index], value));
            }
        }
        Ok(recording.writer.regs(&recording.changed)?)
    }

    /// The number of an instruction in the running recording.
    pub fn insn_id(&mut self, pc: u64, mode_bits: u8, bytes: &[u8]) -> Result<Option<InsnId>, Refusal> {
        let Some(recording) = &mut self.recording else { return Ok(None) };
        Ok(Some(recording.writer.insn_id(VirtAddr(pc), mode_bits, bytes)?))
    }

    /// An instruction starts.
    pub fn insn(&mut self, id: InsnId) -> Result<(), Refusal> {
        let Some(recording) = &mut self.recording else { return Ok(()) };
        if recording.writer.instructions() >= MAX_INSTRUCTIONS {
            return Err(Refusal::new(
                "too_long",
                format!("\"{}\" ran 2^30 instructions without reaching its end mark", recording.program),
            ));
        }
        Ok(recording.writer.insn(id)?)
    }

    /// The last instruction accessed memory.
    pub fn access(&mut self, access: &Access) -> Result<(), Refusal> {
        let Some(recording) = &mut self.recording else { return Ok(()) };
        Ok(recording.writer.access(access)?)
    }

    /// Gives the running recording up, if any: its file disappears.
    pub fn abandon(&mut self) {
        self.recording = None;
    }

    /// QEMU ends.
    pub fn exit(&mut self) {
        if let Some(recording) = &self.recording {
            let message = format!(
                "\"{}\" did not reach its end mark before the machine stopped: call virtuoso_end on every \
                 path",
                recording.program
            );
            self.report(&Refusal::new("missing_end", message));
        }
        self.abandon();
        self.status.put(&Status::Exit);
    }
}

fn write_out(writer: &mut TraceWriter, ram: &ram::Copy) -> Result<(), TraceError> {
    ram.pages().try_for_each(|(addr, page)| writer.page(PhysAddr(addr), page))
}

/// Address space of a CR3. A mark is executed by a process, whose root it is: its page, and not the
/// pair of pages that the system's root may be in too.
const fn space(cr3: u64) -> u64 {
    root_page(cr3).0
}

/// Marks belong to a process: the system's own code has no variables and no system calls of its
/// own.
fn in_process(program: &str, mark: &str, regs: &RegFile) -> Result<(), Refusal> {
    // CR0.PG (SDM vol. 3 section 2.5): real mode, and systems without page tables.
    const PAGING: u64 = 1 << 31;
    if regs.get(Reg::Cr0).is_some_and(|cr0| cr0 & PAGING == 0) {
        let why = "set in code that runs with paging off: such code is not supported, set both marks in a \
            program of a system with paging";
        return Err(Refusal::new("paging", format!("{mark} mark of \"{program}\" {why}")));
    }
    match regs.get(Reg::Cpl) {
        Some(level) if level != 3 => Err(Refusal::new(
            "privilege",
            format!(
                "{mark} mark of \"{program}\" at privilege level {level}: set both marks in the trainer \
                 itself"
            ),
        )),
        _ => Ok(()),
    }
}

/// Every length field must be a declared scalar.
fn check_lengths(program: &str, variables: &[Variable]) -> Result<(), Refusal> {
    use trace::{Length, VarType};
    for variable in variables {
        if let VarType::Array { length: Length::Field(field), .. }
        | VarType::Bytes { length: Length::Field(field), .. } = &variable.ty
        {
            let found = variables.iter().any(|v| v.name == *field && matches!(v.ty, VarType::Scalar(_)));
            if !found {
                let message = format!(
                    "\"{program}\": the length of \"{}\" is \"{field}\", but no scalar input or output has \
                     that name",
                    variable.name
                );
                return Err(Refusal::new("specification", message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(dir: &str) -> (Session, PathBuf) {
        let out = std::env::temp_dir().join(format!("virtuoso-session-{dir}-{}", std::process::id()));
        std::fs::create_dir_all(&out).unwrap();
        let config = Config {
            out: out.clone(),
            status: out.join("status"),
            ram: out.join("ram"),
            unlink_ram: false,
            ram_size: 4096,
            ranges: vec![crate::config::Range { start: 0, size: 4096, offset: 0 }],
            emulator: "QEMU 10".to_owned(),
        };
        std::fs::write(&config.ram, [1; 4096]).unwrap();
        (Session::new(config, "x86_64".to_owned(), 1), out)
    }

    fn regs(cr3: u64) -> RegFile {
        let mut regs = RegFile::new();
        regs.set(Reg::Cr3, cr3);
        regs.set(Reg::Rax, 5);
        regs
    }

    fn start(cr3: u64) -> Start {
        Start { mode_bits: 64, regs: regs(cr3), idle: Vec::new() }
    }

    fn begin(session: &mut Session, name: &str, cr3: u64) -> Result<(), Refusal> {
        let ram = ram::Ram::open(&session.config.ram, session.config.ranges.clone()).unwrap();
        session.begin(0, name, 1, start(cr3), || Ok(ram.copy().unwrap()))
    }

    fn kind<T: fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
        result.unwrap_err().kind
    }

    #[test]
    fn register_groups() {
        assert_eq!(BLOCK_REGS[SYSTEM_REGS.start], Reg::Es);
        assert_eq!(BLOCK_REGS[SYSTEM_REGS.end - 1], Reg::Cpl);
        assert_eq!(BLOCK_REGS[BASE_REGS], [Reg::EsBase, Reg::CsBase, Reg::SsBase, Reg::DsBase]);
        assert_eq!(BLOCK_REGS[VECTOR_REGS.start], Reg::Mxcsr);
        assert_eq!(BLOCK_REGS[VECTOR_REGS.start + 1], Reg::Xmm0Lo);
        let mut sorted = BLOCK_REGS.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), BLOCK_REGS.len());
    }

    #[test]
    fn records_twice() {
        let (mut session, out) = session("twice");
        for number in 1..=2 {
            session.declare(0x1007, Direction::Output, "n:u32", 0x40).unwrap();
            session.declare(0x1000, Direction::Output, "list:u8[n<=4]", 0x50).unwrap();
            session.declare(0x9000, Direction::Output, "other:u8", 0x50).unwrap();
            begin(&mut session, "two", 0x1003).unwrap();
            let id = session.insn_id(0x100, 64, &[0x90]).unwrap().unwrap();
            session.insn(id).unwrap();
            session.block(&[(0, 5), (1, 6)]).unwrap();
            session.block(&[(0, 5), (1, 6)]).unwrap();
            assert!(!session.end(0, regs(0x2000)).unwrap());
            assert!(session.end(0, regs(0x1000)).unwrap());
            let trace = trace::Trace::open(out.join(format!("two-{number:04}.trace"))).unwrap();
            trace.verify().unwrap();
            assert_eq!(trace.header().variables.len(), 2);
            let events: Vec<_> = trace.events().map(Result::unwrap).collect();
            let expected =
                [trace::Event::Insn(id), trace::Event::Regs(vec![(Reg::Rcx, 6)]), trace::Event::Regs(vec![])];
            assert_eq!(events, expected);
            assert_eq!(trace.snapshot().page(PhysAddr(0)).unwrap(), Some([1; 4096]));
        }
        std::fs::remove_dir_all(out).unwrap();
    }

    #[test]
    fn misuse_is_named_and_leaves_nothing() {
        let (mut session, out) = session("misuse");
        assert_eq!(kind(session.end(0, regs(0))), "unmatched_end");
        assert_eq!(kind(session.declare(0, Direction::Input, "x", 0)), "specification");
        assert_eq!(kind(begin(&mut session, "a", 0)), "specification");
        assert_eq!(kind(begin(&mut session, "a/b", 0)), "specification");
        session.declare(0, Direction::Output, "list:u8[n<=4]", 0).unwrap();
        assert_eq!(kind(begin(&mut session, "a", 0)), "specification");
        assert_eq!(kind(session.begin(0, "a", 2, start(0), || unreachable!())), "protocol");
        begin(&mut session, "a", 0).unwrap();
        assert_eq!(kind(begin(&mut session, "b", 0)), "nested_begin");
        let mut system = regs(0);
        system.set(Reg::Cpl, 0);
        let inside = Start { regs: system.clone(), ..start(0) };
        assert_eq!(kind(session.begin(0, "a", 1, inside, || unreachable!())), "privilege");
        let mut flat = regs(0);
        flat.set(Reg::Cr0, 1);
        let flat = Start { regs: flat, ..start(0) };
        assert_eq!(kind(session.begin(0, "a", 1, flat, || unreachable!())), "paging");
        begin(&mut session, "a", 0).unwrap();
        assert_eq!(kind(session.end(0, system)), "privilege");
        session.abandon();
        begin(&mut session, "a", 0).unwrap();
        assert_eq!(kind(session.end(1, regs(0))), "migrated");
        session.abandon();
        begin(&mut session, "a", 0).unwrap();
        session.exit();
        let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        let status = std::fs::read_to_string(out.join("status")).unwrap();
        assert!(
            status.contains("\"kind\":\"missing_end\"") && status.ends_with("{\"event\":\"exit\"}\n"),
            "{status}"
        );
        std::fs::remove_dir_all(out).unwrap();
    }
}

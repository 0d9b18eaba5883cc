//! What the tests share: a folder per test, the command, and a program, a trace and a target small
//! enough to write down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ir::program::{
    Block, BlockId, Count, Dependence, Elem, FuncId, Function, OutputDependences, PageContent, Program,
    Provenance, Target, Terminator, UserPage, Variable,
};
use ir::{Kind, Op, System, Var, Width};
use machine::{PhysAddr, Reg, RegFile, VirtAddr};
use trace::{Access, Direction, Header, RamRange, TraceWriter};

/// A fresh folder, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A folder for the test with this name.
    pub fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Writes a file.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names of the files inside, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Runs the command in this folder.
    pub fn virtuoso(&self, arguments: &[&str]) -> Ended {
        Ended(self.command(arguments).output().expect("the command starts"))
    }

    /// Runs the command in this folder with variables of the environment.
    pub fn virtuoso_with(&self, variables: &[(&str, &Path)], arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        Ended(command.output().expect("the command starts"))
    }

    /// Runs the command in this folder on a system that has no other programs.
    pub fn virtuoso_alone(&self, arguments: &[&str]) -> Ended {
        self.virtuoso_with(&[("PATH", &self.0)], arguments)
    }

    /// Runs the command in this folder with nobody who reads its output.
    pub fn virtuoso_unread(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
        drop(child.stdout.take());
        Ended(child.wait_with_output().expect("the command ends"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtuoso"));
        command.args(arguments).current_dir(&self.0);
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A command that ended.
pub struct Ended(Output);

impl Ended {
    /// Its exit code.
    pub fn code(&self) -> i32 {
        self.0.status.code().expect("it was not killed")
    }

    /// Its standard output.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// Its standard error.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Asserts a failure: its code, nothing on standard output, and what the message says.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &[&str]) {
        let err = self.err();
        assert_eq!(self.code(), code, "{err}");
        assert_eq!(self.out(), "");
        assert!(err.lines().count() == 1 && err.starts_with("virtuoso: "), "one line: {err}");
        assert!(says.iter().all(|part| err.contains(part)), "{says:?} in: {err}");
        assert!(!err.contains("panicked") && !err.contains(" { "), "no Debug output: {err}");
    }
}

const INPUT: u64 = 0x2000;
const OUTPUT: u64 = 0x2004;
const CODE: u64 = 0x1000;

/// `mov eax, [INPUT]; inc eax; mov [OUTPUT], eax`, the end mark.
const MACHINE_CODE: &[u8] = &[
    0xa1, 0x00, 0x20, 0x00, 0x00, 0x40, 0xa3, 0x04, 0x20, 0x00, 0x00, 0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54,
    0x56,
];

/// How the slice of [`program`] ends.
pub enum Slice {
    /// With the right answer.
    Right,
    /// With another one.
    Wrong,
    /// At a place that training did not see.
    Unexplored,
}

/// A 32-bit program of input `n:u32` and output `next:u32`, which is `n + 1`.
pub fn program(slice: &Slice) -> Program {
    let variable =
        |name: &str, addr| Variable { name: name.into(), elem: Elem::Unsigned(4), count: Count::One, addr };
    let (value, sum) = (Var::temp(0), Var::temp(1));
    let added = if matches!(slice, Slice::Wrong) { 2u64 } else { 1 };
    let ops = vec![
        Op::new(Kind::Load, Width::B32, value, &[INPUT.into()]),
        Op::new(Kind::Add, Width::B32, sum, &[value.into(), added.into()]),
        Op::new(Kind::Store, Width::B32, Var::NONE, &[OUTPUT.into(), sum.into()]),
    ];
    let to = if matches!(slice, Slice::Unexplored) {
        Target::Unexplored(0x1234)
    } else {
        Target::Block(BlockId(1))
    };
    let first = Block { pc: CODE, ops, term: Terminator::Goto(to), term_pc: CODE + 6 };
    let last = Block { pc: CODE + 11, ops: Vec::new(), term: Terminator::End, term_pc: CODE + 11 };
    let mut code = vec![0; 4096];
    code[..MACHINE_CODE.len()].copy_from_slice(MACHINE_CODE);
    Program {
        name: "next".into(),
        bits: 32,
        entry: FuncId(0),
        functions: vec![Function {
            pc: CODE,
            name: "start".into(),
            callee_saved: Vec::new(),
            blocks: vec![first, last],
        }],
        inputs: vec![variable("n", INPUT)],
        outputs: vec![variable("next", OUTPUT)],
        registers: Vec::new(),
        begin_pc: CODE,
        pages: vec![
            UserPage { addr: CODE, content: PageContent::Bytes(code) },
            UserPage { addr: 0x2000, content: PageContent::Zero },
        ],
        heap: 0x1_0000,
        summaries: Vec::new(),
        code: Vec::new(),
        system: System::default().hash(),
        clock: Vec::new(),
        overrides: Vec::new(),
        signature: Vec::new(),
        dependences: vec![OutputDependences {
            output: "next".into(),
            on: vec![Dependence::Input("n".into())],
        }],
        relocations: ir::RelocationTable::default(),
        provenance: Provenance::default(),
    }
}

/// The file name of [`companion`].
pub fn companion_name() -> String {
    let hash = System::default().hash();
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.system")
}

/// The companion file of [`program`].
pub fn companion() -> Vec<u8> {
    System::default().to_bytes().expect("it encodes")
}

/// Writes raw RAM with paging off and its processor; the name of the target.
pub fn target(folder: &Folder) -> &'static str {
    folder.file("guest.raw", [0u8; 8192]);
    folder.file(
        "guest.raw.cpu.json",
        br#"{"cpus": [{"rip": "0x0", "cr0": "0x11", "cr3": "0x0", "cr4": "0x0"}]}"#,
    );
    "guest.raw"
}

/// A trace of one `mov [0x2004], eax`, which stores `stored` where `eax` is 7.
pub fn trace(stored: u32) -> Vec<u8> {
    let ram = RamRange { start: PhysAddr(0), size: 0x10_0000 };
    let header = Header {
        program: "store".into(),
        arch: "x86_64".into(),
        vcpus: 1,
        mode_bits: 32,
        variables: vec![
            trace::Variable::from_spec(Direction::Output, "next:u32", VirtAddr(OUTPUT))
                .expect("a specification"),
        ],
        ram_size: ram.size,
        ram_ranges: vec![ram],
        ..Header::default()
    };
    let mut regs = RegFile::new();
    for (reg, value) in
        [(Reg::Rip, CODE), (Reg::Rax, 7), (Reg::Cr0, 0x11), (Reg::Cr3, 0), (Reg::Cr4, 0), (Reg::Rsp, 0x8000)]
    {
        regs.set(reg, value);
    }
    let mut writer = TraceWriter::in_memory(header, regs).expect("a header");
    let store = writer.insn_id(VirtAddr(CODE), 32, &MACHINE_CODE[6..11]).expect("an instruction");
    writer.insn(store).expect("a step");
    let access = Access {
        store: true,
        vaddr: VirtAddr(OUTPUT),
        paddr: PhysAddr(OUTPUT),
        size: 4,
        value: stored.into(),
        io: false,
        next_page: None,
    };
    writer.access(&access).expect("an access");
    writer.finish_in_memory(None).expect("a trace")
}

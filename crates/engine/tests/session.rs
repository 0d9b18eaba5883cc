//! Sessions: any number of asks about one target, in any order and at the same time, are the runs
//! that each of them would be alone, whatever they write.

use std::thread;
use std::time::Duration;

use ir::relocation::{Fixup, FixupKind, Image, RelocationTable};
use ir::text::parse_program;
use ir::{Program, System};
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile};
use virtuoso_engine as engine;

use engine::{
    Environment, Inputs, Limits, Outcome, Run, RunError, Session, SliceProgram, Stopped, Value, WholeProgram,
    WholeReport, parse_inputs,
};

const KERNEL: u64 = 0xffff_8000_0000_0000;
/// The kernel's address of its own page table, of its code, and of the number in that code which
/// the system patches.
const TABLE: u64 = KERNEL + 0x1000;
const CODE: u64 = KERNEL + 0x2000;
const PATCHED: u64 = CODE + 72;

/// A target, trusted code and a program, and inputs to ask it with.
struct Machine {
    memory: Mock,
    regs: RegFile,
    system: System,
    program: Program,
}

type Ended = Result<(Outcome, WholeReport), RunError>;

impl Machine {
    fn run(&self, limits: Limits) -> Run<'_> {
        Run {
            memory: &self.memory,
            regs: &self.regs,
            env: Environment { tsc: Some(9), ..Environment::default() },
            limits,
        }
    }

    fn inputs(&self, n: u64) -> Inputs {
        parse_inputs(&self.program, &[("n".to_owned(), n.to_string())]).unwrap()
    }

    /// A run that nothing went before.
    fn fresh(&self, n: u64, limits: Limits) -> Ended {
        // By the interpreter alone, which the machine code of sessions is held to.
        let limits = Limits { machine_code: false, ..limits };
        WholeProgram::new(&self.program, &self.system).run(&self.run(limits), &self.inputs(n))
    }

    /// Asks in a session, by several threads that each have their own order, and compares with
    /// fresh runs; another program of the same system is asked in between.
    fn compare(&self, other: &Program) {
        let session = Session::new(self.run(Limits::default()), &self.system);
        let (program, other) = (session.program(&self.program).unwrap(), session.program(other).unwrap());
        let few = |fuel| Limits { fuel, ..Limits::default() };
        let asks: Vec<(u64, Limits)> =
            (0..4).flat_map(|n| [1 << 30, 5, 12].map(|fuel| (n, few(fuel)))).collect();
        let expected: Vec<Ended> = asks.iter().map(|(n, limits)| self.fresh(*n, *limits)).collect();
        let (inputs, small) = (self.inputs(1), Limits { pages: 3, ..Limits::default() });
        let expected_of_other = other.ask(&inputs, &small);
        thread::scope(|scope| {
            for order in 1..6 {
                let (asks, expected, program, other) = (&asks, &expected, &program, &other);
                let expected_of_other = &expected_of_other;
                let inputs = self.inputs(1);
                scope.spawn(move || {
                    for at in 0..40 {
                        // 12 has no divisor in common with 5, 7 and 11.
                        let at = (at * [5, 7, 11, 1, 5][order - 1] + order) % asks.len();
                        let (n, limits) = asks[at];
                        assert_eq!(program.ask(&self.inputs(n), &limits), expected[at], "{n} {limits:?}");
                        assert_eq!(other.ask(&inputs, &small), *expected_of_other);
                    }
                });
            }
        });
        assert!(!cfg!(target_arch = "x86_64") || session.machine_code() > 0);
    }
}

fn regs(values: &[(Reg, u64)]) -> RegFile {
    let mut regs = RegFile::new();
    values.iter().for_each(|&(reg, value)| regs.set(reg, value));
    regs
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A program with this code at 0x1000, an input `n` and an output `x`.
fn program(bits: u8, code: &[u8]) -> Program {
    let text = format!(
        "program \"test\"\nbits {bits}\nbegin 0x1000\nheap 0x9000\ninput \"n\" u32 @0x5008\n\
         output \"x\" u64 @0x5000\nregister rsp 0x6800\nregister efer {}\nregister cs 0x33\n\
         page 0x1000 bytes 4096 {{\n 0x0: {}\n}}\npage 0x5000 zero\npage 0x6000 zero\n\
         function f0 0x1000 \"\" {{\nb0 @0x1000 - 0x1000:\nstore.64 0x5000, 1\nend\n}}\n",
        if bits == 64 { "0x500" } else { "0" },
        hex(code)
    );
    parse_program(&text, Reg::NAMES).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const END: [u8; 7] = [0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54, 0x56];

/// A trainer that calls the kernel's code. If `n` is odd, that maps another frame where its data
/// is, overwrites the number that is patched into its own code, and the trainer's code too.
fn writer() -> Machine {
    let absolute = |opcode: [u8; 2], address: u64| [&opcode[..], &address.to_le_bytes()].concat();
    let to_rax = |address| absolute([0x48, 0xb8], address);
    let mut code = Vec::new();
    // mov DATA, %rax; mov (%rax), %rdx; mov 0x5008, %ecx; and $1, %ecx; jz over the writes
    code.extend(to_rax(KERNEL));
    code.extend([0x48, 0x8b, 0x10, 0x8b, 0x0c, 0x25, 0x08, 0x50, 0, 0, 0x83, 0xe1, 0x01, 0x74, 42]);
    // movq $0x11003, 8-byte entry 0 of TABLE; movl $77, PATCHED; movb $0, 0x1000
    code.extend(to_rax(TABLE));
    code.extend([0x48, 0xc7, 0x00, 0x03, 0x10, 0x01, 0x00]);
    code.extend(to_rax(PATCHED));
    code.extend([0xc7, 0x00, 77, 0, 0, 0]);
    code.extend([0xc6, 0x04, 0x25, 0, 0x10, 0, 0, 0]);
    code.resize(69, 0x90);
    // add $IMM32, %rdx, the number that is patched; mov DATA, %rax
    code.extend([0x48, 0x81, 0xc2]);
    assert_eq!(code.len() as u64, PATCHED - CODE);
    code.extend(1u32.to_le_bytes());
    code.extend(to_rax(KERNEL));
    // mov (%rax), %rax; add %rdx, %rax; mov %rax, 0x5000; ret
    code.extend([0x48, 0x8b, 0x00, 0x48, 0x01, 0xd0, 0x48, 0x89, 0x04, 0x25, 0, 0x50, 0, 0, 0xc3]);
    let mut page = [0; 4096];
    page[..code.len()].copy_from_slice(&code);
    let mut system = System::default();
    system.insert(CODE, &page);
    system.set_relocations(RelocationTable {
        images: vec![Image { start: CODE, end: CODE + 0x1000, movable: true }],
        fixups: vec![Fixup { addr: PATCHED, size: 4, kind: FixupKind::Patched }].into(),
        ..RelocationTable::default()
    });
    let mut memory = Mock::new();
    for (at, value) in [
        (0x1000 + 8 * 256, 0x2007),
        (0x2000, 0x3007),
        (0x3000, 0x4007),
        (0x4000, 0x1_0003),
        (0x4008, 0x4003),
        (0x4010, 0x1_2003),
        (0x1_0000, 100),
        (0x1_1000, 1000),
    ] {
        memory.write_u64(PhysAddr(at), value);
    }
    memory.write(PhysAddr(0x1_2000), &page);
    // What this boot's kernel has there.
    memory.write(PhysAddr(0x1_2000 + PATCHED - CODE), &5u32.to_le_bytes());
    // The trainer: mov CODE, %rax; call *%rax; the end mark.
    let trainer = [&to_rax(CODE)[..], &[0xff, 0xd0], &END].concat();
    let regs = regs(&[
        (Reg::Cr0, 0x8000_0011),
        (Reg::Cr3, 0x1000),
        (Reg::Cr4, 0x20),
        (Reg::Efer, 0x500),
        (Reg::Cs, 0x10),
        (Reg::GsBase, KERNEL),
    ]);
    Machine { memory, regs, system, program: program(64, &trainer) }
}

/// A trainer that calls the kernel's code, which calls what a word of read-only data points to:
/// in training, code that answers 7. In the target that word is `word`, and other code may be
/// executed at [`FOREIGN`]. The kernel has code at [`OTHER`] that answers 9.
fn table(word: u64) -> Machine {
    let mut machine = writer();
    let answer = |number: u8| [0x48, 0xc7, 0x04, 0x25, 0, 0x50, 0, 0, number, 0, 0, 0, 0xc3];
    let mut page = [0xcc; 4096];
    page[..2].copy_from_slice(&[0x48, 0xb8]);
    page[2..10].copy_from_slice(&(KERNEL + 8).to_le_bytes());
    page[10..12].copy_from_slice(&[0xff, 0x20]);
    page[0x20..0x2d].copy_from_slice(&answer(7));
    page[0x40..0x4d].copy_from_slice(&answer(9));
    let mut system = System::default();
    system.insert(CODE, &page);
    let image = Image { start: KERNEL, end: CODE + 0x1000, movable: true };
    system.set_relocations(RelocationTable { images: vec![image], ..RelocationTable::default() });
    let mut bytes = vec![0; 4096];
    bytes[8..16].copy_from_slice(&ANSWERS.to_le_bytes());
    let data = ir::integrity::DataPage { image: 0, steady: true, bytes };
    let mut integrity = ir::Integrity { data: [(KERNEL, data)].into(), ..ir::Integrity::default() };
    integrity.extents = vec![ir::integrity::Extent { start: KERNEL, end: CODE + 0x1000 }];
    system.set_integrity(integrity);
    machine.system = system;
    machine.memory.write(PhysAddr(0x1_2000), &page);
    machine.memory.write(PhysAddr(0x1_0000), &[0; 4096]);
    machine.memory.write_u64(PhysAddr(0x1_0008), word);
    machine.memory.write_u64(PhysAddr(0x4018), 0x1_3003);
    machine.memory.write(PhysAddr(0x1_3000), &answer(8));
    machine
}

const ANSWERS: u64 = CODE + 0x20;
const OTHER: u64 = CODE + 0x40;
const FOREIGN: u64 = KERNEL + 0x3000;

#[test]
fn a_redirected_pointer_is_as_in_training_for_a_run_that_comes_to_it() {
    let ask = |word: u64| {
        let machine = table(word);
        let session = Session::new(machine.run(Limits::default()), &machine.system);
        let program = session.program(&machine.program).unwrap();
        let asked = program.ask(&machine.inputs(0), &Limits::default());
        let departures = asked.as_ref().unwrap().1.departures.clone();
        assert_eq!(session.departures(), departures);
        assert_eq!(machine.fresh(0, Limits::default()), asked);
        (asked, departures.restored)
    };
    let (asked, restored) = ask(ANSWERS);
    assert_eq!((x(&asked), restored), (7, vec![]));
    let (asked, restored) = ask(FOREIGN);
    assert_eq!((x(&asked), restored), (7, vec![KERNEL + 8]), "code of somebody else's");
    let (asked, restored) = ask(OTHER);
    assert_eq!((x(&asked), restored), (9, vec![]), "the kernel may have chosen that itself");
    for nowhere in [0x10, FOREIGN + 0x1000] {
        let (asked, restored) = ask(nowhere);
        let Ok((Outcome::Stopped(Stopped::NoCode { to, .. }), _)) = asked else { panic!("{asked:?}") };
        assert_eq!((to, restored), (nowhere, vec![]));
    }
}

fn x(ended: &Ended) -> u64 {
    match ended {
        Ok((Outcome::Answer(values), _)) => match values.get("x") {
            Some(Value::Unsigned(value)) => *value,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_run_writes_into_code_and_page_tables_is_its_own() {
    let machine = writer();
    let limits = Limits::default();
    // The first read, the number of this boot's kernel, and the second read.
    assert_eq!(x(&machine.fresh(0, limits)), 100 + 5 + 100);
    assert_eq!(x(&machine.fresh(1, limits)), 100 + 5 + 1000);
    // A trainer that calls the same code from another address, with other code where this one is.
    let mut other = program(64, &[&[0x90; 9][..], &machine_code(&machine)[..]].concat());
    other.name = "other".into();
    machine.compare(&other);
}

/// The trainer's code of a machine.
fn machine_code(machine: &Machine) -> Vec<u8> {
    match &machine.program.pages[0].content {
        ir::program::PageContent::Bytes(bytes) => bytes[..64].to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A 32-bit trainer that makes a far call. If `n` is odd, it first makes the descriptor that the
/// call names one of a gate: then it is another instruction.
fn far() -> Machine {
    let mut code = vec![0xf6, 0x05, 0x08, 0x50, 0, 0, 0x01, 0x74, 12];
    code.extend([0xc7, 0x05, 0x14, 0, 0, 0xc0, 0x00, 0xec, 0, 0, 0xeb, 0]);
    code.extend([0x9a, 0x20, 0x10, 0, 0, 0x10, 0x00]);
    code.resize(0x20, 0x90);
    code.extend([0xc7, 0x05, 0x00, 0x50, 0, 0, 7, 0, 0, 0]);
    code.extend(END);
    let mut memory = Mock::new();
    memory.write(PhysAddr(0x1c00), &0x2003u32.to_le_bytes());
    memory.write(PhysAddr(0x2000), &0x1_0003u32.to_le_bytes());
    memory.write_u64(PhysAddr(0x1_0010), 0x00cf_9a00_0000_ffff);
    let regs = regs(&[
        (Reg::Cr0, 0x8000_0011),
        (Reg::Cr3, 0x1000),
        (Reg::Cr4, 0),
        (Reg::Efer, 0),
        (Reg::Cs, 0x10),
        (Reg::GdtrBase, 0xc000_0000),
        (Reg::GdtrLimit, 0xff),
    ]);
    Machine { memory, regs, system: System::default(), program: program(32, &code) }
}

#[test]
fn a_far_call_goes_through_a_gate_only_where_the_run_has_one() {
    let machine = far();
    let limits = Limits::default();
    assert_eq!(x(&machine.fresh(0, limits)), 7);
    assert!(matches!(machine.fresh(1, limits), Ok((Outcome::Stopped(_), _))));
    machine.compare(&program(32, &machine_code(&machine)));
}

#[test]
fn a_slice_in_a_session_is_a_slice() {
    let machine = writer();
    let session = Session::new(machine.run(Limits::default()), &machine.system);
    let program = session.program(&machine.program).unwrap();
    for fuel in [1, 100] {
        let limits = Limits { fuel, ..Limits::default() };
        let fresh =
            SliceProgram::new(&machine.program).unwrap().run(&machine.run(limits), &machine.inputs(0));
        assert_eq!(program.ask_slice(&machine.inputs(0), &limits), fresh);
    }
    assert_eq!(program.program(), &machine.program);
}

#[test]
fn no_time_is_an_outcome_and_no_kernel_an_error() {
    let machine = writer();
    let none = Limits { time: Duration::ZERO, ..Limits::default() };
    let session = Session::new(machine.run(none), &machine.system);
    let late = session.program(&machine.program).unwrap();
    let ended = late.ask(&machine.inputs(0), &Limits::default());
    assert!(matches!(ended, Ok((Outcome::Stopped(Stopped::OutOfTime { .. }), _))), "{ended:?}");
    assert_eq!(late.ask(&machine.inputs(0), &none).map(|it| it.0), machine.fresh(0, none).map(|it| it.0));
    let mut other = machine.program.clone();
    other.code.push(ir::program::CodeRange { addr: CODE, bytes: vec![0xcc; 64] });
    let refused = session.program(&other).err();
    assert!(matches!(refused, Some(RunError::OtherKernel { .. })), "{refused:?}");
}

/// Without the code of a piece that is damaged a run would end otherwise: that is not its outcome.
#[test]
fn a_damaged_companion_file_is_an_error_where_it_is_needed() {
    let mut machine = writer();
    let noise: [u8; 4096] = std::array::from_fn(|at| ((at * at) >> 3) as u8);
    (0..8).for_each(|page| machine.system.insert(0x10_0000 + page * 0x1000, &noise));
    let bytes = machine.system.to_bytes().unwrap();
    let index = u64::from_le_bytes(bytes[52..60].try_into().unwrap()) as usize;
    let path = std::env::temp_dir().join(format!("virtuoso-session-{}.system", std::process::id()));
    let fresh = machine.fresh(1, Limits::default());
    let (mut same, mut refused) = (0, 0);
    for at in (60 + index..bytes.len()).step_by(3) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        // What moves is read at once.
        let Ok(system) = System::open(std::fs::File::open(&path).unwrap()) else { continue };
        let session = Session::new(machine.run(Limits::default()), &system);
        let program = session.program(&machine.program).unwrap();
        match program.ask(&machine.inputs(1), &Limits::default()) {
            Err(RunError::Companion(_)) => {
                refused += 1;
                let again = program.ask(&machine.inputs(0), &Limits::default());
                assert!(matches!(again, Err(RunError::Companion(_))), "{again:?}");
            }
            ended => {
                assert_eq!(ended, fresh);
                same += 1;
            }
        }
    }
    let _ = std::fs::remove_file(&path);
    assert!(same > refused && refused > 0, "{same} {refused}");
}

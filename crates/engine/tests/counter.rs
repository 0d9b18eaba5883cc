//! The time stamp counter of a target: given, in a clock cell, or not known. Each case is asked as
//! a slice and as the machine code that it stands for.

use ir::text::parse_program;
use ir::{Program, System};
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile};
use virtuoso_engine as engine;

use engine::{Environment, Limits, Outcome, Run, SliceProgram, Stopped, Value, WholeProgram};

/// The kernel's address of frame 0x10000, and what that frame holds.
const CELL: u64 = 0xffff_8000_0000_0000;
const HELD: u64 = 1000;

/// A guest with one page of the kernel's memory.
fn guest() -> (Mock, RegFile) {
    let mut memory = Mock::new();
    memory.write_u64(PhysAddr(0x1000 + 8 * 256), 0x2007);
    memory.write_u64(PhysAddr(0x2000), 0x3007);
    memory.write_u64(PhysAddr(0x3000), 0x4007);
    memory.write_u64(PhysAddr(0x4000), 0x1_0003);
    memory.write_u64(PhysAddr(0x1_0000), HELD);
    let mut regs = RegFile::new();
    for (reg, value) in [
        (Reg::Cr0, 0x8000_0011),
        (Reg::Cr3, 0x1000),
        (Reg::Cr4, 0x20),
        (Reg::Efer, 0x500),
        (Reg::Cs, 0x10),
        (Reg::GsBase, CELL),
    ] {
        regs.set(reg, value);
    }
    (memory, regs)
}

/// A program as operations and as code at 0x1000, which ends with the end mark.
fn program(header: &str, ops: &str, code: &str) -> Program {
    let text = format!(
        "program \"test\"\nbegin 0x1000\noutput \"x\" u64 @0x5000\nregister cs 0x33\nregister efer 0x500\n\
         page 0x1000 bytes 4096 {{\n 0: {code}0f1f8002005456\n}}\npage 0x5000 zero\n{header}\n\
         function f0 0x1000 \"\" {{\nb0 @0x1000 - 0x1000:\n{ops}\nend\n}}\n"
    );
    parse_program(&text, Reg::NAMES).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What both ways say.
fn both(program: &Program, tsc: Option<u64>) -> [Outcome; 2] {
    let (memory, regs) = guest();
    let run = Run {
        memory: &memory,
        regs: &regs,
        env: Environment { tsc, ..Environment::default() },
        limits: Limits::default(),
    };
    let system = System::default();
    let slice = SliceProgram::new(program).unwrap().run(&run, &Vec::new()).unwrap().0;
    [slice, WholeProgram::new(program, &system).run(&run, &Vec::new()).unwrap().0]
}

fn x(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Answer(values) => match values.get("x") {
            Some(Value::Unsigned(value)) => *value,
            other => panic!("{other:?}"),
        },
        Outcome::Stopped(stopped) => panic!("{stopped}"),
    }
}

/// The counter itself: rdtsc; mov %eax,0x5000; mov %edx,0x5004.
const ITSELF: (&str, &str) = ("t0 = tsc.64\nstore.64 0x5000, t0", "0f318904250050000089142504500000");

#[test]
fn a_counter_that_nothing_tells_is_no_number() {
    let program = program("", ITSELF.0, ITSELF.1);
    for outcome in both(&program, None) {
        assert_eq!(outcome, Outcome::Stopped(Stopped::UnknownCounter { at: 0x1000 }));
    }
    assert_eq!(both(&program, Some(77)).map(|outcome| x(&outcome)), [77, 77]);
}

#[test]
fn an_answer_that_does_not_depend_on_it_is_an_answer() {
    // rdtsc; movl $7,0x5000
    let program = program("", "t0 = tsc.64\nstore.32 0x5000, 7", "0f31c704250050000007000000");
    assert_eq!(both(&program, None).map(|outcome| x(&outcome)), [7, 7]);
}

#[test]
fn a_comparison_with_it_is_noticed() {
    // rdtsc; cmp $0x1000,%edx; setae %al; mov %al,0x5000: whether the machine runs for an hour.
    let ops = "t0 = tsc.64\nt1 = lt_u.64 0xfffffffffff, t0\nstore.8 0x5000, t1";
    let program = program("", ops, "0f3181fa001000000f93c088042500500000");
    for outcome in both(&program, None) {
        assert_eq!(outcome, Outcome::Stopped(Stopped::UnknownCounter { at: 0x1000 }));
    }
}

#[test]
fn a_run_that_stops_for_an_unlikely_counter_says_nothing() {
    // rdtsc; xor %ecx,%ecx; cmp $0x1000,%edx; setb %cl; mov $1,%eax; xor %edx,%edx; div %ecx;
    // movl $7,0x5000: after an hour it divides by zero.
    let ops = "t0 = tsc.64\nt1 = lt_u.64 t0, 0x100000000000\nt2 = div_u.32 0, 1, t1\nstore.32 0x5000, 7";
    let code = "0f3131c981fa001000000f92c1b80100000031d2f7f1c704250050000007000000";
    let program = program("", ops, code);
    assert_eq!(both(&program, None).map(|outcome| x(&outcome)), [7, 7]);
}

/// Both ways take the cell as the target has it, though the run's view writes there.
#[test]
fn clock_cells_are_read_before_the_run_writes() {
    let header = format!("clock {CELL:#x}\nview gs_base 0x0 8 0x63");
    let program = program(&header, ITSELF.0, ITSELF.1);
    assert_eq!(both(&program, None).map(|outcome| x(&outcome)), [HELD + 1, HELD + 1]);
}

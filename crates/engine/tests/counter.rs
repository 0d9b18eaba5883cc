//! The time stamp counter of a target: given, in a clock cell, or not known. Each case is asked as
//! a slice and as the machine code that it stands for.

use ir::text::parse_program;
use ir::{Program, System};
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile};
use virtuoso_engine as engine;

use engine::{Environment, Limits, Outcome, Run, Session, SliceProgram, Stopped, Value, WholeProgram};

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
    // The HPET, behind that page, without caching.
    memory.write_u64(PhysAddr(0x4008), 0xfed0_001b);
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

/// As a whole run: the outcome, and where it says that it has a clock as of the last reading.
fn whole(code: &str) -> (Outcome, Vec<u64>) {
    let ((memory, regs), program) = (guest(), program("", "store.64 0x5000, 0", code));
    let (env, limits) = (Environment::default(), Limits::default());
    let run = Run { memory: &memory, regs: &regs, env, limits };
    let system = System::default();
    let (outcome, report) = WholeProgram::new(&program, &system).run(&run, &Vec::new()).unwrap();
    (outcome, report.departures.clocks)
}

/// `movabs $CELL,%rbx`, and the end of code that stores its answer: `mov %rax,0x5000`.
const RBX: &str = "48bb000000000080ffff";
const STORE: &str = "4889042500500000";

#[test]
fn a_whole_run_has_it_as_of_the_reading_that_is_subtracted_from_it() {
    // rdtsc; shl $32,%rdx; or %rdx,%rax; sub (%rbx),%rax; add $5000,%rax
    let read = "0f3148c1e2204809d0";
    let (since, more) = ("482b03", "480588130000");
    let (outcome, clocks) = whole(&[RBX, read, since, more, STORE].concat());
    assert_eq!((x(&outcome), clocks), (5000, vec![0x100a]));
    let ops = "t0 = tsc.64\nt1 = load.64 0xffff800000000000\nt2 = sub.64 t0, t1\nstore.64 0x5000, t2";
    let [slice, _] = both(&program("", ops, &[RBX, read, since, STORE].concat()), None);
    assert_eq!(slice, Outcome::Stopped(Stopped::UnknownCounter { at: 0x1000 }));

    // In two halves: sub (%rbx),%eax; sbb 4(%rbx),%edx; mov %eax,0x5000; mov %edx,0x5004
    let halves = "0f312b031b53048904250050000089142504500000";
    let (outcome, clocks) = whole(&[RBX, halves].concat());
    assert_eq!((x(&outcome), clocks.len()), (0, 1));

    // Nothing is subtracted, or itself: the same reading twice.
    let (outcome, clocks) = whole(&[RBX, read, more, STORE].concat());
    assert_eq!(outcome, Outcome::Stopped(Stopped::UnknownCounter { at: 0x100a }));
    assert!(clocks.is_empty());
    // mov %rax,%rcx; sub %rcx,%rax; add; and with the reading itself: add %rcx,%rax
    let (outcome, _) = whole(&[RBX, read, "4889c14829c84801c8", STORE].concat());
    assert_eq!(outcome, Outcome::Stopped(Stopped::UnknownCounter { at: 0x100a }));
}

#[test]
fn all_questions_of_a_session_are_of_one_moment() {
    let ((memory, regs), system) = (guest(), System::default());
    let (env, limits) = (Environment::default(), Limits::default());
    let session = Session::new(Run { memory: &memory, regs: &regs, env, limits }, &system);
    let ask = |code: &str| {
        let program = program("", "store.64 0x5000, 0", code);
        session.program(&program).unwrap().ask(&Vec::new(), &limits).unwrap().0
    };
    // The counter itself, before and after a question that tells a reading of it.
    let itself = [RBX, "0f3148c1e2204809d0", STORE].concat();
    assert_eq!(ask(&itself), Outcome::Stopped(Stopped::UnknownCounter { at: 0x100a }));
    assert_eq!(x(&ask(&[RBX, "0f3148c1e2204809d0482b03", STORE].concat())), 0);
    assert_eq!(x(&ask(&itself)), HELD);
    assert_eq!(session.departures().clocks, [0x100a]);
}

#[test]
fn the_hpet_is_such_a_clock() {
    // mov 0x10f0(%rbx),%eax
    let read = "8b83f0100000";
    let (outcome, clocks) = whole(&[RBX, read, "482b03", "480588130000", STORE].concat());
    assert_eq!((x(&outcome), clocks), (5000, vec![0x100a]));
    // Read, and not used: mov $7,%eax. With the other counter, which is not used either.
    for code in [vec![RBX, read, "b807000000", STORE], vec![RBX, "0f31", read, "b807000000", STORE]] {
        let (outcome, clocks) = whole(&code.concat());
        assert_eq!((x(&outcome), clocks), (7, vec![]));
    }
    let (outcome, clocks) = whole(&[RBX, "0f31", read, "482b03", STORE].concat());
    assert_eq!((x(&outcome), clocks.len()), (0, 1), "only on one of both it depends");
    let device =
        |outcome: &Outcome| matches!(outcome, Outcome::Stopped(Stopped::NeedsDevice { clock: true, .. }));
    assert!(device(&whole(&[RBX, read, STORE].concat()).0), "nothing is subtracted");
    // Its capabilities, and what is written to it.
    assert!(device(&whole(&[RBX, "8b8300100000", STORE].concat()).0));
    assert!(device(&whole(&[RBX, "8983f0100000", STORE].concat()).0));
}

/// A run is made again from its first reading on, over the memory that it had there.
#[test]
fn no_run_sees_what_another_one_stored_behind_the_first_reading() {
    let ((memory, regs), system) = (guest(), System::default());
    let (env, limits) = (Environment::default(), Limits::default());
    let session = Session::new(Run { memory: &memory, regs: &regs, env, limits }, &system);
    // mov $100,%ecx; again: incl 0x5000; incl (%rbx); read; incl 0x5000; incl (%rbx); dec %ecx;
    // jnz again; mov (%rbx),%eax; mov %eax,0x5004
    let begin = "b964000000";
    let increments = "ff042500500000ff03";
    for (read, back) in [("0f31", "e8"), ("8b83f0100000", "e4")] {
        let code = [RBX, begin, increments, read, increments, "ffc975", back, "8b03"];
        let code = [&code.concat(), "89042504500000"].concat();
        let program = program("", "store.64 0x5000, 0", &code);
        let asked = session.program(&program).unwrap();
        // Interpreted at first, then compiled.
        for _ in 0..100 {
            let (outcome, report) = asked.ask(&Vec::new(), &limits).unwrap();
            assert_eq!(x(&outcome), (HELD + 200) << 32 | 200);
            assert_eq!(report.instructions, 2 + 100 * 7 + 2);
        }
        assert!(!cfg!(target_arch = "x86_64") || session.machine_code() > 0);
    }
}

/// The same of slices: twenty blocks, a hundred times, of which the last reads the counter.
#[test]
fn no_run_of_a_slice_sees_what_another_one_stored_behind_the_first_reading() {
    use std::fmt::Write as _;
    let increment =
        |address: &str| format!(" t0 = load.32 {address}\n t0 = add.32 t0, 1\n store.32 {address}, t0\n");
    let mut function = String::from("function f0 0x1000 \"\" {\n");
    for block in 0..19 {
        let (ops, next) = (increment("0x5000"), block + 1);
        let _ = writeln!(function, "b{block} @0x1000:\n{ops} goto b{next}");
    }
    let (answer, cell) = (increment("0x5000"), increment("0xffff800000000000"));
    let last = " t1 = load.32 0xffff800000000000\n store.32 0x5004, t1\n t2 = lt_u.32 t1, 0x44c\n";
    let _ = writeln!(
        function,
        "b19 @0x1000:\n t3 = tsc.64\n{answer}{cell}{last} branch t2 ? b0 : b20\nb20 @0x1000:\nend\n}}"
    );
    let text = format!(
        "program \"test\"\nbegin 0x1000\noutput \"x\" u64 @0x5000\nregister cs 0x33\nregister efer 0x500\n\
         page 0x1000 bytes 4096 {{\n 0: 0f1f8002005456\n}}\npage 0x5000 zero\n{function}"
    );
    let program = parse_program(&text, Reg::NAMES).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let (memory, regs) = guest();
    let (env, limits) = (Environment::default(), Limits::default());
    let run = Run { memory: &memory, regs: &regs, env, limits };
    let slice = SliceProgram::new(&program).unwrap();
    let used = slice.run(&run, &Vec::new()).unwrap().1;
    for _ in 0..10 {
        let (outcome, again) = slice.run(&run, &Vec::new()).unwrap();
        assert_eq!((x(&outcome), again), ((HELD + 100) << 32 | 2000, used));
    }
    assert!(!cfg!(target_arch = "x86_64") || slice.machine_code() > 0);
}

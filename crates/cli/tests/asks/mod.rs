//! Asks of a session compared with fresh runs, in any order and on several threads: outcomes,
//! instruction counts and fuel have to be the same.

use std::path::Path;
use std::thread;

use engine::{
    ApicId, Environment, Inputs, Limits, Outcome, Run, RunError, Session, SliceProgram, WholeProgram,
    WholeReport, parse_inputs,
};
use ir::{Program, System};
use machine::{Target, TargetOptions};

/// Anything that fails a test.
pub type Failure = Box<dyn std::error::Error>;

/// How a whole run ended.
pub type Ended = Result<(Outcome, WholeReport), RunError>;

/// A question: a program by its number, inputs, limits.
pub type Asked = (usize, Inputs, Limits);

/// Asks everything in one session on four threads, each in its own order, and compares with a fresh
/// run of each.
pub fn compare(system: &System, run: Run<'_>, programs: &[&Program], asks: &[Asked]) -> Vec<Ended> {
    let fresh = |(program, inputs, limits): &Asked| {
        // By the interpreter alone, which the machine code of sessions is held to.
        let limits = Limits { machine_code: false, ..*limits };
        WholeProgram::new(programs[*program], system).run(&Run { limits, ..run }, inputs)
    };
    let fresh: Vec<Ended> = asks.iter().map(fresh).collect();
    let session = Session::new(run, system);
    let ready: Vec<_> = programs.iter().map(|program| session.program(program)).collect();
    thread::scope(|scope| {
        for seed in 1..5u64 {
            let (fresh, ready) = (&fresh, &ready);
            scope.spawn(move || {
                let mut state = seed;
                for _ in 0..2 * asks.len() {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let at = (state >> 33) as usize % asks.len();
                    let (program, inputs, limits) = &asks[at];
                    let ended = match &ready[*program] {
                        Ok(program) => program.ask(inputs, limits),
                        Err(error) => Err(error.clone()),
                    };
                    assert_eq!(ended, fresh[at], "ask {at} on thread {seed}");
                }
            });
        }
    });
    // Most blocks are executed a hundred times and more. Not on all hosts something is compiled.
    let much = fresh.iter().flatten().any(|(_, report)| report.instructions > 1000);
    assert!(!much || !cfg!(target_arch = "x86_64") || session.machine_code() > 1000);
    // The slices as well, of programs that have one.
    for (number, inputs, limits) in asks.iter().filter(|ask| !programs[ask.0].functions.is_empty()) {
        let Ok(ready) = &ready[*number] else { continue };
        let fresh = SliceProgram::new(programs[*number])
            .map_err(RunError::from)
            .and_then(|slice| slice.run(&Run { limits: *limits, ..run }, inputs));
        assert_eq!(ready.ask_slice(inputs, limits), fresh);
    }
    fresh
}

/// Limits that end runs at many places.
pub fn limits() -> Vec<Limits> {
    let all = Limits::default();
    let mut limits = vec![all, Limits { pages: 120, ..all }];
    limits.extend([100, 3_000, 40_000, 170_000].map(|fuel| Limits { fuel, ..all }));
    limits
}

/// Asks each program of a directory about a target, with any inputs; how many asks there were.
pub fn ask_all(directory: &Path, target: &Path) -> Result<usize, Failure> {
    let mut asked = 0;
    let target = Target::open(target, &TargetOptions::default())?;
    let run = Run {
        memory: &*target.mem,
        regs: &target.cpus.first().ok_or("no processor")?.regs,
        env: Environment { apic: ApicId::Listed(0), ..Environment::default() },
        limits: Limits::default(),
    };
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "prog") {
            continue;
        }
        let program = Program::from_bytes(&std::fs::read(&path)?)?;
        let name: String = program.system[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let system = System::open(std::fs::File::open(directory.join(format!("{name}.system")))?)?;
        let mut asks = Vec::new();
        for number in ["0", "1", "2", "3221225488"] {
            let given: Vec<_> =
                program.inputs.iter().map(|input| (input.name.clone(), number.to_owned())).collect();
            let inputs = parse_inputs(&program, &given)?;
            asks.extend(limits().into_iter().map(|limits| (0, inputs.clone(), limits)));
        }
        asked += asks.len();
        let ended = compare(&system, run, &[&program], &asks);
        assert!(ended.iter().any(|it| matches!(it, Ok((Outcome::Answer(_), _)))), "{}", path.display());
    }
    Ok(asked)
}

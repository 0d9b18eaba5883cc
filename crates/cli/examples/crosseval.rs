//! The cross-evaluation of 2011, for three policies: how much does one more recording help, and is
//! an answer ever wrong?
//!
//! `crosseval PROGRAM [DRAWS [RECORDINGS]]` records a trainer in several training guests with
//! varied inputs, builds programs from random subsets of 1 to 12 recordings, and asks held-out
//! targets: the captures that `cargo xtask matrix` left in `.cache/run`. Counts go to standard
//! output as CSV.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use engine::{Environment, Limits, Outcome, Run, SliceProgram, Values, WholeProgram, parse_inputs};
use ir::Program;
use ir::Summary;
use machine::{Target, TargetOptions, VirtAddr};
use object::{Object, ObjectSymbol};
use rustc_hash::FxHashMap;
use serde_json::json;
use slicer::{BuildOptions, ContextCells, Policy, Recording, Start};
use testkit::guest::Training;
use testkit::layout;
use testkit::pipeline::{Question, Tool, questions};
use testkit::truth::Truth;
use virtuoso_cli::allocators::{Convention, of_c};
use virtuoso_cli::training::{ExecutionContext, choose_execution_context, rehearse_each};

type Failure = Box<dyn std::error::Error>;

/// Sizes of subsets.
const SIZES: std::ops::RangeInclusive<usize> = 1..=12;
/// The policies compared.
const POLICIES: [Policy; 3] = [Policy::Guard, Policy::Assume, Policy::Whole];
/// States whose captures are asked.
const HELD_OUT: [&str; 7] = [
    "just-booted-a0",
    "processes-1000-a0",
    "containers-a0",
    "caches-dropped-a0",
    "kernel-under-load-a3",
    "modules-reloaded-a0",
    "mounts-overlay-a0",
];
/// Questions about each target, at most.
const QUESTIONS: usize = 8;

struct Case {
    target: Target,
    questions: Vec<Question>,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    draws: usize,
    asked: usize,
    by_slice: usize,
    in_the_end: usize,
    wrong: usize,
}

fn inputs_of(program: &str, boot: usize) -> Vec<String> {
    let pids = [
        "1",
        "2",
        "@pid:sshd",
        "@pid:httpd",
        "@pid:kthreadd",
        "@pid:worker",
        "@pid:getty",
        "3",
        "10",
        "4000",
    ];
    let modules = ["loop", "dummy", "mbcache"];
    (0..6)
        .map(|at| match program {
            "getpsfile" => format!("getpsfile:{}", pids[(boot * 6 + at) % pids.len()]),
            "getdrvfile" => format!("getdrvfile:@module:{}", modules[(boot + at) % modules.len()]),
            other => other.to_string(),
        })
        .collect()
}

fn record(tool: &Tool, program: &str, wanted: usize) -> Result<Vec<PathBuf>, Failure> {
    let mut traces = Vec::new();
    for boot in 0..wanted.div_ceil(6) {
        let mut trainers = inputs_of(program, boot);
        // Other work before and between changes the caches that the recordings find.
        if boot % 2 == 1 {
            trainers.insert(0, "lsmod".to_string());
            trainers.insert(3, "pslist".to_string());
        }
        let folder = layout::run().join(format!("crosseval/{program}-{boot}"));
        let all = tool.record(&Training { trainers, ..Training::default() }, &folder)?;
        let mine = format!("{program}-");
        traces.extend(
            all.into_iter()
                .filter(|it| it.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&mine))),
        );
    }
    traces.truncate(wanted);
    Ok(traces)
}

fn summaries(program: &str) -> Result<FxHashMap<VirtAddr, Summary>, Failure> {
    let elf = std::fs::read(layout::build().join("trainers").join(program))?;
    let elf = object::File::parse(elf.as_slice())?;
    Ok(elf
        .symbols()
        .filter_map(|it| Some((VirtAddr(it.address()), of_c(it.name().ok()?, Convention::SystemV64)?)))
        .collect())
}

fn cases(program: &str) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for name in HELD_OUT {
        let stem = layout::run().join(format!("matrix-{name}"));
        let file = |ending: &str| PathBuf::from(format!("{}{ending}", stem.display()));
        let truth: Truth = serde_json::from_slice(&std::fs::read(file(".truth.json"))?)?;
        // Who runs in the middle of the kernel cannot be told from outside.
        if program == "getpid" && name.starts_with("kernel") {
            continue;
        }
        let all = questions(program, &truth, 0);
        let step = all.len().div_ceil(QUESTIONS).max(1);
        cases.push(Case {
            target: Target::open(file(".elf"), &TargetOptions::default())?,
            questions: all.into_iter().step_by(step).collect(),
        });
    }
    Ok(cases)
}

fn right(question: &Question, values: &Values) -> bool {
    question.is_answered(&json!({ "outputs": values }))
}

fn given(question: &Question) -> Vec<(String, String)> {
    question.inputs.iter().map(|(name, text)| ((*name).to_string(), text.clone())).collect()
}

/// A generator that gives the same draws everywhere (xorshift64*).
fn draws(count: usize, size: usize, from: usize) -> Vec<Vec<usize>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ (size as u64) << 32;
    let mut next = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    };
    (0..count)
        .map(|_| {
            let mut all: Vec<usize> = (0..from).collect();
            for at in 0..size.min(from) {
                let other = at + next() as usize % (from - at);
                all.swap(at, other);
            }
            all.truncate(size);
            all
        })
        .collect()
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let program = words.first().ok_or("usage: crosseval PROGRAM [DRAWS [RECORDINGS]]")?.as_str();
    let draws_each: usize = words.get(1).map_or(Ok(50), |word| word.parse())?;
    let wanted: usize = words.get(2).map_or(Ok(24), |word| word.parse())?;
    let tool = Tool { virtuoso: layout::root().join("target/release/virtuoso") };
    let traces = record(&tool, program, wanted)?;
    let load = |path: &PathBuf| -> Result<Recording, Failure> {
        Ok(Recording::load(&path.to_string_lossy(), trace::Trace::open(path)?)?)
    };
    let recordings: Vec<Recording> = traces.iter().map(load).collect::<Result<_, _>>()?;
    let starts: Vec<Start<'_>> = recordings.iter().map(Start::new).collect::<Result<_, _>>()?;
    let mut options = BuildOptions { summaries: summaries(program)?, ..BuildOptions::default() };
    let own = rehearse_each(&starts, &options)?;
    let (execution_context, rehearsed) =
        choose_execution_context(&starts, &own, &ContextCells::default(), &mut options)?;
    eprintln!("{} recordings, {execution_context:?}", recordings.len());
    let sliced: Vec<&Recording> = if execution_context == ExecutionContext::Idle {
        rehearsed.iter().collect()
    } else {
        recordings.iter().collect()
    };
    let cases = cases(program)?;

    // A whole run does not depend on the recordings: once for each question.
    let mut whole_right: HashMap<(usize, usize), Option<bool>> = HashMap::new();
    let begin = starts[0].program(&options);
    for (number, case) in cases.iter().enumerate() {
        for (at, question) in case.questions.iter().enumerate() {
            let run = run(&case.target)?;
            let outcome = WholeProgram::new(&begin, starts[0].system())
                .run(&run, &parse_inputs(&begin, &given(question))?)?
                .0;
            let verdict = match outcome {
                Outcome::Answer(values) => Some(right(question, &values)),
                Outcome::Stopped(_) => None,
            };
            whole_right.insert((number, at), verdict);
        }
    }

    let jobs: Vec<Vec<usize>> = SIZES
        .filter(|&size| size <= recordings.len())
        .flat_map(|size| draws(draws_each, size, recordings.len()))
        .collect();
    let (next, rows) = (Mutex::new(jobs.iter()), Mutex::new(BTreeMap::<(usize, usize), Counts>::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Reading a snapshot is not shared between threads: each has its own starts, and
                // keeps them.
                let mut mine: HashMap<usize, Start<'_>> = HashMap::new();
                loop {
                    let Some(subset) = next.lock().ok().and_then(|mut it| it.next()) else { return };
                    let first = subset[0];
                    if let Entry::Vacant(entry) = mine.entry(first) {
                        match Start::new(&recordings[first]) {
                            Ok(start) => entry.insert(start),
                            Err(_) => continue,
                        };
                    }
                    let chosen: Vec<&Recording> = subset.iter().map(|&at| sliced[at]).collect();
                    let built = match slicer::build_each(&mine[&first], &chosen, &options, &POLICIES) {
                        Ok(built) => built,
                        Err(error) => {
                            eprintln!("not built: {error}");
                            continue;
                        }
                    };
                    for (number, program) in built.iter().enumerate() {
                        let counts = evaluate(program, &chosen, POLICIES[number], &cases, &whole_right);
                        if let Err(error) = &counts {
                            eprintln!("not asked: {error}");
                        }
                        if let (Ok(counts), Ok(mut rows)) = (counts, rows.lock()) {
                            let total = rows.entry((number, subset.len())).or_default();
                            total.draws += 1;
                            total.asked += counts.asked;
                            total.by_slice += counts.by_slice;
                            total.in_the_end += counts.in_the_end;
                            total.wrong += counts.wrong;
                        }
                    }
                }
            });
        }
    });
    println!("program,policy,recordings,draws,asked,right_by_slice,right_in_the_end,wrong");
    let rows = rows.lock().map_err(|_| "a thread failed")?;
    for (&(policy, size), Counts { draws, asked, by_slice, in_the_end, wrong }) in rows.iter() {
        let policy = POLICIES[policy].name();
        println!("{program},{policy},{size},{draws},{asked},{by_slice},{in_the_end},{wrong}");
    }
    Ok(())
}

fn run(target: &Target) -> Result<Run<'_>, Failure> {
    let regs = &target.cpus.first().ok_or("no processor")?.regs;
    Ok(Run { memory: &*target.mem, regs, env: Environment::default(), limits: Limits::default() })
}

/// Asks one program all questions.
fn evaluate(
    program: &Program,
    chosen: &[&Recording],
    policy: Policy,
    cases: &[Case],
    whole_right: &HashMap<(usize, usize), Option<bool>>,
) -> Result<Counts, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let slice = SliceProgram::new(program).map_err(|error| text(&error))?;
    let mut counts = Counts::default();
    for (number, case) in cases.iter().enumerate() {
        for (at, question) in case.questions.iter().enumerate() {
            counts.asked += 1;
            let inputs = parse_inputs(program, &given(question)).map_err(|error| text(&error))?;
            let run = run(&case.target).map_err(|error| text(&error))?;
            match slice.run(&run, &inputs).map_err(|error| text(&error))?.0 {
                Outcome::Answer(values) if right(question, &values) => {
                    counts.by_slice += 1;
                    counts.in_the_end += 1;
                }
                Outcome::Answer(values) => {
                    counts.wrong += 1;
                    if policy == Policy::Guard {
                        let names: Vec<&str> =
                            chosen.iter().map(|it| Path::new(&it.name).to_str().unwrap_or("?")).collect();
                        eprintln!(
                            "WRONG {names:?} {:?}: expected {}, got {values:?}",
                            question.inputs, question.expected
                        );
                    }
                }
                Outcome::Stopped(_) => match whole_right[&(number, at)] {
                    Some(true) => counts.in_the_end += 1,
                    Some(false) => counts.wrong += 1,
                    None => {}
                },
            }
        }
    }
    Ok(counts)
}

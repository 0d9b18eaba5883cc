//! `cargo xtask peers`: the same questions about the same dump, asked of Volatility 3 and drgn too.
//!
//! Each way to an answer is a process of its own, and all ways are started in turn, round after
//! round, so that what else the machine does meets all of them. Times count only where the answer
//! is the guest's own truth. What a tool needs before it can answer (a pack; debug information;
//! symbol tables made from it) is not timed here: [docs/evaluation/peers.md] says what it took.
//! Neither tool is installed by set-up: the user says where they are.

mod answer;
mod ways;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::capture::{Capture, Moment, capture};
use testkit::guest::{boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel};

use crate::files::ready::pack;
use crate::outcome::{Failure, Outcome};
use crate::processor::{TICK_MS, children};
use crate::{demo, setup};
use answer::{Facts, Question};
use ways::{Places, Way};

/// Processes that the guest starts itself, so that there are some 120 of them with the kernel's.
const IDLERS: u32 = 60;

/// Options of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// An interpreter of Python that has the packages drgn and volatility3
    #[arg(long, value_name = "FILE")]
    python: PathBuf,
    /// The test kernel with its debug information, from the package linux-image-RELEASE-dbg
    #[arg(long, value_name = "FILE")]
    vmlinux: PathBuf,
    /// A directory with Volatility's symbol table of that kernel, as dwarf2json makes it, in
    /// `linux`
    #[arg(long, value_name = "DIR")]
    symbols: PathBuf,
    /// How often each way is started, after one start that is not counted
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Where the raw figures go, as JSON
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What came out of one way.
struct Measured {
    right: bool,
    /// Milliseconds of each process.
    ms: Vec<f64>,
    /// Ticks that processors gave all of them.
    ticks: u64,
    /// Milliseconds of one answer in a process that has given it before, where the way tells.
    warm_ms: Vec<f64>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Outcome {
    setup::run()?;
    let tool = demo::tool()?;
    let kernel = Kernel::find(DEFAULT)?;
    let pack = pack(&tool, &kernel)?;
    let options = testkit::guest::Target { idlers: IDLERS, kaslr: true, ..testkit::guest::Target::default() };
    let mut guest = boot_target(&options, Duration::from_secs(600))?;
    let target = capture(&mut guest, &run_file("peers")?, Moment::Idle)?;
    drop(guest);
    let places = Places {
        virtuoso: &tool.virtuoso,
        pack: &pack,
        target: &target.elf,
        python: &arguments.python,
        vmlinux: &arguments.vmlinux,
        symbols: &arguments.symbols,
        note: &vmcoreinfo(&target.elf)?,
    };
    let ways = ways::all(&places);
    let measured = measure(&ways, truths(&target), arguments.rounds)?;
    println!("{}", table(&ways, &measured));
    if let Some(path) = &arguments.output {
        std::fs::write(path, format!("{}\n", report(arguments, &target, &ways, &measured)?))?;
    }
    // What another tool leaves out the table says.
    let wrong = ways.iter().zip(&measured).filter(|it| it.0.ours && !it.1.right);
    let wrong: Vec<&str> = wrong.map(|it| it.0.name.as_str()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("not the truth: {}", wrong.join(", ")).into()) }
}

/// Starts all ways in turn, the first time without counting. `expected` is what the guest says; of
/// what it does not say the first way's answer is what the others have to give.
fn measure(
    ways: &[Way],
    mut expected: BTreeMap<Question, Facts>,
    rounds: usize,
) -> Result<Vec<Measured>, Failure> {
    let empty = || Measured { right: true, ms: Vec::new(), ticks: 0, warm_ms: Vec::new() };
    let mut measured: Vec<Measured> = ways.iter().map(|_| empty()).collect();
    for round in 0..=rounds {
        println!("peers: round {round} of {rounds}");
        for (way, it) in ways.iter().zip(&mut measured) {
            let (begin, before) = (Instant::now(), children()?);
            let output = way.start()?;
            let (ms, ticks) = (begin.elapsed().as_secs_f64() * 1000.0, children()? - before);
            let answer = answer::read(way.question, way.form, &output)
                .map_err(|error| format!("{}: {error}", way.name))?;
            let expected = expected.entry(way.question).or_insert_with(|| answer.facts.clone());
            it.right &= *expected == answer.facts;
            if round == 0 && !it.right {
                let differing: Vec<&String> = expected.symmetric_difference(&answer.facts).take(6).collect();
                println!("peers: {}: {differing:?}", way.name);
            }
            if round > 0 {
                it.ms.push(ms);
                it.ticks += ticks;
                it.warm_ms.extend(answer.warm_ms);
            }
        }
    }
    Ok(measured)
}

/// What the guest says of itself.
fn truths(target: &Capture) -> BTreeMap<Question, Facts> {
    let truth = &target.truth;
    let named = |it: &testkit::truth::Proc| answer::process(it.pid.into(), &it.comm);
    [
        (Question::Pids, truth.processes.iter().map(|it| it.pid.to_string()).collect()),
        (Question::Processes, truth.processes.iter().map(named).collect()),
        (Question::Modules, truth.modules.iter().map(|it| it.name.clone()).collect()),
    ]
    .into()
}

/// Writes what a kernel tells crash dumps about itself into a file of its own, where the dump has
/// no note of it: drgn wants to be told.
fn vmcoreinfo(dump: &Path) -> Result<PathBuf, Failure> {
    let bytes = std::fs::read(dump)?;
    let begin = b"OSRELEASE=";
    let mut candidates = bytes.windows(begin.len()).enumerate().filter(|it| it.1 == begin);
    let note = candidates.find_map(|(at, _)| {
        let note = bytes[at..].split(|byte| *byte == 0).next()?;
        String::from_utf8_lossy(note).contains("SYMBOL(init_uts_ns)").then_some(note)
    });
    let path = run_file("peers.vmcoreinfo")?;
    std::fs::write(&path, note.ok_or("the dump's kernel has no VMCOREINFO")?)?;
    Ok(path)
}

fn table(ways: &[Way], measured: &[Measured]) -> String {
    let mut table =
        "| question | way | right | process: median | processor time | asked again |\n".to_owned();
    table += &format!("|{}\n", " --- |".repeat(6));
    for (way, it) in ways.iter().zip(measured) {
        let processor = it.ticks as f64 * TICK_MS / it.ms.len().max(1) as f64;
        let again = median(&it.warm_ms).map_or(String::new(), |ms| format!("{ms:.2} ms"));
        let right = if it.right { "yes" } else { "no" };
        let process = median(&it.ms).unwrap_or(f64::NAN);
        table += &format!(
            "| {} | {} | {right} | {process:.0} ms | {processor:.0} ms | {again} |\n",
            way.question.about(),
            way.name
        );
    }
    table
}

fn median(list: &[f64]) -> Option<f64> {
    let mut list = list.to_vec();
    list.sort_by(f64::total_cmp);
    list.get(list.len() / 2).copied()
}

fn report(
    arguments: &Arguments,
    target: &Capture,
    ways: &[Way],
    measured: &[Measured],
) -> Result<Value, Failure> {
    let rows = ways.iter().zip(measured).map(|(way, it)| {
        json!({
            "question": way.question.about(), "way": way.name, "right": it.right, "ms": it.ms,
            "processor_ms": it.ticks as f64 * TICK_MS, "again_ms": it.warm_ms,
        })
    });
    let versions = ways::versions(&arguments.python)?;
    Ok(json!({
        "processes": target.truth.processes.len(), "modules": target.truth.modules.len(),
        "rounds": arguments.rounds, "peers": versions, "ways": rows.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_medians_and_says_what_was_wrong() {
        let way = Way::example();
        let it = Measured { right: false, ms: vec![3.0, 1.0, 2.0], ticks: 6, warm_ms: Vec::new() };
        let table = table(&[way], &[it]);
        assert!(table.ends_with("| the PIDs | a | no | 2 ms | 20 ms |  |\n"), "{table}");
        assert_eq!(median(&[]), None);
    }
}

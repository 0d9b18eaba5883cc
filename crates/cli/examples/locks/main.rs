//! What runs do when a lock is held in the target: every word that could be one is set as if it
//! were, one at a time.
//!
//! `locks OUT.jsonl TARGET.elf PROGRAM.prog[:NAME=VALUE]...`; companion files lie beside their
//! programs. Which words could be locks is not typed in: a watched whole run shows which kernel
//! words instructions read, change and write back as one access (exchanges and what has or had a
//! lock prefix), and which are loaded and tested for being odd, as sequence counters are. Many of
//! these are data (reference counts, flag words): where an answer differs, the table names the
//! instruction, so that one can look.

mod words;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use engine::{Environment, Limits, Outcome, Run, SliceProgram, Values, WholeProgram, parse_inputs};
use machine::{Target, TargetOptions};
use words::{Finder, changed, patterns};

/// Far more than any of the programs needs here, and little enough for many runs.
const LIMITS: Limits = Limits {
    fuel: 60_000_000,
    pages: 16_384,
    depth: 1000,
    time: std::time::Duration::from_secs(60),
    machine_code: true,
};
/// An outcome in a word.
fn told(outcome: &Outcome, truth: &Values) -> String {
    match outcome {
        Outcome::Answer(values) if values == truth => "same".into(),
        Outcome::Answer(_) => "different".into(),
        Outcome::Stopped(stopped) => serde_json::to_value(stopped)
            .map_or_else(|_| String::new(), |it| it["outcome"].as_str().unwrap_or("").into()),
    }
}

/// Counts by program, kind, instruction, pattern, and what slice and whole run came to.
type Table = BTreeMap<(String, &'static str, u64, &'static str, String, String), u64>;

fn ask(argument: &str, target: &Target, table: &mut Table) -> Result<(), Box<dyn std::error::Error>> {
    let mut parts = argument.split(':');
    let path = PathBuf::from(parts.next().unwrap_or_default());
    let given: Vec<(String, String)> =
        parts.filter_map(|it| it.split_once('=')).map(|(name, text)| (name.into(), text.into())).collect();
    let program = ir::Program::from_bytes(&std::fs::read(&path)?)?;
    let hex: String = program.system[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let system = ir::System::from_bytes(&std::fs::read(path.with_file_name(hex + ".system"))?)?;
    let inputs = parse_inputs(&program, &given)?;
    let cpu = target.cpus.first().ok_or("no processor")?;
    let run = Run { memory: &*target.mem, regs: &cpu.regs, env: Environment::default(), limits: LIMITS };
    let mut finder = Finder::default();
    let (outcome, _) = WholeProgram::new(&program, &system).watched(&run, &inputs, &mut finder)?;
    let Outcome::Answer(truth) = outcome else { return Err(format!("{argument}: {outcome:?}").into()) };
    let slice = SliceProgram::new(&program)?;
    let mut whole = WholeProgram::new(&program, &system);
    for word in finder.words.values() {
        for (name, value) in patterns(word) {
            let memory = changed(&*target.mem, word, value)?;
            let run = Run { memory: &memory, ..run };
            let (by_slice, used) = slice.run(&run, &inputs)?;
            let (by_whole, report) = whole.run(&run, &inputs)?;
            // The bound that every run keeps: a block past the fuel at most.
            assert!(used <= LIMITS.fuel + 4096 && report.instructions <= 64 * LIMITS.fuel);
            let key = (
                program.name.clone(),
                word.kind,
                word.pc,
                name,
                told(&by_slice, &truth),
                told(&by_whole, &truth),
            );
            *table.entry(key).or_default() += 1;
        }
    }
    eprintln!("{argument}: {} words", finder.words.len());
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [out, target, programs @ ..] = words.as_slice() else {
        return Err("usage: locks OUT.jsonl TARGET.elf PROGRAM.prog[:NAME=VALUE]...".into());
    };
    let target = Target::open(Path::new(target), &TargetOptions::default())?;
    let mut table = Table::new();
    for program in programs {
        ask(program, &target, &mut table)?;
    }
    let mut lines = String::new();
    let mut sums: BTreeMap<(&str, &str, &str, &str), u64> = BTreeMap::new();
    for ((program, kind, pc, pattern, slice, whole), count) in &table {
        write!(lines, r#"{{"program":"{program}","kind":"{kind}","pc":"{pc:#x}","pattern":"{pattern}","#)?;
        writeln!(lines, r#""slice":"{slice}","whole":"{whole}","runs":{count}}}"#)?;
        *sums.entry((program, kind, slice, whole)).or_default() += count;
    }
    std::fs::write(out, lines)?;
    println!("| program | kind | slice | whole run | runs |\n| --- | --- | --- | --- | --- |");
    for ((program, kind, slice, whole), count) in sums {
        println!("| {program} | {kind} | {slice} | {whole} | {count} |");
    }
    Ok(())
}

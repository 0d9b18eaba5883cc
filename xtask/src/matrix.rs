//! `cargo xtask matrix`: six programs, each from what one training guest recorded, about targets in
//! many states.
//!
//! Every answer is compared with what the target itself printed. An answer is right by the slice,
//! or right by fallback; anything else is a named outcome, or wrong. With `--learn` each program
//! also learns from one target of a state and is asked about another.

use crate::demo::tool;
use crate::outcome::Outcome;
use crate::setup;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::capture::{Capture, capture_after};
use testkit::guest::{Training, boot_target, run_file};
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, program_of, questions};
use testkit::state::{Running, State, all};

/// Options of the matrix.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these states, separated by commas
    #[arg(long, value_delimiter = ',')]
    states: Vec<String>,
    /// Policy for branches seen one way only
    #[arg(long, default_value = "guard")]
    policy: String,
    /// Learn from one target of each state, ask about another
    #[arg(long)]
    learn: bool,
    /// Ask the captures that an earlier run left instead of booting targets
    #[arg(long)]
    reuse: bool,
    /// Questions asked of a program about one pause, at most; spread over all there are
    #[arg(long, default_value_t = 24)]
    questions: usize,
    /// Where the raw results go, as JSON lines
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What came out for one program in one state.
#[derive(Default, Serialize)]
struct Cell {
    state: String,
    program: String,
    /// Before or after learning from another target of the state.
    learned: bool,
    asked: usize,
    right_by_slice: usize,
    right_by_fallback: usize,
    outcomes: usize,
    wrong: usize,
    /// Where slices stopped, and how often.
    slice_stops: BTreeMap<String, usize>,
    /// Runs without an answer, and wrong ones.
    problems: Vec<String>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Outcome {
    setup::run()?;
    let tool = tool()?;
    let directory = layout::run().join("matrix");
    let traces = tool.record(&Training::default(), &directory)?;
    let mut programs = Vec::new();
    for program in PROGRAMS {
        // One recording each: the point is what a single one is good for.
        let mine: Vec<PathBuf> =
            traces.iter().filter(|trace| program_of(trace) == program).take(1).cloned().collect();
        let file = directory.join(format!("{program}.prog"));
        tool.build_with(program, &mine, &file, &["--policy", &arguments.policy])?;
        programs.push((program, file));
    }
    let states: Vec<State> = all()
        .into_iter()
        .filter(|state| arguments.states.is_empty() || arguments.states.iter().any(|name| name == state.name))
        .collect();
    let mut cells: Vec<Cell> = Vec::new();
    for state in &states {
        let captures = captures(state, "a", arguments.reuse)?;
        for (program, file) in &programs {
            cells.push(ask(&tool, program, file, state, &captures, arguments.questions)?);
            print_cell(cells.last());
        }
        if arguments.learn {
            let mut other = state.clone();
            other.target.idlers += 9;
            let others = self::captures(&other, "b", arguments.reuse)?;
            for (program, file) in &programs {
                let learned = learn(&tool, program, file, state, &captures, arguments.questions)?;
                let mut cell = ask(&tool, program, &learned, &other, &others, arguments.questions)?;
                cell.learned = true;
                cells.push(cell);
                print_cell(cells.last());
            }
        }
    }
    if let Some(path) = &arguments.output {
        let mut file = std::fs::File::create(path)?;
        for cell in &cells {
            writeln!(file, "{}", serde_json::to_string(cell)?)?;
        }
    }
    let wrong: usize = cells.iter().map(|cell| cell.wrong).sum();
    let without: usize = cells.iter().map(|cell| cell.outcomes).sum();
    println!(
        "matrix: {} answers asked for, {wrong} wrong, {without} without an answer",
        cells.iter().map(|it| it.asked).sum::<usize>()
    );
    if wrong > 0 { Err(format!("{wrong} answers are wrong").into()) } else { Ok(()) }
}

/// Boots a target in a state and pauses it as often as the state wants.
fn captures(state: &State, which: &str, reuse: bool) -> Result<Vec<Capture>, Box<dyn std::error::Error>> {
    let stem = |pause: u32| run_file(&format!("matrix-{}-{which}{pause}", state.name));
    if reuse {
        return (0..state.pauses).map(|pause| Ok(Capture::read(&stem(pause)?)?)).collect();
    }
    let mut guest = boot_target(&state.target, Duration::from_secs(600))?;
    (0..state.pauses)
        .map(|pause| Ok(capture_after(&mut guest, &stem(pause)?, state.moment, state.before)?))
        .collect()
}

/// The PID that runs at the pause, where it is known.
fn running(state: &State, capture: &Capture) -> Option<u64> {
    match state.running {
        Running::Idle => Some(0),
        Running::Process(name) => capture
            .truth
            .processes
            .iter()
            .find(|process| process.comm == name)
            .map(|process| u64::from(process.pid)),
        Running::Unknown => None,
    }
}

/// The questions to ask about one pause, spread over all there are.
fn chosen(program: &str, state: &State, capture: &Capture, most: usize) -> Vec<testkit::pipeline::Question> {
    let running = running(state, capture);
    if program == "getpid" && running.is_none() {
        return Vec::new();
    }
    let all = questions(program, &capture.truth, running.unwrap_or(0));
    let step = all.len().div_ceil(most.max(1)).max(1);
    all.into_iter().step_by(step).collect()
}

fn ask(
    tool: &Tool,
    program: &str,
    file: &Path,
    state: &State,
    captures: &[Capture],
    most: usize,
) -> Result<Cell, Box<dyn std::error::Error>> {
    let mut cell = Cell { state: state.name.to_owned(), program: program.to_owned(), ..Cell::default() };
    for capture in captures {
        for question in chosen(program, state, capture, most) {
            cell.asked += 1;
            let inputs = &question.inputs;
            match tool.answer(file, &capture.elf, inputs, &[]) {
                Ok(answer) if question.is_answered(&answer) => match answer["by"].as_str() {
                    Some("slice") => cell.right_by_slice += 1,
                    _ => {
                        cell.right_by_fallback += 1;
                        let stop = &answer["slice_stop"];
                        let place = |name: &str| format!("{:#x}", stop[name].as_u64().unwrap_or(0));
                        let text = format!(
                            "{} {} {}",
                            stop["outcome"].as_str().unwrap_or("?"),
                            place("at"),
                            place("to")
                        );
                        *cell.slice_stops.entry(text).or_default() += 1;
                    }
                },
                Ok(answer) => {
                    cell.wrong += 1;
                    let got = answer["outputs"].to_string();
                    let text = format!(
                        "{inputs:?} by {}: expected {}, got {got:.200}",
                        answer["by"], question.expected
                    );
                    cell.problems.push(text);
                }
                Err(error) => {
                    cell.outcomes += 1;
                    cell.problems.push(format!("{inputs:?}: {:.300}", error.to_string()));
                }
            }
        }
    }
    Ok(cell)
}

/// Learns from a target until the slice answers all that is asked about it.
fn learn(
    tool: &Tool,
    program: &str,
    file: &Path,
    state: &State,
    captures: &[Capture],
    most: usize,
) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let directory = layout::run().join("matrix/learned").join(state.name);
    std::fs::create_dir_all(&directory)?;
    let mut current = file.to_path_buf();
    let mut count = 0;
    for capture in captures {
        for question in chosen(program, state, capture, most) {
            count += 1;
            let next = directory.join(format!("{program}-{count}.prog"));
            let mut words: Vec<std::ffi::OsString> = vec!["learn".into(), "--quiet".into()];
            words.extend([
                current.clone().into(),
                capture.elf.clone().into(),
                "-o".into(),
                next.clone().into(),
            ]);
            words.extend(["--traces".into(), layout::run().join("matrix").into()]);
            for (name, value) in &question.inputs {
                words.extend(["--input".into(), format!("{name}={value}").into()]);
            }
            if tool.run(&words)?.code == 0 {
                current = next;
            }
        }
    }
    Ok(current)
}

fn print_cell(cell: Option<&Cell>) {
    let Some(cell) = cell else { return };
    println!(
        "{:<20} {:<11}{} asked {:>3}, by slice {:>3}, by fallback {:>3}, no answer {:>3}, wrong {:>3}",
        cell.state,
        cell.program,
        if cell.learned { " (learned)" } else { "" },
        cell.asked,
        cell.right_by_slice,
        cell.right_by_fallback,
        cell.outcomes,
        cell.wrong
    );
    for (stop, count) in cell.slice_stops.iter().take(4) {
        println!("      {count:>3} {stop}");
    }
    for problem in cell.problems.iter().take(3) {
        println!("      {problem}");
    }
}

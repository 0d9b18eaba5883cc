//! `cargo xtask demo`: the main job from end to end, on different guests.
//!
//! One training guest is recorded, six programs are built, and each answers questions about dumps
//! of two other guests, one of which has its kernel at a random place. The truth it is compared
//! with was printed inside that guest. At the end the second dump is opened as that guest's own
//! files (`demo_files.rs`).

use crate::outcome::Outcome;
use crate::{demo_files, setup, shell};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use testkit::capture::{Capture, Moment, capture};
use testkit::guest::{Target, Training, boot_target, run_file};
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Row, Tool, Way, program_of};

/// Options of the demonstration.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print one JSON object a program instead of a table
    #[arg(long)]
    json: bool,
    /// Do not run everything a second time both ways
    #[arg(long)]
    no_verify: bool,
}

/// Builds the command and the recorder and says where the command is.
pub fn tool() -> Result<Tool, Box<dyn std::error::Error>> {
    let mut build = Command::new("cargo");
    build
        .args(["build", "--release", "-p", "virtuoso-cli", "-p", "virtuoso-recorder"])
        .current_dir(layout::root());
    shell::show(&mut build)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| layout::root().join("target"), PathBuf::from);
    Ok(Tool { virtuoso: target.join("release/virtuoso") })
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Outcome {
    setup::run()?;
    let tool = tool()?;
    let say = |text: &str| {
        if !arguments.json {
            println!("demo: {text}");
        }
    };
    let directory = layout::run().join("demo");
    say("recording six trainers in one training guest");
    let traces = tool.record(&Training::default(), &directory)?;
    let mut instructions = 0;
    for trace in &traces {
        let checked = tool.check(trace)?;
        instructions += checked["instructions"].as_u64().unwrap_or(0);
    }
    say(&format!("{} traces, {instructions} instructions, all replayed by the lifter", traces.len()));
    say("recording once more with the kernel elsewhere, to learn what moves");
    let base = tool.record_base(testkit::kernel::DEFAULT, &layout::run().join("demo-base"))?;
    say("building six programs");
    let mut built = Vec::new();
    for program in PROGRAMS {
        let mine: Vec<PathBuf> =
            traces.iter().filter(|trace| program_of(trace) == program).cloned().collect();
        let file = directory.join(format!("{program}.prog"));
        built.push((
            program,
            file.clone(),
            tool.build_with(program, &mine, &file, &["--base", &base.to_string_lossy()])?,
        ));
    }
    let (mut rows, mut last): (Vec<Row>, Option<Capture>) = (Vec::new(), None);
    for (name, target) in
        [("demo-target", Target::default()), ("demo-moved", Target { kaslr: true, ..Target::default() })]
    {
        let what =
            if target.kaslr { "a target with the kernel at a random place" } else { "the target guest" };
        say(&format!("booting {what}: other processes, modules, namespaces and clock"));
        let mut guest = boot_target(&target, Duration::from_secs(300))?;
        let capture = capture(&mut guest, &run_file(name)?, Moment::Idle)?;
        drop(guest);
        say(&format!("asking about {}", capture.elf.display()));
        let way = if arguments.no_verify { Way::Usual } else { Way::Both };
        let asked: Vec<Row> = built
            .iter()
            .map(|(program, file, built)| tool.ask(program, file, &capture, 0, built, way))
            .collect();
        if arguments.json {
            for row in &asked {
                println!("{}", serde_json::to_string(row)?);
            }
        } else {
            print_table(&asked);
        }
        rows.extend(asked);
        last = Some(capture);
    }
    let pack = layout::run().join("demo-pack");
    for line in last.map_or(Ok(Vec::new()), |capture| demo_files::run(&tool, &pack, &capture, &say))? {
        say(&line);
    }
    let wrong: Vec<&str> =
        rows.iter().filter(|row| !row.equals_truth).map(|row| row.program.as_str()).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("not the truth, or no agreement of both ways: {}", wrong.join(", ")).into())
    }
}

fn print_table(rows: &[Row]) {
    println!();
    println!(
        "{:<11} {:<44} {:>7} {:>7} {:>7} {:>9} {:>7} {:>8}",
        "program", "answer (the first)", "truth", "slice", "whole", "traced", "slice", "ms"
    );
    for row in rows {
        let answer: String = row.answer.chars().take(44).collect();
        println!(
            "{:<11} {:<44} {:>7} {:>7} {:>7} {:>9} {:>7} {:>8.2}",
            row.program,
            answer,
            if row.equals_truth {
                format!("{}/{}", row.right, row.asked)
            } else {
                format!("NO {}/{}", row.right, row.asked)
            },
            row.by_slice,
            row.by_whole,
            row.traced,
            row.slice,
            row.milliseconds
        );
        for problem in row.problems.iter().take(3) {
            println!("            {problem}");
        }
    }
}

//! `cargo xtask foreign`: the six programs on a system that is not ours to ship, from an image that
//! the user has.
//!
//! One boot is recorded, and the programs are built from it. Then the system is booted once for
//! each state, says by other calls of its own what is in it, and is paused again and again: every
//! answer is compared with what it said. No image, no code of one and no way to make one is kept
//! here.

mod machine;
mod truth;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, program_of};

use crate::demo::tool;
use crate::outcome::{Failure, Outcome};
use machine::{Booted, Machine};
use truth::{Paused, Truth};

/// Options of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// A raw disk with the system installed; it is not changed
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// What the system is
    #[arg(long, value_enum, default_value = "nt")]
    system: System,
    /// A VGA BIOS, where the system does not like QEMU's own
    #[arg(long, value_name = "FILE")]
    vga_rom: Option<PathBuf>,
    /// Pauses in each state
    #[arg(long, default_value_t = 20)]
    pauses: usize,
    /// Only these states, separated by commas
    #[arg(long, value_delimiter = ',', default_values = ["user", "kernel", "idle"])]
    states: Vec<String>,
    /// Build from the recordings that an earlier run left
    #[arg(long)]
    reuse: bool,
    /// Where the raw results go, as JSON lines
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A kind of system.
#[derive(Clone, Copy, clap::ValueEnum)]
enum System {
    /// 32-bit Windows and what has its interfaces
    Nt,
}

/// What came out for one program in one state.
#[derive(Default, Serialize)]
struct Row {
    state: String,
    program: String,
    asked: usize,
    right: usize,
    /// Right by slice and whole run alike.
    verified: usize,
    /// Questions without an answer, by exit code.
    outcomes: BTreeMap<i32, usize>,
    wrong: usize,
    /// The first of each kind.
    problems: Vec<String>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Outcome {
    let Some(image) = &arguments.image else {
        println!("foreign: skipped, for no --image was given");
        return Ok(());
    };
    let System::Nt = arguments.system;
    let tool = tool()?;
    let work = layout::run().join("foreign-nt");
    let disk = work.join("disk");
    compile(&disk)?;
    let machine = Machine { image, disk: &disk, vga_rom: arguments.vga_rom.as_deref() };
    let traces = work.join("traces");
    if !arguments.reuse {
        record(&tool, &machine, &work, &traces)?;
    }
    build(&tool, &traces, &disk, &work)?;
    let mut rows = Vec::new();
    for state in &arguments.states {
        rows.extend(ask(&tool, &machine, &work, state, arguments.pauses)?);
    }
    print(&rows);
    if let Some(path) = &arguments.output {
        let mut file = std::fs::File::create(path)?;
        for row in &rows {
            writeln!(file, "{}", serde_json::to_string(row)?)?;
        }
    }
    match rows.iter().map(|row| row.wrong).sum() {
        0usize => Ok(()),
        wrong => Err(format!("{wrong} wrong answers").into()),
    }
}

/// Compiles trainers and the program that tells the truth, and writes what the guest is to execute.
fn compile(disk: &Path) -> Outcome {
    std::fs::create_dir_all(disk)?;
    let guests = layout::guests();
    let trainers = PROGRAMS.map(|name| (name, guests.join(format!("trainers/windows/{name}.c"))));
    let all = trainers.into_iter().chain([("state", guests.join("nt/state.c"))]);
    for (name, source) in all {
        let mut compiler = Command::new("i686-w64-mingw32-gcc");
        compiler.args(["-O2", "-s", "-static", "-Wl,--disable-dynamicbase", "-I"]);
        compiler.arg(guests.join("include")).arg("-o").arg(disk.join(format!("{name}.exe")));
        let status = compiler.arg(&source).args(["-lntdll", "-lpsapi"]).status();
        let why = "i686-w64-mingw32-gcc (Debian: gcc-mingw-w64-i686)";
        if !status.map_err(|error| format!("{why}: {error}"))?.success() {
            return Err(format!("{why} does not compile {}", source.display()).into());
        }
    }
    // Twice each; those with an input about things that are there and that are not.
    let mut lines = vec!["d:".to_owned()];
    for program in ["getpid", "pslist", "lsmod", "gettime"] {
        lines.extend([(); 2].map(|()| format!("{program}.exe > com1")));
    }
    // It starts the trainers that have an input.
    lines.push("state.exe train > com1".to_owned());
    lines.push("echo done > com1\r\n".to_owned());
    Ok(std::fs::write(disk.join("train.bat"), lines.join("\r\n"))?)
}

/// Records one boot.
fn record(tool: &Tool, machine: &Machine<'_>, work: &Path, traces: &Path) -> Outcome {
    println!("foreign: recording six trainers");
    if traces.exists() {
        std::fs::remove_dir_all(traces)?;
    }
    let recorder: Vec<OsString> =
        [tool.virtuoso.as_os_str(), "record".as_ref(), "-o".as_ref(), traces.as_os_str(), "--".as_ref()]
            .map(OsString::from)
            .to_vec();
    let mut guest = machine.boot(&work.join("training.serial"), Some(&recorder))?;
    guest.wait_for_desktop()?;
    guest.start("cmd /c d:\\train.bat", "done")?;
    Ok(guest.end()?)
}

/// Builds what can be built; a program that cannot is no failure of the task, for its row says so.
fn build(tool: &Tool, traces: &Path, disk: &Path, work: &Path) -> Outcome {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(traces)?.map(|entry| Ok(entry?.path())).collect::<Result<_, Failure>>()?;
    all.retain(|path| path.extension().is_some_and(|it| it == "trace"));
    all.sort();
    // Any other trainer shows the processor's context as well.
    let others: Vec<String> = ["pslist", "getpsfile"]
        .iter()
        .filter_map(|name| all.iter().find(|it| program_of(it) == *name))
        .flat_map(|it| ["--beside".to_owned(), it.display().to_string()])
        .collect();
    let options: Vec<&str> = others.iter().map(String::as_str).collect();
    for program in PROGRAMS {
        let mine: Vec<PathBuf> = all.iter().filter(|it| program_of(it) == program).cloned().collect();
        let output = work.join(format!("{program}.prog"));
        let built = tool.build_of(&disk.join(format!("{program}.exe")), &mine, &output, &options);
        match built {
            Ok(built) => println!("foreign: built {program}, view {}", built["view"]),
            Err(error) => println!("foreign: no program {program}: {error}"),
        }
    }
    Ok(())
}

/// Boots the system, brings it into a state, and asks at every pause in it.
fn ask(
    tool: &Tool,
    machine: &Machine<'_>,
    work: &Path,
    state: &str,
    pauses: usize,
) -> Result<Vec<Row>, Failure> {
    println!("foreign: asking about {pauses} pauses in the state {state}");
    let mut guest = machine.boot(&work.join(format!("{state}.serial")), None)?;
    guest.wait_for_desktop()?;
    let said = guest.start(&format!("cmd /c d:\\state.exe {state} > com1"), "ready")?;
    let (truth, since) = (Truth::parse(&said), Instant::now());
    let mut rows: Vec<Row> = PROGRAMS
        .iter()
        .map(|program| Row { state: state.to_owned(), program: (*program).to_owned(), ..Row::default() })
        .collect();
    let target = work.join(format!("{state}.elf"));
    for number in 0..pauses {
        let own = truth.is_own(pause(&mut guest, state, number)?);
        if target.exists() {
            std::fs::remove_file(&target)?;
        }
        guest.qmp.dump_guest_memory(&target)?;
        guest.qmp.cont()?;
        let elapsed = since.elapsed().as_secs() as i64;
        for question in truth.questions() {
            let inputs: Vec<(&str, String)> = question.input.clone().into_iter().collect();
            let file = work.join(format!("{}.prog", question.program));
            let Some(row) = rows.iter_mut().find(|row| row.program == question.program) else { continue };
            row.asked += 1;
            let what = match tool.answer(&file, &target, &inputs, &[]) {
                Ok(answer) if question.is_answered(&answer["outputs"], &truth, own, elapsed) => {
                    row.right += 1;
                    row.verified += usize::from(answer["verified"] == true);
                    continue;
                }
                Ok(answer) => {
                    row.wrong += 1;
                    format!("wrong: {:.300}", answer["outputs"].to_string())
                }
                Err(testkit::Error::Tool { code, messages, .. }) => {
                    *row.outcomes.entry(code).or_default() += 1;
                    format!("{code}: {messages:.300}")
                }
                Err(error) => return Err(error.into()),
            };
            if row.problems.len() < 5 {
                row.problems.push(format!("{inputs:?}: {what}"));
            }
        }
    }
    guest.end()?;
    std::fs::remove_file(&target)?;
    Ok(rows)
}

/// Pauses the guest in a state: the processor in a process, in the kernel at work, or halted.
fn pause(guest: &mut Booted, state: &str, number: usize) -> Result<Paused, Failure> {
    for attempt in 0..400u64 {
        // Not in step with the guest's clock.
        std::thread::sleep(Duration::from_millis(40 + (number as u64 * 37 + attempt * 13) % 160));
        guest.qmp.stop()?;
        let registers = guest.qmp.human("info registers")?;
        let (process, halted) = (registers.contains("CPL=3"), registers.contains("HLT=1"));
        let now = if process {
            "user"
        } else if halted {
            "idle"
        } else {
            "kernel"
        };
        if now == state {
            let pc = registers.split_once("EIP=").and_then(|(_, rest)| rest.get(..8));
            let pc = pc.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
            return Ok(Paused { process, pc });
        }
        guest.qmp.cont()?;
    }
    Err(format!("no pause in the state {state} in 400 attempts").into())
}

/// Prints the table.
fn print(rows: &[Row]) {
    println!(
        "\n{:8} {:10} {:>6} {:>6} {:>9} {:>6}  outcomes",
        "state", "program", "asked", "right", "verified", "wrong"
    );
    for row in rows {
        let outcomes: Vec<String> =
            row.outcomes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        println!(
            "{:8} {:10} {:6} {:6} {:9} {:6}  {}",
            row.state,
            row.program,
            row.asked,
            row.right,
            row.verified,
            row.wrong,
            outcomes.join(", ")
        );
        for problem in &row.problems {
            println!("    {problem}");
        }
    }
}

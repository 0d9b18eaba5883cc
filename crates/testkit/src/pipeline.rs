//! The main job from end to end, by the `virtuoso` command: record, check, build, run over a
//! target, compare with its truth.
//!
//! The demonstration and the end-to-end test share it. Nothing here looks into Virtuoso's
//! libraries: what a user would type is what runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;
use serde_json::Value;

use crate::capture::Capture;
use crate::guest::{Training, training_argv};
use crate::kernel::Kernel;
use crate::truth::Truth;
use crate::userland::Userland;
use crate::{Error, Result, initramfs};

/// The six programs every guest must get.
pub const PROGRAMS: [&str; 6] = ["getpid", "pslist", "getpsfile", "lsmod", "getdrvfile", "gettime"];

/// The command under test.
#[derive(Debug, Clone)]
pub struct Tool {
    /// The `virtuoso` executable; the recorder's library lies beside it.
    pub virtuoso: PathBuf,
}

/// What one command gave.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub messages: String,
}

impl Tool {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be started.
    pub fn run(&self, arguments: &[OsString]) -> Result<Finished> {
        let output =
            Command::new(&self.virtuoso).args(arguments).output().map_err(Error::io(&self.virtuoso))?;
        Ok(Finished {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs the command and expects success.
    ///
    /// # Errors
    /// [`Error::Tool`] with what it said.
    pub fn succeed(&self, arguments: &[OsString]) -> Result<String> {
        let finished = self.run(arguments)?;
        if finished.code == 0 {
            return Ok(finished.output);
        }
        let line: Vec<String> =
            arguments.iter().take(4).map(|word| word.to_string_lossy().into_owned()).collect();
        Err(Error::Tool {
            command: line.join(" "),
            code: finished.code,
            messages: finished.messages + &finished.output,
        })
    }

    /// Runs the command, expects success and one JSON value.
    ///
    /// # Errors
    /// [`Error::Tool`].
    pub fn json(&self, arguments: &[OsString]) -> Result<Value> {
        let output = self.succeed(arguments)?;
        serde_json::from_str(output.trim()).map_err(|error| Error::Tool {
            command: arguments.first().map_or(String::new(), |word| word.to_string_lossy().into_owned()),
            code: 0,
            messages: format!("its output is not JSON: {error}: {output}"),
        })
    }

    /// Boots one training guest under the recorder; the traces land in `directory`, which is
    /// emptied first.
    ///
    /// # Errors
    /// What the guest or the recorder says.
    pub fn record(&self, training: &Training, directory: &Path) -> Result<Vec<PathBuf>> {
        self.record_argv(training_argv(training)?, directory)
    }

    /// The same with any QEMU command line.
    ///
    /// # Errors
    /// What the guest or the recorder says.
    pub fn record_argv(&self, argv: Vec<OsString>, directory: &Path) -> Result<Vec<PathBuf>> {
        if directory.exists() {
            std::fs::remove_dir_all(directory).map_err(Error::io(directory))?;
        }
        std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
        let mut arguments = words(&["record", "--quiet", "-o"]);
        arguments.push(directory.into());
        arguments.push("--".into());
        arguments.extend(argv);
        self.succeed(&arguments)?;
        let mut traces: Vec<PathBuf> = std::fs::read_dir(directory)
            .map_err(Error::io(directory))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ending| ending == "trace"))
            .collect();
        traces.sort();
        Ok(traces)
    }

    /// Replays a trace by the lifter; what `trace check` counted.
    ///
    /// # Errors
    /// The lifter disagrees.
    pub fn check(&self, trace: &Path) -> Result<Value> {
        let mut arguments = words(&["trace", "check", "--json"]);
        arguments.push(trace.into());
        self.json(&arguments)
    }

    /// Boots a training guest whose kernel chose another place on another processor, with five
    /// levels of page tables, and records one short trainer: what `build --base` learns from.
    ///
    /// # Errors
    /// What the guest or the recorder says.
    pub fn record_base(&self, kernel: &str, directory: &Path) -> Result<PathBuf> {
        let trainers = vec!["getpid".to_owned()];
        let qemu = vec!["-cpu".into(), "max".into()];
        let training =
            Training { kernel: kernel.to_owned(), trainers, kaslr: true, qemu, ..Training::default() };
        let traces = self.record(&training, directory)?;
        traces
            .into_iter()
            .next()
            .ok_or_else(|| Error::Missing { what: "the trace of the other base".to_owned() })
    }

    /// Makes a pack of the six programs for a kernel by `virtuoso train`, with the recordings in
    /// it; its report. The trainers are of `userland`.
    ///
    /// # Errors
    /// What it says.
    pub fn train(&self, kernel: &str, userland: Userland, pack: &Path) -> Result<Value> {
        let trainers = userland.products("trainers");
        initramfs::trainers(userland)?;
        let line = |line: &str| OsString::from(format!("{}/{line}", trainers.display()));
        let mut arguments = words(&["--keep-traces", "--append", userland.kernel_options()]);
        arguments.extend(["getpid", "pslist", "getpsfile 1", "getpsfile 2", "lsmod", "gettime"].map(line));
        arguments.extend(["getdrvfile $(module dummy)", "getdrvfile $(module mbcache)"].map(line));
        self.train_with(&Kernel::find(kernel)?, pack, &arguments)
    }

    /// Makes a pack for a kernel by `virtuoso train`; its report. Without trainers among the
    /// further words the pack is that of the built-in ones.
    ///
    /// # Errors
    /// What it says.
    pub fn train_with(&self, kernel: &Kernel, pack: &Path, more: &[OsString]) -> Result<Value> {
        let mut arguments = words(&["train", "--quiet", "--json", "--kernel"]);
        arguments.extend([(&kernel.image).into(), "--modules".into(), (&kernel.libraries).into()]);
        arguments.extend(["--busybox".into(), kernel.userland.busybox()?.into(), "-o".into(), pack.into()]);
        arguments.extend(more.iter().cloned());
        match self.json(&arguments) {
            // Of some ten thousand changes of memory one is still known to no rule
            // (docs/evaluation). The command says to train again, and so do we; what it found has
            // to be seen all the same.
            Err(Error::Tool { code: 21, messages, .. }) if messages.contains("give different answers") => {
                eprintln!("trained again: {messages}");
                std::fs::remove_dir_all(pack).map_err(Error::io(pack))?;
                self.json(&arguments)
            }
            ended => ended,
        }
    }

    /// Records trainers, each `NAME` or `NAME:ARGUMENT`, in one guest, and builds `NAME.prog` of
    /// each in `directory`, which is emptied first. Each runs twice: when interrupts come is luck,
    /// and one between the marks may spoil a recording.
    ///
    /// # Errors
    /// What the guest, the recorder or the builder says.
    pub fn record_and_build(&self, trainers: &[&str], directory: &Path) -> Result<()> {
        let twice = trainers.iter().flat_map(|&trainer| [trainer.to_owned(), trainer.to_owned()]).collect();
        let traces = self.record(&Training { trainers: twice, ..Training::default() }, directory)?;
        for trainer in trainers {
            let program = trainer.split(':').next().unwrap_or(trainer);
            let mine: Vec<PathBuf> =
                traces.iter().filter(|trace| program_of(trace) == program).cloned().collect();
            self.build(program, &mine, &directory.join(format!("{program}.prog")))?;
        }
        Ok(())
    }

    /// Builds a program from traces of one trainer.
    ///
    /// # Errors
    /// What the builder says.
    pub fn build(&self, program: &str, traces: &[PathBuf], output: &Path) -> Result<Value> {
        self.build_with(program, traces, output, &[])
    }

    /// The same with further words, such as a policy.
    ///
    /// # Errors
    /// What the builder says.
    pub fn build_with(
        &self,
        program: &str,
        traces: &[PathBuf],
        output: &Path,
        options: &[&str],
    ) -> Result<Value> {
        self.build_of(&Userland::Amd64.products("trainers").join(program), traces, output, options)
    }

    /// The same with any executable.
    ///
    /// # Errors
    /// What the builder says.
    pub fn build_of(&self, elf: &Path, traces: &[PathBuf], output: &Path, options: &[&str]) -> Result<Value> {
        let mut arguments = words(&["build", "--quiet", "--json"]);
        arguments.extend(words(options));
        arguments.push("-o".into());
        arguments.push(output.into());
        arguments.push("--elf".into());
        arguments.push(elf.into());
        arguments.extend(traces.iter().map(OsString::from));
        self.json(&arguments)
    }

    /// Runs a program over a target; `options` are further words such as `--verify`.
    ///
    /// # Errors
    /// [`Error::Tool`] when there is no answer.
    pub fn answer(
        &self,
        program: &Path,
        target: &Path,
        inputs: &[(&str, String)],
        options: &[&str],
    ) -> Result<Value> {
        let arguments = asking("run", program, target, inputs, options);
        self.json(&arguments)
    }

    /// Searches for changes of a target about which slice and whole run of a program give different
    /// answers; `options` say how long and from which seed.
    ///
    /// # Errors
    /// What it says, unless it found differences or none.
    pub fn search(
        &self,
        program: &Path,
        target: &Path,
        inputs: &[(&str, String)],
        options: &[&str],
    ) -> Result<Value> {
        let arguments = asking("verify", program, target, inputs, options);
        let Finished { code, output, messages } = self.run(&arguments)?;
        let failed =
            |messages| Error::Tool { command: format!("verify {}", program.display()), code, messages };
        // 21 also where the unchanged target has two answers.
        match (code, serde_json::from_str(output.trim())) {
            (0 | 21, Ok(found)) => Ok(found),
            _ => Err(failed(messages + &output)),
        }
    }
}

/// Inputs with which a program has much to read in a target: process 1, and a module that stands in
/// the middle of the list.
#[must_use]
pub fn search_inputs(program: &str, truth: &Truth) -> Vec<(&'static str, String)> {
    let all = questions(program, truth, 0);
    let crc16 = truth.modules.iter().position(|module| module.name == "crc16");
    let at = if program == "getdrvfile" { crc16.unwrap_or(all.len() / 2) } else { 0 };
    all.into_iter().nth(at).map(|question| question.inputs).unwrap_or_default()
}

/// The words that ask a program about a target, with JSON as the answer.
fn asking(
    verb: &str,
    program: &Path,
    target: &Path,
    inputs: &[(&str, String)],
    options: &[&str],
) -> Vec<OsString> {
    let mut arguments = words(&[verb, "--quiet", "--json"]);
    arguments.extend([program.into(), target.into()]);
    for (name, value) in inputs {
        arguments.extend(["--input".into(), format!("{name}={value}").into()]);
    }
    arguments.extend(words(options));
    arguments
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// The name of the program a trace is of: the file's name without the number.
#[must_use]
pub fn program_of(trace: &Path) -> String {
    let stem = trace.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
    stem.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_string())
}

/// A question to a program, and whether its answer is the truth.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its inputs.
    pub inputs: Vec<(&'static str, String)>,
    /// What the truth is, for people.
    pub expected: String,
    check: Check,
}

#[derive(Debug, Clone)]
enum Check {
    Pid(u64),
    Numbers { list: &'static str, expected: Vec<u64> },
    Text { field: &'static str, expected: Option<String> },
    Between { low: f64, high: f64 },
}

/// All questions that a capture's truth can answer for a program. `running` is the PID of the
/// process that was paused, 0 for idle.
#[must_use]
pub fn questions(program: &str, truth: &Truth, running: u64) -> Vec<Question> {
    let one = |expected: String, check: Check| vec![Question { inputs: Vec::new(), expected, check }];
    match program {
        "getpid" => one(running.to_string(), Check::Pid(running)),
        "pslist" => {
            let expected: Vec<u64> = truth.processes.iter().map(|process| u64::from(process.pid)).collect();
            one(format!("{} PIDs", expected.len()), Check::Numbers { list: "pids", expected })
        }
        "lsmod" => {
            let expected: Vec<u64> = truth.modules.iter().map(|module| module.base).collect();
            one(format!("{} modules", expected.len()), Check::Numbers { list: "bases", expected })
        }
        "getpsfile" => truth
            .processes
            .iter()
            .map(|process| Question {
                inputs: vec![("pid", process.pid.to_string())],
                expected: process.exe.clone().unwrap_or_else(|| "none".to_string()),
                check: Check::Text { field: "path", expected: process.exe.clone() },
            })
            .collect(),
        "getdrvfile" => truth
            .modules
            .iter()
            .map(|module| Question {
                inputs: vec![("base", format!("{:#x}", module.base))],
                expected: module.name.clone(),
                check: Check::Text { field: "name", expected: Some(module.name.clone()) },
            })
            .collect(),
        "gettime" => {
            // The kernel stores the time at its last tick; an idle kernel may let seconds pass
            // between ticks.
            let (low, high) = (truth.time - 4.0, truth.time_after.unwrap_or(truth.time + 2.0));
            one(format!("{low:.1} to {high:.1} s"), Check::Between { low, high })
        }
        _ => Vec::new(),
    }
}

impl Question {
    /// Whether the outputs of a run (`virtuoso run --json`) are the truth.
    #[must_use]
    pub fn is_answered(&self, answer: &Value) -> bool {
        let outputs = &answer["outputs"];
        match &self.check {
            Check::Pid(expected) => outputs["pid"].as_u64() == Some(*expected),
            Check::Numbers { list, expected } => {
                let numbers =
                    outputs[list].as_array().map(|list| list.iter().filter_map(Value::as_u64).collect());
                let mut numbers: Vec<u64> = numbers.unwrap_or_default();
                let mut expected = expected.clone();
                numbers.sort_unstable();
                expected.sort_unstable();
                numbers == expected
            }
            Check::Text { field, expected: Some(expected) } => outputs[field].as_str() == Some(expected),
            Check::Text { expected: None, .. } => outputs["rc"].as_i64().is_some_and(|rc| rc < 0),
            Check::Between { low, high } => {
                let seconds =
                    outputs["sec"].as_f64().unwrap_or(0.0) + outputs["nsec"].as_f64().unwrap_or(0.0) / 1e9;
                (*low..=*high).contains(&seconds)
            }
        }
    }
}

/// How a program is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As anybody would.
    Usual,
    /// That, and once more by both the slice and the whole run, which must agree.
    Both,
    /// By the whole run alone.
    Whole,
}

impl Way {
    /// The words for it.
    #[must_use]
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Usual | Self::Both => &[],
            Self::Whole => &["--whole"],
        }
    }
}

/// One line of the demonstration's table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The program.
    pub program: String,
    /// Its answer, short.
    pub answer: String,
    /// Whether every answer was the truth.
    pub equals_truth: bool,
    /// How many questions were asked, and how many answered rightly.
    pub asked: usize,
    /// Right answers.
    pub right: usize,
    /// Answers by the slice alone.
    pub by_slice: usize,
    /// Answers by the whole run.
    pub by_whole: usize,
    /// Instructions traced.
    pub traced: u64,
    /// Machine instructions in the slice.
    pub slice: u64,
    /// Median of the runs' own time in milliseconds.
    pub milliseconds: f64,
    /// What went wrong, if anything.
    pub problems: Vec<String>,
}

impl Tool {
    /// Asks a program every question and compares.
    #[must_use]
    pub fn ask(
        &self,
        program: &str,
        file: &Path,
        capture: &Capture,
        running: u64,
        built: &Value,
        way: Way,
    ) -> Row {
        let mut row = Row {
            program: program.to_string(),
            answer: String::new(),
            equals_truth: false,
            asked: 0,
            right: 0,
            by_slice: 0,
            by_whole: 0,
            traced: built["instructions"].as_u64().unwrap_or(0),
            slice: built["static_in_slice"].as_u64().unwrap_or(0),
            milliseconds: 0.0,
            problems: Vec::new(),
        };
        let mut times = Vec::new();
        for question in questions(program, &capture.truth, running) {
            row.asked += 1;
            let inputs = &question.inputs;
            let mut answer = match self.answer(file, &capture.elf, inputs, way.options()) {
                Ok(answer) => answer,
                Err(error) => {
                    row.problems.push(format!("{inputs:?}: {error}"));
                    continue;
                }
            };
            if way == Way::Both
                && let Err(error) = self.answer(file, &capture.elf, inputs, &["--verify"])
            {
                row.problems.push(format!("{inputs:?}: --verify: {error}"));
            }
            match answer["by"].as_str() {
                Some("slice") => row.by_slice += 1,
                _ => row.by_whole += 1,
            }
            if question.is_answered(&answer) {
                row.right += 1;
            } else {
                row.problems
                    .push(format!("{inputs:?}: expected {}, got {}", question.expected, answer["outputs"]));
            }
            times.extend(answer["milliseconds"].as_f64());
            if row.answer.is_empty() {
                row.answer = short(&answer["outputs"].take());
            }
        }
        times.sort_by(f64::total_cmp);
        row.milliseconds = times.get(times.len() / 2).copied().unwrap_or(0.0);
        row.equals_truth = row.asked > 0 && row.right == row.asked && row.problems.is_empty();
        row
    }
}

/// The outputs in a few words.
fn short(outputs: &Value) -> String {
    let Some(fields) = outputs.as_object() else { return String::new() };
    let words = fields.iter().map(|(name, value)| match value {
        Value::Array(list) => format!("{name}: {}", list.len()),
        other => format!("{name} {other}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

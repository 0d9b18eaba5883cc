//! `virtuoso record`: runs any QEMU command line with the recorder loaded and collects the traces
//! it makes.
//!
//! The guest's RAM is put into a file that the recorder can read; the plugin removes the file's
//! name as soon as QEMU has opened it, and unfinished traces disappear with the plugin, so an
//! interrupted recording leaves nothing behind.

mod command;
mod status;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

pub use status::TraceReport;
use status::{Line, StatusReader};

/// The oldest QEMU whose plugin interface has everything the recorder needs (version 4 of the
/// interface).
const OLDEST_QEMU: (u32, u32) = (9, 2);
const PLUGIN: &str = "libvirtuoso_recorder.so";
/// The time between two looks at the status file.
const POLL: Duration = Duration::from_millis(50);
/// How long QEMU may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How many of the last lines of QEMU's messages an error quotes.
const QUOTED_LINES: usize = 8;

/// Record trainers running in a QEMU guest
///
/// The guest is started by the given command line, to which a memory file and the recorder are
/// added. Each time a trainer in the guest passes its begin and end marks, a file NAME-0001.trace
/// appears in the output directory.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// Directory for the traces; made if it does not exist
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    /// The recorder plugin; by default the one beside this executable
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    /// End QEMU after so many seconds
    #[arg(long, value_name = "SECS")]
    pub timeout: Option<u64>,
    /// Hide the guest's console. Set by the caller from the common option.
    #[arg(skip)]
    pub quiet: bool,
    /// The QEMU command line: program and arguments
    #[arg(last = true, required = true, value_name = "QEMU")]
    pub command: Vec<OsString>,
}

/// What happens while the guest runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A trainer passed its begin mark.
    Begin(&'a str),
    /// A trace is complete and has its name.
    Saved(&'a TraceReport),
    /// QEMU or the recorder printed a line.
    Message(&'a str),
}

/// What a recording made, as `record --json` prints it.
#[derive(Debug, Serialize)]
pub struct RecordReport {
    /// The traces, in the order they were made.
    pub traces: Vec<TraceReport>,
    /// The emulator and its version, such as `QEMU 10.0.2`.
    pub qemu: String,
    /// The exit code of QEMU; none if a signal ended it.
    pub exit_code: Option<i32>,
    /// Seconds from QEMU's start to its end.
    pub seconds: f64,
}

/// Why nothing, or not everything, was recorded. Complete traces stay, incomplete ones never do.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The program that should be QEMU cannot be started.
    #[error(
        "{program} is not installed; install QEMU (`cargo xtask setup`, or your distribution's \
         qemu-system-x86)"
    )]
    QemuMissing {
        /// The program as the user named it.
        program: String,
    },
    /// The program starts, but is no QEMU system emulator.
    #[error(
        "{program} is not a QEMU system emulator ({reason}); give the whole QEMU command line after `--`"
    )]
    NotQemu {
        /// The program as the user named it.
        program: String,
        /// What it said or did instead.
        reason: String,
    },
    /// The plugin interface of this QEMU is too old.
    #[error("QEMU {found} is too old: recording needs {}.{} or newer; install one (`cargo xtask setup`)",
        OLDEST_QEMU.0, OLDEST_QEMU.1)]
    QemuTooOld {
        /// The version that it says it has.
        found: String,
    },
    /// The recorder plugin is not there.
    #[error("the recorder {} does not exist; build it (`cargo build --workspace`) or name it with --plugin",
        path.display())]
    PluginMissing {
        /// The path where it was looked for.
        path: PathBuf,
    },
    /// The command line has something that recording cannot work with.
    #[error("{0}")]
    CommandLine(#[from] command::CommandError),
    /// The operating system refused to do something with a file.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb in -ing.
        action: &'static str,
        /// The file with which it was done.
        path: PathBuf,
        /// The system's reason for refusing.
        source: std::io::Error,
    },
    /// QEMU ended before the guest ran.
    #[error("QEMU could not start the guest ({status}): {messages}")]
    QemuFailed {
        /// How QEMU ended.
        status: ExitStatus,
        /// The last lines that QEMU printed on standard error.
        messages: String,
    },
    /// The guest ended and no mark was seen.
    #[error(
        "nothing was recorded: no trainer passed a begin mark before the guest ended; build the trainer with \
         virtuoso.h, call virtuoso_begin and virtuoso_end, and see that the guest runs it"
    )]
    NoMarks,
    /// The recorder refused a mark or gave a recording up.
    #[error("{message}{}", kept(*saved))]
    Marks {
        /// The recorder's word for it: `unmatched_end`, `missing_end`, `nested_begin`,
        /// `specification`, ...
        kind: String,
        /// What is wrong, for people.
        message: String,
        /// How many complete traces were kept.
        saved: usize,
    },
    /// The guest was still running at the time limit.
    #[error("the guest was still running after {seconds} s{}{}", during(program.as_deref()), kept(*saved))]
    Timeout {
        /// The time limit in seconds.
        seconds: u64,
        /// The program that was being recorded then, if one was.
        program: Option<String>,
        /// How many complete traces were kept.
        saved: usize,
    },
}

fn kept(saved: usize) -> String {
    if saved == 0 { String::new() } else { format!(" ({saved} complete recordings before it were kept)") }
}

fn during(program: Option<&str>) -> String {
    match program {
        Some(program) => {
            format!(" and \"{program}\" had not reached its end mark; raise --timeout or look for a loop")
        }
        None => "; raise --timeout, or let the guest power off when its trainers are done".to_owned(),
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RecordError {
    let path = path.to_path_buf();
    move |source| RecordError::Io { action, path, source }
}

/// Runs the guest to its end and reports what was recorded.
///
/// # Errors
/// See [`RecordError`]. Complete traces are kept, incomplete ones are removed.
pub fn run(args: &RecordArgs, progress: &mut dyn FnMut(&Progress<'_>)) -> Result<RecordReport, RecordError> {
    let (program, qemu_args) =
        args.command.split_first().ok_or_else(|| RecordError::QemuMissing { program: String::new() })?;
    let qemu = qemu_version(program)?;
    let plugin = find_plugin(args.plugin.as_deref())?;
    let words: Vec<String> = qemu_args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let memory = command::memory(&words)?;
    std::fs::create_dir_all(&args.output).map_err(io("making", &args.output))?;
    let output = args.output.canonicalize().map_err(io("finding", &args.output))?;

    let started = Instant::now();
    let work = WorkDir::new()?;
    let ram = memory.file.clone().unwrap_or_else(|| work.ram.clone());
    let status_path = work.path.join("status");
    let config_path = work.path.join("config.json");
    let config = command::config(&memory, &output, &status_path, &ram, &qemu);
    std::fs::write(&config_path, config).map_err(io("writing", &config_path))?;

    let mut child = Command::new(program)
        .args(qemu_args)
        .args(command::additions(&memory, &ram, &plugin, &config_path))
        .stdout(if args.quiet { Stdio::null() } else { Stdio::inherit() })
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|_| RecordError::QemuMissing { program: program.to_string_lossy().into_owned() })?;
    let messages = follow(&mut child);
    let mut watch =
        Watch { status: StatusReader::new(status_path), lines: Vec::new(), messages, quoted: Vec::new() };
    let (exit, timed_out) = watch.until_end(&mut child, args.timeout.map(Duration::from_secs), progress)?;
    watch.finish(progress);
    work.remove_partial(&output, &watch.lines);
    let outcome = watch.outcome(exit, timed_out.then_some(args.timeout.unwrap_or(0)));
    outcome.map(|traces| RecordReport {
        traces,
        qemu,
        exit_code: exit.code(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// A directory for the plugin's configuration and status, and a name for the RAM file; all removed
/// at the end.
struct WorkDir {
    path: PathBuf,
    ram: PathBuf,
}

impl WorkDir {
    fn new() -> Result<Self, RecordError> {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
        let name = format!("virtuoso-record-{}-{nanos:x}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        std::fs::create_dir(&path).map_err(io("making", &path))?;
        let shm = Path::new("/dev/shm");
        let ram = if shm.is_dir() { shm.join(name) } else { path.join("ram") };
        Ok(Self { path, ram })
    }

    /// Removes traces that a killed QEMU left unfinished.
    fn remove_partial(&self, output: &Path, lines: &[Line]) {
        for line in lines {
            if let Line::Begin { file: Some(file), .. } = line {
                let mut name = output.join(file).into_os_string();
                name.push(".partial");
                drop(std::fs::remove_file(name));
            }
        }
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // Both may be gone already: the plugin removes the RAM file's name early.
        drop(std::fs::remove_file(&self.ram));
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// QEMU's messages, line by line, from a thread of their own.
fn follow(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// What was heard from QEMU and the plugin so far, and where more comes from.
struct Watch {
    status: StatusReader,
    lines: Vec<Line>,
    messages: Receiver<String>,
    quoted: Vec<String>,
}

impl Watch {
    fn poll(&mut self, progress: &mut dyn FnMut(&Progress<'_>)) {
        for line in self.status.read() {
            match &line {
                Line::Begin { program, .. } => progress(&Progress::Begin(program)),
                Line::Saved(trace) => progress(&Progress::Saved(trace)),
                Line::Loaded { .. } | Line::Error { .. } | Line::Exit => {}
            }
            self.lines.push(line);
        }
        while let Ok(message) = self.messages.try_recv() {
            self.message(message, progress);
        }
    }

    /// Reads what is left of messages and status lines after QEMU has ended.
    fn finish(&mut self, progress: &mut dyn FnMut(&Progress<'_>)) {
        // The pipe closes with QEMU, unless something QEMU started still holds it.
        while let Ok(message) = self.messages.recv_timeout(Duration::from_millis(500)) {
            self.message(message, progress);
        }
        self.poll(progress);
    }

    fn message(&mut self, message: String, progress: &mut dyn FnMut(&Progress<'_>)) {
        progress(&Progress::Message(&message));
        self.quoted.push(message);
        if self.quoted.len() > QUOTED_LINES {
            self.quoted.remove(0);
        }
    }

    /// Waits for QEMU's end; the flag says that it had to be ended.
    fn until_end(
        &mut self,
        child: &mut Child,
        timeout: Option<Duration>,
        progress: &mut dyn FnMut(&Progress<'_>),
    ) -> Result<(ExitStatus, bool), RecordError> {
        let wait = io("waiting for", Path::new("QEMU"));
        let started = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok((status, asked.is_some())),
                Ok(None) => {}
                Err(error) => {
                    drop(child.kill());
                    return Err(wait(error));
                }
            }
            self.poll(progress);
            match asked {
                None if timeout.is_some_and(|timeout| started.elapsed() >= timeout) => {
                    asked = Some(Instant::now());
                    // A signal that lets QEMU tell its plugins; without a `kill` program the hard
                    // way follows.
                    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
                    if !kill.is_ok_and(|status| status.success()) {
                        drop(child.kill());
                    }
                }
                Some(since) if since.elapsed() >= GRACE => drop(child.kill()),
                _ => {}
            }
            std::thread::sleep(POLL);
        }
    }

    fn outcome(self, exit: ExitStatus, timeout: Option<u64>) -> Result<Vec<TraceReport>, RecordError> {
        let mut traces = Vec::new();
        let (mut loaded, mut begun, mut failed) = (false, None, None);
        for line in self.lines {
            match line {
                Line::Loaded { .. } => loaded = true,
                Line::Begin { program, .. } => begun = Some(program),
                Line::Saved(trace) => {
                    begun = None;
                    traces.push(trace);
                }
                Line::Error { kind, message } => failed = failed.or(Some((kind, message))),
                Line::Exit => {}
            }
        }
        let saved = traces.len();
        if let Some(seconds) = timeout {
            return Err(RecordError::Timeout { seconds, program: begun, saved });
        }
        if let Some((kind, message)) = failed {
            return Err(RecordError::Marks { kind, message, saved });
        }
        if !loaded || saved == 0 && begun.is_none() && !exit.success() {
            return Err(RecordError::QemuFailed { status: exit, messages: self.quoted.join("\n") });
        }
        if let Some(program) = begun {
            let message = format!("QEMU ended ({exit}) before \"{program}\" reached its end mark");
            return Err(RecordError::Marks { kind: "missing_end".to_owned(), message, saved });
        }
        if traces.is_empty() { Err(RecordError::NoMarks) } else { Ok(traces) }
    }
}

/// The version that `QEMU --version` prints.
fn qemu_version(program: &OsString) -> Result<String, RecordError> {
    let name = program.to_string_lossy().into_owned();
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            RecordError::QemuMissing { program: name.clone() }
        } else {
            RecordError::NotQemu { program: name.clone(), reason: error.to_string() }
        }
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.strip_prefix("QEMU emulator version ").and_then(|rest| rest.split_whitespace().next());
    let Some(version) = version else {
        let reason = format!("`--version` says \"{}\"", text.lines().next().unwrap_or_default());
        return Err(RecordError::NotQemu { program: name, reason });
    };
    if !is_recent(version) {
        return Err(RecordError::QemuTooOld { found: version.to_owned() });
    }
    Ok(format!("QEMU {version}"))
}

fn is_recent(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST_QEMU
}

fn find_plugin(given: Option<&Path>) -> Result<PathBuf, RecordError> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => {
            let executable =
                std::env::current_exe().map_err(io("finding", Path::new("the virtuoso executable")))?;
            executable.with_file_name(PLUGIN)
        }
    };
    path.canonicalize().map_err(|_| RecordError::PluginMissing { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(command: &[&str]) -> RecordError {
        let args = RecordArgs {
            output: std::env::temp_dir(),
            plugin: None,
            timeout: None,
            quiet: true,
            command: command.iter().map(OsString::from).collect(),
        };
        run(&args, &mut |_| {}).unwrap_err()
    }

    #[test]
    fn versions() {
        for (version, recent) in
            [("10.0.2", true), ("9.2.0", true), ("9.1.3", false), ("7.2.22", false), ("x", false)]
        {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }

    #[test]
    fn a_missing_or_foreign_program_is_named() {
        assert!(matches!(record(&["qemu-of-nobody"]), RecordError::QemuMissing { .. }));
        assert!(matches!(record(&["true"]), RecordError::NotQemu { .. }));
        assert!(find_plugin(Some(Path::new("/nowhere.so"))).unwrap_err().to_string().contains("--plugin"));
    }

    fn outcome(lines: Vec<Line>, timeout: Option<u64>) -> Result<Vec<TraceReport>, RecordError> {
        let status = StatusReader::new(PathBuf::new());
        let watch = Watch { status, lines, messages: mpsc::channel().1, quoted: vec!["qemu: no".to_owned()] };
        watch.outcome(ExitStatus::default(), timeout)
    }

    #[test]
    fn outcomes() {
        let loaded = || Line::Loaded { version: String::new() };
        let begin = || Line::Begin { program: "p".to_owned(), file: None };
        let saved = || Line::Saved(TraceReport::default());
        let error = || Line::Error { kind: "unmatched_end".to_owned(), message: "m".to_owned() };
        assert!(matches!(outcome(vec![], None), Err(RecordError::QemuFailed { .. })));
        assert!(matches!(outcome(vec![loaded(), Line::Exit], None), Err(RecordError::NoMarks)));
        assert_eq!(outcome(vec![loaded(), begin(), saved(), Line::Exit], None).unwrap().len(), 1);
        let missing = outcome(vec![loaded(), begin(), saved(), begin()], None).unwrap_err();
        assert!(matches!(&missing, RecordError::Marks { kind, saved: 1, .. } if kind == "missing_end"));
        assert!(matches!(outcome(vec![loaded(), error()], None), Err(RecordError::Marks { saved: 0, .. })));
        let late = outcome(vec![loaded(), begin()], Some(3)).unwrap_err();
        assert!(late.to_string().contains("\"p\" had not reached its end mark"), "{late}");
    }
}

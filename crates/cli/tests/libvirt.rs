//! A guest of libvirt, through real virsh and a daemon of the test's own (`testkit::libvirt`).
//!
//! What is asserted: answers, live and of files that `virsh save` wrote; that other clients who
//! resume the guest during a pause are noticed, and left alone; that the guest runs again whatever
//! happens and no virsh is left; and that the daemon lives through all of it, which libvirt 9.0.0
//! does not if QEMU is told to dump a page. The guest's processor executes a process all the time,
//! so that what `info registers` does not say of it has to be found in memory.
//!
//! Boots two guests, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask test` sets it) and in
//! release; where libvirt's daemon is not installed `live.rs` alone tries this way, with a script
//! in virsh's place.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::guest::Target;
use testkit::layout;
use testkit::libvirt::Libvirt;
use testkit::pipeline::Tool;
use testkit::truth::Truth;

type Failure = Box<dyn std::error::Error>;

/// What a domain may be called: like a line of virsh's own, and with a mark that turns text around.
const NAME: &str = "it's \u{202e} \"a\": event RESUME at 9999999999.000000 for domain 'b'";
/// Repeats that take longer than any step here.
const LONG: &str = "100000000";

/// A daemon, its domain, and what is asked.
struct Bench {
    libvirt: Libvirt,
    console: PathBuf,
    truth: Truth,
    programs: PathBuf,
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: String,
    messages: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), messages: text(output.stderr) }
    }

    fn assert(&self, code: i32, says: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.messages);
        assert!(self.messages.contains(says), "{}", self.messages);
        assert_eq!(self.out.is_empty(), code != 0, "{}", self.out);
    }

    fn answer(&self) -> Result<Value, Failure> {
        self.assert(0, "");
        Ok(serde_json::from_str(self.out.trim()).map_err(|error| format!("{error}: {}", self.out))?)
    }
}

impl Bench {
    fn boot(libvirt: Libvirt, programs: PathBuf) -> Result<Self, Failure> {
        let target = Target { idlers: 8, busy: true, ..Target::default() };
        let console = libvirt.define(NAME, &target)?;
        let text = libvirt.boot(NAME, &console, Duration::from_secs(300))?;
        Ok(Self { libvirt, console, truth: Truth::parse(&text)?, programs })
    }

    fn name() -> String {
        format!("libvirt:{NAME}")
    }

    /// A command that asks this libvirt.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtuoso"));
        command.args(words).current_dir(&self.programs).env("LIBVIRT_DEFAULT_URI", self.libvirt.uri());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ask(&self, words: &[&str]) -> Result<Ended, Failure> {
        Ok(Ended::of(self.command(words).output()?))
    }

    fn pslist(&self, target: &str) -> Result<Value, Failure> {
        self.ask(&["run", "pslist.prog", target, "--json"])?.answer()
    }

    fn state(&self) -> Result<String, Failure> {
        Ok(self.libvirt.succeed(&["domstate", "--domain", NAME])?)
    }

    fn tell(&self, what: &str) -> Result<(), Failure> {
        self.libvirt.succeed(&[what, "--domain", NAME])?;
        Ok(())
    }

    fn wait_for(&self, state: &str) -> Result<Duration, Failure> {
        let begin = Instant::now();
        while self.state()? != state {
            assert!(begin.elapsed() < Duration::from_secs(20), "not {state} but {}", self.state()?);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(begin.elapsed())
    }

    /// Starts a run that lasts until somebody ends it, and waits until it has paused the guest.
    fn paused(&self, more: &[&str]) -> Result<Child, Failure> {
        let name = Self::name();
        let words = [&["run", "gettime.prog", &name, "--repeat", LONG], more].concat();
        let child = self.command(&words).spawn()?;
        self.wait_for("paused")?;
        Ok(child)
    }

    /// Asserts that the daemon lives and that no virsh of this libvirt listens any more.
    fn settled(&mut self) -> Result<(), Failure> {
        assert!(self.libvirt.process_id().is_some(), "the daemon has ended");
        let begin = Instant::now();
        while let Some(line) = listeners(&self.libvirt.uri()).first() {
            assert!(begin.elapsed() < Duration::from_secs(10), "left: {line}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Command lines of processes that listen to events of a libvirt.
fn listeners(uri: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let read = |path: &Path, name: &str| std::fs::read(path.join(name)).unwrap_or_default();
    let lines = processes.filter_map(|path| {
        let (line, variables) = (read(&path, "cmdline"), read(&path, "environ"));
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours = String::from_utf8_lossy(&variables).contains(uri);
        (ours && (line.contains("qemu-monitor-event") || line.contains("tell-events"))).then_some(line)
    });
    lines.collect()
}

fn finish(child: Child) -> Result<Ended, Failure> {
    Ok(Ended::of(child.wait_with_output()?))
}

fn pids(answer: &Value) -> BTreeSet<u64> {
    answer["outputs"]["pids"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

#[test]
fn a_domain_is_asked_and_who_else_resumes_it_is_noticed() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let Some(libvirt) = Libvirt::start()? else {
        eprintln!("skipped: libvirt's daemon or virsh is not installed (CONTRIBUTING.md, Tests)");
        return Ok(());
    };
    eprintln!("{}", libvirt.succeed(&["version", "--daemon"])?);
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let programs = layout::run().join("libvirt");
    tool.record_and_build(&["pslist", "gettime"], &programs)?;
    let mut bench = Bench::boot(libvirt, programs)?;
    asked(&mut bench)?;
    torn(&mut bench)?;
    standing(&mut bench)?;
    killed(&mut bench)?;
    saved(&mut bench)?;
    started_anew(&mut bench)
}

/// Answers are the truth, by the domain's name with and without a prefix and by its number.
fn asked(bench: &mut Bench) -> Result<(), Failure> {
    let number = bench.libvirt.succeed(&["domid", "--domain", NAME])?;
    let known: BTreeSet<u64> = bench.truth.processes.iter().map(|process| process.pid.into()).collect();
    for target in [&Bench::name(), NAME, &format!("libvirt:{number}")] {
        let answer = bench.pslist(target)?;
        let found = pids(&answer);
        // Workers of the kernel come and go.
        let wrong: Vec<_> = known.symmetric_difference(&found).collect();
        assert!(found.len() > 30 && wrong.len() <= 6, "{wrong:?}: {answer}");
        let spinner = bench.truth.processes.iter().find(|process| process.comm == "spinner");
        assert!(spinner.is_some_and(|process| found.contains(&process.pid.into())), "{answer}");
        eprintln!("{target}: paused for {} ms, {wrong:?} came or went", answer["pause_milliseconds"]);
    }
    let ended = bench.ask(&["target", "info", NAME])?;
    ended.assert(0, "");
    assert!(ended.out.contains("live, RAM read from QEMU's process"), "{}", ended.out);
    let watch =
        ["watch", "pslist.prog", "gettime.prog", NAME, "--count", "5", "--interval", "50ms", "--json"];
    let ended = bench.ask(&watch)?;
    ended.assert(0, "");
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap_or_default())?;
    assert_eq!(
        (&last["summary"]["rounds"], &last["summary"]["unanswered"]),
        (&5.into(), &0.into()),
        "{last}"
    );
    assert_eq!(last["summary"]["pauses_torn"], 0, "{}", ended.messages);
    assert!(!ended.messages.contains("would not be known"), "{}", ended.messages);
    assert_eq!(bench.state()?, "running");
    bench.settled()
}

/// Another client ends our pause, and may begin one of its own.
fn torn(bench: &mut Bench) -> Result<(), Failure> {
    for (orders, left) in
        [(vec!["resume"], "running"), (vec!["resume", "suspend"], "paused"), (vec!["reset"], "running")]
    {
        let child = bench.paused(&[])?;
        for order in &orders {
            bench.tell(order)?;
        }
        finish(child)?.assert(29, "another client re");
        assert_eq!(bench.state()?, left, "{orders:?}");
        if left == "paused" {
            bench.tell("resume")?;
        }
        bench.settled()?;
    }
    // The guest boots again.
    std::thread::sleep(Duration::from_secs(1));
    bench.tell("destroy")?;
    bench.libvirt.boot(NAME, &bench.console, Duration::from_secs(300))?;
    Ok(())
}

/// A guest that somebody else has paused stays so, and is not his for sure either.
fn standing(bench: &mut Bench) -> Result<(), Failure> {
    bench.tell("suspend")?;
    let name = Bench::name();
    let ended = bench.ask(&["run", "pslist.prog", &name, "--json"])?;
    ended.answer()?;
    ended.assert(0, "was paused already and stays paused");
    assert_eq!(bench.state()?, "paused");
    let mut child = bench.paused(&[])?;
    let begin = Instant::now();
    // It stood still before, so nothing says when the run begins.
    while child.try_wait()?.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it is not noticed");
        bench.tell("resume")?;
        bench.tell("suspend")?;
        std::thread::sleep(Duration::from_millis(200));
    }
    finish(child)?.assert(29, "another client resumed");
    assert_eq!(bench.state()?, "paused");
    bench.tell("resume")?;
    bench.settled()
}

/// Whatever ends the command, the guest runs again, and no virsh is left behind.
fn killed(bench: &mut Bench) -> Result<(), Failure> {
    // Not SIGINT, which whoever runs the tests in a shell's background has them ignore.
    for signal in ["-KILL", "-TERM"] {
        let child = bench.paused(&[])?;
        assert!(!listeners(&bench.libvirt.uri()).is_empty(), "nobody listens");
        Command::new("kill").args([signal, &child.id().to_string()]).status()?;
        assert_eq!(finish(child)?.code, None, "it was to be killed by {signal}");
        let after = bench.wait_for("running")?;
        eprintln!("{signal}: runs again after {} ms", after.as_millis());
        bench.settled()?;
    }
    // Ctrl-C reaches all of a group: `watch` ends after its round, whatever virsh it waits for.
    let name = Bench::name();
    let words = ["watch", "gettime.prog", &name, "--interval", "1ms", "--json"];
    let child = bench.command(&words).process_group(0).spawn()?;
    for state in ["paused", "running", "paused"] {
        bench.wait_for(state)?;
    }
    Command::new("kill").args(["-INT", "--", &format!("-{}", child.id())]).status()?;
    let ended = finish(child)?;
    ended.assert(0, "");
    assert!(ended.out.lines().last().is_some_and(|line| line.contains("summary")), "{}", ended.out);
    bench.wait_for("running")?;
    bench.settled()?;
    let child = bench.paused(&["--max-pause", "500"])?;
    finish(child)?.assert(19, "--max-pause");
    bench.wait_for("running")?;
    // The daemon ends and comes back: nothing is answered, and the guest does not stand still.
    let child = bench.paused(&[])?;
    bench.libvirt.start_again("raw")?;
    finish(child)?.assert(40, "virsh");
    bench.wait_for("running")?;
    bench.settled()
}

/// What `virsh save` writes has the answers that the guest had when it was saved.
fn saved(bench: &mut Bench) -> Result<(), Failure> {
    for form in ["raw", "gzip", "zstd", "sparse"] {
        bench.libvirt.start_again(form)?;
        bench.tell("suspend")?;
        let live = bench.pslist(NAME)?;
        let file = bench.libvirt.data().join(format!("{form}.save"));
        let text = file.display().to_string();
        let said = bench.libvirt.virsh(&["save", "--domain", NAME, "--file", &text]);
        if !said.done {
            // Older ones do not know all of these.
            assert!(!matches!(form, "raw" | "gzip"), "{}", said.text);
            eprintln!("{form}: {}", said.text);
            bench.tell("resume")?;
            continue;
        }
        let answer = bench.pslist(&text)?;
        assert_eq!(pids(&answer), pids(&live), "{form}: {answer}");
        bench.libvirt.succeed(&["restore", "--file", &text, "--running"])?;
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

/// The memory of one QEMU and the processors of another are no guest.
fn started_anew(bench: &mut Bench) -> Result<(), Failure> {
    let name = Bench::name();
    let words: Vec<OsString> =
        ["watch", "gettime.prog", &name, "--interval", "300ms", "--json"].map(OsString::from).to_vec();
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let child = bench.command(&words).spawn()?;
    std::thread::sleep(Duration::from_secs(2));
    bench.tell("destroy")?;
    bench.tell("start")?;
    let ended = finish(child)?;
    assert!(matches!(ended.code, Some(1 | 40)), "{:?}: {}", ended.code, ended.messages);
    assert!(ended.messages.contains("virsh"), "{}", ended.messages);
    assert_eq!(bench.state()?, "running");
    bench.tell("destroy")?;
    bench.ask(&["target", "info", &name])?.assert(1, "does not run");
    bench.settled()
}

//! Files of a guest that runs, under load: every request is a pause of its own, and the guest runs
//! after each, also after one that is killed; and a guest that stands still as long as its files
//! are mounted runs again however that ends.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::capture::ask;
use testkit::guest::{Guest, Target, boot_target};
use testkit::kernel::{DEFAULT, Kernel};
use testkit::layout;
use testkit::qmp::Qmp;

use super::{Failure, is_mounted, python, wait_until};

/// Times that the command is killed.
const KILLS: usize = 12;

/// Exit codes of requests that the moment of the pause leaves without an answer: a lock that
/// somebody holds, and what a device would have to say.
const NAMED: [i32; 4] = [12, 13, 14, 16];

/// How many requests are made.
fn requests() -> usize {
    if std::env::var_os("VIRTUOSO_E2E").is_some_and(|it| it == "full") { 1000 } else { 40 }
}

/// A guest that works all the time, and what asks it.
struct Running {
    guest: Guest,
    qmp: Qmp,
    socket: PathBuf,
    pack: PathBuf,
}

/// A file, and what is in it.
type Known = (String, Vec<u8>);

impl Running {
    fn boot(pack: &Path) -> Result<Self, Failure> {
        let socket = layout::run().join("running.qmp");
        let monitor = format!("unix:{},server=on,wait=off", socket.display());
        let options = Target {
            kaslr: true,
            append: "state=load".to_owned(),
            qemu: vec!["-qmp".into(), monitor.into()],
            ..Target::default()
        };
        let guest = boot_target(&options, Duration::from_secs(300))?;
        let qmp = guest.qmp()?;
        Ok(Self { guest, qmp, socket, pack: pack.to_owned() })
    }

    fn command(&self, verb: &str, options: &[&str], after: &[OsString]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtuoso"));
        command.args([verb, "--quiet", "--packs"]).arg(&self.pack).args(options);
        command.arg(format!("qmp:{}", self.socket.display())).args(after);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a command and waits until it has paused the guest.
    fn paused(&mut self, mut command: Command) -> Result<Child, Failure> {
        self.qmp.take_events();
        let child = command.spawn()?;
        self.qmp.wait_for_pause()?;
        Ok(child)
    }

    /// Files of which this machine knows what is in them.
    fn known(&mut self) -> Result<Vec<Known>, Failure> {
        let userland = Kernel::find(DEFAULT)?.userland;
        let mut known = vec![
            ("/proc/sys/kernel/hostname".to_owned(), b"target\n".to_vec()),
            ("/bin/busybox".to_owned(), fs::read(userland.busybox()?)?),
            ("/lib/idler".to_owned(), fs::read(userland.products("linux").join("idler"))?),
        ];
        // Idle processes do not change their names, as workers of the kernel do.
        for process in ask(&mut self.guest)?.processes.into_iter().filter(|it| it.exe.is_some()) {
            known.push((format!("/proc/{}/comm", process.pid), format!("{}\n", process.comm).into_bytes()));
        }
        Ok(known)
    }
}

/// All that is looked at over a running guest.
pub fn looked_at(pack: &Path) -> Result<(), Failure> {
    let mut running = Running::boot(pack)?;
    let known = running.known()?;
    let asked = asked(&mut running, &known)?;
    let killed = killed(&mut running)?;
    for end in ["-INT", "-TERM", "-KILL", "umount"] {
        // One pause in some hundred is where a lock is held that an answer needs.
        let mut pauses = 1;
        while let Some(why) = frozen(&mut running, end)? {
            assert!(pauses < 4, "{end}: no answers in {pauses} pauses: {why}");
            pauses += 1;
        }
    }
    frozen_too_long(&mut running)?;
    frozen_for_a_tool(&mut running)?;
    by_python(&mut running)?;
    // Nothing is stuck: init answers.
    ask(&mut running.guest)?;
    eprintln!("{asked}; {killed}; guest held paused and let go on every way out");
    Ok(())
}

/// Many requests; after each the guest runs.
fn asked(running: &mut Running, known: &[Known]) -> Result<String, Failure> {
    let (mut right, mut named, mut times) = (0, Vec::new(), Vec::new());
    for (path, content) in known.iter().cycle().take(requests()) {
        running.qmp.take_events();
        let begin = Instant::now();
        let output = running.command("cat", &[], &[path.into()]).output()?;
        times.push(begin.elapsed());
        assert!(running.qmp.is_running()?, "{path}: the guest stands still");
        let events = running.qmp.take_events();
        assert!(events.contains(&"STOP".to_owned()) && events.contains(&"RESUME".to_owned()), "{events:?}");
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            assert!(output.stdout == *content, "{path}: {}", String::from_utf8_lossy(&output.stdout));
            right += 1;
        } else {
            assert!(output.status.code().is_some_and(|it| NAMED.contains(&it)), "{path}: {messages}");
            named.push(messages);
        }
        // It works on: a guest that ran for no time at all would be found standing still as well.
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(right * 100 >= requests() * 95, "{right} of {} are right: {named:?}", requests());
    times.sort();
    let median = times[times.len() / 2].as_millis();
    let named = named.len();
    Ok(format!("{right} requests right, {named} without an answer, {median} ms each"))
}

/// The command is killed during the pause: the guest runs on.
fn killed(running: &mut Running) -> Result<String, Failure> {
    let (mut in_pause, mut worst) = (0, Duration::ZERO);
    for turn in 0..KILLS {
        // What takes longest.
        let command = running.command("ls", &["-R", "-l"], &["/proc".into()]);
        let mut child = running.paused(command)?;
        std::thread::sleep(Duration::from_millis(9 * turn as u64));
        in_pause += usize::from(!running.qmp.is_running()?);
        child.kill()?;
        child.wait()?;
        worst = worst.max(running.qmp.wait_until_running()?);
        let output = running.command("cat", &[], &["/proc/sys/kernel/ostype".into()]).output()?;
        assert!(output.status.code().is_some_and(|it| it == 0 || NAMED.contains(&it)), "the monitor is free");
        assert!(running.qmp.is_running()?);
    }
    assert!(in_pause > KILLS / 2, "only {in_pause} of {KILLS} kills hit a pause");
    Ok(format!(
        "{KILLS} kills, {in_pause} in the pause, running again after {} ms at most",
        worst.as_millis()
    ))
}

/// The Python module holds the guest paused from open to close, for so long at most; and the guest
/// runs again if it is killed, for the process that watches over the pause is another Python.
fn by_python(running: &mut Running) -> Result<(), Failure> {
    let name = format!("qmp:{}", running.socket.display());
    for (limit, end, expected) in
        [("60000", "line", "closed"), ("300", "wait", "failed 19"), ("60000", "kill", "")]
    {
        let Some(mut command) = python::with_module("python-live")? else { return Ok(()) };
        command.arg(python::sources().join("tests/live.py")).arg(&name).arg(&running.pack).arg(limit);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut out = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        if line.trim() != "paused" {
            let output = child.wait_with_output()?;
            return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        match end {
            "wait" => std::thread::sleep(Duration::from_millis(600)),
            _ => assert!(!running.qmp.is_running()?, "{end}: it is not paused"),
        }
        match end {
            "kill" => child.kill()?,
            _ => child.stdin.take().ok_or("no input")?.write_all(b"\n")?,
        }
        line.clear();
        out.read_line(&mut line)?;
        assert_eq!(line.trim(), expected, "{end}");
        child.wait()?;
        running.qmp.wait_until_running()?;
    }
    Ok(())
}

/// An empty directory for a mount.
fn directory() -> Result<PathBuf, Failure> {
    let directory = std::env::temp_dir().join(format!("virtuoso-frozen-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// A mount that holds the guest paused: it stands still, answers, and runs again. The result is why
/// it had no answer, if that was an outcome.
fn frozen(running: &mut Running, end: &str) -> Result<Option<String>, Failure> {
    let directory = directory()?;
    let command = running.command("mount", &["--freeze", "--max-pause", "100000"], &[(&directory).into()]);
    let mut child = running.paused(command)?;
    assert!(wait_until(|| is_mounted(&directory)), "{end}: not mounted");
    let read = |name: &str| fs::read(directory.join(name));
    let before = read("proc/sys/kernel/hostname").and_then(|name| Ok((name, read("proc/1/status")?)));
    let mut why = None;
    if let Ok((name, before)) = before {
        assert_eq!(name, b"target\n");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(before, read("proc/1/status")?);
    } else {
        let told = String::from_utf8(read(".virtuoso/errors.jsonl")?)?;
        let codes: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let is_named = |it: &Value| it["code"].as_i64().is_some_and(|code| NAMED.contains(&(code as i32)));
        assert!(!codes.is_empty() && codes.iter().all(is_named), "{end}: {told}");
        why = Some(told);
    }
    assert!(!running.qmp.is_running()?, "{end}: it runs while it is mounted");
    let done = match end {
        "umount" => Command::new("umount").arg(&directory).status()?,
        signal => Command::new("kill").args([signal, &child.id().to_string()]).status()?,
    };
    assert!(done.success(), "{end}");
    let status = child.wait()?;
    assert_eq!(status.success(), end != "-KILL", "{end}: {status}");
    running.qmp.wait_until_running()?;
    assert!(wait_until(|| !is_mounted(&directory)), "{end}: still mounted");
    fs::remove_dir(&directory)?;
    Ok(why)
}

/// `--max-pause` ends the pause whatever is mounted; from then on nothing is answered.
fn frozen_too_long(running: &mut Running) -> Result<(), Failure> {
    let directory = directory()?;
    let command = running.command("mount", &["--freeze", "--max-pause", "2500"], &[(&directory).into()]);
    let child = running.paused(command)?;
    assert!(wait_until(|| is_mounted(&directory)), "not mounted");
    running.qmp.wait_for_event("RESUME")?;
    assert!(running.qmp.is_running()?);
    // What nobody has asked for yet is no answer of a guest that runs.
    let late = fs::read(directory.join("proc/sys/kernel/osrelease"));
    assert!(late.is_err(), "{late:?}");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().is_ok());
    let output = child.wait_with_output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(19), "{messages}");
    assert!(messages.contains("--max-pause"), "{messages}");
    assert!(wait_until(|| !is_mounted(&directory)));
    Ok(fs::remove_dir(&directory)?)
}

/// A tool over the files of a guest that stands still meanwhile.
fn frozen_for_a_tool(running: &mut Running) -> Result<(), Failure> {
    let words = ["--", "cat", "/proc/1/comm"].map(OsString::from);
    let output = running.command("exec", &["--freeze"], &words).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"init\n");
    assert!(running.qmp.is_running()?);
    // Without it the guest is not paused for as long as somebody likes.
    let output = running.command("exec", &[], &words).output()?;
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--freeze"));
    assert!(running.qmp.is_running()?);
    Ok(())
}

//! Live guests, under load: every answer against what is true at that very pause, and a guest that
//! runs again whatever happens.
//!
//! The truth at a pause cannot be printed by the guest, which stands still. A process in it
//! (`guests/linux/forker.c`) forks and reaps all the time and keeps a list of its children in one
//! page, in such an order that the list is true at any moment. The test sees the pause through a
//! monitor of its own (the event STOP), reads that page, and asks whether the guest still stands
//! still and no RESUME has come in between: then page and answer are of the same pause. Where it
//! was too late, the round does not count and is repeated. What else runs in the guest is told by
//! busybox before and after each ten rounds.
//!
//! Boots guests and takes a minute or two, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask
//! test` sets it) and in release.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use testkit::capture::ask;
use testkit::guest::{Guest, Target, boot_target};
use testkit::layout;
use testkit::pipeline::Tool;
use testkit::qmp::Qmp;
use testkit::truth::Truth;

type Failure = Box<dyn std::error::Error>;

/// Rounds of pause, answer and resume.
const ROUNDS: usize = 100;
/// Times that the command is killed.
const KILLS: usize = 24;
/// The forker's page: mark, own PID, turns, places of state and PID.
const MARK: &[u8; 32] = b"virtuoso: children of forker\n\x01\x02\x03";
const PLACES: usize = 24;

/// A target that forks, the socket for the command, and the guest's RAM.
struct Load {
    guest: Guest,
    qmp: Qmp,
    socket: PathBuf,
    /// Another one, for what listens to events in virsh's place.
    events: PathBuf,
    ram: File,
    page: u64,
}

/// What the forker knows of its children.
#[derive(Debug, Default)]
struct View {
    itself: u64,
    turns: u32,
    alive: BTreeSet<u64>,
    dying: BTreeSet<u64>,
    forking: usize,
}

impl Load {
    fn boot(directory: &Path) -> Result<Self, Failure> {
        let [socket, events] = ["guest.qmp", "events.qmp"].map(|name| directory.join(name));
        let words = format!(
            "-object memory-backend-memfd,id=ram,size=192M,share=on -machine memory-backend=ram -qmp \
             unix:{},server=on,wait=off -qmp unix:{},server=on,wait=off",
            socket.display(),
            events.display()
        );
        let qemu = words.split(' ').map(OsString::from).collect();
        let target = Target { append: "state=fork".to_owned(), qemu, ..Target::default() };
        let guest = boot_target(&target, Duration::from_secs(300))?;
        let (qmp, ram) = (guest.qmp()?, ram(&guest)?);
        let mut load = Self { guest, qmp, socket, events, ram, page: 0 };
        load.page = load.find_page()?;
        Ok(load)
    }

    fn name(&self) -> OsString {
        format!("qmp:{}", self.socket.display()).into()
    }

    /// The physical address of the forker's page. RAM has no hole in a guest as small as this.
    fn find_page(&self) -> Result<u64, Failure> {
        let mut bytes = vec![0; 1 << 20];
        for at in (0..self.ram.metadata()?.len()).step_by(bytes.len()) {
            self.ram.read_exact_at(&mut bytes, at)?;
            if let Some(page) =
                bytes.chunks(4096).position(|page| page.starts_with(MARK) && page[32..36] != [0; 4])
            {
                return Ok(at + 4096 * page as u64);
            }
        }
        Err("the forker's page is not in the guest's RAM".into())
    }

    fn view(&self) -> Result<View, Failure> {
        let mut page = [0; 4096];
        self.ram.read_exact_at(&mut page, self.page)?;
        assert!(page.starts_with(MARK), "the forker's page has moved");
        let word = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
        let mut view = View { itself: word(32).into(), turns: word(36), ..View::default() };
        for place in 0..PLACES {
            let (state, pid) = (word(40 + 8 * place), word(44 + 8 * place).into());
            match state {
                0 => {}
                1 => view.forking += 1,
                2 => drop(view.alive.insert(pid)),
                3 => drop(view.dying.insert(pid)),
                _ => return Err(format!("place {place} has state {state}").into()),
            }
        }
        Ok(view)
    }

    fn hash(&self) -> Result<[u8; 32], Failure> {
        let mut hash = Sha256::new();
        let mut bytes = vec![0; 1 << 20];
        for at in (0..self.ram.metadata()?.len()).step_by(bytes.len()) {
            self.ram.read_exact_at(&mut bytes, at)?;
            hash.update(&bytes);
        }
        Ok(hash.finalize().into())
    }

    /// Waits until the forker has worked since it had made so many turns: a busy machine may not
    /// let the guest run at all between two pauses.
    fn works_on(&self, turns: Option<u32>) -> Result<(), Failure> {
        let begin = Instant::now();
        while Some(self.view()?.turns) == turns {
            assert!(begin.elapsed() < Duration::from_secs(20), "no load between two pauses");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// The guest's RAM: the file that QEMU shares.
fn ram(guest: &Guest) -> Result<File, Failure> {
    let folder = format!("/proc/{}/fd", guest.process_id());
    let links = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let is_ram = |link: &PathBuf| {
        std::fs::read_link(link).is_ok_and(|path| path.to_string_lossy().starts_with("/memfd:memory-backend"))
    };
    Ok(File::open(links.into_iter().find(is_ram).ok_or("QEMU has no memfd")?)?)
}

fn command(words: &[OsString]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtuoso"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> Result<Value, Failure> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{messages}", output.status);
    Ok(serde_json::from_str(text.trim()).map_err(|error| format!("{error}: {text}"))?)
}

/// The processes that busybox sees, the forker's children left out.
fn others(guest: &mut Guest, forker: u64) -> Result<BTreeSet<u64>, Failure> {
    let truth: Truth = ask(guest)?;
    let mine = |pid: u64, name: &str| name == "forker" && pid != forker;
    let all = truth.processes.iter().map(|process| (u64::from(process.pid), process.task_name()));
    Ok(all.filter(|&(pid, name)| !mine(pid, name)).map(|(pid, _)| pid).collect())
}

/// What is wrong with an answer, given what was true at its pause.
fn wrong(answer: &Value, view: &View, others: &BTreeSet<u64>) -> Option<String> {
    let list = answer["outputs"]["pids"].as_array()?;
    let pids: BTreeSet<u64> = list.iter().filter_map(Value::as_u64).collect();
    let missing: Vec<_> = others.union(&view.alive).filter(|pid| !pids.contains(pid)).collect();
    let known = |pid: &u64| others.contains(pid) || view.alive.contains(pid) || view.dying.contains(pid);
    let unknown: Vec<_> = pids.iter().filter(|pid| !known(pid)).collect();
    let right = missing.is_empty() && unknown.len() <= view.forking && pids.len() == list.len();
    (!right).then(|| format!("missing {missing:?}, unknown {unknown:?}; {view:?}; {answer}"))
}

#[test]
fn a_guest_under_load_is_asked_and_runs_on() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let directory = layout::run().join("live");
    tool.record_and_build(&["pslist", "gettime"], &directory)?;
    let mut load = Load::boot(&directory)?;
    rounds(&mut load, &directory.join("pslist.prog"))?;
    kills(&mut load, &directory.join("pslist.prog"))?;
    paused_by_others(&mut load, &directory.join("pslist.prog"))?;
    watched(&mut load, &directory)?;
    bounded(&mut load, &directory.join("pslist.prog"))?;
    at_moments(&mut load, &directory.join("pslist.prog"))?;
    by_the_monitor(&mut load, &directory.join("pslist.prog"))?;
    through_virsh(&mut load, &directory)?;
    // Nothing is stuck: init answers, and processes come and go.
    let turns = load.view()?.turns;
    ask(&mut load.guest)?;
    assert_ne!(load.view()?.turns, turns, "the forker does not work any more");
    Ok(())
}

/// Pause, answer, resume; each answer is what was true at that pause.
fn rounds(load: &mut Load, program: &Path) -> Result<(), Failure> {
    let words: Vec<OsString> =
        vec!["run".into(), "--quiet".into(), "--json".into(), program.into(), load.name()];
    let forker = load.view()?.itself;
    let mut before = others(&mut load.guest, forker)?;
    let (mut good, mut late, mut unsteady, mut exact) = (0, 0, 0, 0);
    let (mut pauses, mut by_slice, mut last_turns) = (Vec::new(), 0, None);
    while good < ROUNDS {
        assert!(late + unsteady < 5 * ROUNDS, "{late} rounds were too late and {unsteady} unsteady");
        let mut batch = Vec::new();
        while batch.len() < 10 {
            load.works_on(last_turns)?;
            load.qmp.take_events();
            let child = command(&words).spawn()?;
            load.qmp.wait_for_event("STOP")?;
            let view = load.view()?;
            let stands = !load.qmp.is_running()?;
            let same_pause = stands && load.qmp.take_events().is_empty();
            let answer = finish(child)?;
            pauses.extend(answer["pause_milliseconds"].as_f64());
            by_slice += usize::from(answer["by"] == "slice");
            if !same_pause {
                late += 1;
                assert!(late < 5 * ROUNDS, "the pauses are too short for the test to look");
                continue;
            }
            last_turns = Some(view.turns);
            batch.push((view, answer));
        }
        let after = others(&mut load.guest, forker)?;
        // Kernel threads come and go by themselves.
        if before == after {
            for (view, answer) in &batch {
                if let Some(text) = wrong(answer, view, &before) {
                    return Err(text.into());
                }
                exact += usize::from(view.forking == 0 && view.dying.is_empty());
            }
            good += batch.len();
        } else {
            unsteady += batch.len();
        }
        before = after;
    }
    pauses.sort_by(f64::total_cmp);
    let (median, max) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    eprintln!(
        "{good} rounds right ({exact} with nobody in between), {late} too late to compare, {unsteady} while \
         others came or went; \
         {by_slice} of {} answers by slice; pause median {median:.1} ms, maximum {max:.1} ms",
        pauses.len()
    );
    Ok(())
}

/// The command is killed at any moment, mostly during the pause: the guest runs on.
fn kills(load: &mut Load, program: &Path) -> Result<(), Failure> {
    let mut words: Vec<OsString> = vec!["run".into(), program.into(), load.name()];
    // Longer than a kill can take on a busy machine; `--max-pause` would end it.
    words.extend(["--repeat", "200000"].map(OsString::from));
    let (mut in_pause, mut worst) = (0, Duration::ZERO);
    for turn in 0..KILLS {
        load.qmp.take_events();
        let mut child = command(&words).spawn()?;
        if turn % 4 == 3 {
            std::thread::sleep(Duration::from_millis(7 * turn as u64));
        } else {
            load.qmp.wait_for_event("STOP")?;
            std::thread::sleep(Duration::from_micros(700 * turn as u64));
        }
        // Before the kill: after it the guest may run again before a busy machine lets us look.
        in_pause += usize::from(!load.qmp.is_running()?);
        let signal = ["-KILL", "-INT", "-TERM"][turn % 3];
        let killed = Command::new("kill").arg(signal).arg(child.id().to_string()).status()?;
        assert!(killed.success());
        let status = child.wait()?;
        assert!(!status.success(), "it had answered before it was killed");
        worst = worst.max(load.qmp.wait_until_running()?);
        // The monitor is free for the next.
        let mut words = vec!["target".into(), "info".into(), load.name()];
        words.push("--quiet".into());
        assert!(command(&words).output()?.status.success());
        assert!(load.qmp.is_running()?);
    }
    assert!(in_pause > KILLS / 4, "only {in_pause} of {KILLS} kills hit a pause");
    eprintln!(
        "{KILLS} kills, {in_pause} seen during the pause; the guest ran again after {} ms at most",
        worst.as_millis()
    );
    Ok(())
}

/// What `watch` tells adds up, and Ctrl-C ends it with a summary.
fn watched(load: &mut Load, directory: &Path) -> Result<(), Failure> {
    let program = |name: &str| OsString::from(directory.join(format!("{name}.prog")));
    let mut words = vec![
        "watch".into(),
        "--quiet".into(),
        "--json".into(),
        program("pslist"),
        program("gettime"),
        load.name(),
    ];
    words.extend(["--interval", "50ms"].map(OsString::from));
    let mut counted = words.clone();
    counted.extend(["--count", "40"].map(OsString::from));
    let output = command(&counted).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let mut objects: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let summary = objects.pop().ok_or("no output")?;
    assert_eq!((&summary["summary"]["rounds"], objects.len()), (&40.into(), 80), "{summary}");
    let numbers =
        |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect::<Vec<_>>();
    let (mut pids, mut count) = (BTreeSet::new(), 0);
    for object in objects.iter().filter(|object| object["program"] == "pslist") {
        assert_eq!(object["outcome"], "answer", "{object}");
        pids.extend(numbers(&object["outputs"]["pids"]));
        count = object["outputs"]["count"].as_u64().unwrap_or(count);
        numbers(&object["gone"]["pids"]).iter().for_each(|pid| assert!(pids.remove(pid), "{object}"));
        numbers(&object["new"]["pids"]).iter().for_each(|&pid| assert!(pids.insert(pid), "{object}"));
        count = object["changed"]["count"]["to"].as_u64().unwrap_or(count);
        assert_eq!(pids.len() as u64, count, "{object}");
    }
    assert!(summary["summary"]["changed"].as_u64() > Some(20), "{summary}");
    eprintln!("watch: {summary}");

    let mut child = command(&words).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    // It has begun when it has told of a few rounds.
    for _ in 0..6 {
        lines.next().ok_or("it ended by itself")??;
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    let last = lines.last().ok_or("nothing after the signal")??;
    let status = child.wait()?;
    assert!(status.success() && last.contains("summary"), "{status}: {last}");
    assert!(load.qmp.is_running()?);
    Ok(())
}

/// A run that takes too long has no answer, and the guest does not wait for it.
fn bounded(load: &mut Load, program: &Path) -> Result<(), Failure> {
    let mut words: Vec<OsString> = vec!["run".into(), program.into(), load.name()];
    words.extend(["--repeat", "300", "--max-pause", "60"].map(OsString::from));
    load.qmp.take_events();
    let begin = Instant::now();
    let child = command(&words).spawn()?;
    load.qmp.wait_for_event("STOP")?;
    load.qmp.wait_for_event("RESUME")?;
    let paused = begin.elapsed();
    let output = child.wait_with_output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(19), "{messages}");
    assert!(output.stdout.is_empty() && messages.contains("--max-pause"), "{messages}");
    assert!(load.qmp.is_running()?, "after {paused:?}");
    Ok(())
}

/// The pause in which the guest is asked finds the processor where it was wanted: its privilege
/// level is looked at through another monitor.
fn at_moments(load: &mut Load, program: &Path) -> Result<(), Failure> {
    for (wanted, level) in [("user", "CPL=3"), ("kernel", "CPL=0")] {
        // Runs enough for the test to look meanwhile; those in which it is only seen where the
        // processor is are over by then.
        let mut words: Vec<OsString> = vec!["run".into(), "--quiet".into(), "--json".into()];
        words.extend([program.into(), load.name()]);
        words.extend(["--repeat", "600", "--max-pause", "20000", "--pause-in", wanted].map(OsString::from));
        let mut child = command(&words).spawn()?;
        loop {
            load.qmp.take_events();
            std::thread::sleep(Duration::from_millis(100));
            if !load.qmp.is_running()? && load.qmp.take_events().is_empty() {
                break;
            }
            assert!(child.try_wait()?.is_none(), "{wanted}: the test never looked during the pause");
        }
        let registers = load.qmp.human("info registers")?;
        assert!(!load.qmp.is_running()? && load.qmp.take_events().is_empty(), "the pause was too short");
        assert!(registers.contains(level), "{wanted}: {registers}");
        finish(child)?;
        assert!(load.qmp.is_running()?);
    }
    Ok(())
}

/// Somebody who may use the monitor and not read QEMU's memory.
fn by_the_monitor(load: &mut Load, program: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&load.socket, std::fs::Permissions::from_mode(0o777))?;
    let nobody = |words: &[OsString]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_virtuoso")]);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    if !nobody(&["explain".into(), program.into()]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: only root can be nobody, and only where nobody may read the files");
        return Ok(());
    }
    let words: Vec<OsString> = vec!["run".into(), program.into(), load.name(), "--json".into()];
    let output = compared(load, &|| nobody(&words).spawn())?;
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(messages.contains("RAM is read through QEMU's monitor"), "{messages}");
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    eprintln!("through the monitor: paused for {} ms", answer["pause_milliseconds"]);
    Ok(())
}

/// Asks until the test has looked during the very pause and nobody came or went around it, and
/// compares that answer: a busy machine may let it look too late.
fn compared(load: &mut Load, ask: &dyn Fn() -> std::io::Result<Child>) -> Result<Output, Failure> {
    let forker = load.view()?.itself;
    for _ in 0..10 {
        let before = others(&mut load.guest, forker)?;
        load.qmp.take_events();
        let child = ask()?;
        load.qmp.wait_for_event("STOP")?;
        let view = load.view()?;
        let seen_in_the_pause = !load.qmp.is_running()? && load.qmp.take_events().is_empty();
        let output = child.wait_with_output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(load.qmp.is_running()?);
        if seen_in_the_pause && before == others(&mut load.guest, forker)? {
            assert_eq!(wrong(&serde_json::from_slice(&output.stdout)?, &view, &before), None);
            return Ok(output);
        }
    }
    Err("the test never looked during a pause".into())
}

/// The way over libvirt, with a script in virsh's place that hands commands and files to the real
/// monitor.
fn through_virsh(load: &mut Load, directory: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: the script in virsh's place needs python3");
        return Ok(());
    }
    let folder = directory.join("bin");
    std::fs::create_dir_all(&folder)?;
    let script = folder.join("virsh");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/virsh.py");
    std::fs::copy(source, &script)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    let (socket, events) = (load.socket.clone(), load.events.clone());
    let ask_with = |target: &str, more: &[&str]| {
        let mut words: Vec<OsString> =
            vec!["run".into(), directory.join("pslist.prog").into(), target.into(), "--json".into()];
        words.extend(more.iter().map(OsString::from));
        let mut command = command(&words);
        command.env("PATH", &path).env("VIRSH_TEST_SOCKET", &socket).env("VIRSH_TEST_EVENTS", &events);
        command.current_dir(directory).spawn()
    };
    let ask = |target: &str| ask_with(target, &[]);
    for target in ["libvirt:target", "target"] {
        let output = compared(load, &|| ask(target))?;
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(!messages.contains("would not be known"), "{messages}");
    }
    // Another client resumes the guest and pauses it again.
    load.qmp.take_events();
    let child = ask_with("target", &["--repeat", "200000"])?;
    load.qmp.wait_for_event("STOP")?;
    load.qmp.cont()?;
    load.qmp.stop()?;
    let output = child.wait_with_output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(29), "{messages}");
    assert!(output.stdout.is_empty() && messages.contains("another client resumed"), "{messages}");
    assert!(!load.qmp.is_running()?, "the other client's pause was ended");
    load.qmp.cont()?;
    // Killed while the guest stands still.
    load.qmp.take_events();
    let mut child = ask("target")?;
    load.qmp.wait_for_event("STOP")?;
    child.kill()?;
    child.wait()?;
    load.qmp.wait_until_running()?;
    // A monitor that answers this process no more once the guest stands still: a code of its own,
    // and somebody else resumes the guest.
    std::fs::rename(&script, folder.join("virsh.py"))?;
    let text = "#!/bin/sh\n[ \"$(cat \"$0.stopped\" 2>/dev/null)\" = $PPID ] && exit 1\n\
                case \"$*\" in *'\"stop\"'*) \"$0.py\" \"$@\"; code=$?; echo $PPID > \"$0.stopped\"; exit \
                $code;; esac\nexec \"$0.py\" \"$@\"\n";
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let output = ask("target")?.wait_with_output()?;
    assert_eq!(output.status.code(), Some(40), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "no answer");
    load.qmp.wait_until_running()?;
    // A virsh that cannot listen: an answer, and what would not be known.
    let text = "#!/bin/sh\n[ $1 = qemu-monitor-event ] && { echo 'error: not supported' >&2; exit 1; }\nexec \
                \"$0.py\" \"$@\"\n";
    std::fs::write(&script, text)?;
    let output = ask("target")?.wait_with_output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");
    assert!(messages.contains("would not be known") && messages.contains("not supported"), "{messages}");
    // No such domain: a file's name as before.
    let output = ask("nobody")?.wait_with_output()?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("check the path"));
    Ok(())
}

/// A guest that somebody else has paused stays paused, and no run changes its RAM.
fn paused_by_others(load: &mut Load, program: &Path) -> Result<(), Failure> {
    load.qmp.stop()?;
    let before = load.hash()?;
    for mode in ["--slice", "--whole", "--verify"] {
        let words: Vec<OsString> =
            vec!["run".into(), program.into(), load.name(), mode.into(), "--json".into()];
        let output = command(&words).output()?;
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || mode != "--slice", "{mode}: {messages}");
        assert!(messages.contains("was paused already and stays paused"), "{messages}");
    }
    assert!(!load.qmp.is_running()?, "a guest that stood still was resumed");
    assert_eq!(before, load.hash()?, "the guest's RAM was written");
    load.qmp.cont()?;
    Ok(())
}

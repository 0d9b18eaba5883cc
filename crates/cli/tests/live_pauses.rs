//! Pauses of a live guest that somebody else ends, or nobody: other clients of its monitors, two
//! processes of ours, processes that are killed or stand still, a QEMU that ends.
//!
//! One guest of the test kernel (`guests/tiny`) with three monitors: two for the command, one for
//! the test, which sees each pause begin and end there. A run is made long by `--repeat`. Boots two
//! guests for seconds, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask test` sets it) and in
//! release.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::guest::{Guest, READY};
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, program_of};
use testkit::qmp::Qmp;
use testkit::tiny::{self, Tiny};

type Failure = Box<dyn std::error::Error>;

/// Repeats that take longer than any step here.
const LONG: &str = "3000000";

/// A guest, two monitors for the command, and one for the test.
struct Bench {
    guest: Guest,
    qmp: Qmp,
    names: [String; 2],
    /// The folder with the six programs.
    programs: PathBuf,
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: String,
    messages: String,
}

impl Ended {
    /// Asserts the exit code, and that nothing was printed.
    fn assert_nothing(&self, code: i32, says: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.messages);
        assert!(self.out.is_empty(), "{}", self.out);
        assert!(self.messages.contains(says), "{}", self.messages);
    }
}

impl Bench {
    fn boot(programs: PathBuf) -> Result<Self, Failure> {
        let sockets = ["a", "b"].map(|name| programs.join(format!("{name}.qmp")));
        let monitors = sockets.each_ref().map(|path| format!("unix:{},server=on,wait=off", path.display()));
        let more = ["-rtc", "base=2027-02-28T23:59:50,clock=vm", "-qmp", &monitors[0], "-qmp", &monitors[1]];
        let guest = Guest::boot(&Tiny::target(false, false).argv(&more)?)?;
        guest.wait_for(READY, 0, Duration::from_secs(60))?;
        let qmp = guest.qmp()?;
        Ok(Self { guest, qmp, names: sockets.map(|path| format!("qmp:{}", path.display())), programs })
    }

    fn program(&self, name: &str) -> OsString {
        self.programs.join(format!("{name}.prog")).into()
    }

    /// `run pslist` over one of the monitors.
    fn run(&self, monitor: usize, more: &str) -> Vec<OsString> {
        let mut words = vec!["run".into(), self.program("pslist"), (&self.names[monitor]).into()];
        words.extend(more.split_whitespace().map(OsString::from));
        words
    }

    /// Starts a command and waits until it has paused the guest.
    fn paused(&mut self, words: &[OsString]) -> Result<Child, Failure> {
        self.qmp.take_events();
        let child = start(words)?;
        self.qmp.wait_for_pause()?;
        Ok(child)
    }

    /// All verbs that read a guest, in one go each.
    fn verbs(&self) -> Vec<Vec<OsString>> {
        let target = || OsString::from(&self.names[0]);
        let mut verbs: Vec<Vec<OsString>> = Vec::new();
        for view in ["ps", "lsmod", "time"] {
            verbs.push(vec![view.into(), target(), "--packs".into(), self.programs.clone().into()]);
        }
        for way in ["--slice", "--whole", "--verify"] {
            verbs.push(self.run(0, way));
        }
        let side = format!("{}:pids", self.program("pslist").to_string_lossy());
        verbs.push(vec!["crossview".into(), target(), "--pair".into(), format!("{side}={side}").into()]);
        verbs.push(vec!["tampering".into(), self.program("pslist"), target()]);
        let output = self.programs.join("learned.prog");
        verbs.push(vec!["learn".into(), self.program("pslist"), target(), "-o".into(), output.into()]);
        verbs
    }
}

fn start(words: &[OsString]) -> Result<Child, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtuoso"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command.spawn()?)
}

fn finish(child: Child) -> Result<Ended, Failure> {
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { code: output.status.code(), out: text(&output.stdout), messages: text(&output.stderr) })
}

fn ask(words: &[OsString]) -> Result<Ended, Failure> {
    finish(start(words)?)
}

fn signal(name: &str, process: u32) -> Result<(), Failure> {
    assert!(Command::new("kill").args([name, &process.to_string()]).status()?.success());
    Ok(())
}

fn lines(text: &str) -> Result<Vec<Value>, Failure> {
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Trains the six programs in the test kernel.
fn train(directory: &Path) -> Result<(), Failure> {
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let traces =
        tool.record_argv(Tiny::training(false).argv(&["-icount", "shift=1,sleep=off"])?, directory)?;
    for program in PROGRAMS {
        let mine: Vec<PathBuf> =
            traces.iter().filter(|trace| program_of(trace) == program).cloned().collect();
        tool.build_of(&tiny::program(program), &mine, &directory.join(format!("{program}.prog")), &[])?;
    }
    Ok(())
}

#[test]
fn a_pause_that_is_not_ours_to_its_end_is_told() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let directory = layout::run().join("live-pauses");
    train(&directory)?;
    let mut bench = Bench::boot(directory)?;
    let mut begin = Instant::now();
    let mut step = |name: &str, bench: &mut Bench, what: fn(&mut Bench) -> Result<(), Failure>| {
        what(bench)?;
        assert!(bench.qmp.is_running()?, "after {name} the guest stands still");
        eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
        begin = Instant::now();
        Ok::<(), Failure>(())
    };
    step("torn by another client", &mut bench, torn)?;
    step("torn in another's pause", &mut bench, torn_in_anothers_pause)?;
    step("torn in every verb", &mut bench, torn_in_every_verb)?;
    step("two monitors", &mut bench, two_monitors)?;
    step("killed while another waits", &mut bench, killed_while_another_waits)?;
    step("standing still", &mut bench, standing_still)?;
    step("watch of a paused guest", &mut bench, watch_of_a_paused_guest)?;
    step("no time at all", &mut bench, no_time)?;
    quit(bench)
}

/// Another client lets the guest run, and perhaps pauses it again for purposes of its own.
fn torn(bench: &mut Bench) -> Result<(), Failure> {
    for pauses_again in [false, true] {
        let child = bench.paused(&bench.run(0, &format!("--repeat {LONG}")))?;
        bench.qmp.cont()?;
        if pauses_again {
            bench.qmp.stop()?;
        }
        finish(child)?.assert_nothing(29, "another client resumed the guest during the pause");
        assert_eq!(bench.qmp.is_running()?, !pauses_again, "the other client's pause was ended");
    }
    bench.qmp.cont()?;
    // A reset writes memory even while the guest stands still. It is our pause, and we end it.
    bench.qmp.execute("set-action", serde_json::json!({ "reboot": "reset" }))?;
    let child = bench.paused(&bench.run(0, &format!("--repeat {LONG}")))?;
    bench.qmp.execute("system_reset", serde_json::json!({}))?;
    finish(child)?.assert_nothing(29, "another client reset the guest during the pause");
    bench.qmp.wait_until_running()?;
    // It boots again.
    let seen = bench.guest.console().find(READY).map_or(0, |at| at + READY.len());
    bench.guest.wait_for(READY, seen, Duration::from_secs(60))?;
    Ok(())
}

/// Who paused the guest before us lets it run while we read.
fn torn_in_anothers_pause(bench: &mut Bench) -> Result<(), Failure> {
    bench.qmp.stop()?;
    let mut child = start(&bench.run(0, &format!("--repeat {LONG}")))?;
    let mut messages = BufReader::new(child.stderr.take().ok_or("no standard error")?);
    let mut line = String::new();
    messages.read_line(&mut line)?;
    assert!(line.contains("was paused already and stays paused"), "{line}");
    bench.qmp.cont()?;
    let mut ended = finish(child)?;
    messages.read_to_string(&mut ended.messages)?;
    ended.assert_nothing(29, "another client resumed the guest during the pause");
    Ok(())
}

/// A client that resumes the guest all the time: no verb prints anything then.
fn torn_in_every_verb(bench: &mut Bench) -> Result<(), Failure> {
    let mut verbs = bench.verbs();
    verbs.push(vec!["target".into(), "info".into(), (&bench.names[0]).into()]);
    for words in verbs {
        let mut was_torn = false;
        for _ in 0..20 {
            let mut child = start(&words)?;
            while child.try_wait()?.is_none() {
                bench.qmp.cont()?;
                bench.qmp.take_events();
            }
            let ended = finish(child)?;
            // On a busy machine this client may do nothing for as long as a pause is.
            if ended.code == Some(0) {
                continue;
            }
            ended.assert_nothing(29, "another client resumed the guest during the pause");
            was_torn = true;
            break;
        }
        assert!(was_torn, "{words:?}");
        assert!(!bench.programs.join("learned.prog").exists() || words[0] != "learn");
    }
    let words: Vec<OsString> =
        vec!["watch".into(), bench.program("pslist"), (&bench.names[0]).into(), "--json".into()];
    let words = [words, ["--interval", "20ms", "--count", "30"].map(OsString::from).to_vec()].concat();
    let child = bench.paused(&words)?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(300) {
        bench.qmp.cont()?;
        bench.qmp.take_events();
    }
    let ended = finish(child)?;
    let rounds = lines(&ended.out)?;
    let (summary, rounds) = rounds.split_last().ok_or("no output")?;
    let count = |outcome: &str| rounds.iter().filter(|round| round["outcome"] == outcome).count() as u64;
    assert!(count("torn") > 0 && count("answer") > 0, "{}{}", ended.out, ended.messages);
    assert_eq!(summary["summary"]["pauses_torn"], count("torn"), "{summary}");
    assert_eq!(count("torn") + count("answer"), 30, "{}", ended.out);
    Ok(())
}

/// Two processes of ours on two monitors take turns.
fn two_monitors(bench: &mut Bench) -> Result<(), Failure> {
    for _ in 0..12 {
        let children = [0, 1].map(|monitor| start(&bench.run(monitor, "--json --repeat 300")));
        let mut answers = Vec::new();
        for child in children {
            let ended = finish(child?)?;
            assert_eq!(ended.code, Some(0), "{}", ended.messages);
            answers.push(lines(&ended.out)?[0]["outputs"].clone());
        }
        assert_eq!(answers[0], answers[1], "nothing comes or goes in this guest");
    }
    let long = bench.paused(&bench.run(0, &format!("--max-pause 2500 --repeat {LONG}")))?;
    let other = ask(&bench.run(1, ""))?;
    assert_eq!(other.code, Some(0), "{}", other.messages);
    assert!(other.messages.contains("another virtuoso has the guest paused"), "{}", other.messages);
    finish(long)?.assert_nothing(19, "--max-pause");
    Ok(())
}

/// A `watch` that waits for the monitor of a run that is killed does not come before its watchdog.
fn killed_while_another_waits(bench: &mut Bench) -> Result<(), Failure> {
    let words: Vec<OsString> =
        vec!["watch".into(), bench.program("pslist"), (&bench.names[0]).into(), "--json".into()];
    let words = [words, ["--interval", "20ms", "--count", "3"].map(OsString::from).to_vec()].concat();
    for monitor in [0, 1] {
        // Over the other monitor it waits for the lock.
        let mut child = bench.paused(&bench.run(monitor, &format!("--repeat {LONG}")))?;
        let watch = start(&words)?;
        std::thread::sleep(Duration::from_millis(500));
        assert!(!bench.qmp.is_running()?, "the run is over");
        signal("-KILL", child.id())?;
        child.wait()?;
        let after = bench.qmp.wait_until_running()?;
        assert!(after < Duration::from_secs(5), "the guest stood still for {after:?}");
        let ended = finish(watch)?;
        assert_eq!(ended.code, Some(0), "{}", ended.messages);
        let rounds = lines(&ended.out)?;
        assert_eq!(rounds.len(), 4, "{}", ended.out);
        for round in &rounds[..3] {
            assert_eq!((&round["outcome"], &round["standing_still"]), (&"answer".into(), &false.into()));
        }
    }
    Ok(())
}

/// `--max-pause` holds although the process that should see to it stands still.
fn standing_still(bench: &mut Bench) -> Result<(), Failure> {
    let child = bench.paused(&bench.run(0, &format!("--max-pause 500 --repeat {LONG}")))?;
    let begin = Instant::now();
    signal("-STOP", child.id())?;
    bench.qmp.wait_for_event("RESUME")?;
    let paused = begin.elapsed();
    assert!(bench.qmp.is_running()? && paused < Duration::from_secs(5), "{paused:?}");
    let other = ask(&bench.run(1, ""))?;
    assert_eq!(other.code, Some(0), "others do not wait for it: {}", other.messages);
    signal("-CONT", child.id())?;
    finish(child)?.assert_nothing(19, "--max-pause");
    // Killed instead of continued.
    let mut child = bench.paused(&bench.run(0, &format!("--max-pause 500 --repeat {LONG}")))?;
    signal("-STOP", child.id())?;
    bench.qmp.wait_for_event("RESUME")?;
    signal("-KILL", child.id())?;
    child.wait()?;
    // The monitor is free again, and nothing is left of it.
    let ended = ask(&bench.run(0, ""))?;
    assert_eq!(ended.code, Some(0), "{}", ended.messages);
    Ok(())
}

/// Who watches a guest that somebody else has paused hears so.
fn watch_of_a_paused_guest(bench: &mut Bench) -> Result<(), Failure> {
    let words: Vec<OsString> =
        vec!["watch".into(), bench.program("pslist"), (&bench.names[1]).into(), "--json".into()];
    let words = [words, ["--interval", "20ms", "--count", "40"].map(OsString::from).to_vec()].concat();
    bench.qmp.stop()?;
    let mut child = start(&words)?;
    let mut messages = BufReader::new(child.stderr.take().ok_or("no standard error")?);
    let mut line = String::new();
    messages.read_line(&mut line)?;
    assert!(line.contains("stands still: somebody else has paused it"), "{line}");
    assert!(!bench.qmp.is_running()?);
    bench.qmp.cont()?;
    let ended = finish(child)?;
    line.clear();
    messages.read_to_string(&mut line)?;
    assert!(line.contains("the guest runs again"), "{line}");
    assert_eq!(ended.code, Some(0), "{line}");
    let rounds = lines(&ended.out)?;
    assert_eq!(rounds[0]["standing_still"], true, "{}", ended.out);
    assert_eq!(rounds[39]["standing_still"], false, "{}", ended.out);
    Ok(())
}

/// A pause that is over at once is the cause of all that goes wrong in it.
fn no_time(bench: &mut Bench) -> Result<(), Failure> {
    for mut words in bench.verbs() {
        words.extend(["--max-pause", "0"].map(OsString::from));
        // A short run may be over before the clock is looked at.
        let mut ended = ask(&words)?;
        for _ in 0..20 {
            if ended.code != Some(0) {
                break;
            }
            ended = ask(&words)?;
        }
        ended.assert_nothing(19, "--max-pause");
        assert!(bench.qmp.is_running()?, "{words:?}");
    }
    for _ in 0..10 {
        let ps = &mut bench.verbs()[0];
        ps.extend(["--max-pause", "1"].map(OsString::from));
        let ended = ask(ps)?;
        assert!(matches!(ended.code, Some(0 | 19)), "{:?}: {}", ended.code, ended.messages);
        assert!(bench.qmp.is_running()?);
    }
    Ok(())
}

/// A QEMU that ends in the pause is told of at once.
fn quit(mut bench: Bench) -> Result<(), Failure> {
    let child = bench.paused(&bench.run(0, &format!("--repeat {LONG}")))?;
    // The run is on its way, and does not speak to QEMU.
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    signal("-KILL", bench.guest.process_id())?;
    let ended = finish(child)?;
    let waited = begin.elapsed();
    ended.assert_nothing(40, "QEMU has ended");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    eprintln!("QEMU was killed: {:.1} s, {}", waited.as_secs_f64(), ended.messages.trim_end());
    Ok(())
}

//! The machine's own files: what the built-in file programs say of a guest's `/proc`, `/sys`,
//! `/tmp` and `/dev/shm`, compared with what the guest's own tools say of them.
//!
//! The pack is what `virtuoso train` makes when it is told of no trainer; the target is another
//! guest, its kernel at a random place, with four processors. Boots guests, so it runs only with
//! `VIRTUOSO_E2E=1` and in release; `VIRTUOSO_E2E=full` does the same with every kernel there is,
//! and `VIRTUOSO_KERNELS=i386,rt` picks some. What is asked is answered by the whole run.

#![forbid(unsafe_code)]

mod python;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::capture::{Capture, Moment, ask, capture, tell};
use testkit::guest::{Guest, Target, boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel, OTHERS};
use testkit::pipeline::{Tool, Way};
use testkit::{layout, rootkit};

use tables::{Tables, Verbs};

type Failure = Box<dyn std::error::Error>;

/// How many of the kernel's own files are asked for; the guest's few others all are.
const CHOSEN: usize = 60;

/// A file that says more where a static key is on that was off in training. Its thread sleeps.
const DECIDED: &str = "/proc/2/sched";

/// The most bytes that one question gives.
const MOST: usize = 1 << 20;

/// Outcomes of files that a dump cannot answer for: device, lock, code that training had not.
const NAMED: [i32; 5] = [12, 13, 14, 16, 17];

/// What the guest's own tools say of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told {
    /// What `stat` prints: mode, user, group, links, size, blocks, inode, device number, times.
    stat: Vec<String>,
    /// What is hashed (names of a directory, target of a link, content), and its hash; none if it
    /// could not be read.
    hash: Option<(String, String)>,
}

/// All that the guest says of the chosen files.
fn told(guest: &mut Guest) -> Result<BTreeMap<String, Told>, Failure> {
    let from = tell(guest, "describe")?;
    let console = guest.console();
    let mut files: BTreeMap<String, Told> = BTreeMap::new();
    let mut path = String::new();
    for line in console[from..].lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["===", "FILE", ..] => path = line["=== FILE ".len()..].to_owned(),
            ["STAT", numbers @ ..] => {
                files.entry(path.clone()).or_default().stat = numbers.iter().map(|&it| it.into()).collect();
            }
            [kind @ ("LINK" | "NAMES" | "DATA"), hash, "-"] => {
                files.entry(path.clone()).or_default().hash = Some(((*kind).into(), (*hash).into()));
            }
            _ => {}
        }
    }
    Ok(files)
}

/// A pack that is asked about a captured guest.
struct Asked<'a> {
    tool: &'a Tool,
    pack: &'a Path,
    target: &'a Path,
}

/// The outputs of a program, or the exit code and the message of the outcome.
type Answer = Result<Value, Outcome>;

/// Why there is no answer: an exit code, or an error number of the guest, and a message.
type Outcome = (i32, String);

/// A list of names.
type Names = Vec<Vec<u8>>;

impl Asked<'_> {
    fn ask(&self, program: &str, inputs: &[(&str, &str)]) -> Answer {
        let mut words: Vec<OsString> = ["run", "--quiet", "--json", "--whole"].map(Into::into).into();
        words.extend([self.pack.join(format!("{program}.prog")).into(), self.target.into()]);
        for (name, value) in inputs {
            words.extend(["--input".into(), format!("{name}={value}").into()]);
        }
        let finished = self.tool.run(&words).map_err(|error| (-1, error.to_string()))?;
        if finished.code != 0 {
            return Err((finished.code, finished.messages));
        }
        let answer: Value =
            serde_json::from_str(&finished.output).map_err(|error| (-1, error.to_string()))?;
        Ok(answer["outputs"].clone())
    }

    fn read(&self, path: &str, offset: usize, length: usize) -> Answer {
        let (offset, length) = (offset.to_string(), length.to_string());
        self.ask("read", &[("path", path), ("offset", &offset), ("length", &length)])
    }

    fn stat(&self, path: &str) -> Answer {
        self.ask("stat", &[("path", path), ("follow", "0")])
    }

    /// All names of a directory but `.` and `..`, and how many questions that took.
    fn names(&self, path: &str) -> Result<(Names, usize), Outcome> {
        let (mut names, mut cursor, mut asked): (Names, u64, usize) = (Vec::new(), 0, 0);
        loop {
            let answer = self.ask("readdir", &[("path", path), ("cursor", &cursor.to_string())])?;
            if answer["rc"] != 0 {
                return Err((answer["rc"].as_i64().unwrap_or(-1) as i32, "an error of the guest".into()));
            }
            asked += 1;
            let found = bytes(&answer["names"]);
            let found = found.split(|&byte| byte == 0).filter(|name| !name.is_empty());
            let before = names.len();
            names.extend(found.map(<[u8]>::to_vec));
            assert_eq!(answer["count"], names.len() - before, "{path}");
            for list in ["inodes", "types"] {
                assert_eq!(answer[list].as_array().map(Vec::len), Some(names.len() - before), "{path}");
            }
            cursor = answer["next"].as_u64().unwrap_or_default();
            if answer["end"] == 1 {
                break;
            }
        }
        names.retain(|name| !matches!(name.as_slice(), b"." | b".."));
        names.sort();
        Ok((names, asked))
    }

    /// What is hashed of a file of this kind; none where the guest's own code gives an error.
    fn content(&self, kind: &str, path: &str) -> Result<Option<Vec<u8>>, Outcome> {
        let line = |mut bytes: Vec<u8>| {
            bytes.push(b'\n');
            bytes
        };
        if kind == "NAMES" {
            return match self.names(path) {
                Ok((names, _)) => Ok(Some(names.into_iter().flat_map(line).collect())),
                Err((code, _)) if code < 0 => Ok(None),
                Err(outcome) => Err(outcome),
            };
        }
        let (answer, field) = if kind == "LINK" {
            (self.ask("readlink", &[("path", path)])?, "target")
        } else {
            (self.read(path, 0, MOST)?, "data")
        };
        let found = (answer["rc"] == 0).then(|| bytes(&answer[field]));
        Ok(found.map(|found| if kind == "LINK" { line(found) } else { found }))
    }
}

/// The bytes of a text as JSON has it.
fn bytes(text: &Value) -> Vec<u8> {
    if let Some(text) = text.as_str() {
        return text.as_bytes().to_vec();
    }
    let hex = text["bytes"].as_str().unwrap_or_default();
    (0..hex.len() / 2).filter_map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The numbers of [`Told::stat`] as the program gives them.
fn numbers(stat: &Value) -> Vec<String> {
    let hex = |name: &str| format!("{:x}", stat[name].as_u64().unwrap_or(u64::MAX));
    let mut numbers = vec![hex("mode")];
    numbers.extend(["uid", "gid", "nlink", "size", "blocks", "ino"].map(|name| stat[name].to_string()));
    numbers.extend([hex("rdev_major"), hex("rdev_minor")]);
    numbers.extend(["mtime", "ctime"].map(|name| stat[name].to_string()));
    numbers
}

/// What was asked, and how it went.
#[derive(Default)]
struct Count {
    equal: usize,
    errors: usize,
    named: Vec<String>,
    wrong: Vec<String>,
}

impl Count {
    fn add(&mut self, what: String, answer: Result<bool, Outcome>) {
        match answer {
            Ok(true) => self.equal += 1,
            Ok(false) => self.wrong.push(what),
            Err((code, why)) if NAMED.contains(&code) => self.named.push(format!("{what}: {code}: {why}")),
            Err((code, why)) => self.wrong.push(format!("{what}: {code}: {why}")),
        }
    }
}

/// Asks for everything that the guest said of a file.
fn compare(asked: &Asked<'_>, path: &str, told: &Told, count: &mut Count) {
    let stat = asked.stat(path).map(|stat| {
        let equal = stat["rc"] == 0 && numbers(&stat) == told.stat;
        if !equal {
            eprintln!("{path}: the guest: {:?}, we: {} {:?}", told.stat, stat["rc"], numbers(&stat));
        }
        equal
    });
    count.add(format!("stat {path}"), stat);
    let is_file = told.stat.first().is_some_and(|mode| mode.len() == 4 && mode.starts_with('8'));
    match &told.hash {
        Some((kind, hashed)) => {
            let found = asked.content(kind, path);
            let equal = found.map(|found| found.is_some_and(|found| hash(&found) == *hashed));
            count.add(format!("{kind} {path}"), equal);
        }
        None if is_file => match asked.content("DATA", path) {
            Ok(None) => count.errors += 1,
            found => count.add(format!("no DATA {path}"), found.map(|_| false)),
        },
        None => {}
    }
}

/// What can be said of the files that `state_files` made without asking the guest.
fn known(asked: &Asked<'_>, kernel: &str, held: &str) -> Result<(), Failure> {
    let asked_for = |answer: Answer| answer.map_err(|(code, why)| format!("{code}: {why}"));
    let (names, times) = asked.names("/tmp/many").map_err(|(code, why)| format!("{code}: {why}"))?;
    assert_eq!((names.len(), times), (9000, 2), "a long directory takes more than one question");
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "no name twice");
    let (names, _) = asked.names("/tmp/odd").map_err(|(code, why)| format!("{code}: {why}"))?;
    assert_eq!(names, [b"no-text-\xff\x01".to_vec()], "names may have any byte");

    // The idle view shares its open files with the kernel's threads: what it opens is not theirs.
    let (names, _) = asked.names("/proc/2/fd").map_err(|(code, why)| format!("{code}: {why}"))?;
    assert!(names.is_empty(), "{names:?}");

    let busybox = std::fs::read(Kernel::find(kernel)?.userland.busybox()?)?;
    let mut long = busybox[..1500 * 1024].to_vec();
    long.resize(2000 * 1024, 0);
    long.extend(&busybox[..3 * 1024]);
    let mut read = Vec::new();
    for offset in [0, MOST] {
        let answer = asked_for(asked.read("/dev/shm/long", offset, MOST))?;
        assert_eq!((&answer["rc"], &answer["end"]), (&0.into(), &u8::from(offset > 0).into()));
        read.extend(bytes(&answer["data"]));
    }
    assert!(read == long, "{} bytes of {}", read.len(), long.len());
    let answer = asked_for(asked.read("/dev/shm/long", 1535 * 1000, 4096))?;
    assert_eq!(bytes(&answer["data"]), long[1535 * 1000..][..4096], "in the middle, not at a page's start");
    let answer = asked_for(asked.read("/dev/shm/long", 1 << 40, 16))?;
    assert_eq!((&answer["rc"], &answer["count"], &answer["end"]), (&0.into(), &0.into(), &1.into()));

    let fd = format!("/proc/{held}/fd/3");
    assert_eq!(bytes(&asked_for(asked.read(&fd, 0, 100))?["data"]), b"deleted and still open\n");
    let link = asked_for(asked.ask("readlink", &[("path", &fd)]))?;
    assert_eq!(link["target"], "/tmp/held (deleted)");

    // What the guest's own code answers with: no entry, a directory, no link, no such attribute.
    let rc = |answer: Answer| asked_for(answer).map(|outputs| outputs["rc"].as_i64());
    // Looking up a name that is not there wakes a task, and a preemptible kernel goes on with that.
    match asked.read("/tmp/none", 0, 16) {
        Err((17, _)) if kernel == "rt" => {}
        answer => assert_eq!(rc(answer)?, Some(-2)),
    }
    assert_eq!(rc(asked.stat("/tmp/small/none"))?, Some(-20));
    assert_eq!(rc(asked.read("/tmp/odd", 0, 16))?, Some(-21));
    assert_eq!(rc(asked.ask("readdir", &[("path", "/tmp/small"), ("cursor", "0")]))?, Some(-20));
    assert_eq!(rc(asked.ask("readlink", &[("path", "/tmp/small")]))?, Some(-22));
    let attribute = [("path", "/tmp/small"), ("name", "trusted.none")];
    assert_eq!(rc(asked.ask("getxattr", &attribute))?, Some(-61));
    let attributes = asked_for(asked.ask("listxattr", &[("path", "/tmp/small")]))?;
    assert_eq!((&attributes["rc"], &attributes["names"]), (&0.into(), &"".into()));
    let system = asked_for(asked.ask("statfs", &[("path", "/dev/shm")]))?;
    assert_eq!((&system["rc"], &system["type"]), (&0.into(), &0x0102_1994.into()), "tmpfs: {system}");
    assert_eq!(asked_for(asked.ask("stat", &[("path", "/tmp/link"), ("follow", "1")]))?["size"], long.len());
    Ok(())
}

/// The six programs of the same pack.
fn others(tool: &Tool, pack: &Path, target: &Capture) -> Vec<String> {
    let mut few = target.clone();
    few.truth.processes.truncate(6);
    few.truth.modules.truncate(4);
    let mut wrong = Vec::new();
    for program in ["pslist", "getpsfile", "lsmod", "getdrvfile", "getpid", "gettime"] {
        let all = matches!(program, "pslist" | "lsmod");
        let file = pack.join(format!("{program}.prog"));
        let row = tool.ask(program, &file, if all { target } else { &few }, 0, &Value::Null, Way::Usual);
        eprintln!("{program}: {} of {} right, {} by slice", row.right, row.asked, row.by_slice);
        wrong.extend((!row.equals_truth).then(|| format!("{program}: {:?}", row.problems)));
    }
    wrong
}

/// `ls`, `cat`, `stat` and `cp`.
fn verbs(asked: &Asked<'_>, kernel: &str, held: &str) -> Result<(), Failure> {
    let verb = |verb: &[&str], rest: &[&str]| {
        let mut words: Vec<OsString> = verb.iter().map(Into::into).collect();
        words.extend(["--packs".into(), asked.pack.into(), "--quiet".into(), asked.target.into()]);
        words.extend(rest.iter().map(Into::into));
        asked.tool.run(&words)
    };
    let json = |words: &[&str], path: &str| -> Result<Value, Failure> {
        Ok(serde_json::from_str(&verb(words, &[path])?.output)?)
    };
    let fd = format!("/proc/{held}/fd/3");
    assert_eq!(verb(&["cat"], &[&fd])?.output, "deleted and still open\n");
    assert_eq!(verb(&["cat", "--offset", "8", "--length", "3"], &[&fd])?.output, "and");
    let odd = json(&["ls", "--json", "-l"], "/tmp/odd")?;
    assert_eq!(odd["entries"][0]["name"]["bytes"], "6e6f2d746578742dff01", "{odd}");
    assert_eq!(verb(&["ls"], &["/tmp/odd"])?.output, "no-text-\\xff\\u{1}\n", "nothing a terminal obeys");
    assert_eq!(verb(&["ls"], &["/tmp/many"])?.output.lines().count(), 9000);
    assert_eq!(json(&["stat", "--json"], "/proc/self")?["link"], "1");
    assert_eq!(verb(&["cat"], &["/proc/mounts"])?.output, verb(&["cat"], &["/proc/1/mounts"])?.output);
    // Not a preemptible kernel's: see `known`.
    let one = verb(&["cat"], &["/tmp/none", &fd])?;
    assert_eq!(
        (one.code, one.output.as_str()),
        (if kernel == "rt" { 17 } else { 35 }, "deleted and still open\n")
    );

    let copies = layout::run().join("files-copies");
    let _ = std::fs::remove_dir_all(&copies);
    std::fs::create_dir(&copies)?;
    let copy = |path: &str, name: &str, force: bool| {
        let words: &[&str] = if force { &["cp", "-r", "--force"] } else { &["cp", "-r"] };
        verb(words, &[path, copies.join(name).to_str().unwrap_or_default()])
    };
    for path in ["/proc/1/exe", "/dev/shm", "/tmp/odd", &fd, "/tmp/link"] {
        let name = path.rsplit('/').next().unwrap_or_default();
        let first = copy(path, name, false)?;
        assert_eq!(first.code, 0, "{path}: {}", first.messages);
    }
    let busybox = std::fs::read(Kernel::find(kernel)?.userland.busybox()?)?;
    assert!(std::fs::read(copies.join("exe"))? == busybox, "the executable is the one that runs there");
    assert_eq!(std::fs::read(copies.join("3"))?, b"deleted and still open\n");
    let long = std::fs::read(copies.join("shm/long"))?;
    let manifest = std::fs::read_to_string(copies.join("shm.manifest.jsonl"))?;
    let line = manifest.lines().find(|line| line.contains("/dev/shm/long")).ok_or("not in the manifest")?;
    let line: Value = serde_json::from_str(line)?;
    assert_eq!((&line["sha256"], &line["bytes"]), (&hash(&long).into(), &long.len().into()));
    assert!(std::fs::read(copies.join("link"))? == long, "a link that is named is followed");
    assert_eq!(copy(&fd, "3", false)?.code, 1, "nothing is replaced unless it is wished");
    assert_eq!(copy(&fd, "3", true)?.code, 0);
    let cut = copies.join("cut");
    let cut = verb(&["cp", "--max-file", "1000"], &["/dev/shm/long", cut.to_str().unwrap_or_default()])?;
    assert_eq!(cut.code, 26, "a bound of ours is no success: {}", cut.messages);
    assert!(!copies.join("cut").exists() && cut.messages.contains("--max-file"), "{}", cut.messages);
    Ok(())
}

/// The report, against what the guest's own tools say.
fn reported(asked: &Asked<'_>, captured: &Capture, kernel: &str, held: &str) -> Result<(), Failure> {
    let page = layout::run().join("files-report.html");
    let mut words: Vec<OsString> = ["report", "--json", "--quiet", "--packs"].map(OsString::from).to_vec();
    words.extend([asked.pack.into(), asked.target.into(), "-o".into(), (&page).into()]);
    let done = asked.tool.run(&words)?;
    // Some kernels have values in their code that training's two boots do not show.
    assert!([0, 28, 33].contains(&done.code), "{}: {}", done.code, done.messages);
    let report: Value = serde_json::from_str(&done.output)?;
    let rows = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let pids: BTreeSet<u64> = rows("processes").iter().filter_map(|row| row["pid"].as_u64()).collect();
    assert_eq!(pids, captured.truth.processes.iter().map(|it| it.pid.into()).collect());
    let busybox = std::fs::read(Kernel::find(kernel)?.userland.busybox()?)?;
    let first = &rows("processes")[0];
    assert_eq!((&first["pid"], &first["executable"]["sha256"]), (&1.into(), &hash(&busybox).into()));
    let gone = rows("deleted_files");
    let gone = gone.iter().find(|row| row["path"] == "/tmp/held").ok_or("the deleted file is not told")?;
    assert_eq!((gone["pid"].to_string(), &gone["size"]), (held.to_owned(), &23.into()));
    let told =
        |it: &Value| (it["name"].as_str().map(str::to_owned), it["address"].as_str().map(str::to_owned));
    let modules: Vec<_> = rows("modules").iter().map(told).collect();
    let truth =
        captured.truth.modules.iter().map(|it| (Some(it.name.clone()), Some(format!("{:#x}", it.base))));
    assert_eq!(modules, truth.collect::<Vec<_>>());
    assert!(rows("mounts").iter().any(|row| row["on"] == "/proc" && row["type"] == "proc"), "{report:#}");
    assert!(rows("sockets").iter().any(|row| row["local"]["port"] == 8080 && row["state"] == "LISTEN"));
    assert!(
        rows("findings").iter().all(|it| it["weight"] == "look"),
        "nobody touched it: {:#}",
        report["findings"]
    );
    assert_eq!(report["identity"]["host"], "target");
    let page = std::fs::read_to_string(page)?;
    assert!(page.contains("/tmp/held") && page.contains(&hash(&busybox)) && page.ends_with("</html>\n"));
    Ok(())
}

/// The report over a guest in which a process is out of the list that `/proc` shows, and then one
/// in which functions of the kernel lead elsewhere, too.
fn hidden_is_reported(tool: &Tool, pack: &Path, kernel: &str) -> Result<(), Failure> {
    if rootkit::build(&Kernel::find(kernel)?)?.is_empty() {
        return Ok(());
    }
    let options = Target { kernel: kernel.to_owned(), kaslr: true, ..Target::default() };
    let mut guest = boot_target(&options, Duration::from_secs(300))?;
    let process = ask(&mut guest)?.processes.into_iter().find(|it| it.task_name() == "redis-server");
    let pid = process.ok_or("no process to hide")?.pid;
    let report = |guest: &mut Guest, kit: &str| -> Result<(i32, Value), Failure> {
        let from = tell(guest, &format!("load {kit} pid={pid} hide=dummy"))?;
        assert!(!guest.console()[from..].contains("could not load"), "{}", &guest.console()[from..]);
        let captured = capture(guest, &run_file("files-hidden")?, Moment::Idle)?;
        let mut words: Vec<OsString> =
            ["report", "--json", "--quiet", "--no-hashes", "--packs"].map(OsString::from).to_vec();
        words.extend([pack.into(), captured.elf.into()]);
        let done = tool.run(&words)?;
        Ok((done.code, serde_json::from_str(&done.output)?))
    };
    let alarms = |report: &Value| -> Vec<Value> {
        let findings = report["findings"].as_array().into_iter().flatten();
        findings.filter(|it| it["weight"] == "alarm").cloned().collect()
    };
    let hidden = json!([{ "pid": pid }]);
    let modules = json!([{ "name": "dummy" }]);
    let (code, told) = report(&mut guest, "unlink")?;
    let found = alarms(&told);
    assert!(code == 24 && found.len() == 2, "{code}: {found:#?}");
    assert!(found[0]["evidence"] == hidden && found[1]["evidence"] == modules, "{found:#?}");
    let (code, told) = report(&mut guest, "hide_inline")?;
    let found = alarms(&told);
    assert!(code == 23 && found.len() == 3, "{code}: {found:#?}");
    assert!(found[1]["evidence"] == hidden && found[2]["evidence"] == modules, "{found:#?}");
    assert!(found[0]["evidence"].as_array().is_some_and(|it| it.len() >= 2), "{found:#?}");
    Ok(())
}

/// File systems that are modules: the target has loaded one elsewhere than training, and one that
/// training had not loaded at all. Their code comes from the kernel's package.
fn modules(asked: &Asked<'_>, stable: &BTreeMap<String, Told>) -> Result<(), Failure> {
    let cat = |pack: &Path, path: &str| {
        let words: [OsString; 6] =
            ["cat".into(), "--quiet".into(), "--packs".into(), pack.into(), asked.target.into(), path.into()];
        asked.tool.run(&words)
    };
    let told: Vec<&str> = stable.keys().map(String::as_str).collect();
    for path in ["/tmp/disk/long", "/tmp/disk/directory", "/tmp/over/above", "/tmp/over/directory/file"] {
        assert!(told.contains(&path), "{path} is compared: {told:?}");
    }
    let file = "on the disk\nchanged above the disk\n";
    assert_eq!(cat(asked.pack, "/tmp/over/directory/file")?.output, file);
    // The same pack without them.
    let without = layout::run().join("files-without");
    let _ = std::fs::remove_dir_all(&without);
    std::fs::create_dir(&without)?;
    for entry in std::fs::read_dir(asked.pack)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending != "modules") {
            std::fs::copy(&path, without.join(path.file_name().unwrap_or_default()))?;
        }
    }
    let stopped = cat(&without, "/tmp/over/above")?;
    assert!(stopped.code == 17 && stopped.messages.contains("virtuoso modules"), "{}", stopped.messages);
    Ok(())
}

/// A mounted dump, for the tools of this machine; `mount.rs` asks more of it. Left out where this
/// machine lets nobody mount.
fn mounted(asked: &Asked<'_>, kernel: &str, held: &str) -> Result<(), Failure> {
    if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("not mounted: /dev/fuse cannot be opened");
        return Ok(());
    }
    let directory = layout::run().join("files-mount");
    std::fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    let table = || std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_mounted = || table().lines().any(|line| line.split(' ').nth(4) == directory.to_str());
    let mut command = Command::new(&asked.tool.virtuoso);
    command.arg("mount").arg("--packs").args([asked.pack, asked.target, &directory]);
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    while !is_mounted() {
        if child.try_wait()?.is_some() {
            let mut why = String::new();
            child.stderr.take().ok_or("no standard error")?.read_to_string(&mut why)?;
            assert!(why.contains("not permitted") || why.contains("ermission denied"), "{why}");
            eprintln!("not mounted: {why}");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Whatever comes out, the mount must not stay.
    let read = (|| -> Result<[Vec<u8>; 3], Failure> {
        let paths = ["proc/1/maps".to_owned(), format!("proc/{held}/exe"), format!("proc/{held}/fd/3")];
        let [maps, exe, deleted] = paths.map(|path| std::fs::read(directory.join(path)));
        Ok([maps?, exe?, deleted?])
    })();
    let listed = std::fs::read_dir(directory.join("tmp/many")).map(Iterator::count);
    child.kill()?;
    child.wait()?;
    let end = Instant::now() + Duration::from_secs(20);
    while is_mounted() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!is_mounted(), "a killed mount stays");
    let [maps, exe, deleted] = read?;
    assert_eq!(bytes(&asked.read("/proc/1/maps", 0, MOST).map_err(|(_, why)| why)?["data"]), maps);
    assert!(std::fs::read(Kernel::find(kernel)?.userland.busybox()?)? == exe, "the executable");
    assert_eq!(deleted, b"deleted and still open\n");
    assert_eq!(listed?, 9000);
    Ok(())
}

/// The Python module's own tests, with the truth that the guest told.
fn by_python(truth: &Value) -> Result<(), Failure> {
    let Some(mut command) = python::with_module("python")? else { return Ok(()) };
    let told = layout::run().join("python/truth.json");
    std::fs::write(&told, truth.to_string())?;
    command.arg(python::sources().join("tests/test_virtuoso.py")).arg("-v");
    let tested = command.env("VIRTUOSO_TRUTH", &told).output()?;
    let said = String::from_utf8_lossy(&tested.stderr);
    eprintln!("{said}");
    assert!(tested.status.success(), "the Python module's tests failed: {said}");
    Ok(())
}

/// What the guest says, for the tests of the Python module.
fn told_python(
    asked: &Asked<'_>,
    captured: &Capture,
    files: &BTreeMap<String, Told>,
    held: &str,
) -> Result<Value, Failure> {
    let file = |(path, told): (&String, &Told)| {
        let (kind, hash) = told.hash.clone()?;
        Some((path.clone(), json!({ "kind": kind, "hash": hash, "stat": told.stat })))
    };
    let files: serde_json::Map<String, Value> = files.iter().filter_map(file).collect();
    let truth = &captured.truth;
    let process = |pid: &str| {
        let process = truth.processes.iter().find(|it| it.pid.to_string() == pid);
        process.and_then(|it| it.exe.clone()).ok_or("a process without an executable")
    };
    Ok(json!({
        "target": asked.target,
        "packs": asked.pack,
        "held": held,
        "held_executable": process(held)?,
        "executable": process("1")?,
        "command": ["/bin/sh", "/init"],
        "files": files,
        "pids": truth.processes.iter().map(|it| it.pid).collect::<Vec<_>>(),
        "modules": truth.modules.iter().map(|it| json!([it.base, it.name])).collect::<Vec<_>>(),
    }))
}

/// Makes the pack of the built-in trainers.
fn train(tool: &Tool, kernel: &Kernel, pack: &Path) -> Result<(), Failure> {
    let _ = std::fs::remove_dir_all(pack);
    let report = tool.train_with(kernel, pack, &[])?;
    let rows = report["programs"].as_array().ok_or("no programs")?;
    assert_eq!(rows.len(), 14, "{report:#}");
    assert!(rows.iter().all(|row| row["verified"] == true), "{report:#}");
    Ok(())
}

#[test]
fn files_of_another_guest_are_what_it_says_itself() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let chosen = std::env::var("VIRTUOSO_KERNELS").ok();
    let full = std::env::var_os("VIRTUOSO_E2E").is_some_and(|mode| mode == "full");
    for kernel in [DEFAULT].into_iter().chain(OTHERS).filter(|kernel| Kernel::find(kernel).is_ok()) {
        let wanted = |list: &str| list.split(',').any(|name| name == kernel);
        if chosen.as_deref().map_or(full || kernel == DEFAULT, wanted) {
            files_of(kernel)?;
        }
    }
    Ok(())
}

/// Trains, boots and asks with this kernel.
fn files_of(kernel: &str) -> Result<(), Failure> {
    let begin = Instant::now();
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let pack = layout::run().join("files");
    let found = Kernel::find(kernel)?;
    train(&tool, &found, &pack)?;
    eprintln!("trained after {:.0} s", begin.elapsed().as_secs_f64());

    let options = Target {
        kernel: kernel.to_owned(),
        kaslr: true,
        append: "state=files".to_owned(),
        qemu: vec!["-smp".into(), "4".into()],
        ..Target::default()
    };
    let mut guest = boot_target(&options, Duration::from_secs(300))?;
    let console = guest.console();
    let held = console.split("=== HELD ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let held = held.ok_or("no process holds a deleted file")?.to_owned();
    tell(&mut guest, &format!("choose {CHOSEN}"))?;
    let tables = Tables::ask(&mut guest)?;
    let Snapshot { captured, files: stable } = Snapshot::take(&mut guest, "files-target")?;
    let tables = tables.common(&Tables::ask(&mut guest)?);
    let console = guest.console();
    tell(&mut guest, "state patched")?;
    let patched = Snapshot::take(&mut guest, "files-patched")?;
    let from = tell(&mut guest, &format!("print {DECIDED}"))?;
    let decided = guest.console()[from..].to_owned();
    drop(guest);
    eprintln!("captured after {:.0} s", begin.elapsed().as_secs_f64());

    let asked = Asked { tool: &tool, pack: &pack, target: &captured.elf };
    known(&asked, kernel, &held)?;
    verbs(&asked, kernel, &held)?;
    mounted(&asked, kernel, &held)?;
    reported(&asked, &captured, kernel, &held)?;
    Verbs { tool: &tool, pack: &pack, target: &captured.elf }.compare(&tables, &console)?;
    modules(&asked, &stable)?;
    all_files(&asked, kernel, &stable, 60);
    by_python(&told_python(&asked, &captured, &stable, &held)?)?;
    let wrong = others(&tool, &pack, &captured);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    hidden_is_reported(&tool, &pack, kernel)?;

    let Snapshot { captured, files: stable } = patched;
    let asked = Asked { target: &captured.elf, ..asked };
    assert!(decided.contains("sleep_max"), "{decided}");
    let ours = asked.content("DATA", DECIDED).map_err(|it| it.1)?.unwrap_or_default();
    let ours = String::from_utf8(ours)?;
    for line in decided.lines().map(str::trim_end).filter(|it| it.contains(" : ")) {
        // What two readings of a clock differ by.
        assert!(line.starts_with("clock-delta") || ours.contains(line), "{line:?} is not in {ours}");
    }
    // Most of it was asked above, of the same guest.
    let some = stable.into_iter().step_by(3).collect();
    all_files(&asked, kernel, &some, 20);
    eprintln!("{kernel}: after {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// A captured guest, and what it says of its files, the same before and after.
struct Snapshot {
    captured: Capture,
    files: BTreeMap<String, Told>,
}

impl Snapshot {
    fn take(guest: &mut Guest, name: &str) -> Result<Self, Failure> {
        let mut files = told(guest)?;
        let captured = capture(guest, &run_file(name)?, Moment::Idle)?;
        let after = told(guest)?;
        files.retain(|path, told| after.get(path) == Some(told));
        Ok(Self { captured, files })
    }
}

/// Compares all that a guest says of these files, the same twice, with what the pack does; so many
/// have to be there.
fn all_files(asked: &Asked<'_>, kernel: &str, files: &BTreeMap<String, Told>, least: usize) {
    let mut count = Count::default();
    for (path, told) in files {
        compare(asked, path, told, &mut count);
    }
    let Count { equal, errors, named, wrong } = count;
    eprintln!(
        "{kernel}: {} files that were the same twice: {equal} answers equal, {errors} errors that the \
         guest has too, {} outcomes, {} wrong",
        files.len(),
        named.len(),
        wrong.len(),
    );
    named.iter().for_each(|line| eprintln!("{}", line.trim_end()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= least && named.len() <= 6, "{} files, {named:#?}", files.len());
}

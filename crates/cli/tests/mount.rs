//! The machine's own files through FUSE: a dump mounted and read by the host's own tools, compared
//! with what the guest says of itself and with `virtuoso cat`; and tools that read `/proc`, run
//! over the guest's.
//!
//! Makes packs of the built-in trainers and boots targets of two kernels, so it runs only with
//! `VIRTUOSO_E2E=1` and in release, and only where `/dev/fuse` can be opened. With
//! `VIRTUOSO_E2E=full` a running guest is asked a thousand times instead of a hundred.

#![forbid(unsafe_code)]

mod evil;
mod python;
mod running;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use testkit::capture::{Capture, Moment, capture, tell};
use testkit::guest::{Target, boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel};
use testkit::layout;
use testkit::pipeline::Tool;

type Failure = Box<dyn std::error::Error>;

/// The second kernel, where the archive has it.
const ANOTHER: &str = "backports";
/// How long a mount may take to be there or to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The target, and what asks it.
struct Asked {
    tool: Tool,
    kernel: &'static str,
    pack: PathBuf,
    target: Capture,
    /// What the guest said of itself before it was captured.
    console: String,
}

impl Asked {
    fn words(&self, verb: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> = [verb, "--quiet", "--packs"].map(Into::into).into();
        words.extend([self.pack.clone().into(), self.target.elf.clone().into()]);
        words
    }

    /// What `virtuoso cat` says of a file.
    fn cat(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let mut command = Command::new(&self.tool.virtuoso);
        let output = command.args(self.words("cat")).arg(path).stderr(Stdio::inherit()).output()?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(format!("{path}: {}", output.status).into())
        }
    }

    /// A tool of the host over the guest's `/proc`.
    fn exec(&self, command: &[&str]) -> Result<String, Failure> {
        let mut words = self.words("exec");
        words.push("--".into());
        words.extend(command.iter().map(Into::into));
        let finished = self.tool.run(&words)?;
        if finished.code != 0 {
            return Err(format!("{command:?}: {}: {}", finished.code, finished.messages).into());
        }
        Ok(finished.output)
    }
}

/// Whether something is mounted on a directory.
fn is_mounted(directory: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The table has a space as an octal number.
    let directory = directory.display().to_string().replace(' ', "\\040");
    table.lines().any(|line| line.split(' ').nth(4) == Some(&directory))
}

fn wait_until(what: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A mount, which ends with it.
struct Mounted {
    child: Child,
    directory: PathBuf,
}

impl Mounted {
    fn new(asked: &Asked, options: &[&str]) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("virtuoso mount test {}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let mut command = Command::new(&asked.tool.virtuoso);
        let child = command.args(asked.words("mount")).arg(&directory).args(options).spawn()?;
        let mut mounted = Self { child, directory };
        if !wait_until(|| is_mounted(&mounted.directory)) {
            return Err(format!("not mounted: {:?}", mounted.child.try_wait()).into());
        }
        Ok(mounted)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path.trim_start_matches('/'))
    }

    /// A tool of the host, in the mount's directory.
    fn run(&self, command: &[&str]) -> Result<Output, Failure> {
        let mut run = Command::new(command[0]);
        Ok(run.args(&command[1..]).current_dir(&self.directory).stderr(Stdio::inherit()).output()?)
    }

    /// Sends a signal, and says whether nothing is mounted afterwards.
    fn leaves_nothing_after(mut self, signal: &str) -> Result<bool, Failure> {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status()?.success());
        let ended = self.child.wait()?;
        let gone = wait_until(|| !is_mounted(&self.directory));
        assert_eq!(ended.success(), signal != "-KILL", "{signal}: {ended}");
        Ok(gone && fs::read_dir(&self.directory)?.next().is_none())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        wait_until(|| !is_mounted(&self.directory));
        let _ = fs::remove_dir(&self.directory);
    }
}

fn prepared(name: &'static str) -> Result<Asked, Failure> {
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let (kernel, pack) = (Kernel::find(name)?, layout::run().join("mount"));
    let _ = fs::remove_dir_all(&pack);
    tool.train_with(&kernel, &pack, &["--search", "0"].map(OsString::from))?;
    let options = Target {
        kernel: name.to_owned(),
        kaslr: true,
        append: "state=files".to_owned(),
        ..Target::default()
    };
    let mut guest = boot_target(&options, Duration::from_secs(300))?;
    tell(&mut guest, "choose 10")?;
    tell(&mut guest, "describe")?;
    tell(&mut guest, "state hostile")?;
    let console = guest.console();
    let target = capture(&mut guest, &run_file("mount-target")?, Moment::Idle)?;
    Ok(Asked { tool, kernel: name, pack, target, console })
}

#[test]
fn a_mounted_dump_is_read_by_every_tool() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    if fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("skipped: /dev/fuse cannot be opened");
        return Ok(());
    }
    if Kernel::find(ANOTHER).is_ok() {
        let asked = prepared(ANOTHER)?;
        read(&asked)?;
        tools(&asked)?;
    }
    let asked = prepared(DEFAULT)?;
    read(&asked)?;
    for signal in ["-KILL", "-TERM", "-INT"] {
        let mounted = Mounted::new(&asked, &[])?;
        assert!(mounted.path("/proc/1/comm").exists());
        assert!(mounted.leaves_nothing_after(signal)?, "{signal}");
    }
    tools(&asked)?;
    running::looked_at(&asked.pack)?;
    hostile(asked)
}

/// A tree made to do harm: bounded, named, nothing outside touched, nothing that a terminal obeys.
fn hostile(mut asked: Asked) -> Result<(), Failure> {
    let place = layout::run().join("mount-evil");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.join("in"))?;
    let dump = place.join("evil.elf");
    assert_eq!(evil::doctor(&asked.target.elf, &dump)?, 3, "directory entries");
    asked.target.elf = dump;
    let begin = Instant::now();

    let mut words = asked.words("ls");
    words.extend(["-R", "-a", "-l", evil::TREE].map(Into::into));
    let listed = asked.tool.run(&words)?;
    assert!(evil::is_plain(&listed.output) && evil::is_plain(&listed.messages), "{}", listed.output);
    assert_ne!(listed.code, 0);
    for said in ["9223372036854775807", "out -> /etc/passwd", "two\\nlines", "\\xff\\xfe", "/in/in/in:"] {
        assert!(listed.output.contains(said), "{said}: {}", listed.output);
    }
    for said in ["/tmp/evil/slash: ", "/tmp/evil/nul/nul: ", "deeper than 128 directories"] {
        assert!(listed.messages.contains(said), "{said}: {}", listed.messages);
    }

    let mut words = asked.words("cp");
    let copy = place.join("in/copy");
    words.extend([
        "-r".into(),
        "--max-file".into(),
        "1000000".into(),
        evil::TREE.into(),
        copy.clone().into(),
    ]);
    let copied = asked.tool.run(&words)?;
    assert!(copied.code != 0 && evil::is_plain(&copied.messages), "{}", copied.messages);
    let names = |path: &Path| -> Result<Vec<String>, Failure> {
        let mut names: Vec<String> =
            fs::read_dir(path)?.flatten().map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    };
    assert_eq!(names(&place)?, ["evil.elf", "in"], "nothing beside the copy's directory");
    assert_eq!(names(&place.join("in"))?, ["copy", "copy.manifest.jsonl"]);
    assert_eq!(fs::read_link(copy.join("up"))?, Path::new("../../../../../../../../etc"));
    assert!(
        ["slash", "nul", "dots"].iter().all(|name| names(&copy.join(name)).is_ok_and(|it| it.is_empty()))
    );
    assert!(!copy.join("huge").exists() && !copy.join("endless").exists() && !copy.join("pipe").exists());
    let manifest = fs::read_to_string(place.join("in/copy.manifest.jsonl"))?;
    for left in ["huge", "endless", "pipe", "slash", "nul/nul"] {
        let line = manifest.lines().rfind(|line| line.contains(&format!("/tmp/evil/{left}\"")));
        let line: serde_json::Value = serde_json::from_str(line.ok_or(left)?)?;
        assert!(line["copied"] == false && line["why"].is_string(), "{line}");
    }

    let mounted = Mounted::new(&asked, &[])?;
    let found = mounted.run(&["find", "tmp/evil"])?;
    let lines = found.stdout.iter().filter(|&&byte| byte == b'\n').count();
    assert!((150..400).contains(&lines), "{lines}");
    assert!(fs::read_dir(mounted.path("/tmp/evil/slash"))?.any(|it| it.is_err()), "no part of a listing");
    assert!(fs::metadata(mounted.path("/tmp/evil/nul/nul")).is_err(), "the guest has no such name");
    assert_eq!(fs::metadata(mounted.path("/tmp/evil/huge"))?.len(), i64::MAX as u64);
    assert!(fs::read(mounted.path("/tmp/evil/endless")).is_err(), "a device is none here");
    assert!(fs::metadata(mounted.path("/tmp/evil/loop")).is_err());
    let out = fs::read_link(mounted.path("/tmp/evil/up"))?;
    assert!(
        out.is_relative() && out.components().filter(|it| it.as_os_str() == "..").count() <= 2,
        "{out:?}"
    );
    drop(mounted);
    assert!(begin.elapsed() < Duration::from_secs(240), "{:?}", begin.elapsed());
    Ok(fs::remove_dir_all(&place)?)
}

/// A mount of the dump, by the host's tools.
fn read(asked: &Asked) -> Result<(), Failure> {
    let mounted = Mounted::new(asked, &[])?;
    listed(&mounted)?;
    contents(asked, &mounted)?;
    links(asked, &mounted)?;
    ours(asked, &mounted)
}

/// Directories, as `find`, `tar` and Python walk them.
fn listed(mounted: &Mounted) -> Result<(), Failure> {
    let found = mounted.run(&["find", "proc/1", "sys/class", "tmp", "-type", "f"])?;
    let names = String::from_utf8_lossy(&found.stdout);
    assert!(names.lines().count() > 9000 && names.contains("proc/1/maps\n"), "{}", names.lines().count());

    // What `hostile` looks at is left out.
    let walked =
        "import os; print(sum(len(files) for at, _, files in os.walk(b'tmp') if b'/evil' not in at))";
    let walked = mounted.run(&["python3", "-c", walked])?;
    let in_tmp =
        mounted.run(&["find", "tmp", "-path", "tmp/evil", "-prune", "-o", "!", "-type", "d", "-print"])?;
    let in_tmp = in_tmp.stdout.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(String::from_utf8_lossy(&walked.stdout).trim(), in_tmp.to_string());

    let tar = mounted.run(&["tar", "-cf", "-", "--exclude=tmp/evil", "tmp"])?;
    assert!(tar.status.success());
    assert!(tar.stdout.len() > 9000 * 512, "{} bytes", tar.stdout.len());
    assert!(fs::symlink_metadata(mounted.path("/tmp/pipe"))?.file_type().is_fifo());
    let small = fs::metadata(mounted.path("/tmp/small"))?;
    assert_eq!(
        (small.mode() & 0o7777, small.uid(), small.gid(), small.mtime()),
        (0o640, 12, 34, 981_173_106)
    );
    assert!(fs::write(mounted.path("/tmp/new"), "no").is_err(), "read-only");
    Ok(())
}

/// Contents, as the guest said them and as `virtuoso cat` does.
fn contents(asked: &Asked, mounted: &Mounted) -> Result<(), Failure> {
    let mut file = "";
    let mut compared = 0;
    for line in asked.console.lines() {
        if let Some(path) = line.trim_end().strip_prefix("=== FILE ") {
            file = path;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        // What the kernel counts on has changed by now.
        if let (["DATA", told, "-"], true) =
            (words.as_slice(), file.starts_with("/tmp") || file.starts_with("/dev"))
        {
            let mut bytes = fs::read(mounted.path(file))?;
            bytes.truncate(1 << 20);
            assert_eq!(hash(&bytes), *told, "{file}");
            compared += 1;
        }
    }
    assert!(compared >= 4, "{compared} files");
    for path in
        ["/proc/1/maps", "/proc/1/status", "/proc/modules", "/sys/kernel/mm/transparent_hugepage/enabled"]
    {
        assert_eq!(fs::read(mounted.path(path))?, asked.cat(path)?, "{path}");
    }
    let comm = fs::read(mounted.path("/proc/self/comm"))?;
    assert_eq!(comm, asked.cat("/proc/1/comm")?, "self is process 1");
    Ok(())
}

/// Links lead to the guest's files, also those that lead to a file without a name.
fn links(asked: &Asked, mounted: &Mounted) -> Result<(), Failure> {
    let busybox = fs::read(Kernel::find(asked.kernel)?.userland.busybox()?)?;
    let held = asked.console.split("=== HELD ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let held = held.ok_or("no process holds a deleted file")?;
    let copy = std::env::temp_dir().join(format!("virtuoso-mount-copy-{}", std::process::id()));
    let copied = |path: &str| -> Result<Vec<u8>, Failure> {
        let done = Command::new("cp").arg(mounted.path(path)).arg(&copy).status()?;
        let bytes = fs::read(&copy);
        let _ = fs::remove_file(&copy);
        assert!(done.success(), "{path}");
        Ok(bytes?)
    };
    assert_eq!(copied(&format!("/proc/{held}/fd/3"))?, b"deleted and still open\n");
    assert_eq!(hash(&copied(&format!("/proc/{held}/exe"))?), hash(&busybox));
    assert_eq!(hash(&copied("/bin/busybox")?), hash(&busybox));
    let exe = fs::read_link(mounted.path(&format!("/proc/{held}/exe")))?;
    assert_eq!(exe, Path::new("../../bin/busybox"), "what the text names is shown by its name");
    let fd = fs::read_link(mounted.path(&format!("/proc/{held}/fd/3")))?;
    assert_eq!(fd, Path::new(".follow:3"));
    assert!(fs::read_link(mounted.path("/tmp/dangling"))?.ends_with("nowhere"));
    assert_eq!(
        fs::metadata(mounted.path("/tmp/link"))?.len(),
        fs::metadata(mounted.path("/dev/shm/long"))?.len()
    );
    Ok(())
}

/// What we say ourselves.
fn ours(asked: &Asked, mounted: &Mounted) -> Result<(), Failure> {
    let about: serde_json::Value =
        serde_json::from_slice(&fs::read(mounted.path("/.virtuoso/target.json"))?)?;
    assert_eq!(about["target"], asked.target.elf.display().to_string());
    let read = fs::read(asked.pack.join("read.prog"))?;
    assert_eq!(about["programs"]["read.prog"], hash(&read));
    let errors = fs::read_to_string(mounted.path("/.virtuoso/errors.jsonl"))?;
    for line in errors.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        assert!(line["path"].is_string() && line["message"].is_string(), "{line}");
    }
    Ok(())
}

/// Tools of the host over the guest's `/proc` and `/sys`.
fn tools(asked: &Asked) -> Result<(), Failure> {
    let processes = asked.exec(&["ps", "-eo", "pid=,comm="])?;
    for process in &asked.target.truth.processes {
        let found = processes.lines().any(|line| {
            let mut words = line.trim().splitn(2, ' ');
            words.next() == Some(&process.pid.to_string())
                && words.next().is_some_and(|comm| comm.split('-').next() == process.comm.split('-').next())
        });
        assert!(found, "{process:?} in\n{processes}");
    }
    assert!(asked.exec(&["ps", "auxww"])?.contains("/bin/busybox sleep 100000"));
    let modules = asked.exec(&["cat", "/proc/modules"])?;
    for module in &asked.target.truth.modules {
        assert!(modules.contains(&format!("{} ", module.name)), "{module:?} in\n{modules}");
    }
    let meminfo = String::from_utf8(asked.cat("/proc/meminfo")?)?;
    let total = meminfo.split_whitespace().nth(1).ok_or("no MemTotal")?;
    assert!(asked.exec(&["free", "-k"])?.contains(total), "MemTotal is {total}");
    assert!(asked.exec(&["mount"])?.contains(" on /dev/shm type tmpfs"));
    let listed = asked.exec(&["lsmod"])?;
    let lacks = asked.target.truth.modules.iter().find(|module| !listed.contains(&module.name));
    assert!(lacks.is_none(), "{lacks:?} in\n{listed}");
    let tree = asked.exec(&["pstree", "-p"])?;
    assert!(tree.starts_with("init(1)-"), "{tree}");
    let held = asked.console.split("=== HELD ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let held = held.ok_or("no process holds a deleted file")?;
    let open = asked.exec(&["lsof", "-p", held])?;
    let deleted = open.lines().find(|line| line.contains("/tmp/held")).ok_or("not open")?;
    assert!(deleted.split_whitespace().nth(1) == Some(held) && deleted.contains("3r"), "{open}");
    let mut words = asked.words("exec");
    words.extend(["--", "sh", "-c", "exit 7"].map(Into::into));
    assert_eq!(asked.tool.run(&words)?.code, 7, "the tool's exit code is ours");
    let left = fs::read_dir(std::env::temp_dir())?.flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("virtuoso-exec-")).count();
    assert_eq!(left, 0, "directories of exec stay");
    Ok(())
}

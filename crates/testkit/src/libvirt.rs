//! A libvirt of its own for a test: the daemon for one user's guests, in a directory of its own,
//! and domains that run the testkit's target guests.
//!
//! No system service is used and none is disturbed: the daemon finds all its directories by the
//! variables of the XDG specification, and virsh finds the daemon by the socket in the address. It
//! does not run as root, for then it would be the system's libvirt, with that one's directories;
//! root becomes `nobody` for it. Neither systemd nor a network is needed.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::guest::{READY, Target, target_argv};
use crate::{Error, Result};

/// The daemons that run QEMU's guests: each with its own, or all in one.
const DAEMONS: [&str; 2] = ["virtqemud", "libvirtd"];
/// Where daemons are that are on no user's path.
const MORE: &str = ":/usr/local/sbin:/usr/sbin:/sbin";
/// `nobody` and `nogroup`.
const NOBODY: u32 = 65534;
/// How long the daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon. Dropping it ends its guests and it.
#[derive(Debug)]
pub struct Libvirt {
    daemon: Child,
    program: PathBuf,
    directory: PathBuf,
}

/// How virsh ended.
#[derive(Debug)]
pub struct Said {
    /// Whether it did what it was told.
    pub done: bool,
    /// What it printed.
    pub text: String,
}

impl Libvirt {
    /// Starts a daemon; `None` where libvirt's daemon or virsh is not installed.
    ///
    /// # Errors
    /// It does not answer: its messages.
    pub fn start() -> Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(program) = DAEMONS.iter().find_map(|name| installed(name)) else { return Ok(None) };
        if installed("virsh").is_none() {
            return Ok(None);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, as Unix sockets want it, and where nobody can go.
        let directory =
            std::env::temp_dir().join(format!("virtuoso-libvirt-{}-{number}", std::process::id()));
        for folder in ["run", "config/libvirt", "cache", "data", "home"] {
            std::fs::create_dir_all(directory.join(folder)).map_err(Error::io(&directory))?;
        }
        let daemon = spawn(&program, &directory, "raw").map_err(Error::io(&program))?;
        let mut libvirt = Self { daemon, program, directory };
        libvirt.wait()?;
        Ok(Some(libvirt))
    }

    /// The address by which virsh finds it (`LIBVIRT_DEFAULT_URI`).
    #[must_use]
    pub fn uri(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let socket = if name == "libvirtd" { "libvirt-sock".to_owned() } else { format!("{name}-sock") };
        format!("qemu+unix:///session?socket={}", self.directory.join("run/libvirt").join(socket).display())
    }

    /// A directory that the daemon and its guests may write to.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The daemon's process number; `None` if it has ended.
    pub fn process_id(&mut self) -> Option<u32> {
        matches!(self.daemon.try_wait(), Ok(None)).then(|| self.daemon.id())
    }

    /// Ends the daemon and starts it anew, with another form for saved guests
    /// (`save_image_format`); its guests run on.
    ///
    /// # Errors
    /// As [`Libvirt::start`].
    pub fn start_again(&mut self, save_format: &str) -> Result<()> {
        end(&mut self.daemon);
        self.daemon = spawn(&self.program, &self.directory, save_format).map_err(Error::io(&self.program))?;
        self.wait()
    }

    /// Runs virsh.
    #[must_use]
    pub fn virsh(&self, words: &[&str]) -> Said {
        let mut command = Command::new("virsh");
        command.env("LC_ALL", "C").arg("--connect").arg(self.uri()).args(words).stdin(Stdio::null());
        match command.output() {
            Ok(output) => {
                let text =
                    [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).trim().to_owned());
                Said { done: output.status.success(), text: text.concat() }
            }
            Err(error) => Said { done: false, text: error.to_string() },
        }
    }

    /// Runs virsh, which has to do what it is told; what it printed.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn succeed(&self, words: &[&str]) -> Result<String> {
        let said = self.virsh(words);
        if said.done {
            return Ok(said.text);
        }
        Err(Error::Command {
            program: format!("virsh {words:?}"),
            status: "failed".to_owned(),
            output: said.text,
        })
    }

    /// Makes a domain known that runs a target guest; where it prints its console. The guest's
    /// files are copied to where the daemon's user may read them, and QEMU's further arguments are
    /// left out.
    ///
    /// # Errors
    /// [`Error::Command`], and what building the guest says.
    pub fn define(&self, name: &str, target: &Target) -> Result<PathBuf> {
        let argv = target_argv(target)?;
        let after = |flag: &str| {
            let at = argv.iter().position(|word| word == flag);
            at.and_then(|at| argv.get(at + 1)).cloned().unwrap_or_default()
        };
        let copy = |what: &str, from: OsString| -> Result<String> {
            let to = self.data().join(what);
            std::fs::copy(&from, &to).map_err(Error::io(Path::new(&from)))?;
            Ok(to.display().to_string())
        };
        let (kernel, initrd) = (copy("kernel", after("-kernel"))?, copy("initrd", after("-initrd"))?);
        let console = self.data().join("console");
        let (name, append) = (escaped(name), escaped(&after("-append").to_string_lossy()));
        let os = format!(
            "<os><type arch='x86_64'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>\
             <cmdline>{append}</cmdline></os>"
        );
        let devices = format!(
            "<devices><serial type='file'><source path='{}'/></serial><memballoon model='none'/></devices>",
            console.display()
        );
        let text = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>{os}\
             <features><acpi/></features>{devices}</domain>\n"
        );
        let file = self.data().join("domain.xml");
        std::fs::write(&file, text).map_err(Error::io(&file))?;
        self.succeed(&["define", &file.display().to_string()])?;
        Ok(console)
    }

    /// Starts a domain and waits until its guest is ready; what it printed.
    ///
    /// # Errors
    /// [`Error::Command`], [`Error::Timeout`].
    pub fn boot(&self, name: &str, console: &Path, timeout: Duration) -> Result<String> {
        self.succeed(&["start", "--domain", name])?;
        let begin = Instant::now();
        loop {
            let text = std::fs::read(console).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains(READY) {
                return Ok(text);
            }
            if begin.elapsed() > timeout {
                let tail = text.lines().rev().take(15).collect::<Vec<_>>().join("\n");
                return Err(Error::Timeout { marker: READY.to_owned(), seconds: timeout.as_secs(), tail });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.virsh(&["version", "--daemon"]).done {
            if self.process_id().is_none() || begin.elapsed() > PATIENCE {
                let log = self.directory.join("log");
                return Err(Error::Command {
                    program: self.program.display().to_string(),
                    status: "does not answer".to_owned(),
                    output: std::fs::read_to_string(log).unwrap_or_default(),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // QEMU outlives the daemon that started it.
        if self.process_id().is_none() {
            let _ = self.start_again("raw");
        }
        for domain in self.virsh(&["list", "--uuid"]).text.split_whitespace() {
            let _ = self.virsh(&["destroy", "--domain", domain]);
        }
        end(&mut self.daemon);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Starts the daemon in its directory, which is then its user's.
fn spawn(program: &Path, directory: &Path, save_format: &str) -> io::Result<Child> {
    // Guests' consoles are files, for which newer daemons want another one unless told otherwise.
    let text = format!("stdio_handler = \"file\"\nsave_image_format = \"{save_format}\"\n");
    std::fs::write(directory.join("config/libvirt/qemu.conf"), text)?;
    let is_root = std::fs::metadata("/proc/self")?.uid() == 0;
    let mut command = match is_root {
        true => {
            give(directory)?;
            let mut command = Command::new("setpriv");
            command.args([
                format!("--reuid={NOBODY}"),
                format!("--regid={NOBODY}"),
                "--clear-groups".to_owned(),
            ]);
            command.arg(program);
            command
        }
        false => Command::new(program),
    };
    let folders = [
        ("HOME", "home"),
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_DATA_HOME", "data"),
    ];
    let log = std::fs::File::create(directory.join("log"))?;
    command.envs(folders.map(|(name, folder)| (name, directory.join(folder))));
    command.args(["--timeout", "0"]).current_dir(directory).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log).spawn()
}

/// Gives a directory and all in it to `nobody`.
fn give(directory: &Path) -> io::Result<()> {
    chown(directory, Some(NOBODY), Some(NOBODY))?;
    for entry in std::fs::read_dir(directory)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            give(&path)?;
        } else if kind.is_file() {
            chown(&path, Some(NOBODY), Some(NOBODY))?;
        }
    }
    Ok(())
}

/// Ends a daemon as one asks it to, or after a while anyhow.
fn end(daemon: &mut Child) {
    let _ = Command::new("kill").arg(daemon.id().to_string()).stderr(Stdio::null()).status();
    let begin = Instant::now();
    while matches!(daemon.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = daemon.kill();
    let _ = daemon.wait();
}

/// Where a program is, if it is installed.
fn installed(name: &str) -> Option<PathBuf> {
    let folders = std::env::var("PATH").unwrap_or_default() + MORE;
    folders.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

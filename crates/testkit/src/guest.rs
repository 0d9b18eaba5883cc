//! Guests: their QEMU command lines, booting them, and waiting for what they print.
//!
//! The command line is a value of its own, so that `virtuoso record -- ...` runs exactly the guest
//! that the testkit would. A [`Guest`] owns its QEMU: dropping it ends it. The serial console is
//! QEMU's standard input and output.

use crate::initramfs::{self, Kind};
use crate::kernel::{self, Kernel};
use crate::qmp::Qmp;
use crate::{Error, Result, layout};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The line a training guest prints when all trainers have run.
pub const TRAINING_DONE: &str = "=== TRAINING DONE";

/// The line a target guest prints when its truth is complete.
pub const READY: &str = "=== READY";

/// What may vary between two training guests.
#[derive(Debug, Clone)]
pub struct Training {
    /// Which kernel it runs, see [`Kernel::find`].
    pub kernel: String,
    /// The trainers to run, each `NAME` or `NAME:ARGUMENT`; none means all with their usual
    /// arguments.
    pub trainers: Vec<String>,
    /// Whether the kernel chooses its place at random.
    pub kaslr: bool,
    /// More words for the kernel command line.
    pub append: String,
    /// More arguments for QEMU.
    pub qemu: Vec<OsString>,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            kernel: kernel::DEFAULT.to_owned(),
            trainers: Vec::new(),
            kaslr: false,
            append: String::new(),
            qemu: Vec::new(),
        }
    }
}

/// What may vary between two target guests.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which kernel it runs, see [`Kernel::find`].
    pub kernel: String,
    /// How many named processes to start.
    pub idlers: u32,
    /// Whether a process of uid 1000 spins in user mode.
    pub busy: bool,
    /// Whether the kernel chooses its place at random.
    pub kaslr: bool,
    /// The guest's clock at boot, as `-rtc base=` takes it.
    pub clock: String,
    /// More words for the kernel command line.
    pub append: String,
    /// More arguments for QEMU.
    pub qemu: Vec<OsString>,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            kernel: kernel::DEFAULT.to_owned(),
            idlers: 64,
            busy: false,
            kaslr: false,
            clock: "2031-05-17T12:34:56".to_owned(),
            append: String::new(),
            qemu: Vec::new(),
        }
    }
}

/// The whole QEMU command line of a training guest, program first. Builds its initramfs if need be.
pub fn training_argv(options: &Training) -> Result<Vec<OsString>> {
    // One place for stacks and mappings in every process: recordings of one trainer can then be
    // merged.
    // Its programs may read the time stamp counter; a target has the clock that its kernel chooses.
    let mut append = format!("norandmaps tsc=reliable clocksource=tsc {}", options.append);
    if !options.trainers.is_empty() {
        append += &format!(" trainers={}", options.trainers.join(","));
    }
    // Time by instructions, not by the clock on the wall: recording slows the guest down, and it
    // would spend its time on timer ticks.
    let mut qemu: Vec<OsString> = vec!["-icount".into(), "shift=1,sleep=off".into()];
    qemu.extend(options.qemu.iter().cloned());
    argv(Kind::Training, &options.kernel, options.kaslr, &append, &qemu)
}

/// The whole QEMU command line of a target guest, program first. Builds its initramfs if need be.
pub fn target_argv(options: &Target) -> Result<Vec<OsString>> {
    let append = format!("{} idlers={} busy={}", options.append, options.idlers, u32::from(options.busy));
    let mut qemu: Vec<OsString> = vec!["-rtc".into(), format!("base={},clock=vm", options.clock).into()];
    qemu.extend(options.qemu.iter().cloned());
    argv(Kind::Target, &options.kernel, options.kaslr, &append, &qemu)
}

fn argv(kind: Kind, kernel: &str, kaslr: bool, append: &str, more: &[OsString]) -> Result<Vec<OsString>> {
    let kernel = Kernel::find(kernel)?;
    let initramfs = initramfs::build(kind, &kernel)?;
    let (base, image) = if kaslr { ("kaslr", kernel.image) } else { ("nokaslr", kernel.unpacked()?) };
    let line = format!("console=ttyS0 quiet panic=-1 {base} {}", append.trim());
    let fixed = "-accel tcg,thread=single -cpu qemu64 -m 192 -smp 1 -nodefaults -no-user-config -no-reboot \
                 -display none -chardev stdio,id=console,signal=off -serial chardev:console";
    let mut argv: Vec<OsString> = vec!["qemu-system-x86_64".into()];
    argv.extend(fixed.split_whitespace().map(OsString::from));
    argv.extend(["-kernel".into(), image.into(), "-initrd".into(), initramfs.into()]);
    argv.extend(["-append".into(), line.trim_end().into()]);
    argv.extend(more.iter().cloned());
    Ok(argv)
}

/// A running guest.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    input: ChildStdin,
    console: Arc<Console>,
    socket: PathBuf,
}

#[derive(Debug, Default)]
struct Console {
    state: Mutex<Output>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Output {
    text: String,
    messages: String,
    ended: bool,
}

impl Guest {
    /// Starts a QEMU command line from [`training_argv`] or [`target_argv`], with a monitor socket
    /// added.
    pub fn boot(argv: &[OsString]) -> Result<Self> {
        let (program, arguments) =
            argv.split_first().ok_or_else(|| Error::Qmp("an empty command line".to_owned()))?;
        let socket = socket_path();
        let mut monitor = OsString::from("unix:");
        monitor.push(&socket);
        monitor.push(",server=on,wait=off");
        let mut child = Command::new(program)
            .args(arguments)
            .arg("-qmp")
            .arg(monitor)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|_| Error::Missing { what: program.to_string_lossy().into_owned() })?;
        let console = Arc::new(Console::default());
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(messages)) = pipes else {
            return Err(Error::Qmp("QEMU was started without pipes".to_owned()));
        };
        follow(output, Arc::clone(&console), true);
        follow(messages, Arc::clone(&console), false);
        Ok(Self { child, input, console, socket })
    }

    /// All the guest has printed so far.
    pub fn console(&self) -> String {
        self.console.lock().text.clone()
    }

    /// Waits until the guest has printed `marker` after the first `from` bytes of its console;
    /// returns where the marker ends.
    pub fn wait_for(&self, marker: &str, from: usize, timeout: Duration) -> Result<usize> {
        let deadline = Instant::now() + timeout;
        let mut output = self.console.lock();
        loop {
            if let Some(at) = output.text.get(from..).and_then(|text| text.find(marker)) {
                return Ok(from + at + marker.len());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if output.ended {
                return Err(Error::Ended { marker: marker.to_owned(), tail: output.tail() });
            }
            if left.is_zero() {
                return Err(Error::Timeout {
                    marker: marker.to_owned(),
                    seconds: timeout.as_secs(),
                    tail: output.tail(),
                });
            }
            output =
                self.console.changed.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Types a line on the guest's console.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        let sent = self.input.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.input.flush());
        sent.map_err(Error::io("the guest's console"))
    }

    /// Connects to QEMU's monitor.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.socket)
    }

    /// Waits until QEMU ends by itself and returns all that the guest has printed.
    pub fn wait_for_end(&mut self, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        while self.child.try_wait().map_err(Error::io("qemu-system-x86_64"))?.is_none() {
            if Instant::now() > deadline {
                let tail = self.console.lock().tail();
                return Err(Error::Timeout {
                    marker: "the end".to_owned(),
                    seconds: timeout.as_secs(),
                    tail,
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut output = self.console.lock();
        while !output.ended && Instant::now() < deadline {
            let wait = Duration::from_millis(100);
            output =
                self.console.changed.wait_timeout(output, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(output.text.clone())
    }

    /// QEMU's process number.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing can be done about a QEMU that has already ended or a socket that has already
        // gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Console {
    fn lock(&self) -> std::sync::MutexGuard<'_, Output> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    /// The last lines of the console and what QEMU itself said.
    fn tail(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("{last}\n{}", self.messages.trim_end())
    }
}

/// Collects what a pipe delivers; the console's end is QEMU's end.
fn follow(mut pipe: impl Read + Send + 'static, console: Arc<Console>, is_console: bool) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let read = pipe.read(&mut buffer).unwrap_or(0);
            let mut output = console.lock();
            let text = String::from_utf8_lossy(&buffer[..read]);
            if is_console {
                output.text.push_str(&text);
                output.ended |= read == 0;
            } else {
                output.messages.push_str(&text);
            }
            console.changed.notify_all();
            if read == 0 {
                return;
            }
        }
    });
}

/// A short path, as Unix sockets want it, that no other guest has.
fn socket_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("virtuoso-{}-{number}.qmp", std::process::id()))
}

/// Boots a target guest and waits until it is ready.
pub fn boot_target(options: &Target, timeout: Duration) -> Result<Guest> {
    let guest = Guest::boot(&target_argv(options)?)?;
    guest.wait_for(READY, 0, timeout)?;
    Ok(guest)
}

/// Where files about the guest `name` belong.
pub fn run_file(name: &str) -> Result<PathBuf> {
    let directory = layout::run();
    std::fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
    Ok(directory.join(Path::new(name)))
}

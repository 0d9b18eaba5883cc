//! A running guest as a target: paused, read, resumed.
//!
//! All goes through QEMU's monitor and works alike for TCG and KVM. The processors come from
//! `dump-guest-memory` of a single page, whose notes are those of any dump: unlike `info registers`
//! they hold the kernel GS base, and unlike the gdb stub they hold the descriptor tables; it takes
//! a millisecond. Where no dump may be asked for, `info registers` has to do (see `registers`).
//! RAM is read where QEMU has it (see `memory`). The guest is never written, and no
//! process is started here: what resumes a guest whose reader dies is the command's affair.

mod layout;
mod lock;
mod memory;
mod monitor;
mod pause;
mod qmp;
mod registers;

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use serde_json::{Value, json};

use super::cpu::Cpu;
use super::error::TargetCause;
use super::{Target, elf};
use crate::addr::PAGE_SIZE;
use crate::map::FileMap;
use crate::memory::{GuestMemory, ImageMemory};
use crate::paging::root_page;
use crate::reg::Reg;
pub use lock::GuestLock;
use memory::{Backing, LiveMemory, Outbox, Ram};
pub use monitor::{Events, Monitor, MonitorError, result, resume, status};
pub use pause::{Pause, PauseReport, Torn};
pub use qmp::QmpSocket;

/// Bytes of a dump of one page: the notes of 4096 processors are some 3 MiB.
const MAX_DUMP: u64 = 16 << 20;

/// Why a live guest cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The monitor does not answer.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The operating system refuses.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it says.
        error: std::io::Error,
    },
    /// QEMU says something that is not understood.
    #[error("QEMU's answer to `{0}` is not understood")]
    Answer(&'static str),
    /// The processors that QEMU wrote down are not readable.
    #[error("the processor state that QEMU gives is unusable: {0}")]
    Dump(TargetCause),
    /// QEMU has no RAM where it says it has.
    #[error("no RAM is found in QEMU's memory map")]
    NoRam,
    /// What is mapped is not the guest's memory.
    #[error("what process {0} has at the addresses that QEMU names is not this guest's RAM")]
    OtherMemory(u64),
    /// The guest ran before all was read.
    #[error("the pause was over before the guest's processors were read")]
    NotWhole(PauseReport),
}

impl LiveError {
    /// What to do next, in one sentence without a full stop.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Monitor(error) => error.hint(),
            Self::Io { .. } => "check this system's limits and rights",
            Self::Answer(_) | Self::NoRam => "use QEMU 9.2 or 10, or take a dump with dump-guest-memory",
            Self::Dump(_) => "take a dump with dump-guest-memory and see what is wrong with it",
            Self::NotWhole(_) => "ask again",
            Self::OtherMemory(_) => "run in the PID namespace in which QEMU runs",
        }
    }
}

/// A guest whose monitor is connected. It runs until it is paused.
pub struct Live {
    path: PathBuf,
    identity: String,
    monitor: Arc<Mutex<Box<dyn Monitor>>>,
    ram: Arc<Ram>,
    /// Where QEMU writes dumps of a page.
    dump: File,
    outbox: Option<Arc<Outbox>>,
    /// Whether QEMU may be told to dump.
    dumps: bool,
    /// QEMU's process where its memory or files are read and that this is the guest's RAM is not
    /// yet seen.
    unproved: Option<u64>,
    slow: Option<String>,
}

impl Live {
    /// Looks where the guest's RAM is; `path` names it in messages. The guest runs on.
    ///
    /// # Errors
    /// [`LiveError`].
    pub fn open(mut monitor: Box<dyn Monitor>, path: &Path) -> Result<Self, LiveError> {
        let dumps = monitor.may_dump();
        let ask = &mut *monitor;
        let blocks = memory_blocks(&ask.execute("query-memdev", json!({}), None)?)?;
        let ranges = layout::ranges(&human(ask, "info mtree -f")?, &blocks);
        if ranges.is_empty() {
            return Err(LiveError::NoRam);
        }
        let process = ask.execute("query-cpus-fast", json!({}), None)?;
        let process = process.pointer("/0/thread-id").and_then(Value::as_u64);
        let identity = identity(ask, process)?;
        let table = human(ask, "info ramblock")?;
        let mut backings = Vec::new();
        let mut slow = None;
        for block in blocks {
            let size = ranges
                .iter()
                .filter(|range| range.block == block)
                .map(|range| range.offset + range.size)
                .max();
            let Some(size) = size else { continue };
            let found = match (process, layout::host_address(&table, &block)) {
                (Some(process), Some(address)) => backing(process, address, size),
                _ => Err("QEMU does not say where it has it".to_owned()),
            };
            backings.push((
                block.clone(),
                found.unwrap_or_else(|why| {
                    slow.get_or_insert(format!("{block}: {why}"));
                    Backing::Monitor
                }),
            ));
        }
        let outbox = slow.as_ref().map(|_| outbox(ask)).transpose()?;
        let unproved =
            process.filter(|_| backings.iter().any(|(_, backing)| !matches!(backing, Backing::Monitor)));
        Ok(Self {
            path: path.to_owned(),
            identity,
            ram: Arc::new(Ram { ranges, backings }),
            monitor: Arc::new(Mutex::new(monitor)),
            dump: memory_file()?,
            outbox: outbox.map(Arc::new),
            dumps,
            unproved,
            slow,
        })
    }

    /// Why memory can be read only through the monitor, if so: some milliseconds for each 64 KiB a
    /// run touches.
    #[must_use]
    pub fn slow(&self) -> Option<&str> {
        self.slow.as_deref()
    }

    /// What tells this guest from others on this system, the same over each of its monitors.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The connection to the monitor, for another process to hold on to; `None` where each command
    /// has its own.
    ///
    /// # Errors
    /// [`LiveError::Io`].
    pub fn connection(&self) -> Result<Option<OwnedFd>, LiveError> {
        let what = "sharing the connection to QEMU's monitor";
        self.lock().connection().map_err(|error| LiveError::Io { what, error })
    }

    /// Whether the guest runs.
    ///
    /// # Errors
    /// [`LiveError`].
    pub fn is_running(&mut self) -> Result<bool, LiveError> {
        Ok(status(&mut **self.lock())? == "running")
    }

    /// Pauses the guest, for at most `limit`, and reads its processors. One that stands still
    /// already stays so.
    ///
    /// # Errors
    /// [`LiveError`]; the guest then runs if it ran before.
    pub fn pause(&mut self, limit: Duration) -> Result<(Target, Pause), LiveError> {
        if self.dumps {
            self.offer_dump()?;
        }
        let gate = Arc::new(pause::Gate::open());
        let pause = Pause::begin(Arc::clone(&gate), Arc::clone(&self.monitor), limit)?;
        match self.read(gate) {
            Ok(target) => Ok((target, pause)),
            // What is read of a guest that runs need not fit together.
            Err(error) => match pause.finish() {
                Ok(report) if !report.is_whole() => Err(LiveError::NotWhole(report)),
                _ => Err(error),
            },
        }
    }

    /// The guest's processors, and its memory as long as the gate is open.
    fn read(&mut self, gate: Arc<pause::Gate>) -> Result<Target, LiveError> {
        let cpus = if self.dumps { self.dump_page(0)?.0 } else { self.registers()? };
        let (ram, monitor, outbox) = (Arc::clone(&self.ram), Arc::clone(&self.monitor), self.outbox.clone());
        let memory = LiveMemory::new(ram, gate, monitor, outbox);
        if let Some(process) = self.unproved
            && self.prove(&memory, &cpus, process)?
        {
            self.unproved = None;
        }
        let format = match self.ram.backings.iter().map(|(_, backing)| backing).next() {
            Some(Backing::Mapped { .. }) => "live, RAM mapped",
            Some(Backing::Process { .. }) => "live, RAM read from QEMU's process",
            _ => "live, RAM read through the monitor",
        };
        Ok(Target::live(Box::new(memory), cpus, format, self.path.clone()))
    }

    /// Compares the root of the page tables, which no other guest has alike, with what QEMU says it
    /// is; whether it could be compared.
    fn prove(&mut self, memory: &LiveMemory, cpus: &[Cpu], process: u64) -> Result<bool, LiveError> {
        let root = root_page(cpus.first().and_then(|cpu| cpu.regs.get(Reg::Cr3)).unwrap_or(0));
        // Where the pause is over already, nothing can be read, and nothing is answered.
        let Ok(found) = memory.page(root) else { return Ok(false) };
        let same = if self.dumps {
            self.offer_dump()?;
            let (_, said) = self.dump_page(root.0)?;
            said.page(root).is_ok_and(|said| said == found)
        } else {
            let text = human(&mut **self.lock(), &registers::page_command(root.0))?;
            registers::page(&text).ok_or(LiveError::Answer("xp"))? == found
        };
        if same { Ok(true) } else { Err(LiveError::OtherMemory(process)) }
    }

    /// The processors, without a dump.
    fn registers(&mut self) -> Result<Vec<Cpu>, LiveError> {
        let command = "info registers -a";
        let text = human(&mut **self.lock(), command)?;
        registers::processors(&text).ok_or(LiveError::Answer(command))
    }

    /// Hands QEMU the file for the next dump: not while the guest waits, where that can be helped.
    fn offer_dump(&mut self) -> Result<(), LiveError> {
        let what = "emptying a file in memory";
        let emptied = self.dump.set_len(0).and_then(|()| self.dump.rewind());
        emptied.map_err(|error| LiveError::Io { what, error })?;
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        monitor.execute("getfd", json!({ "fdname": "virtuoso" }), Some(&self.dump))?;
        Ok(())
    }

    /// The processors, and the page at a physical address.
    fn dump_page(&mut self, address: u64) -> Result<(Vec<Cpu>, ImageMemory<Vec<u8>>), LiveError> {
        let arguments =
            json!({ "paging": false, "protocol": "fd:virtuoso", "begin": address, "length": PAGE_SIZE });
        self.lock().execute("dump-guest-memory", arguments, None)?;
        let mut bytes = Vec::new();
        let read = self.dump.rewind().and_then(|()| (&self.dump).take(MAX_DUMP).read_to_end(&mut bytes));
        read.map_err(|error| LiveError::Io { what: "reading QEMU's dump of a page", error })?;
        let core = elf::read(&bytes, true).map_err(LiveError::Dump)?;
        let mem = ImageMemory::new(bytes, core.segments);
        let mem = mem.map_err(|error| LiveError::Dump(TargetCause::Image(error)))?;
        Ok((core.cpus, mem))
    }

    /// Closes the connection, so that somebody else can have the monitor. Nothing more can be
    /// asked.
    pub fn hang_up(&mut self) {
        *self.lock() = Box::new(HungUp);
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Monitor>> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guest's UUID and name as far as it has them, and QEMU's number for its process.
fn identity(monitor: &mut dyn Monitor, process: Option<u64>) -> Result<String, LiveError> {
    let uuid = monitor.execute("query-uuid", json!({}), None)?;
    let name = monitor.execute("query-name", json!({}), None)?;
    let text = |value: &Value, key| value.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    Ok(format!("{} {} {}", text(&uuid, "UUID"), process.unwrap_or(0), text(&name, "name")))
}

/// A connection that was closed.
struct HungUp;

impl Monitor for HungUp {
    fn execute(&mut self, command: &str, _: Value, _: Option<&File>) -> Result<Value, MonitorError> {
        Err(MonitorError::Lost { command: command.to_owned(), text: "the connection was closed".to_owned() })
    }
}

/// The names of the guest's RAM blocks.
fn memory_blocks(answer: &Value) -> Result<Vec<String>, LiveError> {
    let list = answer.as_array().ok_or(LiveError::Answer("query-memdev"))?;
    Ok(list.iter().filter_map(|device| device.get("id")?.as_str().map(str::to_owned)).collect())
}

fn human(monitor: &mut dyn Monitor, command: &str) -> Result<String, LiveError> {
    let answer = monitor.execute("human-monitor-command", json!({ "command-line": command }), None)?;
    answer.as_str().map(str::to_owned).ok_or(LiveError::Answer("human-monitor-command"))
}

/// The fastest way to `size` bytes at an address of QEMU's process, or why there is none.
fn backing(process: u64, address: u64, size: u64) -> Result<Backing, String> {
    let root = PathBuf::from(format!("/proc/{process}"));
    let maps = fs::read_to_string(root.join("maps")).map_err(|error| format!("QEMU's process: {error}"))?;
    let mapping = layout::mapping(&maps, address, size).ok_or("QEMU's process has it not where QEMU says")?;
    if mapping.shared && mapping.inode != 0 {
        let map = shared_file(&root.join("fd"), &mapping).and_then(|file| FileMap::new(&file).ok());
        if let Some(map) = map.filter(|map| mapping.offset + size <= map.as_ref().len() as u64) {
            return Ok(Backing::Mapped { map, base: mapping.offset });
        }
    }
    let file = File::open(root.join("mem")).map_err(|error| format!("QEMU's memory: {error}"))?;
    Ok(Backing::Process { file, base: address })
}

/// The file of a mapping, among those that the process has open: it may have no name any more, as a
/// memfd has none.
fn shared_file(folder: &Path, mapping: &layout::Mapping) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let links = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut same =
        links.filter(|link| fs::read_link(link).is_ok_and(|path| path == Path::new(&mapping.path)));
    let link =
        same.find(|link| fs::metadata(link).is_ok_and(|meta| meta.is_file() && meta.ino() == mapping.inode))?;
    File::open(link).ok()
}

impl Drop for Live {
    fn drop(&mut self) {
        // It would go with the connection, but libvirt's to QEMU outlives this process.
        if let Some(outbox) = &self.outbox {
            let _ = self.lock().execute("remove-fd", json!({ "fdset-id": outbox.set }), None);
        }
    }
}

/// Gives QEMU a file to write memory to.
fn outbox(monitor: &mut dyn Monitor) -> Result<Outbox, LiveError> {
    let file = memory_file()?;
    let answer = monitor.execute("add-fd", json!({ "opaque": "virtuoso" }), Some(&file))?;
    let number = |name| answer.get(name).and_then(Value::as_u64).ok_or(LiveError::Answer("add-fd"));
    Ok(Outbox { file, name: format!("/proc/self/fd/{}", number("fd")?), set: number("fdset-id")? })
}

/// A file that exists in memory only.
fn memory_file() -> Result<File, LiveError> {
    let made = rustix::fs::memfd_create("virtuoso", MemfdFlags::CLOEXEC);
    made.map(File::from)
        .map_err(|error| LiveError::Io { what: "creating a file in memory", error: error.into() })
}

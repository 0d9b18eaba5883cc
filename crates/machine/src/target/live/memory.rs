//! The RAM of a paused live guest.
//!
//! Three ways lead to a page: a file that QEMU shares (mapped once, read in place), QEMU's own
//! memory through `/proc/PID/mem`, and QEMU's monitor. The last two bring 64 KiB at a time, which
//! are kept as long as the pause. All is over when the pause is: from then on every page is absent,
//! so that a run that is still going ends soon, and none that answers mixes two moments. QEMU's
//! memory is opened for reading only.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::json;

use super::layout;
use super::monitor::Monitor;
use super::pause::Gate;
use crate::addr::PhysAddr;
use crate::map::FileMap;
use crate::memory::{GuestMemory, MemoryError, Page};

/// Bytes brought at a time where memory is not mapped.
const CHUNK: u64 = 1 << 16;

/// How a block's bytes are reached.
#[derive(Debug)]
pub(super) enum Backing {
    /// A file that QEMU maps shared; the block begins `base` bytes in.
    Mapped {
        /// The file.
        map: FileMap,
        /// Where the block begins.
        base: u64,
    },
    /// QEMU's memory; the block begins at address `base`.
    Process {
        /// QEMU's `/proc/PID/mem`.
        file: File,
        /// QEMU's address of the block.
        base: u64,
    },
    /// The monitor writes what is wanted to a file.
    Monitor,
}

/// RAM and how its blocks are reached; the same in every pause.
#[derive(Debug)]
pub(super) struct Ram {
    pub(super) ranges: Vec<layout::Range>,
    /// The backing of each block, by name.
    pub(super) backings: Vec<(String, Backing)>,
}

impl Ram {
    fn backing(&self, block: &str) -> Option<&Backing> {
        self.backings.iter().find(|(name, _)| name == block).map(|(_, backing)| backing)
    }
}

/// A file that QEMU writes memory to when its monitor is told to.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) file: File,
    /// The name QEMU knows it by.
    pub(super) name: String,
    /// The number by which QEMU forgets it.
    pub(super) set: u64,
}

type Chunk = OnceLock<Option<Box<[Page]>>>;

/// RAM during one pause.
pub(super) struct LiveMemory {
    ram: Arc<Ram>,
    gate: Arc<Gate>,
    monitor: Arc<Mutex<Box<dyn Monitor>>>,
    outbox: Option<Arc<Outbox>>,
    /// What was brought, for each range that is not mapped.
    chunks: Vec<Vec<Chunk>>,
}

impl LiveMemory {
    pub(super) fn new(
        ram: Arc<Ram>,
        gate: Arc<Gate>,
        monitor: Arc<Mutex<Box<dyn Monitor>>>,
        outbox: Option<Arc<Outbox>>,
    ) -> Self {
        let chunks = ram.ranges.iter().map(|range| match ram.backing(&range.block) {
            Some(Backing::Mapped { .. }) | None => Vec::new(),
            Some(_) => (0..range.size.div_ceil(CHUNK)).map(|_| Chunk::new()).collect(),
        });
        let chunks = chunks.collect();
        Self { ram, gate, monitor, outbox, chunks }
    }

    /// Brings the chunk with this number of a range. What is wrong is told to the pause.
    fn bring(&self, range: &layout::Range, number: u64) -> Option<Box<[Page]>> {
        let at = number * CHUNK;
        let size = CHUNK.min(range.size - at);
        let mut bytes = vec![0; size as usize];
        let read = match self.ram.backing(&range.block)? {
            Backing::Mapped { .. } => return None,
            Backing::Process { file, base } => file
                .read_exact_at(&mut bytes, base + range.offset + at)
                .map_err(|error| format!("reading QEMU's memory failed: {error}")),
            Backing::Monitor => self.save(range.start + at, &mut bytes),
        };
        if let Err(problem) = read {
            self.gate.tell(problem);
            return None;
        }
        // The guest ran on while this was read: it may be of two moments.
        self.gate.is_open().then(|| bytes.as_chunks().0.into())
    }

    /// Lets the monitor write memory from `start` on.
    fn save(&self, start: u64, bytes: &mut [u8]) -> Result<(), String> {
        let outbox = self.outbox.as_ref().ok_or("QEMU has no file to write memory to")?;
        let arguments = json!({ "val": start, "size": bytes.len(), "filename": outbox.name });
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        monitor.execute("pmemsave", arguments, None).map_err(|error| error.to_string())?;
        outbox.file.read_exact_at(bytes, 0).map_err(|error| format!("QEMU wrote too little memory: {error}"))
    }
}

impl GuestMemory for LiveMemory {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        let page = addr.page().0;
        let hole = MemoryError::Hole(addr);
        let number =
            self.ram.ranges.partition_point(|range| range.start <= page).checked_sub(1).ok_or(hole)?;
        let range = &self.ram.ranges[number];
        let into = page - range.start;
        if into >= range.size {
            return Err(hole);
        }
        if !self.gate.is_open() {
            return Err(MemoryError::Absent(addr));
        }
        if let Some(Backing::Mapped { map, base }) = self.ram.backing(&range.block) {
            let at = (base + range.offset + into) as usize;
            return map.as_ref().get(at..).and_then(<[u8]>::first_chunk).ok_or(MemoryError::Absent(addr));
        }
        let chunk = self.chunks[number].get((into / CHUNK) as usize).ok_or(hole)?;
        let pages = chunk.get_or_init(|| self.bring(range, into / CHUNK)).as_ref();
        pages
            .and_then(|pages| pages.get((into % CHUNK) as usize / size_of::<Page>()))
            .ok_or(MemoryError::Absent(addr))
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        let mut joined: Vec<Range<PhysAddr>> = Vec::new();
        for range in &self.ram.ranges {
            let end = PhysAddr(range.start + range.size);
            match joined.last_mut() {
                Some(last) if last.end.0 == range.start => last.end = end,
                _ => joined.push(PhysAddr(range.start)..end),
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::monitor::MonitorError;
    use super::*;

    /// Writes the address it is asked for over and over, as `pmemsave` writes memory.
    struct Addresses(File);

    impl Monitor for Addresses {
        fn execute(
            &mut self,
            command: &str,
            arguments: Value,
            _: Option<&File>,
        ) -> Result<Value, MonitorError> {
            let number = |name: &str| arguments[name].as_u64().unwrap_or(0);
            let text = number("val").to_le_bytes().repeat(number("size") as usize / 8);
            let written = self.0.write_all_at(&text, 0);
            let command = command.to_owned();
            written
                .map(|()| Value::Null)
                .map_err(|error| MonitorError::Lost { command, text: error.to_string() })
        }
    }

    fn memory_file() -> File {
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory").into()
    }

    fn memory(backing: Backing, size: u64) -> (LiveMemory, Arc<Gate>) {
        let block = "ram".to_owned();
        let range = layout::Range { start: 0x10_0000, size, block: block.clone(), offset: 0x1000 };
        let ram = Ram { ranges: vec![range], backings: vec![(block, backing)] };
        let outbox = Outbox { file: memory_file(), name: String::new(), set: 0 };
        let monitor: Box<dyn Monitor> = Box::new(Addresses(outbox.file.try_clone().expect("a handle")));
        let gate = Arc::new(Gate::open());
        let monitor = Arc::new(Mutex::new(monitor));
        (LiveMemory::new(Arc::new(ram), Arc::clone(&gate), monitor, Some(Arc::new(outbox))), gate)
    }

    #[test]
    fn all_ways_give_the_same_bytes() {
        let bytes: Vec<u8> = (0..5 * CHUNK / 4).map(|at| (at / 4096) as u8).collect();
        let file = memory_file();
        file.write_all_at(&bytes, 0).expect("it is written");
        let process = File::open("/proc/self/mem").expect("our own memory");
        for backing in [
            Backing::Mapped { map: FileMap::new(&file).expect("a mapping"), base: 0 },
            Backing::Process { file: process, base: bytes.as_ptr() as u64 },
        ] {
            let (memory, gate) = memory(backing, bytes.len() as u64 - 0x1000);
            for page in 0..bytes.len() as u64 / 4096 - 1 {
                assert_eq!(
                    memory.page(PhysAddr(0x10_0000 + page * 4096)).expect("a page")[7],
                    page as u8 + 1
                );
            }
            let end = PhysAddr(0x10_0000 + bytes.len() as u64 - 0x1000);
            assert_eq!(memory.page(end), Err(MemoryError::Hole(end)));
            assert_eq!(memory.ranges(), [PhysAddr(0x10_0000)..end]);
            gate.close();
            let first = PhysAddr(0x10_0000);
            assert_eq!(memory.page(first), Err(MemoryError::Absent(first)), "the pause is over");
        }
    }

    #[test]
    fn the_monitor_is_asked_for_physical_addresses() {
        let (memory, _) = memory(Backing::Monitor, 3 * CHUNK + 0x1000);
        assert_eq!(memory.read_u64(PhysAddr(0x10_0008 + 2 * CHUNK)), Ok(0x10_0000 + 2 * CHUNK));
        assert_eq!(memory.read_u64(PhysAddr(0x10_0000 + 3 * CHUNK)), Ok(0x10_0000 + 3 * CHUNK));
    }

    #[test]
    fn memory_that_cannot_be_read_is_absent_and_the_pause_knows_why() {
        let process = File::open("/proc/self/mem").expect("our own memory");
        let (memory, gate) = memory(Backing::Process { file: process, base: 0 }, CHUNK);
        let first = PhysAddr(0x10_0000);
        assert_eq!(memory.page(first), Err(MemoryError::Absent(first)));
        assert!(gate.problem().is_some_and(|problem| problem.contains("QEMU's memory")));
    }
}

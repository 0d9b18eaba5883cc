//! Captures of a paused guest: an ELF dump, raw RAM, the CPU state, and the truth that holds for
//! exactly that moment.
//!
//! The truth is asked for before and after the pause and the capture is repeated when the two
//! differ, because kernel threads come and go by themselves. Files appear under their names only
//! when complete.

use crate::guest::{Guest, READY};
use crate::qmp::Qmp;
use crate::truth::Truth;
use crate::{Error, Result, layout};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The files of one capture.
#[derive(Debug, Clone)]
pub struct Capture {
    /// QEMU's ELF dump.
    pub elf: PathBuf,
    /// All of RAM from physical address zero on.
    pub raw: PathBuf,
    /// The CPU state that belongs to the raw file: its name with `.cpu.json`.
    pub cpu: PathBuf,
    /// The truth as JSON.
    pub truth_file: PathBuf,
    /// The truth.
    pub truth: Truth,
}

impl Capture {
    /// The files under this stem.
    fn at(stem: &Path, truth: Truth) -> Self {
        Self {
            elf: with_ending(stem, ".elf"),
            raw: with_ending(stem, ".raw"),
            cpu: with_ending(stem, ".raw.cpu.json"),
            truth_file: with_ending(stem, ".truth.json"),
            truth,
        }
    }

    /// An earlier capture.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(stem: &Path) -> Result<Self> {
        let truth = Truth::read(&with_ending(stem, ".truth.json"))?;
        Ok(Self::at(stem, truth))
    }
}

/// Where to pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Wherever the guest is.
    Any,
    /// In user mode (a guest with `busy`).
    UserMode,
    /// Idle: the processor halts.
    Idle,
    /// In the kernel, at work.
    AtWork,
}

const ATTEMPTS: u32 = 5;

/// Captures a ready target guest under `stem` (`stem.elf`, `stem.raw`, `stem.raw.cpu.json`,
/// `stem.truth.json`). The guest runs on afterwards.
pub fn capture(guest: &mut Guest, stem: &Path, moment: Moment) -> Result<Capture> {
    capture_after(guest, stem, moment, None)
}

/// The same; `command` is given to the guest's init between the truth and the pause.
pub fn capture_after(
    guest: &mut Guest,
    stem: &Path,
    moment: Moment,
    command: Option<&str>,
) -> Result<Capture> {
    capture_with(guest, stem, moment, command, &mut |_| Ok(()))
}

/// The same; `also` writes more of the pause, perhaps more than once.
pub fn capture_with(
    guest: &mut Guest,
    stem: &Path,
    moment: Moment,
    command: Option<&str>,
    also: &mut dyn FnMut(&mut Qmp) -> Result<()>,
) -> Result<Capture> {
    let empty = Truth { processes: Vec::new(), modules: Vec::new(), time: 0.0, time_after: None };
    let files = Capture::at(stem, empty);
    let mut qmp = guest.qmp()?;
    let mut difference = String::new();
    for _ in 0..ATTEMPTS {
        let mut truth = ask(guest)?;
        if let Some(command) = command {
            tell(guest, command)?;
        }
        pause(&mut qmp, moment)?;
        let written = write(&mut qmp, &files).and_then(|()| also(&mut qmp));
        qmp.cont()?;
        written?;
        let later = ask(guest)?;
        match truth.difference(&later) {
            Some(text) => difference = text,
            None => {
                truth.time_after = Some(later.time);
                truth.write(&files.truth_file)?;
                return Ok(Capture { truth, ..files });
            }
        }
    }
    Err(Error::Unsteady { attempts: ATTEMPTS, difference })
}

/// Asks a ready target guest for its truth now.
pub fn ask(guest: &mut Guest) -> Result<Truth> {
    let from = tell(guest, "truth")?;
    Truth::parse(&guest.console()[from..])
}

/// Gives init a command and waits until it is done; returns where on the console its output begins.
pub fn tell(guest: &mut Guest, command: &str) -> Result<usize> {
    let from = guest.console().len();
    guest.send_line(command)?;
    guest.wait_for(READY, from, Duration::from_secs(240))?;
    Ok(from)
}

/// Pauses the guest at the wanted moment.
pub(crate) fn pause(qmp: &mut Qmp, moment: Moment) -> Result<()> {
    for _ in 0..200 {
        qmp.stop()?;
        let registers = qmp.human("info registers")?;
        let (user, halted) = (registers.contains("CPL=3"), registers.contains("HLT=1"));
        let found = match moment {
            Moment::Any => true,
            Moment::UserMode => user,
            Moment::Idle => halted,
            Moment::AtWork => !user && !halted,
        };
        if found {
            return Ok(());
        }
        qmp.cont()?;
        std::thread::sleep(Duration::from_millis(7));
    }
    Err(Error::Qmp(format!("the guest was never found at the moment {moment:?}")))
}

/// Writes all files of a paused guest.
fn write(qmp: &mut Qmp, files: &Capture) -> Result<()> {
    let cpu = write_elf(qmp, &files.elf)?;
    let size = qmp.memory_size()?;
    let part = layout::part_name(&files.raw);
    let written = qmp
        .pmemsave(0, size, &part)
        .and_then(|()| std::fs::rename(&part, &files.raw).map_err(Error::io(&files.raw)));
    clean_up(written, &part)?;
    let text = serde_json::to_vec_pretty(&cpu).map_err(|error| Error::Qmp(error.to_string()))?;
    layout::write(&files.cpu, &text)
}

/// Writes the ELF dump of a paused guest; its CPU states.
pub(crate) fn write_elf(qmp: &mut Qmp, path: &Path) -> Result<Value> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    let part = layout::part_name(path);
    let written = qmp.dump_guest_memory(&part).and_then(|()| {
        let cpu = cpu_state(&std::fs::read(&part).map_err(Error::io(&part))?)
            .map_err(|reason| Error::Dump { path: part.clone(), reason })?;
        std::fs::rename(&part, path).map_err(Error::io(path))?;
        Ok(cpu)
    });
    clean_up(written, &part)
}

/// Removes an unfinished file when its writing failed.
fn clean_up<T>(result: Result<T>, part: &Path) -> Result<T> {
    if result.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(part);
    }
    result
}

/// A stem with the ending of one of its files.
pub(crate) fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Where an ELF file's header and its program headers hold what is needed, each as offset and size.
struct Layout {
    headers: (usize, usize),
    header_size: (usize, usize),
    count: (usize, usize),
    offset: (usize, usize),
    length: (usize, usize),
}

const ELF32: Layout =
    Layout { headers: (28, 4), header_size: (42, 2), count: (44, 2), offset: (4, 4), length: (16, 4) };
const ELF64: Layout =
    Layout { headers: (32, 8), header_size: (54, 2), count: (56, 2), offset: (8, 8), length: (32, 8) };

/// The CPU states in the `QEMU` notes of an ELF dump, as JSON. QEMU writes 32-bit files of guests
/// without long mode.
pub fn cpu_state(elf: &[u8]) -> std::result::Result<Value, String> {
    const NOTE: u64 = 4;
    let layout = match elf.get(..5) {
        Some(b"\x7fELF\x01") => ELF32,
        Some(b"\x7fELF\x02") => ELF64,
        _ => return Err("not an ELF file".to_owned()),
    };
    let broken = || "the program headers are cut off".to_owned();
    let field = |from: usize, (at, size): (usize, usize)| {
        number(elf, from.saturating_add(at), size).ok_or_else(broken)
    };
    let (at, size, count) =
        (field(0, layout.headers)?, field(0, layout.header_size)?, field(0, layout.count)?);
    let mut cpus = Vec::new();
    for index in 0..count {
        let header = usize::try_from(at.saturating_add(index * size)).map_err(|_| broken())?;
        if field(header, (0, 4))? != NOTE {
            continue;
        }
        let (offset, length) = (field(header, layout.offset)?, field(header, layout.length)?);
        let notes = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(length).ok())
            .and_then(|(from, length)| elf.get(from..from.checked_add(length)?));
        collect_notes(notes.ok_or("the notes are cut off")?, &mut cpus)?;
    }
    if cpus.is_empty() {
        return Err("no CPU state note of QEMU".to_owned());
    }
    Ok(json!({ "cpus": cpus }))
}

fn collect_notes(notes: &[u8], cpus: &mut Vec<Value>) -> std::result::Result<(), String> {
    let mut at = 0;
    while let (Some(name_size), Some(size)) = (number(notes, at, 4), number(notes, at + 4, 4)) {
        let name_at = at + 12;
        let data_at = name_at + (name_size as usize).next_multiple_of(4);
        let data = notes.get(data_at..data_at + size as usize).ok_or("a note is cut off")?;
        if notes.get(name_at..name_at + 4) == Some(b"QEMU") {
            cpus.push(cpu(data)?);
        }
        at = data_at + (size as usize).next_multiple_of(4);
    }
    Ok(())
}

/// One CPU from QEMU's note, version 1: `version`, `size`, 18 general registers, 10 segments of 24
/// bytes (selector, limit, flags, padding, base), CR0-CR4, and the kernel GS base.
fn cpu(note: &[u8]) -> std::result::Result<Value, String> {
    const GENERAL: [&str; 18] = [
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15", "rip", "rflags",
    ];
    const SEGMENTS: [&str; 10] = ["cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt"];
    const CONTROL: [&str; 5] = ["cr0", "cr1", "cr2", "cr3", "cr4"];
    let version = number(note, 0, 4);
    if version != Some(1) || note.len() < 440 {
        return Err(format!(
            "a CPU state note of {} bytes and version {version:?}, not 440 and 1",
            note.len()
        ));
    }
    let hex = |at: usize, size: usize| json!(format!("0x{:x}", number(note, at, size).unwrap_or(0)));
    let mut state = Map::new();
    let mut at = 8;
    for name in GENERAL {
        state.insert(name.to_owned(), hex(at, 8));
        at += 8;
    }
    for name in SEGMENTS {
        let segment = json!({
            "selector": hex(at, 4), "limit": hex(at + 4, 4), "flags": hex(at + 8, 4), "base": hex(at + 16, 8),
        });
        state.insert(name.to_owned(), segment);
        at += 24;
    }
    for name in CONTROL {
        if name != "cr1" {
            state.insert(name.to_owned(), hex(at, 8));
        }
        at += 8;
    }
    state.insert("kernel_gs_base".to_owned(), hex(at, 8));
    Ok(Value::Object(state))
}

/// A little-endian number of `size` bytes, if the bytes are there.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One program header behind the header, the notes behind it.
    fn dump(class: u8, note: &[u8]) -> Vec<u8> {
        let (layout, header, size) = if class == 1 { (ELF32, 52usize, 32usize) } else { (ELF64, 64, 56) };
        let mut elf = vec![0; header + size];
        elf[..5].copy_from_slice(&[0x7f, b'E', b'L', b'F', class]);
        let mut put = |from: usize, (at, size): (usize, usize), value: usize| {
            elf[from + at..from + at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        put(0, layout.headers, header);
        put(0, layout.header_size, size);
        put(0, layout.count, 1);
        put(header, (0, 4), 4);
        put(header, layout.offset, header + size);
        put(header, layout.length, 20 + note.len());
        elf.extend(5u32.to_le_bytes());
        elf.extend((note.len() as u32).to_le_bytes());
        elf.extend(0u32.to_le_bytes());
        elf.extend(b"QEMU\0\0\0\0");
        elf.extend(note);
        elf
    }

    #[test]
    fn the_cpu_state_is_read_from_the_note() {
        let mut note = vec![0; 440];
        note[0] = 1;
        note[8] = 0x2a;
        note[432..440].copy_from_slice(&0xffff_8880_0000_0000u64.to_le_bytes());
        for class in [1, 2] {
            let state = cpu_state(&dump(class, &note)).unwrap();
            assert_eq!(state["cpus"][0]["rax"], "0x2a");
            assert_eq!(state["cpus"][0]["kernel_gs_base"], "0xffff888000000000");
            assert_eq!(state["cpus"][0]["idt"]["base"], "0x0");
        }
    }

    #[test]
    fn broken_dumps_are_refused() {
        for class in [1, 2] {
            let mut note = vec![0; 440];
            note[0] = 1;
            let good = dump(class, &note);
            for length in 0..good.len() {
                assert!(cpu_state(&good[..length]).is_err());
            }
            assert!(cpu_state(&dump(class, &[2; 440])).is_err());
            assert!(cpu_state(&dump(class, &[])).is_err());
        }
    }
}

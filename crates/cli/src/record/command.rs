//! QEMU's command line: where the guest's RAM is, and what recording adds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The name of the memory backend that recording adds.
const BACKEND: &str = "virtuoso-ram";
/// Up to this size in bytes RAM is one piece on every PC board (they split at 2 GiB or higher).
const MAX_RAM: u64 = 2 << 30;
/// The size of RAM in bytes that QEMU gives a guest without `-m`.
const DEFAULT_RAM: u64 = 128 << 20;
/// The video memory and firmware window: what lies there in the RAM file is not what the guest
/// sees.
const LEGACY_START: u64 = 0xa_0000;
const LEGACY_END: u64 = 0x10_0000;

/// Why recording cannot work with a command line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// The guest has more RAM than can be recorded.
    #[error("the guest has {} MiB of RAM; at most 2048 MiB can be recorded, use a smaller -m for training",
        .0 >> 20)]
    TooMuchRam(u64),
    /// An option with a value that is not understood.
    #[error("cannot understand {option} {value}; use a plain size such as -m 512")]
    Value {
        /// The option that has the value.
        option: String,
        /// The value as given.
        value: String,
    },
    /// An option that excludes recording is given.
    #[error("{option} cannot be recorded: {reason}")]
    Option {
        /// The option as given.
        option: String,
        /// Why it does, and what to do.
        reason: &'static str,
    },
}

/// How large the guest's RAM is, and where QEMU keeps it.
#[derive(Debug, PartialEq, Eq)]
pub struct Memory {
    /// The size of RAM in bytes.
    pub size: u64,
    /// The file of the user's own memory backend; none where recording adds one.
    pub file: Option<PathBuf>,
}

impl Memory {
    /// Physical address, size and file offset of each piece of RAM.
    pub fn ranges(&self) -> Vec<(u64, u64, u64)> {
        let low = self.size.min(LEGACY_START);
        let mut ranges = vec![(0, low, 0)];
        if self.size > LEGACY_END {
            ranges.push((LEGACY_END, self.size - LEGACY_END, LEGACY_END));
        }
        ranges
    }
}

/// Finds the guest's RAM in QEMU's arguments, and refuses what cannot be recorded.
pub fn memory(words: &[String]) -> Result<Memory, CommandError> {
    let mut size = DEFAULT_RAM;
    let mut machine = "pc".to_owned();
    let mut backend = None;
    let mut objects: Vec<&str> = Vec::new();
    let refuse = |option: &str, reason| CommandError::Option { option: option.to_owned(), reason };
    let mut single_cpu = true;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        match option {
            "enable-kvm" => return Err(refuse(word, NOT_TCG)),
            "daemonize" => return Err(refuse(word, "the recording could not be followed; leave it out")),
            "numa" | "mem-path" => {
                return Err(refuse(
                    word,
                    "the place of RAM would be uncertain; leave it out and use a plain -m",
                ));
            }
            "m" | "machine" | "M" | "accel" | "object" | "smp" => {}
            _ => continue,
        }
        let value = words.next().map_or("", String::as_str);
        match option {
            "m" => size = parse_memory(value)?,
            "accel" if !is_tcg(value.split(',').next().unwrap_or("")) => {
                return Err(refuse("-accel", NOT_TCG));
            }
            "object" => objects.push(value),
            "smp" => {
                single_cpu = value
                    .split([',', '='])
                    .all(|part| part.parse::<u64>().is_ok_and(|n| n == 1) || is_word(part))
            }
            "machine" | "M" => {
                for (index, part) in value.split(',').enumerate() {
                    match part.split_once('=') {
                        None if index == 0 => machine = part.to_owned(),
                        Some(("type", name)) => machine = name.to_owned(),
                        Some(("memory-backend", id)) => backend = Some(id.to_owned()),
                        Some(("accel", accel)) if !accel.split(':').next().is_some_and(is_tcg) => {
                            return Err(refuse("-machine accel", NOT_TCG));
                        }
                        Some(("max-ram-below-4g", _)) => {
                            return Err(refuse(
                                "max-ram-below-4g",
                                "the place of RAM would be uncertain; leave it out",
                            ));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let known = ["pc", "q35", "microvm"].contains(&machine.as_str()) || machine.starts_with("pc-");
    if !known {
        return Err(refuse("-machine", "where this board has its RAM is not known; use pc or q35"));
    }
    if !single_cpu {
        return Err(refuse(
            "-smp",
            "with several CPUs QEMU does not tell plugins reliably which CPU did what and what locked \
             instructions stored; use \
             -smp 1 for training",
        ));
    }
    if size > MAX_RAM {
        return Err(CommandError::TooMuchRam(size));
    }
    let file = backend.map(|id| backend_file(&id, &objects)).transpose()?;
    Ok(Memory { size, file })
}

const NOT_TCG: &str = "instructions are seen only under TCG; use -accel tcg";

fn is_tcg(accel: &str) -> bool {
    accel == "tcg"
}

/// Whether a part of a value is a word, such as `cpus` in `cpus=1`.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// The size in bytes that `-m` gives: `512` (MiB), `1G`, `size=512M,slots=...`.
fn parse_memory(value: &str) -> Result<u64, CommandError> {
    let fail = || CommandError::Value { option: "-m".to_owned(), value: value.to_owned() };
    let first = value.split(',').next().unwrap_or("");
    let size = match first.split_once('=') {
        None => first,
        Some(("size", size)) => size,
        Some(_) => value.split(',').find_map(|part| part.strip_prefix("size=")).ok_or_else(fail)?,
    };
    let (digits, shift) = match size.char_indices().next_back() {
        Some((at, 'b' | 'B')) => (&size[..at], 0),
        Some((at, 'k' | 'K')) => (&size[..at], 10),
        Some((at, 'm' | 'M')) => (&size[..at], 20),
        Some((at, 'g' | 'G')) => (&size[..at], 30),
        Some((at, 't' | 'T')) => (&size[..at], 40),
        _ => (size, 20),
    };
    let number: u64 = digits.parse().map_err(|_| fail())?;
    // QEMU rounds up to 8 KiB.
    let bytes = number.checked_mul(1 << shift).and_then(|bytes| bytes.checked_next_multiple_of(8192));
    bytes.filter(|&bytes| bytes != 0).ok_or_else(fail)
}

/// The file behind the backend the user chose.
fn backend_file(id: &str, objects: &[&str]) -> Result<PathBuf, CommandError> {
    let refuse = |reason| CommandError::Option { option: format!("memory-backend={id}"), reason };
    for object in objects {
        let parts: Vec<&str> = object.split(',').collect();
        let field = |name: &str| parts.iter().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        if field("id") == Some(id) {
            let shared = matches!(field("share"), Some("on" | "yes" | "true"));
            return match field("mem-path") {
                Some(path) if parts[0] == "memory-backend-file" && shared => Ok(PathBuf::from(path)),
                _ => Err(refuse(
                    "its memory cannot be read; use memory-backend-file with share=on, or leave it out",
                )),
            };
        }
    }
    Err(refuse("no -object of that name was found; leave it out"))
}

/// The plugin's configuration as JSON, which `crates/recorder/src/config.rs` reads.
pub fn config(memory: &Memory, output: &Path, status: &Path, ram: &Path, emulator: &str) -> String {
    let ranges: Vec<_> = memory
        .ranges()
        .into_iter()
        .map(|(start, size, offset)| serde_json::json!({ "start": start, "size": size, "offset": offset }))
        .collect();
    serde_json::json!({
        "out": output,
        "status": status,
        "ram": ram,
        "unlink_ram": memory.file.is_none(),
        "ram_size": memory.size,
        "ranges": ranges,
        "emulator": emulator,
    })
    .to_string()
}

/// The words that recording appends to QEMU's command line.
pub fn additions(memory: &Memory, ram: &Path, plugin: &Path, config: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if memory.file.is_none() {
        let object = format!(
            "memory-backend-file,id={BACKEND},size={},share=on,mem-path={}",
            memory.size,
            escape(ram)
        );
        words.extend(["-object".into(), object.into()]);
        // QEMU merges several -machine options.
        words.extend(["-machine".into(), format!("memory-backend={BACKEND}").into()]);
    }
    words.extend(["-plugin".into(), format!("{},config={}", escape(plugin), escape(config)).into()]);
    words
}

/// A path as a value in QEMU's options, where a comma is written twice.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Memory, CommandError> {
        memory(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn sizes() {
        for (line, size) in [
            ("", 128 << 20),
            ("-kernel m -m 192", 192 << 20),
            ("-m 1G", 1 << 30),
            ("--m 2048", 2 << 30),
            ("-m size=64M,slots=2,maxmem=1G", 64 << 20),
            ("-m slots=2,size=64M", 64 << 20),
            ("-M q35 -m 512 -machine usb=off,accel=tcg -accel tcg,thread=single", 512 << 20),
            ("-machine type=pc-i440fx-9.0", 128 << 20),
            ("-smp 1 -smp cpus=1,sockets=1", 128 << 20),
        ] {
            assert_eq!(of(line), Ok(Memory { size, file: None }), "{line}");
        }
        assert_eq!(of("-m 4G"), Err(CommandError::TooMuchRam(4 << 30)));
        for bad in ["-m x", "-m", "-m 0", "-m slots=1", "-m 99999999999T"] {
            assert!(matches!(of(bad), Err(CommandError::Value { .. })), "{bad}");
        }
    }

    #[test]
    fn options_that_exclude_recording() {
        for line in [
            "-enable-kvm",
            "-smp 2",
            "-smp 1,maxcpus=2 -accel tcg",
            "-smp cpus=4 -accel tcg,thread=single",
            "-accel kvm",
            "-M q35,accel=kvm:tcg",
            "-numa node",
            "-daemonize",
            "-M virt",
            "-M pc,max-ram-below-4g=1G",
            "-M pc,memory-backend=x",
            "-M pc,memory-backend=x -object memory-backend-ram,id=x,size=1G",
            "-M pc,memory-backend=x -object memory-backend-file,id=x,mem-path=/a",
        ] {
            assert!(matches!(of(line), Err(CommandError::Option { .. })), "{line}");
        }
    }

    #[test]
    fn a_backend_of_the_users_own_is_used() {
        let line = "-M pc,memory-backend=x -object memory-backend-file,id=x,mem-path=/a,share=on -m 64";
        let memory = of(line).unwrap();
        assert_eq!(memory.file, Some(PathBuf::from("/a")));
        assert_eq!(additions(&memory, Path::new("/a"), Path::new("/p"), Path::new("/c")).len(), 2);
    }

    #[test]
    fn additions_and_layout() {
        let memory = Memory { size: 64 << 20, file: None };
        assert_eq!(memory.ranges(), [(0, 0xa_0000, 0), (0x10_0000, 0x3f0_0000, 0x10_0000)]);
        let words = additions(&memory, Path::new("/a,b"), Path::new("/p"), Path::new("/c"));
        assert_eq!(words[1], "memory-backend-file,id=virtuoso-ram,size=67108864,share=on,mem-path=/a,,b");
        assert_eq!(words[5], "/p,config=/c");
        let config = config(&memory, Path::new("/o"), Path::new("/s"), Path::new("/r"), "QEMU 10");
        assert!(config.contains("\"unlink_ram\":true") && config.contains("\"start\":1048576"), "{config}");
    }
}

//! One pause of a guest in every dump format that is read.
//!
//! QEMU and makedumpfile write what they can. LiME and AVML captures are taken by a kernel module
//! and a program inside a guest; here they are written from the raw RAM by their descriptions, over
//! the addresses that a PC's kernel calls "System RAM", with blocks of 16 MiB and without those
//! that are all zero, as AVML writes them. Likewise libvirt's header before a migration stream.
//! What compresses files is this machine's tools, as far as they are installed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::capture::{Capture, Moment, capture_with};
use crate::guest::Guest;
use crate::{Error, Result, layout};

/// Most bytes in a block of AVML.
const AVML_BLOCK: usize = 1 << 24;

/// Captures a ready target guest like [`crate::capture::capture`], and the same pause in all other
/// formats.
///
/// Returns the capture and the other files, each with the name of its format.
///
/// # Errors
/// What QEMU, makedumpfile or the file system say.
pub fn capture_all(
    guest: &mut Guest,
    stem: &Path,
    moment: Moment,
) -> Result<(Capture, Vec<(String, PathBuf)>)> {
    let file = |format: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(format!(".{format}"));
        PathBuf::from(name)
    };
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    let capture = capture_with(guest, stem, moment, None, &mut |qmp| {
        files.clear();
        for format in qmp.dump_formats()? {
            // The first is the capture itself; the last is for Windows guests with a driver.
            if format != "elf" && format != "win-dmp" {
                qmp.dump_guest_memory_as(&format, &file(&format))?;
                files.push((format.clone(), file(&format)));
            }
        }
        qmp.migrate(&file("migration"), false)?;
        files.push(("migration".to_owned(), file("migration")));
        Ok(())
    })?;
    let save = file("virsh-save");
    virsh_save(&file("migration"), 0, &save)?;
    files.push(("virsh-save".to_owned(), save));
    for (tool, ending, source) in [
        ("gzip", "gz", &capture.elf),
        ("zstd", "zst", &file("kdump-zlib")),
        ("xz", "xz", &file("migration")),
        ("lz4", "lz4", &capture.elf),
    ] {
        let packed = with_ending(source, ending);
        if compress(tool, source, &packed)? {
            let name = source.extension().unwrap_or_default().to_string_lossy();
            files.push((format!("{name}-{ending}"), packed));
        }
    }
    let packed = with_ending(&file("migration"), "gz");
    if compress("gzip", &file("migration"), &packed)? {
        virsh_save(&packed, 1, &file("virsh-save-gz"))?;
        files.push(("virsh-save-gz".to_owned(), file("virsh-save-gz")));
    }
    if let Some(source) = for_makedumpfile(&capture.elf, &file("makedumpfile.elf"))? {
        for (format, options) in [
            ("makedumpfile", &["-d", "0"][..]),
            ("makedumpfile-zlib", &["-c", "-d", "0"]),
            ("makedumpfile-lzo", &["-l", "-d", "0"]),
            ("makedumpfile-zlib-flat", &["-F", "-c", "-d", "0"]),
            ("makedumpfile-zlib-d1", &["-c", "-d", "1"]),
        ] {
            makedumpfile(options, &source, &file(format))?;
            files.push((format.to_owned(), file(format)));
        }
    }
    let raw = fs::read(&capture.raw).map_err(Error::io(&capture.raw))?;
    let ram = [0x1000..0x9_fc00, 0x10_0000..raw.len()];
    for (format, write) in
        [("lime", lime as fn(&[u8], Range<usize>, &mut dyn Write) -> std::io::Result<()>), ("avml", avml)]
    {
        let path = file(format);
        let mut out = BufWriter::new(File::create(&path).map_err(Error::io(&path))?);
        ram.iter().try_for_each(|range| write(&raw, range.clone(), &mut out)).map_err(Error::io(&path))?;
        out.flush().map_err(Error::io(&path))?;
        fs::copy(&capture.cpu, file(&format!("{format}.cpu.json"))).map_err(Error::io(&capture.cpu))?;
        files.push((format.to_owned(), path));
    }
    Ok((capture, files))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    PathBuf::from(name)
}

/// Compresses a file with a tool; false if it is not installed.
fn compress(tool: &str, source: &Path, to: &Path) -> Result<bool> {
    let out = File::create(to).map_err(Error::io(to))?;
    let Ok(status) = Command::new(tool).args(["-1", "-c"]).arg(source).stdout(out).status() else {
        return Ok(false);
    };
    if status.success() {
        return Ok(true);
    }
    Err(Error::Command { program: tool.to_owned(), status: status.to_string(), output: String::new() })
}

/// What `virsh save` writes: a header of 92 bytes, the machine's description, and a stream that is
/// compressed with the compression of this number.
fn virsh_save(stream: &Path, compression: u32, to: &Path) -> Result<()> {
    let description = [&b"<domain type='qemu'/>"[..], &[0; 1000]].concat();
    let mut bytes = b"LibvirtQemudSave".to_vec();
    for number in [2, description.len() as u32, 1, compression] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.resize(92, 0);
    bytes.extend(description);
    bytes.extend(fs::read(stream).map_err(Error::io(stream))?);
    layout::write(to, &bytes)
}

/// Captures a guest, and the same pause as a migration stream in the form for files: QEMU migrates
/// once a pause.
///
/// # Errors
/// What QEMU or the file system say.
pub fn capture_mapped(guest: &mut Guest, stem: &Path, moment: Moment) -> Result<(Capture, PathBuf)> {
    let stream = with_ending(stem, "migration");
    let capture = capture_with(guest, stem, moment, None, &mut |qmp| qmp.migrate(&stream, true))?;
    Ok((capture, stream))
}

/// Writes a core of QEMU's in the form that makedumpfile understands: it looks for the program
/// headers right behind the ELF header, where QEMU puts a section header. `None` if makedumpfile is
/// not installed.
fn for_makedumpfile(elf: &Path, to: &Path) -> Result<Option<PathBuf>> {
    if Command::new("makedumpfile").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let mut bytes = fs::read(elf).map_err(Error::io(elf))?;
    let broken = || Error::Dump {
        path: elf.to_owned(),
        reason: "its headers are not where QEMU puts them".to_owned(),
    };
    let number = |at: usize, size: usize| {
        bytes
            .get(at..at + size)
            .map(|field| field.iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte)))
    };
    let from = number(32, 8).ok_or_else(broken)?;
    let size = number(56, 2).ok_or_else(broken)? * 56;
    if from < 64 || from.checked_add(size).is_none_or(|end| end > bytes.len()) {
        return Err(broken());
    }
    bytes.copy_within(from..from + size, 64);
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[40..48].fill(0);
    bytes[52..54].copy_from_slice(&64u16.to_le_bytes());
    bytes[58..64].fill(0);
    layout::write(to, &bytes)?;
    Ok(Some(to.to_owned()))
}

/// Converts a core; a flattened dump comes from makedumpfile's standard output.
fn makedumpfile(options: &[&str], core: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_file(to).map_err(Error::io(to))?;
    }
    let mut command = Command::new("makedumpfile");
    command.args(options).arg(core);
    if options.contains(&"-F") {
        command.stdout(File::create(to).map_err(Error::io(to))?);
    } else {
        command.arg(to);
    }
    let output = command.output().map_err(Error::io("makedumpfile"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        program: format!("makedumpfile {}", options.join(" ")),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The header of a block of LiME (version 1) or AVML (version 2).
fn header(magic: &[u8; 4], version: u32, range: &Range<usize>) -> Vec<u8> {
    let (first, last) = (range.start as u64, range.end as u64 - 1);
    [&magic[..], &version.to_le_bytes(), &first.to_le_bytes(), &last.to_le_bytes(), &[0; 8]].concat()
}

fn lime(raw: &[u8], range: Range<usize>, out: &mut dyn Write) -> std::io::Result<()> {
    out.write_all(&header(b"EMiL", 1, &range))?;
    out.write_all(&raw[range])
}

fn avml(raw: &[u8], range: Range<usize>, out: &mut dyn Write) -> std::io::Result<()> {
    for start in range.clone().step_by(AVML_BLOCK) {
        let block = start..range.end.min(start + AVML_BLOCK);
        if raw[block.clone()].iter().all(|&byte| byte == 0) {
            continue;
        }
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(&raw[block.clone()])?;
        let frames = encoder.into_inner().map_err(|error| error.into_error())?;
        out.write_all(&header(b"AVML", 2, &block))?;
        out.write_all(&frames)?;
        out.write_all(&(frames.len() as u64).to_le_bytes())?;
    }
    Ok(())
}

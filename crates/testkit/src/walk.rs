//! What a guest says of all its files: walks by `guests/linux/walk.c`, before a capture and after
//! it, and what both say alike.
//!
//! A walk goes through QEMU's debugging port into a file of this machine: that needs no driver in
//! the guest and leaves nothing there. The program waits while the guest is captured, so that it is
//! a process of the capture as it was one of the walks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::capture::{Moment, pause, with_ending, write_elf};
use crate::guest::{Guest, READY};
use crate::{Error, Result, layout};

/// The longest that a walk may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What a guest says of a file; `None` where it did not say the same twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Mode, links, user, group, inode, size, blocks, device, times; or `E` and an error number.
    pub attributes: Option<String>,
    /// Target of a link, hash of a directory or of a file, or how reading it ended.
    pub content: Option<String>,
}

/// What a guest says of its files, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// The process that walked.
    pub reader: u32,
    /// The files.
    pub files: BTreeMap<Vec<u8>, Said>,
}

/// Stands for what was not the same twice.
const CHANGED: &str = "?";

const BEGIN: &str = "=== WALK BEGIN ";
const END: &str = "=== WALK END ";

impl Walk {
    /// All complete walks of a text, in their order.
    ///
    /// # Errors
    /// [`Error::Truth`]: a line is none that the program prints.
    pub fn all(text: &str) -> Result<Vec<Self>> {
        let mut walks = Vec::new();
        for part in text.split(BEGIN).skip(1) {
            let Some((lines, _)) = part.split_once(END) else { continue };
            let (reader, lines) = lines.split_once('\n').unwrap_or((lines, ""));
            let strange = |line: &str| Error::Truth(format!("do not understand {line:?}"));
            let reader = reader.trim().parse().map_err(|_| strange(reader))?;
            let files = lines.lines().map(|line| said(line).ok_or_else(|| strange(line)));
            walks.push(Self { reader, files: files.collect::<Result<_>>()? });
        }
        Ok(walks)
    }

    /// What this walk and another both say.
    #[must_use]
    pub fn stable(&self, other: &Self) -> Self {
        let same = |a: &Option<String>, b: &Option<String>| a.clone().filter(|_| a == b);
        let both = self.files.iter().filter_map(|(path, one)| {
            let other = other.files.get(path)?;
            let said = Said {
                attributes: same(&one.attributes, &other.attributes),
                content: same(&one.content, &other.content),
            };
            Some((path.clone(), said))
        });
        Self { reader: self.reader, files: both.collect() }
    }

    /// Reads a file that [`Walk::write`] wrote.
    ///
    /// # Errors
    /// It cannot be read, or holds no walk.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let none = || Error::Truth(format!("{}: no complete walk", path.display()));
        Self::all(&text)?.pop().ok_or_else(none)
    }

    /// Writes it as the program would print it, with `?` for what was not the same twice.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = format!("{BEGIN}{}\n", self.reader);
        for (name, said) in &self.files {
            let field = |field: &Option<String>| field.clone().unwrap_or_else(|| CHANGED.to_owned());
            text += &format!("{}\t{}\t{}\n", escaped(name), field(&said.attributes), field(&said.content));
        }
        text += &format!("{END}{}\n", self.files.len());
        layout::write(path, text.as_bytes())
    }
}

fn said(line: &str) -> Option<(Vec<u8>, Said)> {
    let mut fields = line.split('\t');
    let (path, attributes, content) = (fields.next()?, fields.next()?, fields.next()?);
    let field = |text: &str| (text != CHANGED).then(|| text.to_owned());
    let said = Said { attributes: field(attributes), content: field(content) };
    (fields.next().is_none() && path.starts_with('/')).then_some((unescaped(path)?, said))
}

/// The bytes as the program prints them.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let escape = |&byte: &u8| match byte {
        b'\\' => "\\x5c".to_owned(),
        b'!'..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(escape).collect()
}

/// The bytes that are printed so; `None` if none are.
#[must_use]
pub fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.get(2..)?.bytes());
    }
    Some(bytes)
}

/// What QEMU's command line needs so that walks land in `log`.
#[must_use]
pub fn port(log: &Path) -> Vec<OsString> {
    let mut file = OsString::from("file:");
    file.push(log);
    vec!["-debugcon".into(), file, "-global".into(), "isa-debugcon.iobase=0xe9".into()]
}

/// A capture among walks.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The name of its files, without ending.
    pub stem: PathBuf,
    /// Where to pause.
    pub moment: Moment,
    /// Whether the guest empties its caches before.
    pub dropped: bool,
}

impl Wanted {
    /// The dump.
    #[must_use]
    pub fn elf(&self) -> PathBuf {
        with_ending(&self.stem, ".elf")
    }

    /// What the guest says of its files, the same before and after.
    #[must_use]
    pub fn truth(&self) -> PathBuf {
        with_ending(&self.stem, ".truth")
    }
}

/// Has a ready guest, whose port leads to `log`, walk `roots`, and captures it after each walk but
/// the last.
///
/// # Errors
/// What the guest, QEMU or the file system say.
pub fn capture_walked(guest: &mut Guest, log: &Path, roots: &str, wanted: &[Wanted]) -> Result<()> {
    let tell = |guest: &mut Guest, command: &str| {
        let from = guest.console().len();
        guest.send_line(command)?;
        guest.wait_for(READY, from, PATIENCE)
    };
    let mut qmp = guest.qmp()?;
    tell(guest, &format!("walk {roots}"))?;
    for one in wanted {
        if one.dropped {
            tell(guest, "drop")?;
        }
        pause(&mut qmp, one.moment)?;
        let written = write_elf(&mut qmp, &one.elf());
        qmp.cont()?;
        written?;
        tell(guest, "again")?;
    }
    tell(guest, "end")?;
    let text = std::fs::read_to_string(log).map_err(Error::io(log))?;
    let walks = Walk::all(&text)?;
    if walks.len() != wanted.len() + 1 {
        return Err(Error::Truth(format!("{} walks, not {}", walks.len(), wanted.len() + 1)));
    }
    for (one, pair) in wanted.iter().zip(walks.windows(2)) {
        pair[0].stable(&pair[1]).write(&one.truth())?;
    }
    // It is only as good as what was written of it.
    std::fs::remove_file(log).map_err(Error::io(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "=== WALK BEGIN 7\n/\t40755 2\tD1:aa\n/a\\x20b\\x5c\t100644 1\tF3:bb\n=== WALK END 2\n\
                        === WALK BEGIN 7\n/\t40755 2\tD1:cc\n/a\\x20b\\x5c\t100644 1\tF3:bb\n=== WALK END 2\n\
                        === WALK BEGIN 7\n/\t";

    #[test]
    fn what_two_walks_say_alike_is_left() -> Result<()> {
        let walks = Walk::all(TEXT)?;
        assert_eq!(walks.len(), 2, "one is cut off");
        let stable = walks[0].stable(&walks[1]);
        let said = |attributes: &str, content: Option<&str>| Said {
            attributes: Some(attributes.to_owned()),
            content: content.map(str::to_owned),
        };
        assert_eq!(stable.reader, 7);
        assert_eq!(stable.files[&b"/"[..]], said("40755 2", None));
        assert_eq!(stable.files[&b"/a b\\"[..]], said("100644 1", Some("F3:bb")));
        Ok(())
    }

    #[test]
    fn strange_lines_are_refused() {
        assert!(Walk::all(&TEXT.replace("/a\\x20b\\x5c\t", "/a\\x2")).is_err());
        assert!(Walk::all(&TEXT.replace("BEGIN 7", "BEGIN seven")).is_err());
        assert_eq!(unescaped("\\xzz"), None);
        assert_eq!(unescaped(&escaped(b"/\xff\n\t x\\x")), Some(b"/\xff\n\t x\\x".to_vec()));
    }
}

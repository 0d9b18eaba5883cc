//! For tests: a guest that says of its files what no system would, as one can whose memory somebody
//! wrote for us.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::{Text, Value, Values};
use filetree::{Answer, Error, Given, PROGRAMS, Tree};

/// What it says. Every path is its own case:
///
/// * `/cycle` lists itself, twice, whatever is behind it; `/spiral` lists two directories, and so
///   does each of them, all different.
/// * `/names/slash`, `up`, `empty` list a name that is none; `/odd` what a terminal would obey.
/// * `/endless` comes to no end, `/missing` has more types than names.
/// * `/huge` has 2^63 bytes and `/more` none that it tells of, both go on for ever; `/silent` gives
///   nothing and does not end.
/// * `/out` and `/up` are links to a directory outside; so is `/twice/x` at first, and then it is a
///   directory with a file.
struct Machine {
    /// Where links lead.
    outside: Vec<u8>,
    /// How often `/twice/x` was asked about.
    asked: AtomicUsize,
}

const FILE: u64 = 0o100_644;
const DIRECTORY: u64 = 0o40_755;
const LINK: u64 = 0o120_777;

/// Its tree. Links lead to `outside`.
pub fn tree(outside: &[u8]) -> Tree<'static> {
    let machine = Arc::new(Machine { outside: outside.to_vec(), asked: AtomicUsize::new(0) });
    let others = PROGRAMS
        .map(|program| -> Box<dyn Answer> { Box::new(Program { program, machine: machine.clone() }) });
    Tree::new(others, None)
}

/// One of its file programs.
struct Program {
    program: &'static str,
    machine: Arc<Machine>,
}

impl Answer for Program {
    fn ask(&self, given: &[(&str, Given<'_>)]) -> Result<Values, Error> {
        let value = |name: &str| given.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        let Some(Given::Text(path)) = value("path") else { return Err(Error::Guest(22)) };
        let number = |name: &str| match value(name) {
            Some(Given::Number(number)) => number,
            _ => 0,
        };
        match self.program {
            "readdir" => Ok(self.machine.entries(path, number("cursor"))),
            "stat" => Ok(self.machine.attributes(path)),
            "readlink" => Ok(values([("target", text(&self.machine.outside))])),
            _ => Ok(Machine::read(path, number("length"))),
        }
    }
}

fn values<const N: usize>(all: [(&str, Value); N]) -> Values {
    Values(all.map(|(name, value)| (name.to_owned(), value)).into())
}

fn text(bytes: &[u8]) -> Value {
    Value::Text(Text(bytes.to_vec()))
}

/// What a path is, and its size.
fn kind(path: &[u8]) -> (u64, u64) {
    match path.split(|&byte| byte == b'/').nth(1).unwrap_or_default() {
        b"huge" => (FILE, 1 << 63),
        b"more" | b"silent" => (FILE, 0),
        b"out" | b"up" => (LINK, 0),
        b"odd" if path.len() > 4 => (FILE, 4096),
        _ => (DIRECTORY, 4096),
    }
}

impl Machine {
    fn attributes(&self, path: &[u8]) -> Values {
        let (mut mode, mut size) = kind(path);
        if path == b"/twice/x" {
            let before = self.asked.fetch_add(1, Ordering::Relaxed);
            (mode, size) = (if before.is_multiple_of(2) { LINK } else { DIRECTORY }, 0);
        } else if path == b"/twice/x/y" {
            (mode, size) = (FILE, 0);
        }
        // Only what is below /cycle is one directory.
        let inode = if path.starts_with(b"/cycle") {
            7
        } else {
            path.iter().fold(11u64, |sum, &byte| sum.wrapping_mul(131).wrapping_add(byte.into()))
        };
        let mut all = vec![("rc".to_owned(), Value::Signed(0))];
        for (name, value) in [
            ("mask", 0x17ff),
            ("mode", mode),
            ("nlink", 1),
            ("ino", inode),
            ("size", size),
            ("blocks", 8),
            ("block_size", 4096),
            ("mount", 1),
        ] {
            all.push((name.to_owned(), Value::Unsigned(value)));
        }
        for name in ["uid", "gid", "dev_major", "dev_minor", "rdev_major", "rdev_minor"] {
            all.push((name.to_owned(), Value::Unsigned(0)));
        }
        for name in ["atime", "mtime", "ctime", "btime"] {
            // Moments that no clock can tell.
            all.push((name.to_owned(), Value::Signed(i64::MIN)));
            all.push((format!("{name}_nsec"), Value::Unsigned(u64::MAX)));
        }
        Values(all)
    }

    fn entries(&self, path: &[u8], cursor: u64) -> Values {
        const ROOT: [&[u8]; 13] = [
            b"cycle", b"endless", b"huge", b"missing", b"more", b"names", b"odd", b"out", b"silent",
            b"spiral", b"twice", b"up", b".",
        ];
        let names: Vec<&[u8]> = match path {
            b"/" => ROOT.to_vec(),
            b"/names" => vec![b"empty", b"slash", b"up"],
            b"/names/slash" => vec![b"a/../../b"],
            b"/names/up" => vec![b"up", b"..", b"/"],
            b"/names/empty" => vec![b""],
            b"/odd" => vec![
                b"\x1b[2J\x1b]0;title\x07",
                b"two\nlines",
                b"\xff\xfe",
                "\u{202e}txt.exe".as_bytes(),
                b"a\\b",
                b"-rf",
                b"a\rb",
            ],
            b"/twice" => vec![b"x", b"x"],
            b"/twice/x" => vec![b"y"],
            b"/endless" => vec![b"again"],
            b"/missing" => vec![b"one"],
            _ if path.starts_with(b"/cycle") => vec![b"again", b"and-again"],
            _ if path.starts_with(b"/spiral") => vec![b"left", b"right"],
            _ => Vec::new(),
        };
        let types = names.iter().map(|name| kind(&filetree::join(path, name)).0 >> 12);
        let types: Vec<Value> = types.map(Value::Unsigned).collect();
        let more = usize::from(path == b"/missing");
        let inodes = vec![Value::Unsigned(1); names.len() + more];
        let packed: Vec<u8> = names.iter().flat_map(|name| [name, &b"\0"[..]].concat()).collect();
        values([
            ("rc", Value::Signed(0)),
            ("next", Value::Unsigned(if path == b"/endless" { cursor / 2 + 5 } else { 1 })),
            ("end", Value::Unsigned(u64::from(path != b"/endless"))),
            ("inodes", Value::List(inodes)),
            ("types", Value::List(types)),
            ("names", text(&packed)),
        ])
    }

    fn read(path: &[u8], length: u64) -> Values {
        let bytes = match kind(path).0 {
            FILE if path == b"/silent" => Vec::new(),
            _ => vec![0x1b; length as usize],
        };
        let end = u64::from(path.starts_with(b"/odd") || path.starts_with(b"/twice"));
        values([("rc", Value::Signed(0)), ("end", Value::Unsigned(end)), ("data", text(&bytes))])
    }
}

/// Whether a terminal obeys nothing in these bytes but ends of lines.
pub fn is_plain(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| text.chars().all(|c| c == '\n' || !crate::format::is_obeyed(c)))
}

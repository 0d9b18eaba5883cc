//! Compares a target's file tree with what its guest said of it, in one session:
//! `files TRUTH SECONDS TARGET --packs DIR`; the words from TARGET on are those of `virtuoso ls`.
//!
//! TRUTH is what `testkit::walk` wrote. All that is stable in it is asked about in an order that is
//! the same every time and has nothing to do with the tree's, so that what SECONDS leave room for
//! is a sample of all. One JSON object a line: what was wrong or is the reader's own, the outcomes
//! by kind, and last the sums. `cargo xtask files` starts it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use filetree::{Attributes, Error, Kind, MOST_READ, Tree};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::walk::{Walk, escaped};

/// How an answer compares with the guest's.
enum Compared {
    Equal,
    Wrong(String),
    /// There is none.
    Outcome(u8, String),
}

/// What is asked about one path.
#[derive(Clone, Copy)]
struct Question<'w> {
    path: &'w [u8],
    what: What,
    expected: &'w str,
}

#[derive(Clone, Copy)]
enum What {
    Attributes,
    Content,
}

impl What {
    const fn word(self) -> &'static str {
        match self {
            Self::Attributes => "attributes",
            Self::Content => "content",
        }
    }
}

fn hex(hash: impl AsRef<[u8]>) -> String {
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The guest's error as the walk prints it, or that there is no answer.
fn refused(error: &Error, expected: &str) -> Compared {
    match error {
        Error::Guest(errno) => equal(&format!("E{errno}"), expected),
        _ => {
            let (code, text) = virtuoso_cli::outcome(error);
            Compared::Outcome(code, text)
        }
    }
}

fn equal(ours: &str, expected: &str) -> Compared {
    if ours == expected { Compared::Equal } else { Compared::Wrong(ours.to_owned()) }
}

/// As `walk.c` prints them.
fn printed(it: &Attributes) -> String {
    let time = |time: filetree::Time| format!("{}.{:09}", time.seconds, time.nanoseconds);
    format!(
        "{:o} {} {} {} {} {} {} {}:{} {} {}",
        it.mode,
        it.links,
        it.user,
        it.group,
        it.inode,
        it.size,
        it.blocks,
        it.special.0,
        it.special.1,
        time(it.modified),
        time(it.changed)
    )
}

/// The letter that `walk.c` has for a directory's entry.
fn letter(kind: Kind) -> u8 {
    kind.letter() as u8
}

fn directory(tree: &Tree<'_>, path: &[u8]) -> Result<String, Error> {
    let mut entries = tree.entries(path)?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for entry in &entries {
        hash.update(&entry.name);
        hash.update([0, letter(entry.kind)]);
    }
    Ok(format!("D{}:{}", entries.len(), hex(hash.finalize())))
}

/// As many bytes as the guest read, and whether there are more where it says so.
fn file(tree: &Tree<'_>, path: &[u8], expected: &str) -> Result<String, Error> {
    let length = expected.trim_start_matches('F');
    let (length, more) = (length.split(['+', ':']).next(), length.contains('+'));
    let length: u64 = length.and_then(|it| it.parse().ok()).unwrap_or(0);
    let (mut hash, mut at) = (Sha256::new(), 0);
    // One byte more than it read shows whether the file ends there.
    let limit = if more { length } else { length + 1 };
    let mut ended = false;
    while at < limit && !ended {
        // Some files of procfs are read in pieces of several bytes only.
        let wanted = (limit - at).next_multiple_of(4096).min(MOST_READ.into());
        let content = tree.read(path, at, wanted as u32)?;
        ended = content.end && content.bytes.len() as u64 <= limit - at;
        let bytes = &content.bytes[..content.bytes.len().min((limit - at) as usize)];
        hash.update(bytes);
        at += bytes.len() as u64;
    }
    let more = if more && !ended { "+" } else { "" };
    Ok(format!("F{at}{more}:{}", hex(hash.finalize())))
}

fn ask(tree: &Tree<'_>, question: Question<'_>) -> Compared {
    let Question { path, what, expected } = question;
    let found = match (what, expected.as_bytes().first()) {
        (What::Attributes, _) => tree.attributes(path, false).map(|it| printed(&it)),
        (What::Content, Some(b'L')) => tree.link(path).map(|text| format!("L{}", escaped(&text))),
        (What::Content, Some(b'D')) => directory(tree, path),
        (What::Content, Some(b'F')) => file(tree, path, expected),
        // Reading failed: so must ours. What is a directory is not known here, nor needed.
        (What::Content, _) => match tree.read(path, 0, MOST_READ) {
            Err(Error::Guest(errno)) if errno == EISDIR => directory(tree, path),
            Err(error) => Err(error),
            Ok(content) => Ok(format!("F{}", content.bytes.len())),
        },
    };
    match found {
        Ok(ours) => equal(&ours, expected),
        Err(error) => refused(&error, expected),
    }
}

/// Linux's number for what is a directory.
const EISDIR: i32 = 21;

/// All questions that the truth has an answer to, in an order that is no order of the tree.
fn questions(walk: &Walk) -> Vec<Question<'_>> {
    let mut all: Vec<Question<'_>> = Vec::new();
    for (path, said) in &walk.files {
        for (what, field) in [(What::Attributes, &said.attributes), (What::Content, &said.content)] {
            // Devices have no content here, and what took too long may have been about to come.
            if let Some(expected) = field.as_deref().filter(|it| !matches!(*it, "-" | "T")) {
                all.push(Question { path, what, expected });
            }
        }
    }
    all.sort_by_cached_key(|it| hex(Sha256::digest(it.path)));
    all
}

/// Files that say what memory a process has.
const MEMORY: [&[u8]; 5] = [b"maps", b"numa_maps", b"smaps", b"smaps_rollup", b"statm"];

/// Whether what memory a process has changed between the guest's two walks: then one of the files
/// that all say so was not the same twice, and others may have been by luck.
fn memory_changed(walk: &Walk, process: &[u8]) -> bool {
    let of = |thread: &[u8]| {
        MEMORY.iter().any(|name| {
            let path = [b"/proc/", process, thread, b"/", name].concat();
            walk.files.get(&path).is_some_and(|said| said.content.is_none())
        })
    };
    of(b"") || of(&[b"/task/", process].concat())
}

/// Whether a process ran between the guest's two walks, by its counters: `stat` counts in ticks,
/// `schedstat` in nanoseconds, which not all kernels have. `program`: it is one that has a program,
/// and may have had other files open in between, or used its memory; else a thread of the kernel's
/// own, and a worker's name says what it worked on last.
fn ran(walk: &Walk, process: &[u8], program: bool) -> bool {
    let said = |name: &[u8]| walk.files.get(&[b"/proc/", process, name].concat());
    let differs = |name: &[u8]| said(name).is_some_and(|said| said.content.is_none());
    let has_one = said(b"/exe").map(|said| said.content.as_deref() != Some("E2"));
    has_one == Some(program) && (differs(b"/stat") || differs(b"/schedstat"))
}

/// Why an answer about a path may be another than the guest's, where it may: the guest said twice
/// the same, and was another in between, or reading it changes it.
fn explained(path: &[u8], walk: &Walk) -> Option<&'static str> {
    let names: Vec<&[u8]> = filetree::components(path).collect();
    let reader = walk.reader.to_string();
    let number = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
    match names.as_slice() {
        [b"proc", process, .., name] if MEMORY.contains(name) && memory_changed(walk, process) => {
            Some("the process's memory changed while the guest walked")
        }
        // Pages that it wrote to are dirty until the system has written them out.
        [b"proc", process, .., name] if MEMORY.contains(name) && ran(walk, process, true) => {
            Some("the process ran while the guest walked, and may have used its memory")
        }
        [b"proc", process, b"fd" | b"fdinfo", ..] | [b"proc", process, b"task", _, b"fd" | b"fdinfo", ..]
            if ran(walk, process, true) =>
        {
            Some("the process ran while the guest walked, and what it had open changed")
        }
        [b"proc", process, .., b"comm" | b"stat" | b"status"] if ran(walk, process, false) => {
            Some("a kernel worker's name, which says what it worked on last")
        }
        [b"proc", name, ..] if matches!(*name, b"self" | b"thread-self") || *name == reader.as_bytes() => {
            Some("the reader's own process")
        }
        [b"proc", task, .., b"wchan" | b"stack" | b"syscall"] if number(task) => {
            Some("what the task waited in at the moment of the pause")
        }
        [b"proc", task, .., b"sched"] if number(task) => Some("it says how long reading it takes"),
        [b"proc", task, .., b"oom_score"] if number(task) => {
            Some("how much memory the task had at the moment of the pause")
        }
        // The console, on which the guest has just said that it is ready, is such a device.
        [b"sys", b"devices", .., b"power", name] if name.starts_with(b"runtime_") => {
            Some("whether a device was in use at the moment of the pause")
        }
        // Room that btrfs keeps for what a transaction may still write.
        [b"sys", b"fs", b"btrfs", .., b"bytes_may_use" | b"bytes_reserved" | b"bytes_pinned"]
        | [b"sys", .., b"memory.current" | b"inflight"]
        | [b"sys", b"kernel", b"debug", b"block", ..] => {
            Some("what was in use or under way at the moment of the pause")
        }
        [b"sys", b"kernel", b"slab", ..] => Some("the allocator's counters, which reading them changes"),
        _ => None,
    }
}

/// How a part of the questions went.
#[derive(Default, Clone)]
struct Sums {
    asked: usize,
    equal: usize,
    explained: usize,
    wrong: usize,
    outcomes: BTreeMap<u8, usize>,
}

impl Sums {
    fn json(&self) -> Value {
        let outcomes = self.outcomes.iter().map(|(code, count)| (code.to_string(), json!(count)));
        let outcomes: serde_json::Map<_, _> = outcomes.collect();
        json!({
            "asked": self.asked, "equal": self.equal, "explained": self.explained, "wrong": self.wrong,
            "outcomes": outcomes,
        })
    }
}

/// All that is known so far.
#[derive(Default)]
struct Found {
    areas: BTreeMap<String, Sums>,
    rows: Vec<Value>,
    /// Outcomes that are alike: how many, and the first.
    alike: BTreeMap<(u8, String, String), (usize, Value)>,
    slowest: (Duration, String),
}

impl Found {
    fn add(&mut self, question: Question<'_>, compared: Compared, took: Duration, walk: &Walk) {
        let path = escaped(question.path);
        if took > self.slowest.0 {
            self.slowest = (took, path.clone());
        }
        let area = path.split('/').nth(1).unwrap_or_default();
        let area = self.areas.entry(format!("/{area}")).or_default();
        area.asked += 1;
        let (what, guest) = (question.what.word(), question.expected);
        let row = |kind: &str| json!({ "kind": kind, "path": path, "what": what, "guest": guest });
        match compared {
            Compared::Equal => area.equal += 1,
            Compared::Wrong(ours) => {
                let why = explained(question.path, walk);
                *(if why.is_some() { &mut area.explained } else { &mut area.wrong }) += 1;
                let mut row = row(if why.is_some() { "explained" } else { "wrong" });
                row["ours"] = ours.into();
                if let Some(why) = why {
                    row["why"] = why.into();
                }
                self.rows.push(row);
            }
            Compared::Outcome(code, message) => {
                *area.outcomes.entry(code).or_default() += 1;
                let place: Vec<&str> = path.split('/').take(3).collect();
                let key = (code, without_numbers(&place.join("/")), without_numbers(&message));
                let mut row = row("outcome");
                row["code"] = code.into();
                row["message"] = message.into();
                self.alike.entry(key).or_insert((0, row)).0 += 1;
            }
        }
    }

    fn print(&self, stable: usize, took: Duration) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        let alike = self.alike.values().map(|(count, row)| {
            let mut row = row.clone();
            row["alike"] = (*count).into();
            row
        });
        for row in self.rows.iter().cloned().chain(alike) {
            writeln!(out, "{row}")?;
        }
        let mut all = Sums::default();
        for area in self.areas.values() {
            all.asked += area.asked;
            all.equal += area.equal;
            all.explained += area.explained;
            all.wrong += area.wrong;
            for (code, count) in &area.outcomes {
                *all.outcomes.entry(*code).or_default() += count;
            }
        }
        let mut sums = all.json();
        sums["kind"] = "sums".into();
        sums["stable"] = stable.into();
        sums["seconds"] = (took.as_millis() as f64 / 1000.0).into();
        sums["slowest"] = json!({ "path": self.slowest.1, "ms": self.slowest.0.as_millis() as u64 });
        sums["areas"] = self
            .areas
            .iter()
            .map(|(name, area)| (name.clone(), area.json()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        writeln!(out, "{sums}")
    }
}

/// A text with what differs between alike outcomes left out: numbers in it.
fn without_numbers(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        words.push(if number { "N".to_owned() } else { word.to_owned() });
    }
    words.join(" ")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let [truth, seconds, words @ ..] = words.as_slice() else {
        return Err("usage: files TRUTH SECONDS TARGET --packs DIR".into());
    };
    let walk = Walk::read(Path::new(truth))?;
    let seconds: u64 = seconds.to_str().and_then(|it| it.parse().ok()).ok_or("SECONDS is no number")?;
    let mut words = words.to_vec();
    words.extend(["--self".into(), walk.reader.to_string().into()]);
    let questions = questions(&walk);
    let begin = Instant::now();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Found::default()));
    let bar = indicatif::ProgressBar::new(questions.len() as u64);
    bar.set_style(indicatif::ProgressStyle::with_template("{elapsed} {bar:40} {pos}/{len} {msg}")?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    virtuoso_cli::with_opened_tree(&words, |tree| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while begin.elapsed() < Duration::from_secs(seconds) {
                        let Some(question) = questions.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            break;
                        };
                        let start = Instant::now();
                        let compared = ask(tree, *question);
                        let took = start.elapsed();
                        if let Ok(mut found) = found.lock() {
                            found.add(*question, compared, took, &walk);
                        }
                        bar.inc(1);
                    }
                });
            }
        });
    })?;
    bar.finish_and_clear();
    let found = found.into_inner().map_err(|_| "a thread panicked")?;
    Ok(found.print(questions.len(), begin.elapsed())?)
}

//! `virtuoso open-files`: what processes have open, use and have mapped.

use std::collections::BTreeMap;

use clap::Args;
use engine::Text;
use filetree::{Attributes, Error, Kind, Tree, join};
use linux::procfs::{DELETED, maps};
use serde_json::{Value, json};

use crate::columns::Columns;
use crate::commands::files::Failures;
use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::guest_tree::{TreeArgs, failure};
use crate::output;
use crate::processes::{ENOENT, Unread, grouped, name, path, pids, text};

/// List the files that processes of the guest have open, use and have mapped
///
/// Of each process its working directory (cwd), root, executable (exe), descriptors and mapped
/// files (map), as its links below /proc/PID and its maps tell them. Deleted files are marked;
/// their content can be had with `virtuoso cat TARGET /proc/PID/fd/N`. What cannot be read is named
/// on standard error, and the exit code is that of the first.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso open-files guest.elf
  virtuoso open-files guest.elf 1 217
  virtuoso open-files guest.elf --json | jq '.processes[].files[] | select(.deleted)'")]
pub struct OpenFilesArgs {
    #[command(flatten)]
    tree: TreeArgs,
    /// Processes; default: all
    #[arg(value_name = "PID")]
    pids: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A file of a process.
struct Open {
    /// `cwd`, `root`, `exe`, `map`, or a descriptor's number.
    role: String,
    /// Whether it may be read and written, where that is known.
    mode: Option<(bool, bool)>,
    kind: Option<&'static str>,
    size: Option<u64>,
    inode: Option<u64>,
    device: Option<(u32, u32)>,
    /// Where it is, or what else it is.
    path: Option<Text>,
    deleted: bool,
}

/// A process and its files, and what could not be read.
struct Process {
    pid: u64,
    name: Option<Text>,
    files: Vec<Open>,
    failures: Vec<Failure>,
}

impl OpenFilesArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        // A live guest runs again before anything is printed.
        let found = self.tree.ask(context, |tree, _| {
            let pids = match &self.pids[..] {
                [] => pids(tree)?,
                named => named.iter().map(|&pid| pid.into()).collect(),
            };
            Ok(pids.into_iter().map(|pid| Process::ask(tree, pid)).collect::<Vec<_>>())
        })?;
        if self.json {
            let all: Vec<Value> = found.iter().map(Process::json).collect();
            output::json(&json!({ "processes": all }))?;
        } else {
            print(&found)?;
        }
        let mut failures = Failures::default();
        let all = found.iter().flat_map(|it| it.failures.iter().map(|failure| (it.pid, failure)));
        grouped(all).iter().for_each(|failure| failures.add(failure));
        failures.end()
    }
}

/// The open files of processes as JSON; what cannot be read is added to `failures`, by process.
pub fn collect(tree: &Tree<'_>, pids: &[u64], failures: &mut Unread) -> Vec<Value> {
    let mut all = Vec::new();
    for &pid in pids {
        let process = Process::ask(tree, pid);
        all.push(process.json());
        failures.extend(process.failures.into_iter().map(|failure| (pid, failure)));
    }
    all
}

impl Process {
    fn ask(tree: &Tree<'_>, pid: u64) -> Self {
        let mut process = Self { pid, name: None, files: Vec::new(), failures: Vec::new() };
        match name(tree, pid) {
            Ok(name) => process.name = Some(name),
            Err(failure) => {
                process.failures.push(failure);
                return process;
            }
        }
        for role in ["cwd", "root", "exe"] {
            process.link(tree, role.to_owned(), &path(pid, role));
        }
        let directory = path(pid, "fd");
        match tree.entries(&directory) {
            Ok(mut entries) => {
                let number = |name: &[u8]| std::str::from_utf8(name).ok()?.parse::<u64>().ok();
                entries.sort_by_cached_key(|entry| number(&entry.name));
                for entry in entries {
                    let role = String::from_utf8_lossy(&entry.name).into_owned();
                    process.link(tree, role, &join(&directory, &entry.name));
                }
            }
            Err(error) => process.failures.push(failure(&directory, &error)),
        }
        process.mapped(tree);
        process
    }

    /// A file by a link to it.
    fn link(&mut self, tree: &Tree<'_>, role: String, link: &[u8]) {
        let target = match tree.link(link) {
            Ok(target) => target,
            // A thread of the kernel has no executable, and what has ended has nothing.
            Err(Error::Guest(ENOENT)) => return,
            Err(error) => return self.failures.push(failure(link, &error)),
        };
        let mut ask = |follow| match tree.attributes(link, follow) {
            Ok(about) => Some(about),
            Err(error) => {
                self.failures.push(failure(link, &error));
                None
            }
        };
        let about = ask(true);
        let is_descriptor = role.starts_with(|c: char| c.is_ascii_digit());
        let own = if is_descriptor { ask(false) } else { None };
        let (path, deleted) = self.named(tree, target, about.map(|about| about.inode));
        self.files.push(Open {
            role,
            mode: own.map(|own| (own.mode & 0o400 != 0, own.mode & 0o200 != 0)),
            kind: about.as_ref().map(|about| kind(about, &path)),
            size: about.map(|about| about.size),
            inode: about.map(|about| about.inode),
            device: about.map(|about| about.device),
            path: Some(Text(path)),
            deleted,
        });
    }

    /// The files that it has mapped, each once.
    fn mapped(&mut self, tree: &Tree<'_>) {
        let file = path(self.pid, "maps");
        let bytes = match text(tree, &file) {
            Ok(bytes) => bytes,
            // What has ended has none.
            Err(Error::Guest(ENOENT)) => return,
            Err(error) => return self.failures.push(failure(&file, &error)),
        };
        let (mappings, strange) = maps(&bytes);
        if strange > 0 {
            let lines = format::counted(strange, "line");
            self.failures.push(failure(&file, &Error::Nonsense(format!("{lines} of it are no mapping"))));
        }
        let mut files: BTreeMap<_, (bool, bool)> = BTreeMap::new();
        for mapping in mappings.into_iter().filter(|mapping| mapping.inode != 0) {
            let has = |letter: char| mapping.permissions.contains(letter);
            // Writing a private mapping does not write the file.
            let (reads, writes) = (has('r'), has('w') && has('s'));
            let mode = files.entry((mapping.path, mapping.device, mapping.inode)).or_default();
            *mode = (mode.0 || reads, mode.1 || writes);
        }
        for ((path, device, inode), mode) in files {
            let (path, deleted) = self.named(tree, path, Some(inode));
            self.files.push(Open {
                role: "map".to_owned(),
                mode: Some(mode),
                kind: None,
                size: None,
                inode: Some(inode),
                device: Some(device),
                path: Some(Text(path)),
                deleted,
            });
        }
    }

    /// A path without the mark of a deleted file, and whether it had one. A file may be called so:
    /// then it is there, by that name.
    fn named(&self, tree: &Tree<'_>, path: Vec<u8>, inode: Option<u64>) -> (Vec<u8>, bool) {
        let Some(stem) = path.strip_suffix(DELETED) else { return (path, false) };
        let below = [self::path(self.pid, "root"), path.clone()].concat();
        let is_there = |place: &[u8]| {
            let about = tree.attributes(place, false);
            about.is_ok_and(|about| Some(about.inode) == inode)
        };
        if path.starts_with(b"/") && (is_there(&below) || is_there(&path)) {
            return (path, false);
        }
        (stem.to_vec(), true)
    }

    fn json(&self) -> Value {
        let files: Vec<Value> = self.files.iter().map(Open::json).collect();
        let errors: Vec<String> = self.failures.iter().map(ToString::to_string).collect();
        json!({ "pid": self.pid, "name": self.name, "files": files, "errors": errors })
    }
}

/// What a file is, in a word.
fn kind(about: &Attributes, path: &[u8]) -> &'static str {
    match about.kind {
        // What is no file of a file system has no type.
        Kind::Unknown if path.starts_with(b"anon_inode:") => "anonymous",
        kind => kind.word(),
    }
}

impl Open {
    fn json(&self) -> Value {
        json!({
            "as": if self.role.starts_with(|c: char| c.is_ascii_digit()) { "descriptor" } else { &self.role },
            "descriptor": self.role.parse::<u64>().ok(),
            "read": self.mode.map(|mode| mode.0),
            "write": self.mode.map(|mode| mode.1),
            "kind": self.kind,
            "size": self.size,
            "inode": self.inode,
            "device": self.device.map(|(major, minor)| [major, minor]),
            "path": self.path,
            "deleted": self.deleted,
        })
    }
}

fn print(found: &[Process]) -> Result<(), Failure> {
    let mut columns =
        Columns::new(&[">PID", "NAME", "FILE", "MODE", "TYPE", ">SIZE", ">INODE", "DELETED", "PATH"]);
    for process in found {
        let name = process.name.as_ref().map_or_else(|| "?".to_owned(), format::shown);
        for file in &process.files {
            let dash = || "-".to_owned();
            let number = |number: Option<u64>| number.map_or_else(dash, |number| number.to_string());
            let letter = |may, letter| if may { letter } else { '-' };
            columns.add(vec![
                process.pid.to_string(),
                name.clone(),
                file.role.clone(),
                file.mode.map_or_else(dash, |(read, write)| {
                    [letter(read, 'r'), letter(write, 'w')].iter().collect()
                }),
                file.kind.unwrap_or("-").to_owned(),
                number(file.size),
                number(file.inode),
                if file.deleted { "deleted".to_owned() } else { dash() },
                file.path.as_ref().map_or_else(dash, format::shown),
            ]);
        }
    }
    columns.print()
}

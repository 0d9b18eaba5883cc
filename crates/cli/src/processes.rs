//! What Linux's procfs says of processes, asked with a pack's file programs: for `ps`, `sockets`
//! and `open-files`.
//!
//! Thin readers of the guest's own files, which know their texts and nothing of its memory. Where a
//! process cannot be asked there is a failure in its place.

use std::time::Duration;

use engine::{Run, Text};
use filetree::{Content, Error, MOST_READ, Time, Tree, join};
use linux::procfs::{self, Ids, Stat, TICKS};
use serde_json::{Value, json};

use crate::commands::files::times;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format;
use crate::guest_tree::failure;
use crate::packs::Member;

/// The most that is read of one file of procfs.
const MOST_TEXT: usize = 64 << 20;

/// What could not be read, by process; 0 is none.
pub type Unread = Vec<(u64, Failure)>;

/// All of a file, as far as [`MOST_TEXT`].
///
/// # Errors
/// The guest does not answer, or the file is larger.
pub fn text(tree: &Tree<'_>, path: &[u8]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    loop {
        let Content { bytes: more, end } = tree.read(path, bytes.len() as u64, MOST_READ)?;
        bytes.extend(more);
        if end {
            return Ok(bytes);
        }
        if bytes.len() > MOST_TEXT {
            return Err(Error::Nonsense("the file comes to no end".to_owned()));
        }
    }
}

/// The path of a process's file.
pub fn path(pid: u64, file: &str) -> Vec<u8> {
    let directory = format!("/proc/{pid}").into_bytes();
    if file.is_empty() { directory } else { join(&directory, file.as_bytes()) }
}

/// Linux's number for what is not there.
pub const ENOENT: i32 = 2;

/// A process's name.
///
/// # Errors
/// The guest does not answer.
pub fn name(tree: &Tree<'_>, pid: u64) -> Result<Text, Failure> {
    let path = path(pid, "comm");
    let mut name = text(tree, &path).map_err(|error| failure(&path, &error))?;
    name.pop_if(|byte| *byte == b'\n');
    Ok(Text(name))
}

/// The numbers of all processes, ascending.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn pids(tree: &Tree<'_>) -> Result<Vec<u64>, Failure> {
    let entries = tree.entries(b"/proc").map_err(|error| failure(b"/proc", &error))?;
    let number = |name: &[u8]| {
        let name = std::str::from_utf8(name).ok()?;
        name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse::<u64>().ok())?
    };
    let mut pids: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// A process, as far as `ps` wants it.
pub struct Process {
    /// What `/proc/PID/stat` says.
    pub stat: Stat,
    /// Its users and groups.
    pub ids: Ids,
    /// Its command line; empty for a thread of the kernel and for what has ended.
    pub arguments: Vec<Text>,
}

impl Process {
    /// Asks for one.
    ///
    /// # Errors
    /// The guest does not answer, or what it says is no such text.
    pub fn ask(tree: &Tree<'_>, pid: u64) -> Result<Self, Failure> {
        let read = |file: &str| {
            let path = path(pid, file);
            text(tree, &path).map_err(|error| failure(&path, &error))
        };
        let strange = |file: &str| {
            let error = Error::Nonsense("it is no such file of Linux's procfs".to_owned());
            failure(&path(pid, file), &error)
        };
        let stat = Stat::parse(&read("stat")?).filter(|stat| u64::from(stat.pid) == pid);
        let stat = stat.ok_or_else(|| strange("stat"))?;
        let ids = Ids::parse(&read("status")?).ok_or_else(|| strange("status"))?;
        let line = read("cmdline")?;
        let arguments = procfs::arguments(&line).into_iter().map(|it| Text(it.to_vec())).collect();
        Ok(Self { stat, ids, arguments })
    }

    /// When it started, if it is known when the system did.
    #[must_use]
    pub fn started(&self, boot: Option<Time>) -> Option<Time> {
        let nanoseconds = 1_000_000_000 / TICKS * (self.stat.start % TICKS);
        let boot = boot?;
        let nanoseconds = u64::from(boot.nanoseconds) + nanoseconds;
        let seconds = i64::try_from(self.stat.start / TICKS + nanoseconds / 1_000_000_000).ok()?;
        Some(Time {
            seconds: boot.seconds.checked_add(seconds)?,
            nanoseconds: (nanoseconds % 1_000_000_000) as u32,
        })
    }

    /// Cells of a table: parent, effective user, state, start, name, and the command line, with the
    /// name in brackets where there is none. What a terminal would obey is escaped.
    #[must_use]
    pub fn cells(&self, boot: Option<Time>) -> [String; 6] {
        let start = match self.started(boot) {
            Some(time) => times::text(Time { nanoseconds: 0, ..time }).replace(".000000000Z", "Z"),
            None => format!("+{}.{:02}", self.stat.start / TICKS, self.stat.start % TICKS),
        };
        let name = format::shown(&Text(self.stat.name.clone()));
        let words: Vec<String> = self.arguments.iter().map(format::shown).collect();
        let command = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
        [
            self.stat.parent.to_string(),
            self.ids.user.1.to_string(),
            self.stat.state.to_string(),
            start,
            name,
            command,
        ]
    }

    /// All of it as JSON.
    #[must_use]
    pub fn json(&self, boot: Option<Time>) -> Value {
        let Stat { state, parent, group, session, terminal, kernel, ran, nice, threads, .. } = &self.stat;
        json!({
            "ppid": parent,
            "uid": self.ids.user.0,
            "euid": self.ids.user.1,
            "gid": self.ids.group.0,
            "egid": self.ids.group.1,
            "state": state,
            "start": self.started(boot).map(times::text),
            "start_ticks": self.stat.start,
            "name": Text(self.stat.name.clone()),
            "command": self.arguments,
            "kernel_thread": kernel,
            "group": group,
            "session": session,
            "terminal": terminal,
            "nice": nice,
            "threads": threads,
            "user_ticks": ran.0,
            "system_ticks": ran.1,
            "virtual_bytes": self.stat.size,
            "resident_pages": self.stat.resident,
        })
    }
}

/// Failures of many processes, those with one reason together: the first path, how many more there
/// are, and of which processes.
pub fn grouped<'f>(failures: impl IntoIterator<Item = (u64, &'f Failure)>) -> Vec<Failure> {
    let mut groups: Vec<(String, Exit, String, Vec<u64>, usize)> = Vec::new();
    for (pid, failure) in failures {
        let text = failure.to_string();
        let (path, why) = text.split_once(": ").unwrap_or(("", &text));
        match groups.iter_mut().find(|(other, ..)| other == why) {
            Some((_, _, _, pids, more)) => {
                *more += 1;
                if pids.last() != Some(&pid) {
                    pids.push(pid);
                }
            }
            None => groups.push((why.to_owned(), failure.exit, path.to_owned(), vec![pid], 0)),
        }
    }
    let told = |(why, exit, path, pids, more): (String, Exit, String, Vec<u64>, usize)| {
        let pids: Vec<String> = pids.iter().map(u64::to_string).collect();
        let pids = pids.join(" ");
        let of = if more == 0 { String::new() } else { format!(" and {more} more of the processes {pids}") };
        Failure::new(exit, format!("{path}{of}: {why}"))
    };
    groups.into_iter().map(told).collect()
}

/// When the system booted: as it says itself, or by its two clocks at the last tick, which do not
/// tell how long it slept. `None` where neither can be asked.
pub fn boot(tree: &Tree<'_>, member: &Member, run: &Run<'_>) -> Option<Time> {
    let own = text(tree, b"/proc/stat").ok().and_then(|text| procfs::boot_time(&text));
    if let Some(seconds) = own.and_then(|seconds| i64::try_from(seconds).ok()) {
        return Some(Time { seconds, nanoseconds: 0 });
    }
    let clock = member.other("gettime").ok()??;
    let session = clock.session(run).ok();
    let values = clock.query(run, session.as_ref()).ok()?.ask(&[]).ok()?.values;
    let moment = |seconds: &str, nanoseconds: &str| {
        let seconds = u64::try_from(values.number(seconds)?).ok()?;
        let nanoseconds = u64::try_from(values.number(nanoseconds)?).ok()?;
        Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanoseconds))
    };
    let up = moment("up_sec", "up_nsec").filter(|up| !up.is_zero())?;
    let boot = moment("sec", "nsec")?.checked_sub(up)?;
    Some(Time { seconds: i64::try_from(boot.as_secs()).ok()?, nanoseconds: boot.subsec_nanos() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_alike_is_told_once() {
        let failed = |path: &str, why: &str| Failure::new(Exit::NoCode, format!("{path}: {why}"));
        let all = [
            (1, failed("/proc/1/cwd", "no code: there")),
            (1, failed("/proc/1/root", "no code: there")),
            (2, failed("/proc/2/fd", "unmapped")),
            (30, failed("/proc/30/cwd", "no code: there")),
        ];
        let told: Vec<String> = grouped(all.iter().map(|(pid, failure)| (*pid, failure)))
            .iter()
            .map(ToString::to_string)
            .collect();
        let first = "/proc/1/cwd and 2 more of the processes 1 30: no code: there";
        assert_eq!(told, [first, "/proc/2/fd: unmapped"]);
    }

    #[test]
    fn a_start_is_ticks_after_boot() {
        let text = b"7 (a) S 1 0 0 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 18446744073709551615 8 7";
        let ids = Ids { user: (0, 0), group: (0, 0) };
        let mut process = Process { stat: Stat::parse(text).expect("a process"), ids, arguments: Vec::new() };
        let boot = Time { seconds: 100, nanoseconds: 995_000_000 };
        assert_eq!(process.started(Some(boot)).map(|it| it.seconds), Some(100 + 184_467_440_737_095_517));
        assert_eq!(process.started(Some(Time { seconds: i64::MAX, nanoseconds: 0 })), None);
        process.stat.start = 101;
        let started = process.started(Some(boot));
        assert_eq!(started, Some(Time { seconds: 102, nanoseconds: 5_000_000 }));
        assert_eq!(process.started(None), None);
    }
}

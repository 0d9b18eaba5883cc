//! The ground truth a target guest prints about itself, read from its console.
//!
//! It comes from busybox and `/proc` text, never from our own programs, so that it can disagree
//! with us. The parser takes the *last* complete block of a console and refuses one with a line it
//! does not understand: a truth with holes would make wrong answers look right.

use crate::{Error, Result, layout};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What is true inside a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// All processes and kernel threads by rising PID (thread group leaders only).
    pub processes: Vec<Proc>,
    /// The loaded modules in the order of `/proc/modules`.
    pub modules: Vec<Module>,
    /// Seconds since 1970 when the truth was printed, shortly before the capture.
    pub time: f64,
    /// Seconds since 1970 when it was printed again after the capture; the captured moment lies
    /// between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_after: Option<f64>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proc {
    /// Its PID in the initial namespace.
    pub pid: u32,
    /// Its name, at most 15 characters; for workers of the kernel `/proc` appends what they worked
    /// on last.
    pub comm: String,
    /// What `/proc/PID/exe` points to; none for kernel threads and zombies.
    pub exe: Option<String>,
}

/// A loaded module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Where it is loaded.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// The section of a truth a console line belongs to.
#[derive(Clone, Copy)]
enum Section {
    None,
    Processes,
    Executables,
    Modules,
    Time,
}

impl Truth {
    /// The last complete truth on a console.
    pub fn parse(console: &str) -> Result<Self> {
        let missing = || Error::Truth("the console has no complete block".to_owned());
        let end = console.rfind("=== TRUTH END").ok_or_else(missing)?;
        let begin = console[..end].rfind("=== TRUTH BEGIN").ok_or_else(missing)?;
        let mut section = Section::None;
        let mut processes = BTreeMap::new();
        let mut executables = BTreeMap::new();
        let mut modules = Vec::new();
        let mut time = None;
        for line in console[begin..end].lines().map(|line| line.trim_end_matches('\r')) {
            let strange = || Error::Truth(format!("do not understand {line:?}"));
            section = match (line, section) {
                ("=== TRUTH BEGIN", _) => Section::None,
                ("=== PROCESSES", _) => Section::Processes,
                ("=== EXECUTABLES", _) => Section::Executables,
                ("=== MODULES", _) => Section::Modules,
                ("=== TIME", _) => Section::Time,
                (_, Section::Processes) => {
                    let (pid, comm) = line.split_once(' ').ok_or_else(strange)?;
                    processes.insert(pid.parse::<u32>().map_err(|_| strange())?, comm.to_owned());
                    section
                }
                (_, Section::Executables) => {
                    if let Some((pid, path)) = executable(line).ok_or_else(strange)? {
                        executables.insert(pid, path);
                    }
                    section
                }
                (_, Section::Modules) => {
                    modules.push(module(line).ok_or_else(strange)?);
                    section
                }
                (_, Section::Time) => {
                    time = Some(line.parse::<f64>().map_err(|_| strange())?);
                    section
                }
                (_, Section::None) => return Err(strange()),
            };
        }
        let time = time.ok_or_else(|| Error::Truth("it has no time".to_owned()))?;
        let processes = processes
            .into_iter()
            .map(|(pid, comm)| Proc { pid, comm, exe: executables.remove(&pid) })
            .collect();
        Ok(Self { processes, modules, time, time_after: None })
    }

    /// How `later` differs in what must not change (everything but the time and what kernel workers
    /// work on); `None` if it does not.
    pub fn difference(&self, later: &Self) -> Option<String> {
        let lacks = |truth: &Self, one: &Proc| !truth.processes.iter().any(|other| other.same(one));
        let gone = self.processes.iter().find(|process| lacks(later, process));
        let new = later.processes.iter().find(|process| lacks(self, process));
        match (gone, new) {
            (Some(process), _) => Some(format!("{process:?} has gone")),
            (None, Some(process)) => Some(format!("{process:?} is new")),
            (None, None) if self.modules != later.modules => Some("the modules differ".to_owned()),
            (None, None) => None,
        }
    }

    /// Reads a truth written by [`Truth::write`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::io(path))?;
        serde_json::from_slice(&text).map_err(|error| Error::Truth(format!("{}: {error}", path.display())))
    }

    /// Writes the truth as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::Truth(error.to_string()))?;
        layout::write(path, &text)
    }
}

impl Proc {
    /// The name the task itself has: for kernel workers without the `-` or `+` and the work queue
    /// that `/proc` appends.
    pub fn task_name(&self) -> &str {
        match self.comm.find(['-', '+']) {
            Some(at) if self.exe.is_none() && self.comm.starts_with("kworker/") => &self.comm[..at],
            _ => &self.comm,
        }
    }

    fn same(&self, other: &Self) -> bool {
        self.pid == other.pid && self.exe == other.exe && self.task_name() == other.task_name()
    }
}

/// A line of `ls -l /proc/PID/exe`: the PID and the link's target, which is missing for a link to
/// nothing. The outer `None` is for a line of another kind.
fn executable(line: &str) -> Option<Option<(u32, String)>> {
    let rest = &line[line.find("/proc/")? + "/proc/".len()..];
    let (pid, rest) = rest.split_once("/exe")?;
    let pid = pid.parse().ok()?;
    Some(rest.strip_prefix(" -> ").filter(|path| !path.is_empty()).map(|path| (pid, path.to_owned())))
}

/// A line of `/proc/modules`.
fn module(line: &str) -> Option<Module> {
    let mut words = line.split_whitespace();
    let (name, size) = (words.next()?, words.next()?);
    let base = words.find_map(|word| word.strip_prefix("0x"))?;
    Some(Module {
        name: name.to_owned(),
        base: u64::from_str_radix(base, 16).ok()?,
        size: size.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "noise\r\n=== TRUTH BEGIN\r\n=== PROCESSES\r\n1 init\r\n12 a b\r\n=== \
        EXECUTABLES\r\n\
        lrwxrwxrwx    1 0        0                0 May 17 12:34 /proc/1/exe -> /bin/busybox\r\n\
        === MODULES\r\nmbcache 16384 1 ext4, Live 0xffffffffc0201000\r\nloop 40960 0 - Live \
        0xffffffffc0001000 (E)\r\n\
        === TIME\r\n1936960500.250000000\r\n=== TRUTH END\r\n=== READY\r\n";

    #[test]
    fn a_console_is_parsed() {
        let truth = Truth::parse(CONSOLE).unwrap();
        assert_eq!(
            truth.processes[0],
            Proc { pid: 1, comm: "init".into(), exe: Some("/bin/busybox".into()) }
        );
        assert_eq!(truth.processes[1], Proc { pid: 12, comm: "a b".into(), exe: None });
        assert_eq!(
            truth.modules[0],
            Module { name: "mbcache".into(), base: 0xffff_ffff_c020_1000, size: 16384 }
        );
        assert_eq!(truth.modules.len(), 2);
        assert_eq!(truth.time, 1_936_960_500.25);
    }

    #[test]
    fn the_last_complete_block_counts_and_strange_lines_are_refused() {
        let again = format!("{}{}", CONSOLE.replace("1 init", "1 old"), CONSOLE);
        assert_eq!(Truth::parse(&again).unwrap().processes[0].comm, "init");
        assert!(Truth::parse("=== TRUTH BEGIN\n").is_err());
        assert!(Truth::parse(&CONSOLE.replace("12 a b", "twelve a b")).is_err());
        assert!(Truth::parse(&CONSOLE.replace("1936960500.25", "now ")).is_err());
    }

    #[test]
    fn a_change_is_named() {
        let truth = Truth::parse(CONSOLE).unwrap();
        let later =
            Truth::parse(&CONSOLE.replace("12 a b", "13 worker").replace("500.25", "501.25")).unwrap();
        assert!(truth.difference(&later).unwrap().contains("12"));
        assert_eq!(truth.difference(&Truth::parse(&CONSOLE.replace("500.25", "501.25")).unwrap()), None);
    }
}

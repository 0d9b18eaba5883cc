//! What `train` records when no trainer is named: the trainers that are part of the command, each
//! with arguments that take it down several ways, errors among them.

use std::path::{Path, PathBuf};

use linux::{BUILTINS, Module};

use crate::train::jobs::Job;

/// What each is run with, a line for each recording. What `init.sh` made is below `/tmp`.
const LINES: [&str; 19] = [
    "getpid",
    "gettime",
    "pslist",
    "pidprobe 64",
    "getpsfile 1",
    "getpsfile 2",
    "readdir /sys/class",
    "readdir /tmp",
    "readdir /tmp/none",
    "read /proc/version",
    "read /tmp/file 2 5",
    "read /tmp",
    "stat /tmp/file",
    "stat /sys/none",
    "readlink /proc/1/exe",
    "readlink /tmp/file",
    "statfs /proc",
    "listxattr /tmp/file trusted.note",
    "getxattr /tmp/file trusted.note text",
];

/// The jobs and their executables, which belong below `directory` under the names given here.
/// Where modules are loaded, those that ask for modules are among them.
#[must_use]
pub fn jobs(directory: &Path, is_64_bit: bool, modules: &[Module]) -> (Vec<Job>, Vec<(PathBuf, Vec<u8>)>) {
    let mut lines: Vec<String> = LINES.map(str::to_owned).into();
    if let (Some(first), Some(last)) = (modules.first(), modules.last()) {
        lines.push("lsmod".to_owned());
        lines.extend([first, last].map(|module| format!("getdrvfile $(module {})", module.name)));
    }
    let mut executables: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let jobs = lines.iter().filter_map(|line| {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let builtin = BUILTINS.iter().find(|it| it.name == name)?;
        let path = directory.join(name);
        if !executables.iter().any(|(other, _)| *other == path) {
            let elf = if is_64_bit { builtin.x86_64 } else { builtin.i386 };
            executables.push((path.clone(), elf.to_vec()));
        }
        Some(Job { path, arguments: arguments.to_owned() })
    });
    (jobs.collect(), executables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_has_a_job_where_there_are_modules() {
        let module = |name: &str| Module { name: name.to_owned(), object: Vec::new() };
        let (with, executables) = jobs(Path::new("there"), true, &[module("loop"), module("ext4")]);
        assert_eq!(with.len(), LINES.len() + 3);
        assert_eq!(executables.len(), BUILTINS.len());
        assert_eq!(with.last().map(Job::line), Some("getdrvfile $(module ext4)".to_owned()));
        assert!(with.iter().all(|job| executables.iter().any(|(path, _)| *path == job.path)));
        let (without, narrow) = jobs(Path::new("there"), false, &[]);
        assert_eq!((without.len(), narrow.len()), (LINES.len(), BUILTINS.len() - 2));
        assert!(narrow.iter().all(|(_, elf)| elf[4] == 1), "32 bit");
    }
}

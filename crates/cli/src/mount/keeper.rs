//! The process that unmounts when the one that answers dies, whatever it dies of.
//!
//! It waits for standard input to close, which only a death or an end does, and is in a process
//! group of its own, so that Ctrl-C does not reach it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use clap::Args;
use rustix::mount::{UnmountFlags, unmount};

use crate::failure::Failure;
use crate::output;

/// Unmount when standard input closes; started by the verbs that mount
#[derive(Args, Debug)]
pub struct UnmountArgs {
    /// What the mount table has as the mount's source
    source: String,
    /// Remove the directory too
    #[arg(long)]
    remove: bool,
    /// Where it is mounted
    directory: PathBuf,
}

impl UnmountArgs {
    /// Waits, and unmounts what is still mounted.
    pub fn run(&self) -> Result<(), Failure> {
        // An error is an end too.
        let _ = io::stdin().read(&mut [0]);
        detach(&self.directory, &self.source)?;
        if self.remove {
            // It may be gone already.
            let _ = fs::remove_dir(&self.directory);
        }
        Ok(())
    }
}

/// The waiting process, as seen from the one that it waits for.
pub struct Keeper {
    child: Child,
    alive: Option<ChildStdin>,
}

impl Keeper {
    /// Starts it, before there is anything to unmount.
    pub fn start(directory: &Path, source: &str, remove: bool) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::input(format!(
                "cannot start the process that unmounts if this one dies: {error}; nothing was mounted"
            ))
        };
        // Not by its path: this very program, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("virtuoso").arg("unmount-when-closed").arg(source).arg(directory);
        command.args(remove.then_some("--remove"));
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let alive = child.stdin.take();
        Ok(Self { child, alive })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.alive.take());
        // It has said itself what went wrong.
        let _ = self.child.wait();
    }
}

/// Takes our mount off a directory, even if somebody works in it; nothing if it is not there.
///
/// # Errors
/// It stays.
pub fn detach(directory: &Path, source: &str) -> Result<(), Failure> {
    if !is_mounted(directory, source) {
        return Ok(());
    }
    let Err(error) = unmount(directory, UnmountFlags::DETACH) else { return Ok(()) };
    let by_helper = ["fusermount3", "fusermount"].iter().any(|helper| {
        let mut command = Command::new(helper);
        command.args(["-u", "-q", "-z", "--"]).arg(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    if by_helper || !is_mounted(directory, source) {
        return Ok(());
    }
    let text = format!("it stays mounted: {error}; unmount it with `umount -l` or `fusermount3 -u -z`");
    Err(Failure::file(directory, text))
}

/// Whether what is mounted on top of a directory is ours.
pub fn is_mounted(directory: &Path, source: &str) -> bool {
    match fs::read("/proc/self/mountinfo") {
        Ok(table) => is_in(&table, directory.as_os_str().as_bytes(), source),
        Err(error) => {
            output::note(&format!("/proc/self/mountinfo: {error}"));
            false
        }
    }
}

/// Whether the last mount on a directory in a table as `/proc/self/mountinfo` has it is this one.
fn is_in(table: &[u8], directory: &[u8], source: &str) -> bool {
    let mut escaped = Vec::new();
    for &byte in directory {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => escaped.extend(format!("\\{byte:03o}").bytes()),
            _ => escaped.push(byte),
        }
    }
    let mut lines = table.split(|&byte| byte == b'\n').map(|line| line.split(|&byte| byte == b' '));
    let last = lines.rfind(|words| words.clone().nth(4) == Some(&escaped));
    // Behind the dash are the type, the source, and options.
    last.is_some_and(|words| words.skip_while(|word| word != b"-").nth(2) == Some(source.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_top_and_ours_is_unmounted() {
        let line = |source: &str| {
            format!("36 35 0:40 / /a\\040b ro,nosuid shared:7 - fuse.virtuoso {source} ro,user_id=0\n")
        };
        let ours = line("virtuoso:dump.elf");
        assert!(is_in(ours.as_bytes(), b"/a b", "virtuoso:dump.elf"));
        assert!(!is_in(ours.as_bytes(), b"/a", "virtuoso:dump.elf"));
        let covered = ours + &line("other");
        assert!(!is_in(covered.as_bytes(), b"/a b", "virtuoso:dump.elf"));
    }
}

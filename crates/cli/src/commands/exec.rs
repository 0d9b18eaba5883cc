//! `virtuoso exec`: tools of the host that read the guest's `/proc`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;

use clap::Args;
use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::mount::{about, refuse_running};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::guest_tree::TreeArgs;
use crate::mount::{End, Mount, serve};

/// What is done in the new namespaces before the command runs: DIR, the paths, `--`, the command.
const SCRIPT: &str = "dir=$1; shift
while [ \"$1\" != -- ]; do mount --bind \"$dir$1\" \"$1\" || exit 125; shift; done
shift; exec \"$@\"";

/// Run a tool of this machine that sees the guest's /proc and /sys in place of its own
///
/// It runs in namespaces of its own (of mounts and processes, and of users unless root asks), where
/// it is process 1. Nothing of the guest is executed. Links say what the guest has them say, and
/// those that lead out of the replaced directories lead to this machine's files. The exit code is
/// the tool's; 125 if the directories could not be replaced. A second Ctrl-C ends a tool that
/// ignores the first.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso exec guest.elf -- ps auxww
  virtuoso exec guest.elf -- lsmod
  virtuoso exec --at /dev/shm guest.elf -- ls -l /dev/shm")]
pub struct ExecArgs {
    /// Another directory to replace by the guest's; /proc and /sys always are
    #[arg(long, value_name = "PATH")]
    at: Vec<PathBuf>,
    /// Hold a live guest paused as long as the command runs, at most --max-pause
    #[arg(long)]
    freeze: bool,
    #[command(flatten)]
    tree: TreeArgs,
    /// The tool, with its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl ExecArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        refuse_running(&self.tree, self.freeze)?;
        if let Some(path) = self.at.iter().find(|path| !path.is_absolute()) {
            return Err(Failure::file(path, "it is no path from the root; give --at one that begins with /"));
        }
        let status = self.tree.ask_with(context, "readdir", |tree, target, programs| {
            let about = about(&self.tree, target, programs, true)?;
            let directory = private_directory()?;
            let name = files::name(&self.tree.target);
            let mount = Mount { directory: &directory, remove: true, name: &name, about, raw_links: true };
            serve(tree, mount, |ends, end| self.execute(&directory, ends, end))
        })?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        if code == 0 {
            return Ok(());
        }
        // The table of exit codes is ours, this one is the tool's.
        std::process::exit(code)
    }

    /// Runs the tool and waits for its end.
    fn execute(
        &self,
        directory: &Path,
        ends: &Receiver<End>,
        end: &Sender<End>,
    ) -> Result<ExitStatus, Failure> {
        let mut interrupted = false;
        let mut child = self.command(directory).spawn().map_err(|error| {
            Failure::input(format!("cannot run unshare: {error}; install util-linux, which has it"))
        })?;
        let pid = Pid::from_child(&child);
        let end = end.clone();
        thread::spawn(move || end.send(End::Command(Child::wait(&mut child))));
        loop {
            match ends.recv() {
                Ok(End::Command(status)) => {
                    return status
                        .map_err(|error| Failure::input(format!("cannot wait for the tool: {error}")));
                }
                // The terminal has told the tool as well, which may go on all the same.
                Ok(End::Interrupted) if !std::mem::replace(&mut interrupted, true) => {}
                Ok(End::Interrupted | End::Terminated) => {
                    // It may have ended by itself.
                    let _ = kill_process(pid, Signal::KILL);
                }
                Ok(End::Unmounted) | Err(_) => {
                    let _ = kill_process(pid, Signal::KILL);
                    return Err(Failure::new(Exit::Input, "the guest's files were unmounted; run it again"));
                }
            }
        }
    }

    /// The tool, in namespaces of its own.
    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new("unshare");
        // As process 1 of a namespace of its own it finds itself in the guest's /proc, which some
        // tools insist on. What it is sent by us there it may ignore, unless it is SIGKILL.
        command.args(["--mount", "--pid", "--kill-child=KILL"]);
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--", "sh", "-c", SCRIPT, "virtuoso"]).arg(directory);
        // The last is what mount(8) itself reads.
        command.args(&self.at).args(["/sys", "/proc", "--"]).args(&self.command);
        command
    }
}

/// An empty directory that only this user may enter.
fn private_directory() -> Result<PathBuf, Failure> {
    let place = std::env::temp_dir();
    let failed = |error: &io::Error| {
        Failure::file(&place, format!("cannot make a directory there: {error}; set TMPDIR to one of yours"))
    };
    for try_again in 0..100 {
        let directory = place.join(format!("virtuoso-exec-{}-{try_again}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Err(failed(&io::ErrorKind::AlreadyExists.into()))
}

//! A guest's file tree as a directory of the host, through FUSE.
//!
//! It ends in one of four ways, after each of which nothing is mounted: a signal, another's
//! unmounting, the end of the command that it is there for, or this process's death, which
//! [`keeper`] sees.

mod answers;
mod filesystem;
mod handle;
mod keeper;
mod link;
mod log;
mod node;

use std::io::{self, Read};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use filetree::Tree;
use fuser::{Config, MountOption, Session};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::exit::Exit;
use crate::failure::Failure;
use answers::Answers;
use filesystem::{Job, Questions};
use keeper::Keeper;
pub use keeper::UnmountArgs;

/// What is mounted.
pub struct Mount<'m> {
    /// Where.
    pub directory: &'m Path,
    /// Whether the directory is ours and is removed in the end.
    pub remove: bool,
    /// The target's name.
    pub name: &'m str,
    /// What `.virtuoso/target.json` says.
    pub about: Vec<u8>,
    /// Whether links say what the guest has them say.
    pub raw_links: bool,
}

/// Why a mount ends.
#[derive(Debug)]
pub enum End {
    /// Nobody can ask any more: it was unmounted.
    Unmounted,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// The process is to end.
    Terminated,
    /// The command that it was there for has ended.
    Command(io::Result<ExitStatus>),
}

/// Mounts the tree, and answers while `during` waits for an end, which it is told of and may cause.
///
/// # Errors
/// It cannot be mounted, or what `during` says.
pub fn serve<T>(
    tree: &Tree<'_>,
    mount: Mount<'_>,
    during: impl FnOnce(&Receiver<End>, &Sender<End>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let directory = mount.directory.canonicalize().map_err(|error| {
        Failure::file(mount.directory, format!("cannot mount there: {error}; give an empty directory"))
    })?;
    let source = format!("virtuoso:{}", plain(mount.name));
    let (end, ends) = mpsc::channel();
    hear_signals(&end).map_err(|error| Failure::input(format!("cannot hear signals: {error}")))?;
    let _keeper = Keeper::start(&directory, &source, mount.remove)?;
    let (ask, jobs) = mpsc::channel();
    let answers = Arc::new(Answers::new(mount.about, mount.raw_links));
    let questions = Questions { answers, jobs: ask.clone() };
    let session = Session::new(questions, &directory, &config(&source))
        .map_err(|error| Failure::file(&directory, cannot_mount(&error)))?;
    let unmounted = end.clone();
    let listen = move || {
        // It ends when it is unmounted, and then nobody may listen any more.
        let _ = session.run();
        let _ = unmounted.send(End::Unmounted);
    };
    let listening = thread::Builder::new().name("fuse".to_owned()).spawn(listen);
    listening.map_err(|error| Failure::input(format!("cannot start a thread: {error}")))?;
    let (jobs, bug) = (Mutex::new(jobs), AtomicBool::new(false));
    let ended = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..threads {
            scope.spawn(|| work(tree, &jobs, &bug));
        }
        let ended = during(&ends, &end);
        let detached = keeper::detach(&directory, &source);
        for _ in 0..threads {
            let _ = ask.send(Job::Stop);
        }
        detached.and(ended)
    });
    if bug.into_inner() {
        return Err(Failure::new(Exit::Internal, "internal error: please report it with the lines above"));
    }
    ended
}

/// Answers until it is told to stop. A bug in one answer costs that answer.
fn work(tree: &Tree<'_>, jobs: &Mutex<Receiver<Job>>, bug: &AtomicBool) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job::Answer(answer)) = job else { return };
        if catch_unwind(AssertUnwindSafe(|| answer(tree))).is_err() {
            bug.store(true, Ordering::Relaxed);
        }
    }
}

fn config(source: &str) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
        MountOption::FSName(source.to_owned()),
        MountOption::Subtype("virtuoso".to_owned()),
    ];
    config
}

/// A name without what the mount table would have to escape.
fn plain(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    name.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

fn cannot_mount(error: &io::Error) -> String {
    let next = match (error.kind(), Path::new("/dev/fuse").exists()) {
        (_, false) => "there is no /dev/fuse; load the kernel's module with `modprobe fuse`",
        (io::ErrorKind::NotFound, _) => {
            "install fusermount3 (package fuse3), by which users other than root mount"
        }
        _ => "see that the directory is yours, and that the system lets you mount with FUSE",
    };
    format!("cannot mount there: {error}; {next}")
}

/// Signals that end the process become ends.
fn hear_signals(end: &Sender<End>) -> io::Result<()> {
    for (signals, what) in
        [(&[SIGINT][..], (|| End::Interrupted) as fn() -> End), (&[SIGTERM, SIGHUP], || End::Terminated)]
    {
        let (mut hear, wake) = io::pipe()?;
        for &signal in signals {
            pipe::register(signal, wake.try_clone()?)?;
        }
        let end = end.clone();
        let tell = move || {
            while hear.read_exact(&mut [0]).is_ok() && end.send(what()).is_ok() {}
        };
        thread::Builder::new().name("signals".to_owned()).spawn(tell)?;
    }
    Ok(())
}
